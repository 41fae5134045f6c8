//! `Procfile`: one line per process, `name: command`, run by a shell.

use alicia_file::{Fault, FileText};
use serde_json::json;

use crate::draft::{Draft, Service};
use crate::{Surroundings, shell};

/// The process that is run to its end before the others start (the release phase of Heroku).
const RELEASE: &str = "release";

pub(crate) fn read(files: Vec<FileText>, around: &Surroundings) -> Result<Draft, Vec<Fault>> {
    let mut draft = Draft::default();
    let mut faults = Vec::new();
    for file in files {
        let text = String::from_utf8_lossy(&file.bytes);
        for (line, number) in text.lines().zip(1..) {
            let place = format!("{}:{number}", file.name);
            match process(line) {
                Ok(None) => {}
                Ok(Some((name, command))) => {
                    add(&mut draft, name, command, around);
                }
                Err(message) => faults.push(
                    Fault::of_value("", format!("{place}: {message}"))
                        .with_hint("write `name: command` in each line"),
                ),
            }
        }
    }
    if draft.services.is_empty() && faults.is_empty() {
        faults.push(Fault::of_value("", "found no line `name: command`"));
    }
    match faults.is_empty() {
        true => {
            wait_for_release(&mut draft);
            Ok(draft)
        }
        false => Err(faults),
    }
}

fn process(line: &str) -> Result<Option<(&str, &str)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match line.split_once(':') {
        Some((name, command))
            if !name.is_empty() && name.chars().all(of_name) && !command.trim().is_empty() =>
        {
            Ok(Some((name, command.trim())))
        }
        _ => Err(format!("found `{line}`, which is no process")),
    }
}

fn add(draft: &mut Draft, found: &str, command: &str, around: &Surroundings) {
    let mut service = Service::default();
    service.set("command", shell::command(command, "sh"));
    if command.contains("$PORT") || command.contains("${PORT") {
        service.set("ports", json!({"http": "auto"}));
    }
    if around.has_env_file {
        service.push("env_files", ".env");
    }
    if found == RELEASE {
        service.set("restart", "never");
    }
    let name = draft.name_for(found);
    draft.services.insert(name, service);
}

fn wait_for_release(draft: &mut Draft) {
    if !draft.services.keys().any(|name| name.as_str() == RELEASE) {
        return;
    }
    for (name, service) in &mut draft.services {
        if name.as_str() != RELEASE {
            service.set_in("depends_on", RELEASE, "completed");
        }
    }
}
