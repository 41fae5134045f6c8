//! The ecosystem file of pm2, as JSON or YAML. One in JavaScript is evaluated before it comes here.

use alicia_file::{Fault, FileText, pointer_to};
use serde_json::{Value, json};

use crate::draft::{Draft, Service};
use crate::reading::{self, pairs, text, texts};
use crate::{quantity, shell};

/// How pm2 runs a script by the end of its name, as of pm2 7.
const INTERPRETERS: [(&str, &str); 10] = [
    (".js", "node"),
    (".cjs", "node"),
    (".mjs", "node"),
    (".ts", "node"),
    (".py", "python3"),
    (".sh", "bash"),
    (".rb", "ruby"),
    (".php", "php"),
    (".pl", "perl"),
    (".coffee", "coffee"),
];

/// How long pm2 waits after its SIGINT, in milliseconds.
const KILL_TIMEOUT_MS: f64 = 1_600.0;

/// How many restarts of a program that does not stay up pm2 makes, and what counts as up, in milliseconds.
const MAX_RESTARTS: u64 = 16;
const MIN_UPTIME_MS: f64 = 1_000.0;

pub(crate) fn read(files: Vec<FileText>) -> Result<Draft, Vec<Fault>> {
    // A list of apps without the key `apps` is allowed too.
    let files = files.into_iter().map(|mut file| {
        if file.bytes.trim_ascii_start().starts_with(b"[") {
            file.bytes = [b"{\"apps\": ", file.bytes.as_slice(), b"}"].concat();
        }
        file
    });
    let document = reading::document(files.collect())?;
    let whole = document.to_json();
    let apps = match whole.get("apps") {
        Some(Value::Array(apps)) => apps.clone(),
        Some(app @ Value::Object(_)) => vec![app.clone()],
        _ => {
            let fault =
                document.fault_at("", "found no list `apps`, so there is nothing to import");
            return Err(vec![fault.with_hint("is this an ecosystem file of pm2?")]);
        }
    };
    let mut draft = Draft::default();
    if whole.get("deploy").is_some() {
        let place = document.origin("/deploy").to_string();
        draft.note(
            place,
            "`deploy`: copying to other machines is not done here",
        );
    }
    let mut faults = Vec::new();
    for (index, app) in apps.iter().enumerate() {
        let pointer = pointer_to("/apps", &index.to_string());
        let place = document.origin(&pointer).to_string();
        match service(app, &place) {
            Some((name, service)) => {
                let name = draft.name_for(&name);
                draft.services.insert(name, service);
            }
            None => faults.push(document.fault_at(&pointer, "found an app without `script`")),
        }
    }
    match faults.is_empty() {
        true => Ok(draft),
        false => Err(faults),
    }
}

fn service(app: &Value, place: &str) -> Option<(String, Service)> {
    let script = app
        .get("script")
        .or_else(|| app.get("exec"))
        .and_then(text)?;
    let stem = script.rsplit('/').next().unwrap_or(&script);
    let stem = stem.split('.').next().unwrap_or(stem).to_owned();
    let name = app.get("name").and_then(text).unwrap_or(stem);
    let mut service = Service::default();
    // What pm2 does unless told.
    service.set(
        "stop",
        json!({"signal": "SIGINT", "grace": quantity::milliseconds(KILL_TIMEOUT_MS)}),
    );
    service.set(
        "back_off",
        json!({"initial": "0s", "max": "0s", "jitter": 0}),
    );
    service.set("command", command(app, &script));
    restarts(app, &mut service);
    for (key, value) in app.as_object()? {
        setting(&mut service, key, value, place);
    }
    Some((name, service))
}

fn command(app: &Value, script: &str) -> Value {
    let list = |key: &str| match app.get(key) {
        Some(Value::String(text)) => {
            shell_words::split(text).unwrap_or_else(|_| vec![text.clone()])
        }
        Some(other) => texts(other),
        None => Vec::new(),
    };
    let chosen = ["interpreter", "exec_interpreter"]
        .iter()
        .find_map(|key| app.get(*key).and_then(text));
    let known = INTERPRETERS.iter().find(|(end, _)| script.ends_with(end));
    let interpreter = match chosen.as_deref() {
        Some("none" | "") => None,
        Some("python") => Some("python3"),
        Some(named) => Some(named),
        None => known.map(|(_, interpreter)| *interpreter),
    };
    let mut words: Vec<String> = interpreter.map(str::to_owned).into_iter().collect();
    if interpreter.is_some() {
        for key in ["interpreter_args", "node_args"] {
            words.extend(list(key));
        }
    }
    // `script: npm` and `script: "npm start"` are programs of the PATH.
    match interpreter {
        None => {
            words.extend(shell_words::split(script).unwrap_or_else(|_| vec![script.to_owned()]))
        }
        Some(_) => words.push(script.to_owned()),
    }
    words.extend(list("args"));
    let quoted: Vec<String> = words.iter().map(|word| shell::quote(word)).collect();
    match quoted == words {
        true => json!(words.join(" ")),
        false => json!(words),
    }
}

