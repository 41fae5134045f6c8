//! Unit files of systemd: the section `[Service]` of each `*.service`.

use std::path::Path;

use alicia_file::{Fault, FileText};
use serde_json::{Value, json};

use crate::draft::{Draft, Service};
use crate::ini::{self, Pair, Style};
use crate::supervisord::signal;
use crate::{quantity, shell};

pub(crate) fn read(files: Vec<FileText>) -> Result<Draft, Vec<Fault>> {
    let mut draft = Draft::default();
    let mut faults = Vec::new();
    let mut needs = Vec::new();
    for file in files {
        let path = Path::new(&file.name);
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.extension().is_some_and(|kind| kind != "service") {
            let message = "only `.service` units are imported: ports, schedules and paths are settings of a service here";
            draft.note(file.name.clone(), message);
            continue;
        }
        match ini::read(&file, Style::Systemd)
            .and_then(|sections| unit(&file.name, &stem, sections))
        {
            Ok(unit) => {
                let name = draft.name_for(stem.trim_end_matches('@'));
                needs.push((name.clone(), unit.needs));
                draft.services.insert(name, unit.service);
            }
            Err(found) => faults.extend(found),
        }
    }
    // Names are known now.
    for (name, units) in needs {
        for (needed, place) in units {
            let found = draft.renamed(needed.trim_end_matches('@'));
            let Some(service) = draft.services.get_mut(&name) else {
                continue;
            };
            match found {
                Some(needed) if needed != name => {
                    service.set_in("depends_on", needed.as_str(), "healthy");
                }
                Some(_) => {}
                None => service.note(place, format!("`{needed}` is not among the imported units")),
            }
        }
    }
    if draft.services.is_empty() && faults.is_empty() {
        faults.push(Fault::of_value(
            "",
            "found no unit with a section `[Service]`",
        ));
    }
    match faults.is_empty() {
        true => Ok(draft),
        false => Err(faults),
    }
}

struct Unit {
    service: Service,
    /// Units that must be there first, and where that is said.
    needs: Vec<(String, String)>,
}

fn unit(file: &str, stem: &str, sections: Vec<ini::Section>) -> Result<Unit, Vec<Fault>> {
    let mut service = Service::default();
    // What systemd does unless told (systemd.service(5)).
    service.set("restart", "never");
    let mut needs = Vec::new();
    let mut kind = "simple".to_owned();
    for section in sections {
        for pair in &section.pairs {
            match (section.name.as_str(), pair.key.as_str()) {
                ("Unit", "Description") => service.set("description", pair.value.as_str()),
                ("Unit", "After" | "Requires" | "Wants" | "BindsTo" | "Requisite") => {
                    needs.extend(units_of(pair));
                }
                ("Unit" | "Service", "StartLimitBurst") => number_in(&mut service, "starts", pair),
                ("Unit" | "Service", "StartLimitIntervalSec" | "StartLimitInterval") => {
                    span_in(&mut service, "start_limit", "within", pair);
                }
                // Texts for people, and when it starts: it starts with the fleet.
                ("Unit", "Documentation" | "DefaultDependencies" | "Before") | ("Install", _) => {}
                ("Service", "Type") => kind = pair.value.to_ascii_lowercase(),
                ("Service", _) => setting(&mut service, pair, stem),
                _ => service.note(
                    &pair.place,
                    format!("`{}={}` has no counterpart", pair.key, pair.value),
                ),
            }
        }
    }
    settle_type(&mut service, file, &kind);
    if !service.settings.contains_key("command") {
        let message = format!("{file}: there is no `ExecStart=` in `[Service]`");
        return Err(vec![Fault::of_value("", message)]);
    }
    Ok(Unit { service, needs })
}

fn settle_type(service: &mut Service, file: &str, kind: &str) {
    match kind {
        "notify" | "notify-reload" => service.set("readiness", json!({"notify": true})),
        "oneshot" => {}
        "forking" => service.note(
            file,
            "`Type=forking`: the program must stay in the foreground; look for such an option and drop the fork",
        ),
        "dbus" => service.note(file, "`Type=dbus`: write a `readiness` probe"),
        _ => {}
    }
}

