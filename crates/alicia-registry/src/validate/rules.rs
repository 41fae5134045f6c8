//! The rules that a schema cannot say, one function each. A value of the wrong type is left to the schema.

use std::collections::HashSet;

use alicia_contract::discovery::{METADATA_BYTES_MAX, PROTOCOL_MAJOR, RESERVED_NAMES};
use alicia_contract::problem::InputFault;
use alicia_contract::topic::TOPIC_BYTES_MAX;
use semver::Version;
use serde_json::{Map, Value};

use super::{escape, fault, schemas};

/// Most capabilities of one instance: it should fit on a page, and in a message.
const CAPABILITIES_MAX: usize = 64;
/// Most tags of one capability.
const TAGS_MAX: usize = 32;
/// Most labels of one instance.
const LABELS_MAX: usize = 64;
/// Most protocol versions.
const PROTOCOLS_MAX: usize = 16;
/// Longest tag, name of a label, in characters: as an id.
const NAME_CHARS_MAX: usize = 63;
/// Longest value of a label, in characters.
const LABEL_CHARS_MAX: usize = 256;
/// Longest description, in characters: it is one line.
const DESCRIPTION_CHARS_MAX: usize = 500;
/// Longest URL, in bytes; longer ones do not pass common proxies.
const URL_BYTES_MAX: usize = 2_048;
/// Longest version, in bytes.
const VERSION_BYTES_MAX: usize = 128;
/// The range of a lease, in seconds.
const LEASE_S: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;

type Faults = Vec<InputFault>;

pub(super) fn check(value: &Value, faults: &mut Faults) {
    let Some(body) = value.as_object() else {
        return;
    };
    name(body, faults);
    instance(body, faults);
    version("/version", body.get("version"), faults);
    protocols(body, faults);
    capabilities(body, faults);
    endpoints(body, faults);
    metadata(body, faults);
    labels(body, faults);
    lease(body, faults);
}

fn name(body: &Map<String, Value>, faults: &mut Faults) {
    let Some(name) = body.get("service").and_then(Value::as_str) else {
        return;
    };
    if RESERVED_NAMES.contains(&name) {
        let found = format!("`{name}` is a level of the bus topics; choose another name");
        faults.push(fault("/service", &found));
    }
}

fn instance(body: &Map<String, Value>, faults: &mut Faults) {
    let Some(id) = body.get("instance").and_then(Value::as_str) else {
        return;
    };
    if ulid::Ulid::from_string(id).is_err() {
        let expected = "expected a ULID in lower case, 26 characters, new at every start";
        faults.push(fault("/instance", &format!("found {id:?}, {expected}")));
    }
}

fn version(pointer: &str, value: Option<&Value>, faults: &mut Faults) {
    let Some(text) = value.and_then(Value::as_str) else {
        return;
    };
    let fits = text.len() <= VERSION_BYTES_MAX;
    if !fits || Version::parse(text).is_err() {
        let found = format!("found {text:?}, expected a semantic version such as 1.2.3");
        faults.push(fault(pointer, &found));
    }
}

fn protocols(body: &Map<String, Value>, faults: &mut Faults) {
    let Some(list) = body.get("protocols").and_then(Value::as_array) else {
        return;
    };
    count("/protocols", list.len(), PROTOCOLS_MAX, faults);
    for (at, item) in list.iter().enumerate().take(PROTOCOLS_MAX) {
        version(&format!("/protocols/{at}"), Some(item), faults);
    }
    let majors: Vec<u64> = list
        .iter()
        .filter_map(|item| Version::parse(item.as_str()?).ok())
        .map(|version| version.major)
        .collect();
    if !majors.contains(&PROTOCOL_MAJOR) {
        let found = format!("found majors {majors:?}, this registry speaks major {PROTOCOL_MAJOR}");
        faults.push(fault("/protocols", &found));
    }
}

fn capabilities(body: &Map<String, Value>, faults: &mut Faults) {
    let Some(list) = body.get("capabilities").and_then(Value::as_array) else {
        return;
    };
    count("/capabilities", list.len(), CAPABILITIES_MAX, faults);
    let mut names = HashSet::new();
    for (at, item) in list.iter().enumerate().take(CAPABILITIES_MAX) {
        if let Some(item) = item.as_object() {
            capability(&format!("/capabilities/{at}"), item, faults);
        }
        let name = item.get("name").and_then(Value::as_str);
        if name.is_some_and(|name| !names.insert(name)) {
            let pointer = format!("/capabilities/{at}/name");
            faults.push(fault(
                &pointer,
                "is there twice; a call could not tell them apart",
            ));
        }
    }
}

