//! The Alertmanager API, version 2 (api/v2/openapi.yaml of Alertmanager 0.25): `amtool` works on it, and Prometheus
//! posts its alerts to it. Its base is `/api/health/alertmanager`; refusals are texts, as Alertmanager's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use alicia_contract::fleet::Fleet;
use alicia_contract::health::{Alert, HeldBack, MatchOp, Matcher, MuteKind, Phase, Silence};
use alicia_contract::unit::UnixSeconds;
use alicia_module::api::{Caller, PathParams};
use alicia_module::{Access, Api, ApiError, Operation};
use axum::body::Bytes;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use jiff::Timestamp;
use regex::Regex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use alicia_contract::platform::Scope;

use super::{Module, State};
use crate::core::Event;
use crate::core::external::{self, Effect, Posted, fingerprint};
use crate::core::matcher::{Compiled, Labels, all_hold, labels_of};
use crate::module::HealthModule;
use crate::notify::{Notifier, label_name, stamp};
use crate::office::SilenceWanted;

/// Most alerts of one post.
const POSTED_MAX: usize = 1_000;

/// What Alertmanager calls who is told when the file has no channel.
const NOBODY: &str = "none";

/// An alert as it is posted; what else it carries is not looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedAlert {
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    ends_at: Option<String>,
}

/// A silence as it is posted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedSilence {
    #[serde(default)]
    id: Option<String>,
    matchers: Vec<PostedMatcher>,
    starts_at: String,
    ends_at: String,
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    comment: String,
}

/// A matcher as it is posted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedMatcher {
    name: String,
    value: String,
    is_regex: bool,
    #[serde(default = "yes")]
    is_equal: bool,
}

fn yes() -> bool {
    true
}

/// A refusal as Alertmanager writes it: a text.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(Value::from(self.1))).into_response()
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status = match error.status() {
            // Alertmanager knows no 422 for what it cannot use.
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        Self(status, error.problem().detail)
    }
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, text.into())
}

pub(super) fn add(api: Api<Arc<HealthModule>>) -> Api<Arc<HealthModule>> {
    api.with(
        Operation::get(
            "/alertmanager/api/v2/status",
            "Alertmanager API v2: status.",
        )
        .answers::<Value>(200, "As Alertmanager writes it."),
        status,
    )
    .with(
        Operation::get(
            "/alertmanager/api/v2/receivers",
            "Alertmanager API v2: receivers.",
        )
        .answers::<Value>(200, "The channels of the file."),
        receivers,
    )
    .with(
        Operation::get(
            "/alertmanager/api/v2/alerts",
            "Alertmanager API v2: alerts.",
        )
        .answers::<Value>(
            200,
            "Alerts that fire; those that are held back as inhibited.",
        )
        .answers::<String>(400, "A filter cannot be read."),
        alerts,
    )
    .with(
        Operation::post(
            "/alertmanager/api/v2/alerts",
            "Alertmanager API v2: takes alerts of others.",
        )
        .access(Access::Scope(Scope::Operate))
        .answers_text(200, "text/plain", "They are taken.")
        .answers::<String>(400, "One of them cannot be used; none is taken."),
        post_alerts,
    )
    .with(
        Operation::get(
            "/alertmanager/api/v2/alerts/groups",
            "Alertmanager API v2: groups.",
        )
        .answers::<Value>(200, "Alerts that fire, as they are told together.")
        .answers::<String>(400, "A filter cannot be read."),
        groups,
    )
    .with(
        Operation::get(
            "/alertmanager/api/v2/silences",
            "Alertmanager API v2: silences.",
        )
        .answers::<Value>(200, "All that are not forgotten.")
        .answers::<String>(400, "A filter cannot be read."),
        silences,
    )
    .with(
        Operation::post(
            "/alertmanager/api/v2/silences",
            "Alertmanager API v2: makes or changes one.",
        )
        .answers::<Value>(200, "Its id.")
        .answers::<String>(400, "It cannot be used."),
        post_silence,
    )
    .with(
        Operation::get(
            "/alertmanager/api/v2/silence/{id}",
            "Alertmanager API v2: one silence.",
        )
        .answers::<Value>(200, "The silence.")
        .refuses(404, "There is none."),
        silence,
    )
    .with(
        Operation::delete(
            "/alertmanager/api/v2/silence/{id}",
            "Alertmanager API v2: ends a silence.",
        )
        .answers_text(200, "text/plain", "It is over.")
        .answers::<String>(404, "There is none that is in force or to come."),
        delete_silence,
    )
}

