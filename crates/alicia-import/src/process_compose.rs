//! `process-compose.yaml`: the map `processes`.

use alicia_file::{Fault, FileText};
use serde_json::{Value, json};

use crate::draft::{Draft, Service};
use crate::reading::{self, Part, pairs, text};
use crate::supervisord::signal;
use crate::{Surroundings, quantity, shell};

/// The shell that runs commands, unless the file names another.
const SHELL: &str = "bash";

/// Processes that are disabled start when this profile is asked for.
const BY_HAND: &str = "by-hand";

pub(crate) fn read(files: Vec<FileText>, around: &Surroundings) -> Result<Draft, Vec<Fault>> {
    let document = reading::document(files)?;
    let whole = document.to_json();
    let common = whole.get("environment").map(pairs).unwrap_or_default();
    let shell = whole
        .pointer("/shell/shell_command")
        .and_then(text)
        .unwrap_or_else(|| SHELL.to_owned());
    let mut draft = Draft::named(whole.get("name").and_then(text));
    let mut faults = Vec::new();
    for (found, mut part) in reading::parts(&document, "processes")? {
        if !part.is_map() {
            faults.push(part.fault("found a process that is no map of settings"));
            continue;
        }
        let mut service = Service::default();
        for (name, value) in &common {
            service.set_in("environment", name, value.clone().unwrap_or_default());
        }
        if around.has_env_file && !part.truth("is_dotenv_disabled") {
            service.push("env_files", ".env");
        }
        if let Err(fault) = process(&mut service, &mut part, &shell) {
            faults.push(fault);
        }
        let name = draft.name_for(&found);
        draft.services.insert(name, service);
    }
    rename_needs(&mut draft);
    for key in whole.as_object().into_iter().flat_map(|map| map.keys()) {
        let known = ["version", "name", "processes", "environment", "shell"];
        if !known.contains(&key.as_str()) && !key.starts_with("x-") {
            let place = document.origin(&format!("/{key}")).to_string();
            draft.note(place, format!("`{key}` has no counterpart"));
        }
    }
    match faults.is_empty() {
        true => Ok(draft),
        false => Err(faults),
    }
}

/// Dependencies go by the new names.
pub(crate) fn rename_needs(draft: &mut Draft) {
    let renamed: Vec<_> = draft
        .services
        .iter()
        .filter_map(|(name, service)| {
            let needs = service.settings.get("depends_on")?.as_object()?;
            let needs: serde_json::Map<String, Value> = needs
                .iter()
                .map(|(found, condition)| {
                    let name = draft
                        .renamed(found)
                        .map_or(found.clone(), |name| name.to_string());
                    (name, condition.clone())
                })
                .collect();
            Some((name.clone(), needs))
        })
        .collect();
    for (name, needs) in renamed {
        if let Some(service) = draft.services.get_mut(&name) {
            service.set("depends_on", needs);
        }
    }
}

fn process(service: &mut Service, part: &mut Part<'_>, shell: &str) -> Result<(), Fault> {
    // What process-compose does unless told.
    service.set("restart", "never");
    match (part.text("command"), part.texts("entrypoint")) {
        (Some(command), _) => service.set("command", shell::command(&command, shell)),
        (None, words) if !words.is_empty() => service.set("command", json!(words)),
        _ => return Err(part.fault("found a process without `command`")),
    }
    for (key, name) in [("description", "description"), ("working_dir", "directory")] {
        part.text(key)
            .into_iter()
            .for_each(|text| service.set(name, text));
    }
    for (name, value) in part
        .get("environment")
        .as_ref()
        .map(pairs)
        .unwrap_or_default()
    {
        service.set_in("environment", &name, value.unwrap_or_default());
    }
    if let Some(replicas) = part.number("replicas") {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small count"
        )]
        service.set("instances", replicas.max(0.0) as u32);
    }
    if let Some(group) = part.text("namespace").filter(|group| group != "default") {
        service.push("groups", crate::draft::plain_name(&group));
    }
    if part.truth("disabled") {
        service.push("profiles", BY_HAND);
    }
    needs(service, part);
    availability(service, part);
    for (key, name) in [
        ("readiness_probe", "readiness"),
        ("liveness_probe", "liveness"),
    ] {
        if let Some(value) = part.get(key) {
            let place = part.place(key);
            probe(service, name, &value, &place, shell);
        }
    }
    if let Some(line) = part.text("ready_log_line") {
        service.set("readiness", json!({"log_line": {"contains": line}}));
    }
    shutdown(service, part);
    part.leave(service, "log_location", "`alicia logs` has the output");
    part.leave(
        service,
        "is_daemon",
        "a program must stay in the foreground; drop the fork",
    );
    // What is about its own screen.
    for key in [
        "is_tty",
        "is_foreground",
        "disable_ansi_colors",
        "is_dotenv_disabled",
        "log_configuration",
    ] {
        let _of_no_use_here = part.get(key);
    }
    part.leave_rest(service);
    Ok(())
}

