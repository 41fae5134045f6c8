//! From the section of the file to what the core works with, and what the types cannot check of it.

use std::collections::BTreeSet;
use std::time::Duration;

use alicia_contract::fleet::Fleet;
use alicia_contract::unit::Period;
use alicia_module::ConfigFault;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Config;
use super::notify::{Channel, Email, MaintenanceWindow};
use crate::core::breaker::RestartLimits;
use crate::core::cron::Cron;
use crate::core::desk::{Inhibition, Rules};
use crate::core::escalate::{Policy, Step};
use crate::core::group::{Manner, Route, Waits};
use crate::core::maintenance::{When, Window};
use crate::core::matcher;
use crate::notify::egress::Place;
use crate::notify::mail;

/// Who made a window of the file.
const THE_FILE: &str = "alicia.yaml";

/// Labels by which a group can be named beside those of services.
const GROUP_LABELS_MAX: usize = 10;

impl Config {
    /// When restarts are asked for.
    pub(super) fn restart_limits(&self) -> Option<RestartLimits> {
        let asked = &self.auto_restart;
        asked.enabled.then(|| RestartLimits {
            after: asked.after.duration(),
            limit: asked.limit,
            within: asked.within.duration(),
            pause: asked.pause.duration(),
        })
    }

    /// What the desk works with. The section has been checked: what cannot be read is left out.
    pub(crate) fn rules(&self) -> Rules {
        let compile = |texts: &[String]| matcher::parse_all(texts).unwrap_or_default();
        let inhibitions = self.inhibit.iter().map(|rule| Inhibition {
            source: compile(&rule.source),
            target: compile(&rule.target),
            equal: rule.equal.clone(),
        });
        let policies = self.escalations.iter().map(|escalation| Policy {
            key: serde_json::to_string(escalation).expect("texts and numbers"),
            matchers: compile(&escalation.matchers),
            steps: escalation
                .steps
                .iter()
                .map(|step| Step {
                    after: step.after.duration(),
                    channels: step.channels.iter().map(ToString::to_string).collect(),
                    severity: step.severity,
                })
                .collect(),
        });
        Rules {
            routes: self
                .channels
                .iter()
                .map(|(name, channel)| self.route(name.as_str(), channel))
                .collect(),
            policies: policies.collect(),
            inhibitions: inhibitions.collect(),
            group_by: self.notifications.group_by.clone(),
        }
    }

    fn route(&self, name: &str, channel: &Channel) -> Route {
        let usual = &self.notifications;
        let waits = Waits {
            wait: usual.group_wait.duration(),
            hold_back: self.hold_back.duration(),
            interval: usual.group_interval.duration(),
            repeat: usual.repeat_interval.duration(),
        };
        let (manner, waits, group_by) = match &channel.alertmanager {
            // It groups by itself, and forgets what it is not told again.
            Some(peer) => {
                let mirror = Waits {
                    interval: Duration::from_secs(1),
                    repeat: peer.refresh.duration(),
                    ..waits
                };
                (Manner::Mirror, mirror, Vec::new())
            }
            None => {
                let manner = match (channel.escalation_only, channel.send_resolved) {
                    (true, _) => Manner::Escalation,
                    (false, true) => Manner::Person,
                    (false, false) => Manner::PersonUntilOver,
                };
                let group_by = channel.group_by.as_ref().unwrap_or(&usual.group_by);
                (manner, waits, group_by.clone())
            }
        };
        Route {
            channel: name.to_owned(),
            min_severity: channel.min_severity,
            matchers: matcher::parse_all(&channel.matchers).unwrap_or_default(),
            group_by,
            waits,
            manner,
        }
    }

    /// The windows of the file.
    pub(crate) fn windows(&self) -> impl Iterator<Item = Window> {
        let windows = self.maintenance.iter().enumerate();
        windows.filter_map(|(at, window)| {
            Some(Window {
                id: format!("file-{}", at + 1),
                services: window.services.clone(),
                when: when(window).ok()?,
                comment: window.comment.clone(),
                by: THE_FILE.to_owned(),
            })
        })
    }

