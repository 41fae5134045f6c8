//! Reading heartbeats. A bad one is counted and shown, and changes nothing.

use alicia_contract::Envelope;
use alicia_contract::health::Heartbeat;
use alicia_contract::id::ServiceName;
use alicia_contract::object;
use alicia_contract::unit::UnixSeconds;
use serde_json::Value;

/// How far the sender's clock may be ahead of ours, in seconds: more than clocks on one machine or in one
/// house differ, far less than a wrong year.
const AHEAD_S_MAX: f64 = 60.0;

/// The shortest interval that a heartbeat may announce, in seconds.
const INTERVAL_S_MIN: f64 = 0.1;

/// The longest, in seconds: a day.
const INTERVAL_S_MAX: f64 = 86_400.0;

/// Above this a number is no measurement: 10^15 bytes are a petabyte, 10^15 seconds are 30 million years.
const NUMBER_MAX: f64 = 1e15;

/// Most counters or resources in one heartbeat.
const NUMBERS_MAX: usize = 256;

/// Longest detail that is kept, in characters.
const DETAIL_CHARS_MAX: usize = 500;

/// Reads a heartbeat that arrived on the topic of `service`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(
    service: &str,
    body: Value,
    envelope: Option<&Envelope>,
    now: UnixSeconds,
) -> Result<Heartbeat, String> {
    if let Some(envelope) = envelope {
        check_time(envelope.timestamp, now)?;
    }
    let mut heartbeat: Heartbeat =
        object::read(&body).map_err(|error| format!("not a heartbeat: {error}"))?;
    let topic = ServiceName::new(service).map_err(|error| error.to_string())?;
    if heartbeat.service != topic {
        return Err(format!(
            "says that it is {}, on the topic of {topic}",
            heartbeat.service
        ));
    }
    check_numbers(&heartbeat)?;
    if let Some(detail) = &mut heartbeat.detail
        && let Some((end, _)) = detail.char_indices().nth(DETAIL_CHARS_MAX)
    {
        detail.truncate(end);
    }
    Ok(heartbeat)
}

fn check_time(sent: UnixSeconds, now: UnixSeconds) -> Result<(), String> {
    let ahead_s = sent - now;
    if ahead_s > AHEAD_S_MAX {
        return Err(format!("from the future, by {ahead_s:.0} s"));
    }
    Ok(())
}

fn check_numbers(heartbeat: &Heartbeat) -> Result<(), String> {
    let within = |name: &str, number: f64, low: f64, high: f64| {
        if (low..=high).contains(&number) {
            Ok(())
        } else {
            Err(format!("{name} is {number}, expected {low} to {high}"))
        }
    };
    within("uptime_s", heartbeat.uptime_s, 0.0, NUMBER_MAX)?;
    if let Some(interval_s) = heartbeat.interval_s {
        within("interval_s", interval_s, INTERVAL_S_MIN, INTERVAL_S_MAX)?;
    }
    for numbers in [&heartbeat.counters, &heartbeat.resources] {
        if numbers.len() > NUMBERS_MAX {
            return Err(format!(
                "{} numbers, expected at most {NUMBERS_MAX}",
                numbers.len()
            ));
        }
        for (name, number) in numbers {
            within(name, *number, -NUMBER_MAX, NUMBER_MAX)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alicia_contract::MessageType;
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({ "service": "api", "status": "healthy", "uptime_s": 5, "interval_s": 5 })
    }

    fn envelope(timestamp: f64) -> Envelope {
        Envelope::new(
            "m".to_owned(),
            timestamp,
            "api",
            MessageType::Event,
            Value::Null,
        )
    }

    #[test]
    fn a_good_one_is_read() {
        let heartbeat = read("api", good(), Some(&envelope(1_030.0)), 1_000.0).expect("reads");
        assert_eq!(heartbeat.interval_s, Some(5.0));
        read(
            "api",
            json!({ "service": "api", "status": "healthy" }),
            None,
            0.0,
        )
        .expect("reads");
    }

    #[test]
    fn a_bad_one_says_why() {
        let check = |field: &str, value: Value, part: &str| {
            let mut body = good();
            body[field] = value;
            let fault = read("api", body, None, 1_000.0).expect_err(field);
            assert!(fault.contains(part), "{field}: {fault}");
        };
        check("service", json!("db"), "on the topic of api");
        check("service", json!("API"), "not a heartbeat");
        check("status", json!("great"), "not a heartbeat");
        check("uptime_s", json!("long"), "not a heartbeat");
        check("uptime_s", json!(-1), "uptime_s");
        check("uptime_s", json!(1e300), "uptime_s");
        check("interval_s", json!(0), "interval_s");
        check("counters", json!({ "requests": 1e16 }), "requests");
        check("resources", json!({ "cpu": null }), "not a heartbeat");
        let many: serde_json::Map<String, Value> =
            (0..300).map(|n| (format!("n{n}"), json!(n))).collect();
        check("counters", Value::Object(many), "300 numbers");
        let late = read("api", good(), Some(&envelope(9_999.0)), 1_000.0).expect_err("future");
        assert!(late.contains("future"), "{late}");
        assert!(read("api", json!([1]), None, 0.0).is_err());
        let by_order = json!(["api", null, "healthy"]);
        assert!(read("api", by_order, None, 0.0).is_err());
        assert!(read("A+", good(), None, 0.0).is_err());
    }
}