fn units_of(pair: &Pair) -> Vec<(String, String)> {
    let names = pair.value.split_whitespace();
    // Targets and mounts order the boot of a machine, which is over here.
    names
        .filter_map(|name| name.strip_suffix(".service"))
        .map(|name| (name.to_owned(), pair.place.clone()))
        .collect()
}

fn setting(service: &mut Service, pair: &Pair, stem: &str) {
    let value = pair.value.as_str();
    match pair.key.as_str() {
        "ExecStart" if value.is_empty() => {
            service.settings.remove("command");
        }
        "ExecStart" if service.settings.contains_key("command") => service.note(
            &pair.place,
            format!("`{value}`: one service runs one program; make it another service"),
        ),
        "ExecStart" => {
            let command = exec(service, pair, stem);
            service.set("command", command);
        }
        "Environment" => environment(service, pair, stem),
        "EnvironmentFile" => env_file(service, pair),
        "WorkingDirectory" => match value.trim_start_matches('-') {
            "~" => service.note(&pair.place, "`~`: write the directory out"),
            directory => {
                let directory = specified(service, pair, directory, stem);
                service.set("directory", directory);
            }
        },
        "User" => service.set("user", value),
        "Restart" => restart(service, pair),
        "RestartSec" => span_in(service, "back_off", "initial", pair),
        "RestartMaxDelaySec" => span_in(service, "back_off", "max", pair),
        "StartLimitBurst" => number_in(service, "starts", pair),
        "SuccessExitStatus" => exit_status(service, pair),
        "RestartPreventExitStatus" => ends_in(service, "prevent_restart", pair),
        "RestartForceExitStatus" => ends_in(service, "force_restart", pair),
        "TimeoutStopSec" => span_in(service, "stop", "grace", pair),
        "TimeoutStartSec" => match quantity::systemd_span(value) {
            Some(period) if period != "0s" => service.set("start_timeout", period),
            _ => service.note(&pair.place, "a start always has a longest time"),
        },
        "TimeoutSec" => {
            span_in(service, "stop", "grace", pair);
            if let Some(period) = quantity::systemd_span(value) {
                service.set("start_timeout", period);
            }
        }
        "KillSignal" => match signal(value) {
            Some(signal) => service.set_in("stop", "signal", signal),
            None => service.note(&pair.place, format!("the signal {value} is not offered")),
        },
        "WatchdogSec" => span_in(service, "liveness", "watchdog", pair),
        "MemoryMax" | "MemoryLimit" => match quantity::size(value) {
            Some(size) => service.set_in("limits", "memory", size),
            None => service.note(&pair.place, format!("`{value}` is no number of bytes")),
        },
        "CPUQuota" => match value.trim_end_matches('%').parse::<f64>() {
            Ok(percent) => service.set_in("limits", "cpu", percent / 100.0),
            Err(_) => service.note(&pair.place, format!("`{value}` is no percentage")),
        },
        "TasksMax" => limit(service, "processes", pair),
        "LimitNOFILE" => limit(service, "open_files", pair),
        "NoNewPrivileges" => {
            let truth = matches!(value.to_ascii_lowercase().as_str(), "yes" | "true" | "on" | "1");
            service.set_in("sandbox", "no_new_privileges", truth);
        }
        // The tree is always killed as a whole, and output is always kept.
        "KillMode" if value != "process" && value != "none" => {}
        "StandardOutput" | "StandardError" | "SyslogIdentifier" | "RemainAfterExit" => {}
        "ExecStartPre" => service.note(
            &pair.place,
            format!("`ExecStartPre={value}`: make it a service with `restart: never`, and depend on it as `completed`"),
        ),
        key => service.note(&pair.place, format!("`{key}={value}` has no counterpart")),
    }
}

/// `ExecStart=`: prefixes go, variables are put in by a shell as systemd would do it by itself.
fn exec(service: &mut Service, pair: &Pair, stem: &str) -> Value {
    let text = pair
        .value
        .trim_start_matches(['-', '@', ':', '+', '!', '|'])
        .trim();
    let text = specified(service, pair, text, stem);
    match text.contains('$') {
        true => json!(["sh", "-c", format!("exec {}", text.replace("$$", "\\$"))]),
        false => match shell_words::split(&text) {
            // No shell is there, so `;` and `*` are plain characters.
            Ok(words) if shell::needs_shell(&text) => json!(words),
            _ => json!(text),
        },
    }
}