    /// What the types cannot check of the parts about notifications.
    pub(super) fn notify_faults(&self, fleet: &Fleet) -> Vec<ConfigFault> {
        let mut faults = Faults::default();
        for (name, channel) in &self.channels {
            channel_faults(&format!("/channels/{name}"), channel, &mut faults);
        }
        let usual = &self.notifications;
        faults.groups("/notifications/group_by", &usual.group_by);
        faults.period("/notifications/group_wait", usual.group_wait, (0, 600));
        faults.period(
            "/notifications/group_interval",
            usual.group_interval,
            (0, 86_400),
        );
        faults.period(
            "/notifications/repeat_interval",
            usual.repeat_interval,
            (60, 30 * 86_400),
        );
        faults.period(
            "/notifications/give_up_after",
            usual.give_up_after,
            (60, 7 * 86_400),
        );
        faults.period("/hold_back", self.hold_back, (0, 600));
        let restart = &self.auto_restart;
        faults.period("/auto_restart/after", restart.after, (1, 3_600));
        faults.period("/auto_restart/within", restart.within, (60, 86_400));
        faults.period("/auto_restart/pause", restart.pause, (1, 86_400));
        for (at, rule) in self.inhibit.iter().enumerate() {
            faults.matchers(&format!("/inhibit/{at}/source"), &rule.source);
            faults.matchers(&format!("/inhibit/{at}/target"), &rule.target);
        }
        self.escalation_faults(&mut faults);
        for (at, window) in self.maintenance.iter().enumerate() {
            window_faults(&format!("/maintenance/{at}"), window, fleet, &mut faults);
        }
        faults.0
    }

