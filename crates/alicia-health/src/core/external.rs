//! Alerts from outside: as Prometheus and others post them to an Alertmanager, and as we keep them.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::health::Severity;
use alicia_contract::id::ServiceName;
use alicia_contract::unit::UnixSeconds;
use serde_json::Value;

use super::conditions::{Condition, Key, Rule};
use super::matcher::Labels;
use super::told::RESOLVE_TIMEOUT;

/// Most labels or annotations of one alert.
const LABELS_MAX: usize = 64;

/// Longest name or value, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;

/// Most bytes of one alert, all its labels and annotations together: ten thousand of them must fit into the memory,
/// and each into a message.
const ALERT_BYTES_MAX: usize = 16 << 10;

/// The longest that one holds without being told again.
const HOLDS_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The service of alerts that name none.
const NO_SERVICE: &str = "external";

/// Labels that may name the service, the first that is there.
const SERVICE_LABELS: [&str; 3] = ["alicia_service", "service", "job"];

/// An alert as it is posted.
#[derive(Debug, Clone, PartialEq)]
pub struct Posted {
    /// What it is.
    pub labels: Labels,
    /// What is said about it.
    pub annotations: BTreeMap<String, String>,
    /// When it is over; none: unless it is told again.
    pub ends: Option<UnixSeconds>,
}

/// What a posted alert changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// It holds, for so long.
    Tell(Box<Condition>, Duration),
    /// It is over.
    Untell(Key),
    /// It is our own, come back.
    Ignore,
}

/// Reads a posted alert.
///
/// # Errors
/// In words: what cannot be used.
pub fn read(posted: &Posted, now: UnixSeconds) -> Result<Effect, String> {
    check(posted)?;
    let labels = &posted.labels;
    // An Alertmanager that we tell may tell us: once around is enough.
    if labels.get("rule").map(String::as_str) == Some(Rule::External.as_str()) {
        return Ok(Effect::Ignore);
    }
    let key = Key {
        rule: Rule::External,
        service: service_of(labels),
        instance: labels.get("instance").cloned(),
        check: Some(fingerprint(labels)),
    };
    let holds = match posted.ends {
        Some(ends) if ends <= now => return Ok(Effect::Untell(key)),
        Some(ends) => Duration::try_from_secs_f64(ends - now).unwrap_or(HOLDS_MAX),
        None => RESOLVE_TIMEOUT,
    };
    let said = |name: &str| posted.annotations.get(name).filter(|text| !text.is_empty());
    let name = labels.get("alertname").map_or("an alert", String::as_str);
    let summary = said("summary").or_else(|| said("message"));
    let detail = said("description").map_or("", String::as_str);
    let runbook = said("runbook_url").map(|url| format!("see {url}"));
    let condition = Condition {
        key,
        active: true,
        occurrence: 0,
        severity: severity_of(labels),
        summary: summary.map_or(name, String::as_str).to_owned(),
        detail: detail.to_owned(),
        last_lines: Vec::new(),
        suggestion: runbook,
        labels: labels
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect(),
    };
    Ok(Effect::Tell(Box::new(condition), holds.min(HOLDS_MAX)))
}

fn check(posted: &Posted) -> Result<(), String> {
    if posted.labels.is_empty() {
        return Err("at least one label pair required".to_owned());
    }
    for texts in [&posted.labels, &posted.annotations] {
        if texts.len() > LABELS_MAX {
            let found = texts.len();
            return Err(format!(
                "found {found} labels, expected at most {LABELS_MAX}"
            ));
        }
        let long = |text: &String| text.len() > TEXT_BYTES_MAX;
        if texts.iter().any(|(name, value)| long(name) || long(value)) {
            return Err(format!("a label has more than {TEXT_BYTES_MAX} bytes"));
        }
    }
    let pairs = posted.labels.iter().chain(&posted.annotations);
    let bytes: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ALERT_BYTES_MAX {
        return Err(format!(
            "found {bytes} bytes of labels and annotations, expected at most {ALERT_BYTES_MAX}"
        ));
    }
    if posted.ends.is_some_and(|ends| !ends.is_finite()) {
        return Err("endsAt is no time".to_owned());
    }
    Ok(())
}

