//! What each kind of probe needs: a port, a path, a pattern that can be read, limits that mean something.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use alicia_contract::Period;
use alicia_contract::fleet::{
    DiskCheck, DnsCheck, HttpCheck, JsonTest, LlmCheck, MqttCheck, Probe, ProbeKind, ServiceSpec,
    TlsCheck,
};
use regex::Regex;

use super::Found;
use crate::fleet::{command, default_port};

/// The shortest interval of a probe that costs tokens.
const LLM_INTERVAL_MIN: Duration = Duration::from_secs(10);

pub(super) fn check(
    kind: ProbeKind<'_>,
    probe: &Probe,
    spec: &ServiceSpec,
    found: &mut Vec<Found>,
) {
    match kind {
        ProbeKind::Http(check) => {
            check_http(check, found);
            check_port("http", check.port, spec, found);
            check_tls("http/tls", check.tls.as_ref(), found);
            check_latency("http/latency_max", check.latency_max, probe, found);
        }
        ProbeKind::Tcp(check) => {
            check_port("tcp", check.port, spec, found);
            check_tls("tcp/tls", check.tls.as_ref(), found);
            check_latency("tcp/latency_max", check.latency_max, probe, found);
        }
        ProbeKind::Mqtt(check) => {
            check_mqtt(check, found);
            check_tls("mqtt/tls", check.tls.as_ref(), found);
            check_latency("mqtt/latency_max", check.latency_max, probe, found);
        }
        ProbeKind::Grpc(check) => {
            check_port("grpc", check.port, spec, found);
            check_tls("grpc/tls", check.tls.as_ref(), found);
            check_latency("grpc/latency_max", check.latency_max, probe, found);
        }
        ProbeKind::Dns(check) => {
            check_dns(check, found);
            check_latency("dns/latency_max", check.latency_max, probe, found);
        }
        ProbeKind::Llm(check) => {
            check_llm(check, probe, found);
            check_port("llm", check.port, spec, found);
            check_tls("llm/tls", check.tls.as_ref(), found);
            check_latency("llm/latency_max", check.latency_max, probe, found);
        }
        ProbeKind::Exec(check) => {
            if let Some((message, hint)) = command::fault_of(&check.command) {
                found.push(("exec/command", message, hint));
            }
        }
        ProbeKind::Disk(check) => check_disk(check, found),
        ProbeKind::Process(_) | ProbeKind::Gpu(_) | ProbeKind::LogLine(_) => {}
    }
}

fn check_http(check: &HttpCheck, found: &mut Vec<Found>) {
    check_path("http/path", &check.path, found);
    if let Some(status) = check
        .status
        .iter()
        .find(|status| !(100..=599).contains(*status))
    {
        let message = format!("{status} is no HTTP status");
        found.push(("http/status", message, "use 100 to 599".to_owned()));
    }
    if let Some(pattern) = &check.body_matches {
        check_pattern("http/body_matches", pattern, found);
    }
    for (pointer, test) in &check.json {
        check_pointer(pointer, found);
        if let JsonTest::Limits(limits) = test {
            if let Some(pattern) = &limits.matches {
                check_pattern("http/json", pattern, found);
            }
            if let (Some(min), Some(max)) = (limits.min, limits.max)
                && min > max
            {
                let message = format!("at `{pointer}`, `min` is {min} and `max` is {max}");
                found.push(("http/json", message, "swap them".to_owned()));
            }
        }
    }
    for name in check.headers.keys() {
        check_header("http/headers", name, found);
    }
    for name in check.answer_headers.keys() {
        check_header("http/answer_headers", name, found);
    }
}

fn check_path(part: &'static str, path: &str, found: &mut Vec<Found>) {
    if !path.starts_with('/') {
        let message = format!("the path is `{path}`, expected one that starts with `/`");
        let hint = match path.contains("://") {
            true => "write `host`, `port` and `path` apart; for https add `tls: {}`".to_owned(),
            false => format!("write `/{path}`"),
        };
        found.push((part, message, hint));
    }
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let message = "the path has a space in it".to_owned();
        found.push((part, message, "write `%20`".to_owned()));
    }
}

fn check_pattern(part: &'static str, pattern: &str, found: &mut Vec<Found>) {
    if let Err(error) = Regex::new(pattern) {
        // The last line of the error says what; those before draw where.
        let text = error.to_string();
        let why = text.lines().last().unwrap_or_default();
        let why = why.trim_start_matches("error: ");
        let message = format!("`{pattern}` is no regular expression: {why}");
        let hint = "write `\\\\` before a sign that is meant as itself".to_owned();
        found.push((part, message, hint));
    }
}

/// RFC 6901: empty, or `/` before each step.
fn check_pointer(pointer: &str, found: &mut Vec<Found>) {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        let message = format!("`{pointer}` is no JSON pointer");
        let hint = format!("write `/{}`", pointer.replace('.', "/"));
        found.push(("http/json", message, hint));
    }
}