    fn escalation_faults(&self, faults: &mut Faults) {
        for (at, escalation) in self.escalations.iter().enumerate() {
            faults.matchers(&format!("/escalations/{at}/matchers"), &escalation.matchers);
            let mut before = Period::default();
            for (number, step) in escalation.steps.iter().enumerate() {
                let place = format!("/escalations/{at}/steps/{number}");
                faults.period(&format!("{place}/after"), step.after, (1, 7 * 86_400));
                if step.after <= before {
                    let message = format!("found {}, expected more than {before}", step.after);
                    faults.add(&format!("{place}/after"), message);
                }
                before = step.after;
                for (which, name) in step.channels.iter().enumerate() {
                    let place = format!("{place}/channels/{which}");
                    match self.channels.get(name) {
                        None => {
                            let known: Vec<&str> =
                                self.channels.keys().map(|name| name.as_str()).collect();
                            let known = match known.as_slice() {
                                [] => "`health.channels` has none".to_owned(),
                                known => known.join(", "),
                            };
                            faults
                                .add(&place, format!("found {name}, expected a channel: {known}"));
                        }
                        Some(channel) if channel.alertmanager.is_some() => {
                            let text = "an Alertmanager gets every alert and escalates by itself";
                            faults.add(&place, format!("found {name}, expected another: {text}"));
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }
}

/// When a window of the file is open.
fn when(window: &MaintenanceWindow) -> Result<When, String> {
    let zone = match &window.timezone {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name).map_err(|_| {
            format!("found the time zone {name:?}, expected one like Europe/Zurich")
        })?,
    };
    match (&window.cron, &window.start) {
        (Some(cron), None) => Ok(When::Repeated {
            cron: Cron::parse(cron)?,
            text: cron.clone(),
            zone,
            seconds: u32::try_from(window.duration.duration().as_secs()).unwrap_or(u32::MAX),
        }),
        (None, Some(start)) => {
            let local: DateTime = start
                .parse()
                .map_err(|_| format!("found {start:?}, expected a time like 2026-12-24T22:00"))?;
            let moment = zone.to_ambiguous_timestamp(local).compatible();
            let moment = moment.map_err(|error| error.to_string())?;
            let starts = moment.as_duration().as_secs_f64();
            Ok(When::Once(
                starts,
                starts + window.duration.duration().as_secs_f64(),
            ))
        }
        _ => Err("expected either `cron` or `start`".to_owned()),
    }
}

fn window_faults(place: &str, window: &MaintenanceWindow, fleet: &Fleet, faults: &mut Faults) {
    faults.period(
        &format!("{place}/duration"),
        window.duration,
        (60, 30 * 86_400),
    );
    if let Err(error) = when(window) {
        faults.add(place, error);
    }
    let groups: BTreeSet<_> = fleet
        .services
        .values()
        .flat_map(|spec| &spec.groups)
        .collect();
    for (at, name) in window.services.iter().enumerate() {
        if !fleet.services.contains_key(name) && !groups.contains(name) {
            let text = format!("found {name}, expected a service or a group of this file");
            faults.add(&format!("{place}/services/{at}"), text);
        }
    }
}

fn channel_faults(place: &str, channel: &Channel, faults: &mut Faults) {
    let kinds = [
        channel.webhook.is_some(),
        channel.alertmanager.is_some(),
        channel.ntfy.is_some(),
        channel.slack.is_some(),
        channel.email.is_some(),
    ];
    if kinds.iter().filter(|given| **given).count() != 1 {
        let text = "expected exactly one of `webhook`, `alertmanager`, `ntfy`, `slack`, `email`";
        faults.add(place, text.to_owned());
    }
    faults.matchers(&format!("{place}/matchers"), &channel.matchers);
    if let Some(group_by) = &channel.group_by {
        faults.groups(&format!("{place}/group_by"), group_by);
    }
    faults.period(&format!("{place}/timeout"), channel.timeout, (1, 60));
    faults.period(
        &format!("{place}/rate_limit/within"),
        channel.rate_limit.within,
        (1, 86_400),
    );
    if channel.escalation_only && channel.alertmanager.is_some() {
        let text = "an Alertmanager gets every alert; leave this out".to_owned();
        faults.add(&format!("{place}/escalation_only"), text);
    }
    let mut either = |kind: &str, url: &Option<String>, file: &Option<String>| {
        if url.is_some() == file.is_some() {
            let text = "expected either `url` or `url_file`".to_owned();
            faults.add(&format!("{place}/{kind}"), text);
        }
        if let Some(url) = url {
            faults.url(&format!("{place}/{kind}/url"), url, channel.allow_private);
        }
    };
    if let Some(hook) = &channel.webhook {
        either("webhook", &hook.url, &hook.url_file);
    }
    if let Some(slack) = &channel.slack {
        either("slack", &slack.url, &slack.url_file);
    }
    if let Some(peer) = &channel.alertmanager {
        let place = format!("{place}/alertmanager");
        faults.url(&format!("{place}/url"), &peer.url, channel.allow_private);
        faults.period(&format!("{place}/refresh"), peer.refresh, (1, 3_600));
    }
    if let Some(ntfy) = &channel.ntfy {
        faults.url(
            &format!("{place}/ntfy/url"),
            &ntfy.url,
            channel.allow_private,
        );
    }
    if let Some(email) = &channel.email {
        email_faults(
            &format!("{place}/email"),
            email,
            channel.allow_private,
            faults,
        );
    }
}

fn email_faults(place: &str, email: &Email, allow_private: bool, faults: &mut Faults) {
    if let Err(fault) = mail::server(&email.server, email.tls) {
        faults.add(&format!("{place}/server"), fault.text);
    }
    let addresses = email.to.iter().enumerate();
    let addresses = addresses.map(|(at, to)| (format!("{place}/to/{at}"), to));
    for (place, address) in addresses.chain([(format!("{place}/from"), &email.from)]) {
        if !mail::is_address(address) {
            let text = format!("found {address:?}, expected an address like ops@example.org");
            faults.add(&place, text);
        }
    }
    if email.to.is_empty() {
        faults.add(&format!("{place}/to"), "expected a receiver".to_owned());
    }
    if email.username.is_some() != email.password_file.is_some() {
        let text = "expected `username` and `password_file` together, or neither".to_owned();
        faults.add(place, text);
    }
    let plain = email.tls == super::notify::MailTls::None;
    if plain && (!allow_private || email.username.is_some()) {
        let text = "found none; it needs `allow_private: true`, and no `username`".to_owned();
        faults.add(&format!("{place}/tls"), text);
    }
}

/// Faults as they are found.
#[derive(Default)]
struct Faults(Vec<ConfigFault>);

impl Faults {
    fn add(&mut self, pointer: &str, message: String) {
        let pointer = pointer.to_owned();
        self.0.push(ConfigFault { pointer, message });
    }

    fn period(&mut self, pointer: &str, found: Period, (low_s, high_s): (u64, u64)) {
        let (low, high) = (Period::from_secs(low_s), Period::from_secs(high_s));
        if !(low..=high).contains(&found) {
            self.add(pointer, format!("found {found}, expected {low} to {high}"));
        }
    }

    fn matchers(&mut self, pointer: &str, texts: &[String]) {
        if let Err(error) = matcher::parse_all(texts) {
            self.add(pointer, error);
        }
    }

    fn groups(&mut self, pointer: &str, labels: &[String]) {
        if labels.len() > GROUP_LABELS_MAX {
            let found = labels.len();
            self.add(
                pointer,
                format!("found {found} labels, expected at most {GROUP_LABELS_MAX}"),
            );
        }
    }

    /// The URL is not repeated: part of it may be secret.
    fn url(&mut self, pointer: &str, url: &str, allow_private: bool) {
        let place = url
            .parse()
            .map_err(|_| "found no URL, expected https://host/path".to_owned());
        match place.and_then(|url| Place::of(&url).map_err(|fault| fault.text)) {
            Err(error) => self.add(pointer, error),
            Ok(place) if !place.tls && !allow_private => {
                let text =
                    "found http:, expected https:, or `allow_private: true` for this channel";
                self.add(pointer, text.to_owned());
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn faults(config: &Value) -> Vec<String> {
        let config: Config = serde_json::from_value(config.clone()).expect("a section");
        let faults = config.notify_faults(&Fleet::default());
        faults
            .into_iter()
            .map(|fault| format!("{} {}", fault.pointer, fault.message))
            .collect()
    }

    #[test]
    fn a_good_section_has_no_fault_and_becomes_rules() {
        let config = json!({
            "channels": {
                "hook": { "webhook": { "url": "https://hooks.example.org/x", "secret_file": "hook.key" }, "min_severity": "warning" },
                "am": { "alertmanager": { "url": "http://127.0.0.1:9093" }, "allow_private": true },
                "phone": { "ntfy": { "url": "https://ntfy.sh", "topic": "ops" }, "escalation_only": true },
                "chat": { "slack": { "url_file": "slack.url" }, "matchers": ["service=~api.*"], "group_by": ["root"] },
                "mail": { "email": { "server": "mail.example.org", "from": "a@example.org", "to": ["b@example.org"] } },
            },
            "escalations": [{ "steps": [{ "after": "5m", "channels": ["phone"], "severity": "critical" }] }],
            "maintenance": [
                { "cron": "0 3 * * sun", "duration": "1h", "timezone": "Europe/Zurich" },
                { "start": "2026-12-24T22:00", "duration": "2h" },
            ],
        });
        assert_eq!(faults(&config), [""; 0]);
        let config: Config = serde_json::from_value(config).expect("a section");
        let rules = config.rules();
        assert_eq!(
            (
                rules.routes.len(),
                rules.policies.len(),
                rules.inhibitions.len()
            ),
            (5, 1, 1)
        );
        let mirror = rules
            .routes
            .iter()
            .find(|route| route.manner == Manner::Mirror);
        assert_eq!(mirror.map(|route| route.channel.as_str()), Some("am"));
        assert_eq!(config.windows().count(), 2);
    }

    /// The keys by which the policies of these escalations are known.
    fn keys(escalations: &Value) -> Vec<String> {
        let config = json!({ "escalations": escalations });
        let config: Config = serde_json::from_value(config).expect("a section");
        let policies = config.rules().policies.into_iter();
        policies.map(|policy| policy.key).collect()
    }

    #[test]
    fn a_policy_is_known_by_what_it_says() {
        let api = json!({ "matchers": ["service=api"], "steps": [{ "after": "5m", "channels": ["phone"] }] });
        let all =
            json!({ "steps": [{ "after": "5m", "channels": ["phone"], "severity": "critical" }] });
        let as_written = keys(&json!([api, all]));
        let mut reordered = keys(&json!([all, api]));
        reordered.reverse();
        assert_eq!(as_written, reordered, "its place says nothing");
        let key = |change: &dyn Fn(&mut Value)| {
            let mut policy = api.clone();
            change(&mut policy);
            keys(&json!([policy])).remove(0)
        };
        let of_api = &as_written[0];
        assert_eq!(&key(&|_| ()), of_api);
        assert_eq!(&key(&|it| it["steps"][0]["after"] = json!("300s")), of_api);
        let changes: [&dyn Fn(&mut Value); 5] = [
            &|it| it["matchers"] = json!(["service=db"]),
            &|it| it["matchers"] = json!([]),
            &|it| it["steps"][0]["after"] = json!("301s"),
            &|it| it["steps"][0]["channels"] = json!(["mail"]),
            &|it| it["steps"][0]["severity"] = json!("critical"),
        ];
        let mut found: Vec<String> = changes.into_iter().map(key).collect();
        found.push(of_api.clone());
        found.sort();
        found.dedup();
        assert_eq!(found.len(), changes.len() + 1, "{found:#?}");
    }

    /// The key is stored with how far an escalation came. A release that writes another text for the same policy lets every
    /// escalation that is under way begin anew, and pages everybody again: a field that is added to `Escalation` or to its
    /// steps must not be written where the file does not have it.
    #[test]
    fn the_key_of_a_policy_stays_the_same_between_releases() {
        let escalations = json!([
            { "steps": [{ "after": "5m", "channels": ["phone"] }] },
            {
                "matchers": ["service=~\"api.*\"", "team=web"],
                "steps": [
                    { "after": "90s", "channels": ["phone", "mail"] },
                    { "after": "1h", "channels": ["boss"], "severity": "critical" },
                ],
            },
        ]);
        let expected = [
            r#"{"steps":[{"after":"5m","channels":["phone"]}]}"#,
            concat!(
                r#"{"matchers":["service=~\"api.*\"","team=web"],"#,
                r#""steps":[{"after":"1m30s","channels":["phone","mail"]},"#,
                r#"{"after":"1h","channels":["boss"],"severity":"critical"}]}"#,
            ),
        ];
        assert_eq!(keys(&escalations), expected);
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        let check = |config: Value, parts: &[&str]| {
            let found = faults(&config);
            assert_eq!(found.len(), parts.len(), "{found:?}");
            for part in parts {
                assert!(
                    found.iter().any(|fault| fault.contains(part)),
                    "{part}: {found:?}"
                );
            }
        };
        let channel = |channel: Value| json!({ "channels": { "x": channel } });
        check(channel(json!({})), &["/channels/x expected exactly one of"]);
        let two =
            json!({ "slack": { "url_file": "a" }, "ntfy": { "url": "https://b", "topic": "c" } });
        check(channel(two), &["/channels/x expected exactly one of"]);
        check(
            channel(json!({ "webhook": {} })),
            &["/channels/x/webhook expected either"],
        );
        let plain = json!({ "webhook": { "url": "http://hooks.example.org" } });
        check(channel(plain), &["/channels/x/webhook/url found http:"]);
        let login = json!({ "webhook": { "url": "https://bob:hunter2@hooks.example.org" } });
        let found = faults(&channel(login));
        assert!(
            found[0].contains("user or password") && !found[0].contains("hunter2"),
            "{found:?}"
        );
        let mail = json!({ "email": { "server": "m:x", "from": "a", "to": [], "tls": "none", "username": "u" } });
        check(
            channel(mail),
            &[
                "/email/server",
                "/email/from",
                "/email/to",
                "together",
                "/email/tls",
            ],
        );
        let matcher =
            json!({ "slack": { "url_file": "a" }, "matchers": ["service"], "timeout": "10m" });
        check(channel(matcher), &["/matchers", "/timeout"]);
        let steps = json!([{ "after": "5m", "channels": ["nosuch"] }, { "after": "5m", "channels": ["nosuch"] }]);
        check(
            json!({ "escalations": [{ "steps": steps }] }),
            &["0/channels/0 found nosuch", "1/channels/0", "1/after"],
        );
        let window = |window: Value| json!({ "maintenance": [window] });
        check(
            window(json!({ "duration": "1h" })),
            &["either `cron` or `start`"],
        );
        check(
            window(json!({ "cron": "x", "duration": "1h" })),
            &["fields"],
        );
        check(
            window(json!({ "start": "soon", "duration": "1s" })),
            &["soon", "/duration"],
        );
        check(
            window(json!({ "cron": "0 3 * * *", "duration": "1h", "timezone": "Mars/Base" })),
            &["Mars/Base"],
        );
        check(
            window(json!({ "cron": "0 3 * * *", "duration": "1h", "services": ["nosuch"] })),
            &["services/0"],
        );
    }
}
