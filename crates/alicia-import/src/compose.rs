//! `compose.yaml` (the Compose specification): each service runs in a container.

use std::collections::BTreeMap;

use alicia_file::{Fault, FileText};
use serde_json::{Value, json};

use crate::draft::{Draft, Service};
use crate::process_compose::rename_needs;
use crate::reading::{self, Part, pairs, text, texts};
use crate::supervisord::signal;
use crate::{Surroundings, quantity};

mod interpolate;
mod ports;

/// How long Docker waits after the stop signal.
const STOP_GRACE: &str = "10s";

pub(crate) fn read(files: Vec<FileText>, around: &Surroundings) -> Result<Draft, Vec<Fault>> {
    let document = reading::document(files)?;
    let whole = document.to_json();
    let mut draft = Draft::named(whole.get("name").and_then(text));
    let mut faults = Vec::new();
    for (found, mut part) in reading::parts(&document, "services")? {
        if !part.is_map() {
            faults.push(part.fault("found a service that is no map of settings"));
            continue;
        }
        let mut service = Service::default();
        match take(&mut service, &mut part) {
            Ok(()) => {
                let mut missing = BTreeMap::new();
                let settings = Value::Object(std::mem::take(&mut service.settings));
                let settings = interpolate::all(settings, &around.variables, &mut missing);
                service.settings = settings.as_object().cloned().unwrap_or_default();
                for (name, message) in missing {
                    service.note(part.place(""), format!("`${{{name}}}`: {message}"));
                }
                let name = draft.name_for(&found);
                draft.services.insert(name, service);
            }
            Err(fault) => faults.push(fault),
        }
    }
    rename_needs(&mut draft);
    for key in whole.as_object().into_iter().flat_map(|map| map.keys()) {
        let place = || document.origin(&format!("/{key}")).to_string();
        match key.as_str() {
            "name" | "services" | "version" => {}
            "volumes" => draft.note(
                place(),
                "`volumes`: the engine makes named volumes by itself",
            ),
            "networks" => draft.note(
                place(),
                "`networks`: containers reach each other through the ports of this machine",
            ),
            "include" | "secrets" | "configs" | "models" => {
                draft.note(place(), format!("`{key}` has no counterpart"));
            }
            key if key.starts_with("x-") => {}
            key => draft.note(place(), format!("`{key}` has no counterpart")),
        }
    }
    match faults.is_empty() {
        true => Ok(draft),
        false => Err(faults),
    }
}

fn take(service: &mut Service, part: &mut Part<'_>) -> Result<(), Fault> {
    // What Docker does unless told.
    service.set("restart", "never");
    service.set_in("stop", "grace", STOP_GRACE);
    match part.text("image") {
        Some(image) => service.set_in("container", "image", image),
        None if part.value().get("build").is_some() => {
            let place = part.place("build");
            service.note(
                place,
                "`build`: build the image yourself and name it as `container.image`",
            );
            service.set_in("container", "image", "CHANGE-ME");
        }
        None => {
            let hint = "a service of compose runs in a container; `extends` is not followed";
            return Err(part
                .fault("found a service without `image`")
                .with_hint(hint));
        }
    }
    part.leave(service, "build", "images are not built here");
    container(service, part);
    process(service, part);
    needs(service, part);
    restart(service, part);
    health(service, part);
    limits(service, part);
    ports::take(service, part);
    part.leave(
        service,
        "networks",
        "containers reach each other through the ports of this machine",
    );
    part.leave(
        service,
        "container_name",
        "a container has the name of its instance",
    );
    part.leave(service, "logging", "`alicia logs` has the output");
    let _always_so_here = (part.get("tty"), part.get("stdin_open"), part.get("init"));
    part.leave_rest(service);
    Ok(())
}

