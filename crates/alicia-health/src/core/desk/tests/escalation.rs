//! Escalation at the desk: when it stops, and to which policy its progress belongs.

use super::*;
use crate::core::escalate::Step;

/// Tells a channel when nobody took note for five minutes.
fn policy(channel: &str, matchers: Vec<Compiled>) -> Policy {
    Policy {
        key: format!("to {channel}"),
        matchers,
        steps: vec![Step {
            after: Duration::from_secs(300),
            channels: vec![channel.to_owned()],
            severity: Some(Severity::Critical),
        }],
    }
}

#[test]
fn how_far_an_escalation_came_stays_with_its_policy_when_the_file_is_put_in_another_order() {
    let of = |service: &str| vec![Compiled::parse(&format!("service={service}")).expect("reads")];
    let mut rules = rules();
    for (channel, service) in [("pager", "api"), ("phone", "db")] {
        rules.routes.push(route(channel, Manner::Escalation));
        rules.policies.push(policy(channel, of(service)));
    }
    let mut office = Office::new(rules.clone());
    office.fire("1", "api");
    let mut climbs = BTreeMap::new();
    for _ in 0..310 {
        office.wait(1);
        for order in &office.orders {
            if let Order::Climb(policy, group, climb) = order {
                climbs.insert((policy.clone(), group.clone()), climb.expect("it goes on"));
            }
        }
    }
    assert!(
        office
            .said()
            .contains(&"pager service=api escalation".to_owned())
    );
    assert_eq!(climbs.len(), 1);

    rules.policies.reverse();
    let mut later = Office::new(rules);
    let now = later.now();
    for (key, climb) in climbs {
        let of_another = ("to nobody".to_owned(), key.1.clone());
        assert!(later.desk.restore_climb(key, climb, now));
        assert!(!later.desk.restore_climb(of_another, climb, now));
    }
    later.fire("1", "api");
    later.fire("2", "db");
    later.wait(310);
    let escalated = |line: &&String| line.ends_with("escalation");
    let said = later.said();
    let told: Vec<&String> = said.iter().filter(escalated).collect();
    assert_eq!(told, ["phone service=db escalation"]);
}

#[test]
fn two_policies_that_say_the_same_tell_once() {
    let policy = |after: &str| json!({ "steps": [{ "after": after, "channels": ["phone"] }] });
    let phone =
        json!({ "ntfy": { "url": "https://ntfy.sh", "topic": "ops" }, "escalation_only": true });
    let config = json!({
        "channels": { "phone": phone },
        "escalations": [policy("5m"), policy("300s"), policy("10m")],
    });
    let config: crate::config::Config = serde_json::from_value(config).expect("a section");
    let mut office = Office::new(config.rules());
    office.fire("1", "api");
    office.wait(320);
    assert_eq!(office.said(), ["phone service=api escalation"]);
    office.wait(300);
    assert_eq!(
        office.said()[1..],
        ["phone service=api escalation"],
        "another that tells the same, later, is another"
    );
}

#[test]
fn an_acknowledgement_stops_repeats_and_escalation() {
    let mut rules = rules();
    rules.routes.push(route("pager", Manner::Escalation));
    rules.policies.push(policy("pager", Vec::new()));
    let mut office = Office::new(rules);
    for (id, service) in [("1", "api"), ("2", "db")] {
        office.fire(id, service);
    }
    office.wait(200);
    office.acknowledge("2", "db");
    office.wait(5 * 3_600);
    let said = [
        "hook service=api new",
        "hook service=db new",
        "pager service=api escalation",
        "hook service=api repeat",
    ];
    assert_eq!(office.said(), said);
    assert_eq!(office.sent[2].notification.severity, Severity::Critical);
    office.fire("2", "db");
    office.wait(310);
    assert_eq!(
        office.said()[4..],
        ["hook service=db repeat", "pager service=db escalation"],
        "taken back"
    );
    office.resolve("1", "api");
    office.resolve("2", "db");
    office.wait(120);
    let ends = [
        "hook service=api resolved",
        "hook service=db resolved",
        "pager service=api resolved",
        "pager service=db resolved",
    ];
    assert_eq!(
        office.said()[6..],
        ends,
        "who was told it fires is told that it is over"
    );
}