/// A token of RFC 9110, section 5.6.2.
fn check_header(part: &'static str, name: &str, found: &mut Vec<Found>) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        let message = format!("`{name}` is no name of a header");
        found.push((part, message, "write for example `Accept`".to_owned()));
    }
}

fn check_mqtt(check: &MqttCheck, found: &mut Vec<Found>) {
    if let Some(topic) = &check.topic
        && (topic.is_empty() || topic.contains(['+', '#', '\0']))
    {
        let message = format!("`{topic}` is no topic to publish to");
        let hint = "write a topic without `+` and `#`".to_owned();
        found.push(("mqtt/topic", message, hint));
    }
    if check.host.is_some() {
        return;
    }
    let others = [
        ("mqtt/port", check.port.is_some()),
        ("mqtt/username", check.username.is_some()),
        ("mqtt/password_file", check.password_file.is_some()),
        ("mqtt/tls", check.tls.is_some()),
    ];
    for (part, _) in others.into_iter().filter(|(_, given)| *given) {
        let message = "without `host` it is the house's own broker, which is known".to_owned();
        found.push((part, message, "remove it, or add `host:`".to_owned()));
    }
}

fn check_dns(check: &DnsCheck, found: &mut Vec<Found>) {
    let name = check.name.trim_end_matches('.');
    let fits = |label: &str| (1..=63).contains(&label.len());
    if name.len() > 253 || !name.split('.').all(fits) {
        let message = format!("`{}` is no name of DNS", check.name);
        let hint = "write labels of 1 to 63 signs with dots between".to_owned();
        found.push(("dns/name", message, hint));
    }
    if let Some(server) = &check.server
        && server.parse::<IpAddr>().is_err()
        && server.parse::<SocketAddr>().is_err()
    {
        let message = format!("`{server}` is no address of a name server");
        let hint = "write for example `192.0.2.53` or `192.0.2.53:5353`".to_owned();
        found.push(("dns/server", message, hint));
    }
}

fn check_llm(check: &LlmCheck, probe: &Probe, found: &mut Vec<Found>) {
    check_path("llm/path", &check.path, found);
    if check.key_file.is_some() && check.key_variable.is_some() {
        let message = "both `key_file` and `key_variable` are given".to_owned();
        found.push(("llm/key_variable", message, "keep one".to_owned()));
    }
    for name in check.headers.keys() {
        check_header("llm/headers", name, found);
    }
    if probe.interval.duration() < LLM_INTERVAL_MIN {
        let message = format!(
            "`interval` is {}, and each try costs tokens: at least {}",
            probe.interval,
            Period(LLM_INTERVAL_MIN)
        );
        found.push(("interval", message, "write for example `1m`".to_owned()));
    }
}

fn check_disk(check: &DiskCheck, found: &mut Vec<Found>) {
    if check.path.is_empty() || check.path.contains('\0') {
        let message = "the path is empty".to_owned();
        let hint = "write `.` for the service's own directory".to_owned();
        found.push(("disk/path", message, hint));
    }
}

fn check_tls(part: &'static str, tls: Option<&TlsCheck>, found: &mut Vec<Found>) {
    let Some(name) = tls.and_then(|tls| tls.server_name.as_ref()) else {
        return;
    };
    if name.is_empty() || name.contains(['/', ':', ' ']) && name.parse::<IpAddr>().is_err() {
        let message = format!("`{name}` is no name that a certificate can be for");
        let hint = "write a host name such as `api.example.org`".to_owned();
        found.push((part, message, hint));
    }
}

/// A limit that the timeout makes meaningless is a mistake.
fn check_latency(part: &'static str, limit: Option<Period>, probe: &Probe, found: &mut Vec<Found>) {
    let Some(limit) = limit else { return };
    if limit.duration().is_zero() {
        let message = "the limit is 0s, so that each try is bad".to_owned();
        found.push((part, message, "write for example `500ms`".to_owned()));
    } else if limit >= probe.timeout {
        let message = format!(
            "the limit is {limit}, but a try ends after `timeout`, which is {}",
            probe.timeout
        );
        let hint = "make it shorter, or `timeout` longer".to_owned();
        found.push((part, message, hint));
    }
}

fn check_port(part: &'static str, port: Option<u16>, spec: &ServiceSpec, found: &mut Vec<Found>) {
    if port.is_some() || default_port(spec).is_some() {
        return;
    }
    let fault = match spec.ports.is_empty() {
        true => (
            "the service has no port to look at".to_owned(),
            "write `ports: {http: auto}` in the service, or `port:` here".to_owned(),
        ),
        false => (
            "the service has several ports, and none of them is named `http`".to_owned(),
            "name one `http`, or write `port:` here".to_owned(),
        ),
    };
    found.push((part, fault.0, fault.1));
}