fn container(service: &mut Service, part: &mut Part<'_>) {
    match part.get("entrypoint") {
        Some(Value::String(text)) => service.set_in("container", "entrypoint", words(&text)),
        Some(list) => service.set_in("container", "entrypoint", json!(texts(&list))),
        None => {}
    }
    match part.get("command") {
        Some(Value::String(text)) => service.set("command", words(&text)),
        Some(list) => service.set("command", json!(texts(&list))),
        None => {}
    }
    let place = part.place("volumes");
    for volume in part
        .get("volumes")
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        match volume_of(volume) {
            Some(volume) => add_to(service, "volumes", volume),
            None => service.note(&place, format!("`{volume}` has no counterpart")),
        }
    }
    if part.truth("read_only") {
        service.set_in("container", "read_only", true);
    }
    for (theirs, ours) in [
        ("working_dir", "directory"),
        ("user", "user"),
        ("pull_policy", "pull"),
    ] {
        if let Some(text) = part.text(theirs) {
            service.set_in("container", ours, text);
        }
    }
    match part.text("network_mode").as_deref() {
        Some(mode @ ("host" | "none" | "bridge")) => service.set_in("container", "network", mode),
        Some(mode) => service.note(
            part.place("network_mode"),
            format!("`network_mode: {mode}` has no counterpart"),
        ),
        None => {}
    }
    for (theirs, ours) in [
        ("cap_add", "capabilities_add"),
        ("cap_drop", "capabilities_drop"),
    ] {
        for name in part.texts(theirs) {
            add_to(service, ours, name);
        }
    }
}

/// Adds to a list of `container`.
fn add_to(service: &mut Service, name: &str, value: String) {
    let mut list = service.settings["container"]
        .get(name)
        .cloned()
        .unwrap_or_else(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(json!(value));
    }
    service.set_in("container", name, list);
}

/// `source:target[:ro]` of a short or long volume.
fn volume_of(volume: &Value) -> Option<String> {
    if let Some(short) = volume.as_str() {
        return short.contains(':').then(|| short.to_owned());
    }
    let field = |key: &str| volume.get(key).and_then(text);
    if field("type").is_some_and(|kind| kind != "bind" && kind != "volume") {
        return None;
    }
    let end = match volume.get("read_only") {
        Some(Value::Bool(true)) => ":ro",
        _ => "",
    };
    Some(format!("{}:{}{end}", field("source")?, field("target")?))
}

fn process(service: &mut Service, part: &mut Part<'_>) {
    let place = part.place("environment");
    for (name, value) in part
        .get("environment")
        .as_ref()
        .map(pairs)
        .unwrap_or_default()
    {
        match value {
            Some(value) => service.set_in("environment", &name, value),
            None => service.note(
                &place,
                format!("`{name}` came from the shell: write its value"),
            ),
        }
    }
    match part.get("env_file") {
        Some(Value::Array(files)) => {
            for file in files {
                let path = file.get("path").and_then(text).or_else(|| text(&file));
                path.into_iter()
                    .for_each(|path| service.push("env_files", path));
            }
        }
        Some(file) => text(&file)
            .into_iter()
            .for_each(|path| service.push("env_files", path)),
        None => {}
    }
    let deploy = part.get("deploy").unwrap_or_default();
    let replicas = deploy
        .get("replicas")
        .cloned()
        .or_else(|| part.get("scale"));
    replicas
        .into_iter()
        .for_each(|replicas| service.set("instances", replicas));
    for (name, value) in part.get("labels").as_ref().map(pairs).unwrap_or_default() {
        service.set_in("labels", &name, value.unwrap_or_default());
    }
    for profile in part.texts("profiles") {
        service.push("profiles", crate::draft::plain_name(&profile));
    }
    if let Some(grace) = part.text("stop_grace_period") {
        match quantity::go_duration(&grace) {
            Some(grace) => service.set_in("stop", "grace", grace),
            None => service.note(
                part.place("stop_grace_period"),
                format!("`{grace}` is no period"),
            ),
        }
    }
    if let Some(found) = part.text("stop_signal") {
        match signal(&found) {
            Some(signal) => service.set_in("stop", "signal", signal),
            None => service.note(
                part.place("stop_signal"),
                format!("the signal {found} is not offered"),
            ),
        }
    }
}

