//! Further topics of a service: filters as MQTT 5 section 4.7 defines them, and services that exist.

use alicia_contract::ServiceName;

use super::Service;
use crate::nearest::nearest;

/// The longest topic, in bytes (MQTT 5 section 1.5.4).
const TOPIC_BYTES_MAX: usize = 65_535;

pub(super) fn check(service: &mut Service<'_, '_>) {
    let allow = &service.spec.allow;
    for (part, filters) in [("publish", &allow.publish), ("subscribe", &allow.subscribe)] {
        for (index, filter) in filters.iter().enumerate() {
            if let Some((message, hint)) = fault_of(filter) {
                service.fault(&format!("allow/{part}/{index}"), message, hint);
            }
        }
    }
    for (index, name) in allow.command.iter().enumerate() {
        let services = &service.fleet.services;
        if services.contains_key(name) {
            continue;
        }
        let hint = match nearest(name.as_str(), services.keys().map(ServiceName::as_str)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "name a service of this file".to_owned(),
        };
        service.fault(
            &format!("allow/command/{index}"),
            format!("there is no service `{name}`"),
            hint,
        );
    }
}

fn fault_of(filter: &str) -> Option<(String, String)> {
    let fault = |message: &str, hint: &str| Some((message.to_owned(), hint.to_owned()));
    // A leading `/` stands for the root and is no part of the topic.
    let levels: Vec<&str> = filter
        .strip_prefix('/')
        .unwrap_or(filter)
        .split('/')
        .collect();
    if levels == [""] {
        return fault(
            "the topic is empty",
            "write for example `rooms/+/temperature`",
        );
    }
    if filter.len() > TOPIC_BYTES_MAX || filter.contains('\0') {
        return fault(
            "this is no MQTT topic",
            "use at most 65535 bytes and no NUL",
        );
    }
    if filter.contains(['{', '}']) {
        return fault(
            "nothing is put in for braces in a topic",
            "write `+` for any one level; the prefix is added by itself",
        );
    }
    if levels[0] == "$share" {
        return fault(
            "`$share` belongs to a subscription",
            "write the filter without `$share/<group>/`",
        );
    }
    let (last, before) = levels.split_last()?;
    let hash_inside = before.iter().any(|level| level.contains('#'));
    if hash_inside || (last.contains('#') && *last != "#") {
        return fault(
            "`#` is not alone in the last level",
            "write it as the last level: `rooms/#`",
        );
    }
    if levels
        .iter()
        .any(|level| level.contains('+') && *level != "+")
    {
        return fault(
            "`+` is not alone in its level",
            "write it as a whole level: `rooms/+/light`",
        );
    }
    None
}