fn capability(at: &str, item: &Map<String, Value>, faults: &mut Faults) {
    version(&format!("{at}/version"), item.get("version"), faults);
    let description = item
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    length(
        &format!("{at}/description"),
        description,
        DESCRIPTION_CHARS_MAX,
        faults,
    );
    for field in ["input_schema", "output_schema"] {
        schema(&format!("{at}/{field}"), item.get(field), faults);
    }
    for field in ["cost_usd", "latency_ms"] {
        let hint = item.get(field).and_then(Value::as_f64).unwrap_or_default();
        if hint < 0.0 {
            faults.push(fault(
                &format!("{at}/{field}"),
                &format!("found {hint}, expected 0 or more"),
            ));
        }
    }
    let Some(tags) = item.get("tags").and_then(Value::as_array) else {
        return;
    };
    count(&format!("{at}/tags"), tags.len(), TAGS_MAX, faults);
    for (n, tag) in tags
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
        .take(TAGS_MAX)
    {
        length(&format!("{at}/tags/{n}"), tag, NAME_CHARS_MAX, faults);
    }
}

fn schema(pointer: &str, value: Option<&Value>, faults: &mut Faults) {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return;
    };
    if let Err(wrong) = schemas::check(value) {
        faults.push(fault(
            &format!("{pointer}{}", wrong.pointer),
            &wrong.message,
        ));
    }
}

fn endpoints(body: &Map<String, Value>, faults: &mut Faults) {
    let Some(endpoints) = body.get("endpoints").and_then(Value::as_object) else {
        return;
    };
    for field in ["http", "mcp", "a2a"] {
        let Some(url) = endpoints.get(field).and_then(Value::as_str) else {
            continue;
        };
        if !is_http_url(url) {
            let found = format!("found {url:?}, expected a URL such as http://127.0.0.1:8080");
            faults.push(fault(&format!("/endpoints/{field}"), &found));
        }
    }
    let Some(topic) = endpoints.get("mqtt").and_then(Value::as_str) else {
        return;
    };
    if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || topic.contains(['+', '#', '\0']) {
        let found = format!("found {topic:?}, expected a topic without wildcards");
        faults.push(fault("/endpoints/mqtt", &found));
    }
}

/// `http` or `https`, a host, no blanks or control characters.
fn is_http_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let host = rest
        .and_then(|rest| rest.split(['/', '?', '#']).next())
        .unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '`');
    url.len() <= URL_BYTES_MAX
        && url.chars().all(plain)
        && !host.is_empty()
        && !host.starts_with(':')
}

fn metadata(body: &Map<String, Value>, faults: &mut Faults) {
    if let Some(value) = body.get("metadata") {
        size("/metadata", value, METADATA_BYTES_MAX, faults);
    }
}

fn labels(body: &Map<String, Value>, faults: &mut Faults) {
    let Some(labels) = body.get("labels").and_then(Value::as_object) else {
        return;
    };
    count("/labels", labels.len(), LABELS_MAX, faults);
    for (name, value) in labels.iter().take(LABELS_MAX) {
        let pointer = format!("/labels/{}", escape(name));
        length(&pointer, name, NAME_CHARS_MAX, faults);
        length(
            &pointer,
            value.as_str().unwrap_or_default(),
            LABEL_CHARS_MAX,
            faults,
        );
    }
}

fn lease(body: &Map<String, Value>, faults: &mut Faults) {
    let Some(lease_s) = body.get("lease_s").and_then(Value::as_f64) else {
        return;
    };
    if !LEASE_S.contains(&lease_s) {
        let (low, high) = (LEASE_S.start(), LEASE_S.end());
        faults.push(fault(
            "/lease_s",
            &format!("found {lease_s}, expected {low} to {high} seconds"),
        ));
    }
}

fn count(pointer: &str, found: usize, limit: usize, faults: &mut Faults) {
    if found > limit {
        faults.push(fault(
            pointer,
            &format!("found {found} of them, expected at most {limit}"),
        ));
    }
}

fn length(pointer: &str, text: &str, limit: usize, faults: &mut Faults) {
    let found = text.chars().count();
    if found > limit {
        faults.push(fault(
            pointer,
            &format!("found {found} characters, expected at most {limit}"),
        ));
    }
}

fn size(pointer: &str, value: &Value, limit: usize, faults: &mut Faults) {
    let found = value.to_string().len();
    if found > limit {
        faults.push(fault(
            pointer,
            &format!("found {found} bytes of JSON, expected at most {limit}"),
        ));
    }
}