fn needs(service: &mut Service, part: &mut Part<'_>) {
    let Some(needs) = part.get("depends_on") else {
        return;
    };
    for (name, how) in needs.as_object().into_iter().flatten() {
        let condition = how.get("condition").and_then(text).unwrap_or_default();
        let ours = match condition.as_str() {
            "process_completed" | "process_completed_successfully" => "completed",
            "process_healthy" | "process_log_ready" => "healthy",
            _ => "started",
        };
        if condition == "process_completed" {
            let message = format!("`{name}` must end with success: `completed` means that here");
            service.note(part.place("depends_on"), message);
        }
        service.set_in("depends_on", name, ours);
    }
}

fn availability(service: &mut Service, part: &mut Part<'_>) {
    let Some(availability) = part.get("availability") else {
        return;
    };
    let place = part.place("availability");
    for (key, value) in availability.as_object().into_iter().flatten() {
        match key.as_str() {
            "restart" => match text(value).unwrap_or_default().as_str() {
                "always" => service.set("restart", "always"),
                "on_failure" => service.set("restart", "on-failure"),
                "exit_on_failure" => {
                    let message = "`exit_on_failure`: the fleet goes on when one service fails";
                    service.note(&place, message);
                }
                _ => {}
            },
            "backoff_seconds" => {
                if let Some(wait) = value.as_f64().and_then(quantity::seconds) {
                    service.set(
                        "back_off",
                        json!({"initial": wait, "max": wait, "jitter": 0}),
                    );
                }
            }
            "max_restarts" => match value.as_u64() {
                Some(limit @ 1..) => {
                    service.set("start_limit", json!({"starts": limit + 1, "within": "1d"}))
                }
                _ => service.set("start_limit", json!({"starts": 0})),
            },
            key => service.note(&place, format!("`{key}` has no counterpart")),
        }
    }
}

/// A probe of process-compose, which has the shape of those of Kubernetes.
fn probe(service: &mut Service, name: &str, value: &Value, place: &str, shell: &str) {
    if let Some(command) = value.pointer("/exec/command").and_then(text) {
        service.set_in(
            name,
            "exec",
            json!({"command": shell::command(&command, shell)}),
        );
    }
    if let Some(http) = value.get("http_get") {
        let mut check =
            json!({"path": http.get("path").and_then(text).unwrap_or_else(|| "/".into())});
        if let Some(host) = http
            .get("host")
            .and_then(text)
            .filter(|host| host != "127.0.0.1")
        {
            check["host"] = json!(if host == "localhost" {
                "127.0.0.1".to_owned()
            } else {
                host
            });
        }
        match http
            .get("port")
            .and_then(text)
            .and_then(|port| port.parse::<u16>().ok())
        {
            Some(port) => check["port"] = json!(port),
            None => service.note(place, "the port of the probe is no number"),
        }
        if http
            .get("scheme")
            .and_then(text)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
        {
            service.note(
                place,
                "the probe was made over https; see `check` for how to write that",
            );
        }
        service.set_in(name, "http", check);
    }
    for (theirs, ours) in [
        ("initial_delay_seconds", "delay"),
        ("period_seconds", "interval"),
        ("timeout_seconds", "timeout"),
    ] {
        let period = value
            .get(theirs)
            .and_then(Value::as_f64)
            .and_then(quantity::seconds);
        period
            .into_iter()
            .for_each(|period| service.set_in(name, ours, period));
    }
    for (theirs, ours) in [("success_threshold", "rise"), ("failure_threshold", "fall")] {
        let count = value
            .get(theirs)
            .and_then(Value::as_u64)
            .filter(|count| *count > 0);
        count
            .into_iter()
            .for_each(|count| service.set_in(name, ours, count));
    }
}

fn shutdown(service: &mut Service, part: &mut Part<'_>) {
    let Some(shutdown) = part.get("shutdown") else {
        return;
    };
    let place = part.place("shutdown");
    for (key, value) in shutdown.as_object().into_iter().flatten() {
        match key.as_str() {
            "signal" => match text(value).and_then(|found| signal(&found)) {
                Some(signal) => service.set_in("stop", "signal", signal),
                None => service.note(&place, format!("the signal {value} is not offered")),
            },
            "timeout_seconds" => {
                let grace = value.as_f64().and_then(quantity::seconds);
                grace
                    .into_iter()
                    .for_each(|grace| service.set_in("stop", "grace", grace));
            }
            // The signal goes to the whole tree, and what is left is killed.
            "parent_only" if value == false => {}
            key => service.note(&place, format!("`{key}` has no counterpart")),
        }
    }
}