async fn status(State(module): Module) -> Json<Value> {
    let uptime = stamp(module.clock.unix() - module.shared.now().mono.as_secs_f64());
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({
        "cluster": { "status": "disabled", "peers": [] },
        "config": { "original": "# Alicia: the section `health` of alicia.yaml\n" },
        "uptime": uptime,
        "versionInfo": {
            "branch": "", "buildDate": "", "buildUser": "", "goVersion": "", "revision": "",
            "version": format!("alicia {version}"),
        },
    }))
}

async fn receivers(State(module): Module) -> Json<Value> {
    Json(receivers_of(&module.office.notifier))
}

fn receivers_of(notifier: &Notifier) -> Value {
    let mut names: Vec<&str> = notifier
        .channels
        .iter()
        .map(|channel| channel.name.as_str())
        .collect();
    if names.is_empty() {
        names.push(NOBODY);
    }
    names
        .into_iter()
        .map(|name| json!({ "name": name }))
        .collect()
}

/// The filters of a query.
struct Filters {
    matchers: Vec<Compiled>,
    active: bool,
    silenced: bool,
    inhibited: bool,
    receiver: Option<Regex>,
}

impl Filters {
    fn read(query: Option<&str>) -> Result<Self, Refusal> {
        let mut filters = Self {
            matchers: Vec::new(),
            active: true,
            silenced: true,
            inhibited: true,
            receiver: None,
        };
        for (name, value) in form_pairs(query.unwrap_or_default()) {
            let flag = || {
                value
                    .parse()
                    .map_err(|_| bad(format!("{name} must be of type bool")))
            };
            match name.as_str() {
                "filter" => filters.matchers.push(Compiled::parse(&value).map_err(bad)?),
                "active" => filters.active = flag()?,
                "silenced" => filters.silenced = flag()?,
                "inhibited" => filters.inhibited = flag()?,
                "receiver" => {
                    let regex = Regex::new(&format!("^(?:{value})$"));
                    filters.receiver = Some(regex.map_err(|error| bad(error.to_string()))?);
                }
                // `unprocessed`: there are none.
                _ => {}
            }
        }
        Ok(filters)
    }

    fn take(&self, shown: &Shown) -> bool {
        let kind = match () {
            () if !shown.silenced.is_empty() => self.silenced,
            () if !shown.inhibited.is_empty() => self.inhibited,
            () => self.active,
        };
        let receiver = |regex: &Regex| shown.receivers.iter().any(|name| regex.is_match(name));
        kind && all_hold(&self.matchers, &shown.labels)
            && self.receiver.as_ref().is_none_or(receiver)
    }
}

