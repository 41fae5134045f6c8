//! What is said in each language: to people as a title and a text, to Alertmanager as labels and annotations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use alicia_contract::fleet::Fleet;
use alicia_contract::health::{Alert, AlertState, Severity};
use alicia_contract::unit::UnixSeconds;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::outbox::Waiting;
use crate::core::matcher::labels_of;

/// How many alerts a text for people lists.
const ALERTS_LISTED_MAX: usize = 20;

/// How many last lines of output a text for people shows, per alert.
const LINES_SHOWN_MAX: usize = 10;

/// Longest text of a message to a chat, in bytes; ntfy takes 4096, and makes an attachment of more.
const CHAT_BYTES_MAX: usize = 4_000;

/// The one line.
pub(crate) fn title(waiting: &Waiting) -> String {
    let about = &waiting.notification;
    let mark = match (about.state, about.reason.as_str()) {
        (_, "test") => "TEST".to_owned(),
        (AlertState::Resolved, _) => "OVER".to_owned(),
        (AlertState::Firing, "escalation") => {
            format!(
                "{}, NOBODY ACKNOWLEDGED",
                about.severity.as_str().to_uppercase()
            )
        }
        (AlertState::Firing, _) => about.severity.as_str().to_uppercase(),
    };
    let summary = about.summary.trim_start_matches("over: ");
    one_line(&format!("[{mark}] {summary}"))
}

/// All of it.
pub(crate) fn text(waiting: &Waiting) -> String {
    let mut text = String::new();
    for alert in waiting.alerts.iter().take(ALERTS_LISTED_MAX) {
        describe(alert, &mut text);
    }
    let more = waiting.alerts.len().saturating_sub(ALERTS_LISTED_MAX);
    if more > 0 {
        push(&mut text, format_args!("and {more} more: alicia alerts"));
    }
    if text.is_empty() {
        push(&mut text, format_args!("{}", waiting.notification.summary));
    }
    text
}

fn describe(alert: &Alert, text: &mut String) {
    let about = alert.instance.as_deref().unwrap_or(alert.service.as_str());
    let state = match alert.state {
        AlertState::Firing => alert.severity.as_str(),
        AlertState::Resolved => "over",
    };
    push(
        text,
        format_args!("{about}: {} ({state}, {})", alert.summary, alert.rule),
    );
    if !alert.detail.is_empty() {
        push(text, format_args!("  {}", alert.detail));
    }
    let since = stamp(alert.started);
    match alert.ended {
        Some(ended) => push(text, format_args!("  from {since} to {}", stamp(ended))),
        None => push(text, format_args!("  since {since}, {} times", alert.count)),
    }
    let from = alert.last_lines.len().saturating_sub(LINES_SHOWN_MAX);
    for line in &alert.last_lines[from..] {
        push(text, format_args!("  | {line}"));
    }
    if let Some(command) = alert.suggestion.as_ref().filter(|_| alert.ended.is_none()) {
        push(text, format_args!("  try: {command}"));
    }
    text.push('\n');
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

/// The body for ntfy: JSON to the server's root.
pub(crate) fn for_ntfy(waiting: &Waiting, topic: &str) -> String {
    let about = &waiting.notification;
    let (priority, tag) = match (about.state, about.severity) {
        (AlertState::Resolved, _) => (2, "white_check_mark"),
        (_, Severity::Info) => (3, "information_source"),
        (_, Severity::Warning) => (4, "warning"),
        (_, Severity::Critical) => (5, "rotating_light"),
    };
    json!({
        "topic": topic,
        "title": title(waiting),
        "message": shortened(&text(waiting)),
        "priority": priority,
        "tags": [tag, about.group],
    })
    .to_string()
}

/// The body for Slack: a line that is shown everywhere, and the whole beside a colour.
pub(crate) fn for_slack(waiting: &Waiting) -> String {
    let about = &waiting.notification;
    let colour = match (about.state, about.severity) {
        (AlertState::Resolved, _) => "#2e7d32",
        (_, Severity::Info) => "#1565c0",
        (_, Severity::Warning) => "#ef6c00",
        (_, Severity::Critical) => "#c62828",
    };
    // Slack reads these three as its own marks (api.slack.com, formatting text).
    let plain = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    json!({
        "text": plain(&title(waiting)),
        "attachments": [{
            "color": colour,
            "fallback": plain(&title(waiting)),
            "text": plain(&shortened(&text(waiting))),
            "mrkdwn_in": [],
        }],
    })
    .to_string()
}

/// The body for Alertmanager (API v2, postableAlerts). What fires ends there by itself unless it is told again.
pub(crate) fn for_alertmanager(waiting: &Waiting, refresh: Duration, now: UnixSeconds) -> String {
    let until = now + (refresh * 4).as_secs_f64();
    let mut alerts: Vec<Value> = waiting
        .alerts
        .iter()
        .map(|alert| postable(alert, until))
        .collect();
    if waiting.notification.reason == "test" {
        alerts.push(json!({
            "labels": { "alertname": "alicia_test", "severity": "info" },
            "annotations": { "summary": waiting.notification.summary },
            "startsAt": stamp(now),
            "endsAt": stamp(now + 60.0),
        }));
    }
    Value::from(alerts).to_string()
}

fn postable(alert: &Alert, until: UnixSeconds) -> Value {
    let labels: BTreeMap<String, String> = labels_of(alert, &Fleet::default())
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (label_name(&name), value))
        .collect();
    let mut annotations = BTreeMap::from([("summary", alert.summary.clone())]);
    if !alert.detail.is_empty() {
        annotations.insert("description", alert.detail.clone());
    }
    if let Some(command) = &alert.suggestion {
        annotations.insert("suggestion", command.clone());
    }
    json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": stamp(alert.started),
        "endsAt": stamp(alert.ended.unwrap_or(until)),
    })
}