fn restarts(app: &Value, service: &mut Service) {
    let number = |key: &str| {
        app.get(key)
            .and_then(text)
            .and_then(|text| text.parse::<f64>().ok())
    };
    let limit = app
        .get("max_restarts")
        .and_then(Value::as_u64)
        .unwrap_or(MAX_RESTARTS);
    let uptime = match app.get("min_uptime") {
        Some(Value::String(text)) => quantity::go_duration(text),
        Some(value) => value.as_f64().map(quantity::milliseconds),
        None => Some(quantity::milliseconds(MIN_UPTIME_MS)),
    };
    if let Some(uptime) = uptime {
        service.set_in("back_off", "reset_after", uptime);
    }
    service.set("start_limit", json!({"starts": limit + 1, "within": "1m"}));
    if let Some(delay) = number("restart_delay").filter(|delay| *delay > 0.0) {
        let delay = quantity::milliseconds(delay);
        service.set_in("back_off", "initial", delay.clone());
        service.set_in("back_off", "max", delay);
    }
    if let Some(delay) = number("exp_backoff_restart_delay").filter(|delay| *delay > 0.0) {
        let back_off = json!({
            "initial": quantity::milliseconds(delay), "max": "15s", "factor": 1.5, "jitter": 0,
        });
        service.set("back_off", back_off);
    }
}

fn setting(service: &mut Service, key: &str, value: &Value, place: &str) {
    let ms = || {
        value
            .as_f64()
            .filter(|ms| *ms >= 0.0)
            .map(quantity::milliseconds)
    };
    match key {
        // Done already, or about things that are always so here.
        "name" | "script" | "exec" | "args" | "interpreter" | "exec_interpreter"
        | "interpreter_args" | "node_args" | "max_restarts" | "min_uptime" | "restart_delay"
        | "exp_backoff_restart_delay" | "treekill" | "merge_logs" | "combine_logs" | "time"
        | "log_date_format" | "vizion" | "pmx" | "automation" | "source_map_support"
        | "autorestart" | "watch" | "windowsHide"
            if !matters(key, value) => {}
        "cwd" => set_text(service, "directory", value),
        "env" => {
            for (name, value) in pairs(value) {
                service.set_in("environment", &name, value.unwrap_or_default());
            }
        }
        "env_file" => set_list(service, "env_files", value),
        "user" | "uid" => set_text(service, "user", value),
        "namespace" => {
            let group = text(value).map(|group| crate::draft::plain_name(&group));
            group.into_iter().for_each(|group| service.push("groups", group));
        }
        "instances" => instances(service, value, place),
        "exec_mode" if value == "cluster" || value == "cluster_mode" => service.note(
            place,
            "`exec_mode: cluster`: instances do not share a port through node's cluster; give each its own with `ports: {http: auto}`",
        ),
        "exec_mode" => {}
        "autorestart" => service.set("restart", "never"),
        "stop_exit_codes" => {
            let codes: Vec<Value> = texts(value).iter().filter_map(|code| code.parse::<u8>().ok()).map(Value::from).collect();
            service.set("success_exit_codes", codes);
            service.set("restart", "on-failure");
        }
        "max_memory_restart" => {
            let size = text(value).and_then(|text| quantity::size(&text));
            size.into_iter().for_each(|size| service.set_in("limits", "memory", size));
        }
        "kill_timeout" => ms().into_iter().for_each(|grace| service.set_in("stop", "grace", grace)),
        "listen_timeout" => ms().into_iter().for_each(|time| service.set("start_timeout", time)),
        "wait_ready" => service.note(place, "`wait_ready`: `process.send('ready')` is not heard; write a `readiness` probe"),
        "watch" => service.note(place, "`watch`: files are not watched"),
        "cron_restart" | "cron" => service.note(place, format!("`{key}: {value}`: restarts by the clock have no counterpart")),
        "out_file" | "error_file" | "output" | "error" | "log" | "log_file" | "pid_file" | "pid" => {
            service.note(place, format!("`{key}`: `alicia logs` has the output"));
        }
        key if key.starts_with("env_") => service.note(
            place,
            format!("`{key}`: another set of variables; write it to a file of `env_files`"),
        ),
        key => service.note(place, format!("`{key}` has no counterpart")),
    }
}

/// Whether a setting of the first group says something that has to be carried over after all.
fn matters(key: &str, value: &Value) -> bool {
    match key {
        "autorestart" => value == false,
        "watch" => value != false,
        _ => false,
    }
}

fn set_text(service: &mut Service, name: &str, value: &Value) {
    text(value)
        .into_iter()
        .for_each(|text| service.set(name, text));
}

fn set_list(service: &mut Service, name: &str, value: &Value) {
    texts(value)
        .into_iter()
        .for_each(|text| service.push(name, text));
}

fn instances(service: &mut Service, value: &Value, place: &str) {
    match (value.as_i64(), value.as_str()) {
        (Some(number), _) if number > 0 => service.set("instances", number),
        (_, Some(text)) if text.parse::<u32>().is_ok_and(|number| number > 0) => {
            service.set("instances", text.parse::<u32>().unwrap_or(1));
        }
        _ => service.note(
            place,
            format!("`instances: {value}`: as many as there are cores; write the number"),
        ),
    }
}