/// The pairs of a query, decoded.
fn form_pairs(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

/// An alert as Alertmanager shows it.
struct Shown {
    labels: Labels,
    annotations: BTreeMap<&'static str, String>,
    starts: UnixSeconds,
    ends: UnixSeconds,
    silenced: Vec<String>,
    inhibited: Vec<String>,
    receivers: Vec<String>,
}

impl Shown {
    fn of(alert: Alert, module: &HealthModule, fleet: &Fleet, now: UnixSeconds) -> Self {
        let alert = module.office.notifier.shown(alert);
        let labels = labels_of(&alert, fleet);
        let ids = |kinds: [MuteKind; 2]| -> Vec<String> {
            let fit = alert.muted.iter().filter(|mute| kinds.contains(&mute.by));
            fit.map(|mute| mute.id.clone()).collect()
        };
        let mut annotations = BTreeMap::from([
            ("summary", alert.summary.clone()),
            ("description", alert.detail.clone()),
            ("alicia_id", alert.id.clone()),
        ]);
        if let Some(by) = &alert.acknowledged {
            let note = by
                .note
                .as_ref()
                .map_or(String::new(), |note| format!(": {note}"));
            annotations.insert("acknowledged", format!("by {}{note}", by.by));
        }
        let why: Vec<&str> = alert.muted.iter().map(|mute| mute.why.as_str()).collect();
        if !why.is_empty() {
            annotations.insert("suppressed", why.join("; "));
        }
        annotations.retain(|_, text| !text.is_empty());
        Self {
            receivers: module.office.notifier.desk().receivers(&alert),
            silenced: ids([MuteKind::Silence, MuteKind::Maintenance]),
            inhibited: ids([MuteKind::Dependency, MuteKind::Inhibition]),
            starts: alert.started,
            // It fires until it is known to be over: the next look is always to come.
            ends: now + 300.0,
            annotations,
            labels,
        }
    }

    /// What is held back: inhibited by the service that is the cause.
    fn held_back(held: &HeldBack, now: UnixSeconds) -> Self {
        let mut labels = Labels::from([
            ("alertname".to_owned(), held.rule.clone()),
            ("rule".to_owned(), held.rule.clone()),
            ("severity".to_owned(), held.severity.as_str().to_owned()),
            ("service".to_owned(), held.service.to_string()),
        ]);
        if let Some(instance) = &held.instance {
            labels.insert("instance".to_owned(), instance.clone());
        }
        let cause = held
            .cause
            .as_ref()
            .map_or("flapping", |cause| cause.as_str());
        Self {
            labels,
            annotations: BTreeMap::from([
                ("summary", held.summary.clone()),
                ("suppressed", held.why.clone()),
            ]),
            starts: held.since,
            ends: now + 300.0,
            silenced: Vec::new(),
            inhibited: vec![cause.to_owned()],
            receivers: Vec::new(),
        }
    }

    fn json(&self, now: UnixSeconds) -> Value {
        let suppressed = !self.silenced.is_empty() || !self.inhibited.is_empty();
        let named = |name: &String| json!({ "name": name });
        let mut receivers: Vec<Value> = self.receivers.iter().map(named).collect();
        if receivers.is_empty() {
            receivers.push(json!({ "name": NOBODY }));
        }
        let labels: Labels = self
            .labels
            .iter()
            .map(|(name, value)| (label_name(name), value.clone()))
            .collect();
        json!({
            "fingerprint": fingerprint(&labels),
            "labels": labels,
            "annotations": self.annotations,
            "startsAt": stamp(self.starts),
            "endsAt": stamp(self.ends),
            "updatedAt": stamp(now),
            "receivers": receivers,
            "status": {
                "state": if suppressed { "suppressed" } else { "active" },
                "silencedBy": self.silenced,
                "inhibitedBy": self.inhibited,
            },
        })
    }
}

fn shown(module: &HealthModule, filters: &Filters) -> Vec<Shown> {
    let now = module.clock.unix();
    let fleet = module.fleet.borrow().clone();
    let (firing, held): (Vec<Alert>, Vec<HeldBack>) = {
        let monitor = module.shared.read();
        let book = monitor.book();
        (
            book.firing().cloned().collect(),
            book.held_back().cloned().collect(),
        )
    };
    let firing = firing
        .into_iter()
        .map(|alert| Shown::of(alert, module, &fleet, now));
    firing
        .chain(held.iter().map(|held| Shown::held_back(held, now)))
        .filter(|shown| filters.take(shown))
        .collect()
}

async fn alerts(State(module): Module, RawQuery(query): RawQuery) -> Result<Json<Value>, Refusal> {
    let filters = Filters::read(query.as_deref())?;
    let now = module.clock.unix();
    let shown = shown(&module, &filters);
    Ok(Json(shown.iter().map(|shown| shown.json(now)).collect()))
}

async fn groups(State(module): Module, RawQuery(query): RawQuery) -> Result<Json<Value>, Refusal> {
    let filters = Filters::read(query.as_deref())?;
    let now = module.clock.unix();
    let group_by = module.office.notifier.desk().group_by().to_vec();
    let mut groups: BTreeMap<(String, Labels), Vec<Value>> = BTreeMap::new();
    for shown in shown(&module, &filters) {
        let labels: Labels = group_by
            .iter()
            .filter_map(|name| Some((label_name(name), shown.labels.get(name)?.clone())))
            .collect();
        let receivers = if shown.receivers.is_empty() {
            vec![NOBODY.to_owned()]
        } else {
            shown.receivers.clone()
        };
        for receiver in receivers {
            let group = groups.entry((receiver, labels.clone())).or_default();
            group.push(shown.json(now));
        }
    }
    let group = |((receiver, labels), alerts): ((String, Labels), Vec<Value>)| json!({ "labels": labels, "receiver": { "name": receiver }, "alerts": alerts });
    Ok(Json(groups.into_iter().map(group).collect()))
}

async fn post_alerts(State(module): Module, body: Bytes) -> Result<(), Refusal> {
    let posted: Vec<PostedAlert> = read(&body)?;
    if posted.len() > POSTED_MAX {
        let found = posted.len();
        return Err(bad(format!(
            "found {found} alerts, expected at most {POSTED_MAX}"
        )));
    }
    let now = module.clock.unix();
    let effects = posted.into_iter().map(|alert| {
        // Empty labels are no labels, as Prometheus has it.
        let mut labels = alert.labels;
        labels.retain(|_, value| !value.is_empty());
        let ends = alert.ends_at.as_deref().filter(|text| !is_no_time(text));
        let posted = Posted {
            labels,
            annotations: alert.annotations,
            ends: ends.map(unix).transpose()?,
        };
        external::read(&posted, now).map_err(bad)
    });
    // All are read before any is taken.
    let effects: Vec<Effect> = effects.collect::<Result<_, Refusal>>()?;
    for effect in effects {
        let event = match effect {
            Effect::Tell(condition, holds) => Event::Tell(condition, Some(holds)),
            Effect::Untell(key) => Event::Untell(key),
            Effect::Ignore => continue,
        };
        module.handle.say(event).await;
    }
    Ok(())
}

/// What Go writes for a time that is not set.
fn is_no_time(text: &str) -> bool {
    text.starts_with("0001-01-01")
}

async fn silences(
    State(module): Module,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Refusal> {
    let filters = Filters::read(query.as_deref())?;
    let notifier = &module.office.notifier;
    let all = notifier.desk().silences.list(notifier.clock.unix());
    // A silence fits a filter when it silences what the filter means: its own matchers are its labels.
    let fits = |silence: &Silence| {
        let labels: Labels = silence
            .matchers
            .iter()
            .map(|matcher| (matcher.name.clone(), matcher.value.clone()))
            .collect();
        all_hold(&filters.matchers, &labels)
    };
    let shown = all.iter().filter(|silence| fits(silence)).map(silence_json);
    Ok(Json(shown.collect()))
}

async fn silence(
    State(module): Module,
    PathParams(id): PathParams<String>,
) -> Result<Json<Value>, StatusCode> {
    let notifier = &module.office.notifier;
    let found = notifier.desk().silences.get(&id, notifier.clock.unix());
    found
        .map(|silence| Json(silence_json(&silence)))
        .ok_or(StatusCode::NOT_FOUND)
}

fn silence_json(silence: &Silence) -> Value {
    let matchers = silence.matchers.iter().map(|matcher| {
        json!({
            "name": matcher.name,
            "value": matcher.value,
            "isRegex": matches!(matcher.op, MatchOp::Fits | MatchOp::FitsNot),
            "isEqual": matches!(matcher.op, MatchOp::Equal | MatchOp::Fits),
        })
    });
    let state = match silence.phase {
        Phase::Pending => "pending",
        Phase::Active => "active",
        Phase::Expired => "expired",
    };
    json!({
        "id": silence.id,
        "status": { "state": state },
        "matchers": matchers.collect::<Vec<_>>(),
        "startsAt": stamp(silence.starts),
        "endsAt": stamp(silence.ends),
        "updatedAt": stamp(silence.updated),
        "createdBy": silence.by,
        "comment": silence.comment,
    })
}

async fn post_silence(
    State(module): Module,
    Caller(identity): Caller,
    body: Bytes,
) -> Result<Json<Value>, Refusal> {
    let posted: PostedSilence = read(&body)?;
    let now = module.office.unix();
    // Who it was is who proved it; the name that they give themselves is kept beside it.
    let mut comment = posted.comment;
    if !posted.created_by.is_empty() {
        comment = format!("{comment} ({})", posted.created_by);
    }
    let wanted = SilenceWanted {
        id: posted.id.filter(|id| !id.is_empty()),
        matchers: posted.matchers.into_iter().map(matcher).collect(),
        starts: Some(unix(&posted.starts_at)?.max(now)),
        ends: unix(&posted.ends_at)?,
        comment,
    };
    let silence = module.office.silence(&identity.to_string(), wanted).await?;
    Ok(Json(json!({ "silenceID": silence.id })))
}

fn matcher(posted: PostedMatcher) -> Matcher {
    let op = match (posted.is_regex, posted.is_equal) {
        (false, true) => MatchOp::Equal,
        (false, false) => MatchOp::NotEqual,
        (true, true) => MatchOp::Fits,
        (true, false) => MatchOp::FitsNot,
    };
    Matcher {
        name: posted.name,
        op,
        value: posted.value,
    }
}

async fn delete_silence(
    State(module): Module,
    Caller(identity): Caller,
    PathParams(id): PathParams<String>,
) -> Result<(), Refusal> {
    let ended = module.office.unsilence(&identity.to_string(), &id).await;
    ended.map(drop).map_err(Refusal::from)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| bad(format!("parsing the body failed: {error}")))
}

/// A time as RFC 3339 writes it.
fn unix(text: &str) -> Result<UnixSeconds, Refusal> {
    let moment: Timestamp = text
        .parse()
        .map_err(|_| bad(format!("{text:?} is no time, expected RFC 3339")))?;
    Ok(moment.as_duration().as_secs_f64())
}