/// A name as Prometheus allows it: letters, digits and `_`.
pub(crate) fn label_name(name: &str) -> String {
    let plain = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter
        } else {
            '_'
        }
    };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

/// Wall time as RFC 3339 writes it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "microseconds of any calendar fit; what does not becomes its end"
)]
pub(crate) fn stamp(unix: UnixSeconds) -> String {
    let moment = Timestamp::from_microsecond((unix * 1e6) as i64);
    moment.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// A text in one line, without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(plain).collect()
}

fn shortened(text: &str) -> String {
    if text.len() <= CHAT_BYTES_MAX {
        return text.trim_end().to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(CHAT_BYTES_MAX)])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::notify) fn waiting(state: &str, alerts: usize) -> Waiting {
        let alert = |n: usize| {
            serde_json::from_value(json!({
                "id": format!("a{n}"), "rule": "check_failed", "severity": "critical", "state": state,
                "service": "api", "instance": "api-1", "summary": "check <web> fails", "detail": "HTTP 503",
                "last_lines": ["boom"], "suggestion": "alicia logs api", "started": 1_000.5,
                "ended": if state == "firing" { None } else { Some(2_000.0) }, "count": 3,
                "labels": { "check": "web", "some-label": "x", "empty": "" },
            }))
            .expect("an alert")
        };
        let notification = serde_json::from_value(json!({
            "id": "n1", "channel": "hook", "group": "service=api", "state": state, "severity": "critical",
            "summary": "check <web> fails", "firing": alerts, "resolved": 0, "reason": "new", "created": 1_005.0,
            "delivery": "waiting", "attempts": 0, "next_try": null, "done": null,
        }))
        .expect("a notification");
        Waiting {
            notification,
            alerts: (0..alerts).map(alert).collect(),
        }
    }

    #[test]
    fn people_read_what_is_wrong_since_when_and_what_to_do() {
        let waiting_one = waiting("firing", 1);
        assert_eq!(title(&waiting_one), "[CRITICAL] check <web> fails");
        let text = text(&waiting_one);
        for part in [
            "api-1: check <web> fails (critical, check_failed)",
            "HTTP 503",
            "1970-01-01T00:16:40.5Z, 3 times",
            "| boom",
            "try: alicia logs api",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(title(&waiting("resolved", 1)), "[OVER] check <web> fails");
        let many = super::text(&waiting("firing", 25));
        assert!(many.contains("and 5 more"), "{many}");
    }

    #[test]
    fn chats_get_json_of_bounded_size() {
        let slack: Value = serde_json::from_str(&for_slack(&waiting("firing", 25))).expect("JSON");
        assert_eq!(slack["text"], "[CRITICAL] check &lt;web&gt; fails");
        assert!(
            slack["attachments"][0]["text"]
                .as_str()
                .expect("a text")
                .chars()
                .count()
                < 4_500
        );
        let mut wide = waiting("firing", 25);
        wide.alerts
            .iter_mut()
            .for_each(|alert| alert.detail = "☂".repeat(500));
        let ntfy: Value = serde_json::from_str(&for_ntfy(&wide, "ops")).expect("JSON");
        assert!(ntfy["message"].as_str().expect("a text").len() <= 4_096);
        let ntfy: Value =
            serde_json::from_str(&for_ntfy(&waiting("resolved", 1), "ops")).expect("JSON");
        assert_eq!(
            (&ntfy["topic"], &ntfy["priority"]),
            (&json!("ops"), &json!(2))
        );
    }

    #[test]
    fn alertmanager_gets_labels_that_it_takes_and_an_end() {
        let body = for_alertmanager(&waiting("firing", 1), Duration::from_secs(60), 10_000.0);
        let alerts: Value = serde_json::from_str(&body).expect("JSON");
        let labels = &alerts[0]["labels"];
        assert_eq!(
            (&labels["alertname"], &labels["some_label"]),
            (&json!("check_failed"), &json!("x"))
        );
        assert_eq!(labels.get("empty"), None);
        assert_eq!(alerts[0]["endsAt"], "1970-01-01T02:50:40Z");
        let body = for_alertmanager(&waiting("resolved", 1), Duration::from_secs(60), 10_000.0);
        assert!(
            body.contains("\"endsAt\":\"1970-01-01T00:33:20Z\""),
            "{body}"
        );
        assert_eq!(label_name("1st-label"), "_1st_label");
    }
}