fn needs(service: &mut Service, part: &mut Part<'_>) {
    match part.get("depends_on") {
        Some(Value::Object(map)) => {
            for (name, how) in map {
                let condition = match how.get("condition").and_then(text).as_deref() {
                    Some("service_healthy") => "healthy",
                    Some("service_completed_successfully") => "completed",
                    _ => "started",
                };
                service.set_in("depends_on", &name, condition);
            }
        }
        Some(list) => texts(&list)
            .iter()
            .for_each(|name| service.set_in("depends_on", name, "started")),
        None => {}
    }
    for link in part.texts("links") {
        let name = link.split(':').next().unwrap_or(&link).to_owned();
        service.set_in("depends_on", &name, "started");
    }
}

fn restart(service: &mut Service, part: &mut Part<'_>) {
    let Some(policy) = part.text("restart") else {
        return;
    };
    match policy.split_once(':').unwrap_or((&policy, "")) {
        ("always" | "unless-stopped", _) => service.set("restart", "always"),
        ("on-failure", limit) => {
            service.set("restart", "on-failure");
            if let Ok(limit) = limit.parse::<u32>() {
                service.set(
                    "start_limit",
                    json!({"starts": limit.saturating_add(1), "within": "1d"}),
                );
            }
        }
        _ => {}
    }
}

fn health(service: &mut Service, part: &mut Part<'_>) {
    let Some(check) = part.get("healthcheck") else {
        return;
    };
    let command = match check.get("test") {
        Some(Value::Array(words)) => match words.first().and_then(Value::as_str) {
            Some("CMD") => json!(words[1..]),
            Some("CMD-SHELL") => json!(["sh", "-c", words.get(1).cloned().unwrap_or_default()]),
            _ => return,
        },
        Some(Value::String(text)) => json!(["sh", "-c", text]),
        _ => return,
    };
    for name in ["readiness", "liveness"] {
        service.set_in(name, "exec", json!({"command": command}));
        for (theirs, ours) in [("interval", "interval"), ("timeout", "timeout")] {
            let period = check
                .get(theirs)
                .and_then(text)
                .and_then(|text| quantity::go_duration(&text));
            period
                .into_iter()
                .for_each(|period| service.set_in(name, ours, period));
        }
    }
    let retries = check.get("retries").and_then(Value::as_u64);
    retries
        .into_iter()
        .for_each(|fall| service.set_in("liveness", "fall", fall));
    let start = check
        .get("start_period")
        .and_then(text)
        .and_then(|text| quantity::go_duration(&text));
    start
        .into_iter()
        .for_each(|period| service.set("start_timeout", period));
}

fn limits(service: &mut Service, part: &mut Part<'_>) {
    let deploy = part
        .value()
        .pointer("/deploy/resources/limits")
        .cloned()
        .unwrap_or_default();
    let own = |key: &str| deploy.get(key).and_then(text);
    let memory = own("memory").or_else(|| part.text("mem_limit"));
    if let Some(size) = memory.and_then(|text| quantity::size(&text)) {
        service.set_in("limits", "memory", size);
    }
    let cpus = own("cpus").or_else(|| part.text("cpus"));
    if let Some(cpus) = cpus.and_then(|text| text.parse::<f64>().ok()) {
        service.set_in("limits", "cpu", cpus);
    }
    let pids = own("pids").or_else(|| part.text("pids_limit"));
    if let Some(pids) = pids.and_then(|text| text.parse::<u64>().ok()) {
        service.set_in("limits", "processes", pids);
    }
    let files = part.get("ulimits").and_then(|limits| {
        let files = limits.get("nofile")?;
        files.as_u64().or_else(|| files.get("soft")?.as_u64())
    });
    files
        .into_iter()
        .for_each(|files| service.set_in("limits", "open_files", files));
}

fn words(text: &str) -> Value {
    shell_words::split(text).map_or_else(|_| json!(text), |words| json!(words))
}
