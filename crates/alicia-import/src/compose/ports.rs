//! Ports of a container: short (`127.0.0.1:8080:80/tcp`) and long.

use serde_json::Value;

use crate::draft::Service;
use crate::reading::{Part, text};

pub(super) fn take(service: &mut Service, part: &mut Part<'_>) {
    let place = part.place("ports");
    let ports = part.get("ports").unwrap_or_default();
    let ports = ports.as_array().cloned().unwrap_or_default();
    let count = ports.len();
    let instances = service.settings.get("instances").and_then(Value::as_u64);
    let is_shared = instances.is_some_and(|instances| instances > 1);
    if count > 0
        && !service.settings["container"]
            .to_string()
            .contains("\"network\"")
    {
        service.set_in("container", "network", "bridge");
    }
    for port in ports {
        match read(&port) {
            Some((published, target)) => {
                let name = name(target, count);
                if let Some(port) = published.filter(|_| is_shared) {
                    let message = format!(
                        "the port {port} cannot be that of several instances: each gets its own"
                    );
                    service.note(&place, message);
                }
                let published = published.filter(|_| !is_shared);
                service.set_in(
                    "ports",
                    &name,
                    published.map_or(Value::from("auto"), Value::from),
                );
                add_target(service, &name, target);
            }
            None => service.note(
                &place,
                format!("the port {port}: write each port by itself, over TCP"),
            ),
        }
    }
    part.leave(
        service,
        "expose",
        "a port that others use stands below `ports`",
    );
}

/// The only port is named `http`, which gives it to probes; others carry their number.
fn name(target: u16, count: usize) -> String {
    match (target, count) {
        (_, 1) | (80 | 8080 | 3000 | 8000, _) => "http".to_owned(),
        _ => format!("port-{target}"),
    }
}

fn add_target(service: &mut Service, name: &str, target: u16) {
    let mut targets = service.settings["container"]
        .get("ports")
        .cloned()
        .unwrap_or_else(|| serde_json::json!({}));
    targets[name] = Value::from(target);
    service.set_in("container", "ports", targets);
}

/// The port on this machine, unless any will do, and the one in the container.
fn read(port: &Value) -> Option<(Option<u16>, u16)> {
    if port.is_object() {
        let field = |key: &str| port.get(key).and_then(text);
        if field("protocol").is_some_and(|protocol| protocol != "tcp") {
            return None;
        }
        let target = field("target")?.parse().ok()?;
        let published = match field("published") {
            Some(published) => Some(published.parse().ok()?),
            None => None,
        };
        return Some((published, target));
    }
    let short = text(port)?;
    let short = match short.split_once('/') {
        Some((ports, "tcp")) => ports.to_owned(),
        Some(_) => return None,
        None => short,
    };
    let mut parts = short.rsplit(':');
    let target = parts.next()?.parse().ok()?;
    let published = match parts.next() {
        Some("") | None => None,
        Some(published) => Some(published.parse().ok()?),
    };
    Some((published, target))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_read_in_every_form() {
        for (port, expect) in [
            (json!("8080:80"), Some((Some(8080), 80))),
            (json!("127.0.0.1:8080:80/tcp"), Some((Some(8080), 80))),
            (json!(80), Some((None, 80))),
            (
                json!({"target": 80, "published": "8080"}),
                Some((Some(8080), 80)),
            ),
            (json!("53:53/udp"), None),
            (json!("3000-3005:3000-3005"), None),
        ] {
            assert_eq!(read(&port), expect, "{port}");
        }
    }
}