fn service_of(labels: &Labels) -> ServiceName {
    let named = SERVICE_LABELS.into_iter().find_map(|name| labels.get(name));
    let plain = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9') => letter,
        _ => '-',
    };
    let text: String = named
        .into_iter()
        .flat_map(|name| name.chars())
        .map(plain)
        .take(63)
        .collect();
    ServiceName::new(text.trim_matches('-'))
        .unwrap_or_else(|_| ServiceName::new(NO_SERVICE).expect("a constant that is an id"))
}

fn severity_of(labels: &Labels) -> Severity {
    let text = labels.get("severity").map(|text| text.to_lowercase());
    match text.as_deref() {
        Some("critical" | "page" | "error" | "fatal" | "emergency") => Severity::Critical,
        Some("info" | "information" | "none" | "notice" | "debug") => Severity::Info,
        _ => Severity::Warning,
    }
}

/// What Prometheus calls the fingerprint of labels: FNV-1a, 64 bits, over the sorted pairs.
#[must_use]
pub fn fingerprint(labels: &Labels) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    const SEPARATOR: u8 = 0xff;
    let bytes = labels.iter().flat_map(|(name, value)| {
        let name = name.bytes().chain([SEPARATOR]);
        name.chain(value.bytes()).chain([SEPARATOR])
    });
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(labels: &[(&str, &str)], ends: Option<f64>) -> Posted {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Posted {
            labels: labels.iter().map(own).collect(),
            annotations: [("summary".to_owned(), "the disk is full".to_owned())].into(),
            ends,
        }
    }

    fn told(posted: &Posted) -> (Condition, Duration) {
        match read(posted, 1_000.0) {
            Ok(Effect::Tell(condition, holds)) => (*condition, holds),
            other => panic!("expected a condition: {other:?}"),
        }
    }

    /// As Alertmanager 0.25 gives it for these labels.
    #[test]
    fn the_fingerprint_is_that_of_alertmanager() {
        let labels = posted(&[("alertname", "x"), ("service", "api")], None).labels;
        assert_eq!(fingerprint(&labels), "dfa42d433ef0d217");
    }

    #[test]
    fn an_alert_holds_until_its_end_or_for_a_while() {
        let labels = [
            ("alertname", "DiskFull"),
            ("job", "Node Exporter"),
            ("severity", "page"),
        ];
        let (condition, holds) = told(&posted(&labels, None));
        assert_eq!(condition.key.service.as_str(), "node-exporter");
        assert_eq!(
            (condition.severity, condition.summary.as_str()),
            (Severity::Critical, "the disk is full")
        );
        assert_eq!(holds, RESOLVE_TIMEOUT);
        assert_eq!(
            told(&posted(&labels, Some(1_060.0))).1,
            Duration::from_secs(60)
        );
        assert_eq!(told(&posted(&labels, Some(1e12))).1, HOLDS_MAX);
        let over = read(&posted(&labels, Some(999.0)), 1_000.0);
        assert_eq!(over, Ok(Effect::Untell(condition.key)));
        let strange = told(&posted(&[("service", "☂☂")], None)).0;
        assert_eq!(strange.key.service.as_str(), "external");
    }

    #[test]
    fn what_is_none_is_refused_and_what_comes_back_is_ignored() {
        assert!(read(&posted(&[], None), 0.0).is_err());
        let long = "x".repeat(5_000);
        assert!(read(&posted(&[("a", &long)], None), 0.0).is_err());
        let names: Vec<String> = (0..10).map(|n| format!("label-{n}")).collect();
        let text = "x".repeat(2_000);
        let many: Vec<(&str, &str)> = names
            .iter()
            .map(|name| (name.as_str(), text.as_str()))
            .collect();
        let why = read(&posted(&many, None), 0.0).expect_err("too large");
        assert!(why.contains("expected at most 16384"), "{why}");
        assert!(read(&posted(&[("a", "b")], Some(f64::NAN)), 0.0).is_err());
        let back = posted(&[("rule", "external"), ("alertname", "x")], None);
        assert_eq!(read(&back, 0.0), Ok(Effect::Ignore));
    }
}