/// Puts in the specifiers whose value is known without the machine (systemd.unit(5)); of another, it is told.
fn specified(service: &mut Service, pair: &Pair, text: &str, stem: &str) -> String {
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let known = text
        .replace("%%", "\u{0}")
        .replace("%n", &format!("{stem}.service"))
        .replace("%N", stem)
        .replace("%p", prefix)
        .replace("%i", instance)
        .replace("%I", instance);
    for (at, _) in known.match_indices('%') {
        let left: String = known[at..].chars().take(2).collect();
        if left.ends_with(|last: char| last.is_ascii_alphabetic()) {
            let message = format!("`{left}`: write out what systemd would put there");
            service.note(&pair.place, message);
        }
    }
    known.replace('\u{0}', "%")
}

fn restart(service: &mut Service, pair: &Pair) {
    match pair.value.as_str() {
        "no" => service.set("restart", "never"),
        "always" => service.set("restart", "always"),
        "on-failure" => service.set("restart", "on-failure"),
        "on-abnormal" | "on-abort" | "on-watchdog" => {
            service.set("restart", "on-failure");
            let message = format!(
                "`Restart={}`: an exit code that is not 0 restarts it too",
                pair.value
            );
            service.note(&pair.place, message);
        }
        other => service.note(&pair.place, format!("`Restart={other}` has no counterpart")),
    }
}

fn environment(service: &mut Service, pair: &Pair, stem: &str) {
    let Ok(words) = shell_words::split(&pair.value) else {
        return service.note(&pair.place, "a quote is not closed");
    };
    for word in words {
        match word.split_once('=') {
            Some((name, value)) => {
                let value = specified(service, pair, value, stem);
                service.set_in("environment", name, value);
            }
            None => service.note(&pair.place, format!("`{word}` is no `NAME=value`")),
        }
    }
}

fn env_file(service: &mut Service, pair: &Pair) {
    match pair.value.strip_prefix('-') {
        Some(optional) => service.note(
            &pair.place,
            format!(
                "`{optional}` may be missing for systemd; here each of `env_files` must be there"
            ),
        ),
        None => service.push("env_files", pair.value.as_str()),
    }
}

fn exit_status(service: &mut Service, pair: &Pair) {
    for word in pair.value.split_whitespace() {
        match word.parse::<u8>() {
            Ok(0) => {}
            Ok(code) => service.push("success_exit_codes", code),
            Err(_) => service.note(&pair.place, format!("`{word}` is no exit code")),
        }
    }
}

/// A list of `on_exit`: exit codes and signals.
fn ends_in(service: &mut Service, name: &str, pair: &Pair) {
    let mut list = Vec::new();
    for word in pair.value.split_whitespace() {
        match word.parse::<u8>() {
            Ok(code) => list.push(json!(code)),
            Err(_) if word.starts_with("SIG") => list.push(json!(word)),
            Err(_) => service.note(
                &pair.place,
                format!("`{word}`: write the number of the exit code"),
            ),
        }
    }
    service.push_in("on_exit", name, list);
}

fn number_in(service: &mut Service, name: &str, pair: &Pair) {
    match pair.value.parse::<u32>() {
        Ok(number) => service.set_in("start_limit", name, number),
        Err(_) => service.note(&pair.place, format!("`{}` is no number", pair.value)),
    }
}

fn span_in(service: &mut Service, part: &str, name: &str, pair: &Pair) {
    match quantity::systemd_span(&pair.value) {
        Some(period) => service.set_in(part, name, period),
        None => service.note(
            &pair.place,
            format!("`{}={}` has no counterpart", pair.key, pair.value),
        ),
    }
}

fn limit(service: &mut Service, name: &str, pair: &Pair) {
    let soft = pair.value.split(':').next().unwrap_or_default();
    match soft.parse::<u64>() {
        Ok(number) => service.set_in("limits", name, number),
        Err(_) if pair.value == "infinity" => {}
        Err(_) => service.note(&pair.place, format!("`{}` is no number", pair.value)),
    }
}
