//! Silences and maintenance windows.

use std::sync::Arc;

use alicia_contract::health::{Maintenance, Matcher, Silence};
use alicia_contract::id::ServiceName;
use alicia_contract::unit::{Period, UnixSeconds};
use alicia_module::api::{Answer, Body, Caller, PathParams};
use alicia_module::{Api, ApiError, Operation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Module, State};
use crate::core::matcher;
use crate::module::HealthModule;
use crate::office::{SilenceWanted, WindowWanted, unusable};

/// A silence that is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SilenceBody {
    /// The silence to be changed; none: a new one.
    #[serde(default)]
    id: Option<String>,
    /// All must hold: each as `service=~"api.*"`, or as an object.
    #[schemars(length(min = 1, max = 50))]
    matchers: Vec<MatcherBody>,
    /// When it begins; none: now.
    #[serde(default)]
    starts: Option<UnixSeconds>,
    /// When it ends; or `duration`.
    #[serde(default)]
    ends: Option<UnixSeconds>,
    /// How long it holds from its start; or `ends`.
    #[serde(default)]
    duration: Option<Period>,
    /// Why. At most 1000 characters.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    comment: String,
}

/// A matcher, in text or in parts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum MatcherBody {
    /// `service=~"api.*"`
    Text(String),
    /// In parts.
    Parts(Matcher),
}

/// A window that is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WindowBody {
    /// The services or groups; none: all.
    #[serde(default)]
    services: Vec<ServiceName>,
    /// When it begins; none: now.
    #[serde(default)]
    starts: Option<UnixSeconds>,
    /// How long it lasts, at most 30 days.
    duration: Period,
    /// Why. At most 1000 characters.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    comment: String,
}

/// Silences: those in force, those to come, and those that are over and not forgotten.
#[derive(Debug, Serialize, JsonSchema)]
struct SilencesPage {
    /// The silences.
    silences: Vec<Silence>,
}

/// Maintenance windows, of the file and made by hand.
#[derive(Debug, Serialize, JsonSchema)]
struct WindowsPage {
    /// The windows.
    maintenance: Vec<Maintenance>,
}

pub(super) fn add(api: Api<Arc<HealthModule>>) -> Api<Arc<HealthModule>> {
    api.with(
        Operation::get("/silences", "Silences, those in force first.")
            .answers::<SilencesPage>(200, "All that are not forgotten."),
        list,
    )
    .with(
        Operation::post("/silences", "Makes or changes a silence.")
            .body::<SilenceBody>()
            .answers::<Silence>(200, "The silence.")
            .refuses(
                422,
                "It would silence nothing, everything, or cannot be read.",
            ),
        create,
    )
    .with(
        Operation::get("/silences/{id}", "One silence.")
            .answers::<Silence>(200, "The silence.")
            .refuses(404, "There is no such silence."),
        one,
    )
    .with(
        Operation::delete("/silences/{id}", "Ends a silence.")
            .answers::<Silence>(200, "The silence, which is over.")
            .refuses(404, "No such silence is in force or to come."),
        end,
    )
    .with(
        Operation::get("/maintenance", "Maintenance windows, open ones first.")
            .answers::<WindowsPage>(200, "All that are not forgotten."),
        windows,
    )
    .with(
        Operation::post(
            "/maintenance",
            "Makes a maintenance window that is open once.",
        )
        .body::<WindowBody>()
        .answers::<Maintenance>(200, "The window.")
        .refuses(422, "It ends in the past, or is too long."),
        maintain,
    )
    .with(
        Operation::delete("/maintenance/{id}", "Ends a window that was made by hand.")
            .answers::<Maintenance>(200, "The window, which is over.")
            .refuses(404, "No such window is open or to come."),
        end_window,
    )
}

async fn list(State(module): Module) -> Answer<SilencesPage> {
    let notifier = &module.office.notifier;
    let silences = notifier.desk().silences.list(notifier.clock.unix());
    Answer(SilencesPage { silences })
}

async fn one(
    State(module): Module,
    PathParams(id): PathParams<String>,
) -> Result<Answer<Silence>, ApiError> {
    let notifier = &module.office.notifier;
    let silence = notifier.desk().silences.get(&id, notifier.clock.unix());
    let none = || ApiError::not_found("health", format!("there is no silence with the id {id}"));
    Ok(Answer(silence.ok_or_else(none)?))
}

async fn create(
    State(module): Module,
    Caller(identity): Caller,
    Body(body): Body<SilenceBody>,
) -> Result<Answer<Silence>, ApiError> {
    let matchers: Result<Vec<Matcher>, String> = body
        .matchers
        .into_iter()
        .map(|matcher| match matcher {
            MatcherBody::Text(text) => matcher::parse(&text),
            MatcherBody::Parts(matcher) => Ok(matcher),
        })
        .collect();
    let starts = body.starts.unwrap_or_else(|| module.office.unix());
    let ends = match (body.ends, body.duration) {
        (Some(ends), None) => ends,
        (None, Some(duration)) => starts + duration.duration().as_secs_f64(),
        _ => {
            let why = "expected either `ends` or `duration`".to_owned();
            return Err(unusable("silence", why));
        }
    };
    let wanted = SilenceWanted {
        id: body.id,
        matchers: matchers.map_err(|why| unusable("silence", why))?,
        starts: body.starts,
        ends,
        comment: body.comment,
    };
    let actor = identity.to_string();
    Ok(Answer(module.office.silence(&actor, wanted).await?))
}

async fn end(
    State(module): Module,
    Caller(identity): Caller,
    PathParams(id): PathParams<String>,
) -> Result<Answer<Silence>, ApiError> {
    let actor = identity.to_string();
    Ok(Answer(module.office.unsilence(&actor, &id).await?))
}

async fn windows(State(module): Module) -> Answer<WindowsPage> {
    let notifier = &module.office.notifier;
    let maintenance = notifier.desk().windows.list(notifier.clock.unix());
    Answer(WindowsPage { maintenance })
}

async fn maintain(
    State(module): Module,
    Caller(identity): Caller,
    Body(body): Body<WindowBody>,
) -> Result<Answer<Maintenance>, ApiError> {
    let wanted = WindowWanted {
        services: body.services,
        starts: body.starts,
        duration: body.duration,
        comment: body.comment,
    };
    let actor = identity.to_string();
    Ok(Answer(module.office.maintain(&actor, wanted).await?))
}

async fn end_window(
    State(module): Module,
    Caller(identity): Caller,
    PathParams(id): PathParams<String>,
) -> Result<Answer<Maintenance>, ApiError> {
    let actor = identity.to_string();
    Ok(Answer(module.office.end_maintenance(&actor, &id).await?))
}
