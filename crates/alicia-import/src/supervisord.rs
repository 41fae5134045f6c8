//! `supervisord.conf`: the sections `program:x` and `group:x`.

use alicia_file::{Fault, FileText};
use serde_json::{Value, json};

use crate::draft::{Draft, Service};
use crate::ini::{self, Pair, Section, Style};
use crate::{quantity, shell};

/// Services that only start when they are named stand in this profile.
const BY_HAND: &str = "by-hand";

pub(crate) fn read(files: Vec<FileText>) -> Result<Draft, Vec<Fault>> {
    let mut draft = Draft::default();
    let mut faults = Vec::new();
    let mut groups = Vec::new();
    for file in files {
        match ini::read(&file, Style::Python) {
            Ok(sections) => {
                for section in sections {
                    take(&mut draft, &mut groups, section, &mut faults);
                }
            }
            Err(found) => faults.extend(found),
        }
    }
    for (group, programs) in groups {
        for program in programs {
            if let Some(service) = draft
                .renamed(&program)
                .and_then(|name| draft.services.get_mut(&name))
            {
                service.push("groups", group.clone());
            }
        }
    }
    if draft.services.is_empty() && faults.is_empty() {
        faults.push(Fault::of_value("", "found no section `[program:…]`"));
    }
    match faults.is_empty() {
        true => Ok(draft),
        false => Err(faults),
    }
}

type Groups = Vec<(String, Vec<String>)>;

fn take(draft: &mut Draft, groups: &mut Groups, section: Section, faults: &mut Vec<Fault>) {
    let (kind, name) = section.name.split_once(':').unwrap_or((&section.name, ""));
    match kind {
        "program" => {
            if draft.renamed(name).is_some() {
                let message = format!("{}: the program `{name}` is there twice", section.place);
                faults.push(Fault::of_value("", message));
                return;
            }
            match program(name, &section) {
                Ok(service) => {
                    let name = draft.name_for(name);
                    draft.services.insert(name, service);
                }
                Err(fault) => faults.push(fault),
            }
        }
        "group" => {
            let programs = section.pairs.iter().find(|pair| pair.key == "programs");
            let programs = programs.map(|pair| pair.value.as_str()).unwrap_or_default();
            let programs = programs.split(',').map(|name| name.trim().to_owned());
            groups.push((crate::draft::plain_name(name), programs.collect()));
        }
        // The daemon's own settings and its control interfaces have no place here.
        "supervisord" | "supervisorctl" | "unix_http_server" | "inet_http_server"
        | "rpcinterface" => {}
        "include" => draft.note(
            section.place.clone(),
            "`[include]` is not followed: name those files on the command line too",
        ),
        _ => draft.note(
            section.place.clone(),
            format!("`[{}]` has no counterpart", section.name),
        ),
    }
}

fn program(name: &str, section: &Section) -> Result<Service, Fault> {
    let mut service = Service::default();
    // What supervisord does unless told.
    service.set("restart", "on-failure");
    service.set("start_limit", json!({"starts": 4}));
    for pair in &section.pairs {
        setting(&mut service, name, pair);
    }
    if !service.settings.contains_key("command") {
        let message = format!("{}: the program `{name}` has no `command`", section.place);
        return Err(Fault::of_value("", message));
    }
    Ok(service)
}

fn setting(service: &mut Service, name: &str, pair: &Pair) {
    let value = pair.value.as_str();
    match pair.key.as_str() {
        "command" => service.set("command", command(value, name)),
        "directory" => service.set("directory", expand(value, name)),
        "user" => service.set("user", value),
        "numprocs" => whole(service, "instances", pair),
        "autostart" if is_false(value) => service.push("profiles", BY_HAND),
        "autorestart" => match value.to_ascii_lowercase().as_str() {
            "unexpected" => service.set("restart", "on-failure"),
            _ if is_false(value) => service.set("restart", "never"),
            _ => service.set("restart", "always"),
        },
        "exitcodes" => exit_codes(service, value),
        "startretries" => {
            if let Ok(retries) = value.parse::<u32>() {
                service.set("start_limit", json!({"starts": retries.saturating_add(1)}));
            }
        }
        "stopsignal" => match signal(value) {
            Some(signal) => service.set_in("stop", "signal", signal),
            None => service.note(&pair.place, format!("the signal {value} is not offered")),
        },
        "stopwaitsecs" => match value.parse().ok().and_then(quantity::seconds) {
            Some(grace) => service.set_in("stop", "grace", grace),
            None => service.note(&pair.place, format!("`{value}` is no number of seconds")),
        },
        "environment" => environment(service, pair, name),
        "stdout_logfile_maxbytes" => match quantity::size(value) {
            Some(size) if size != "0B" => service.set_in("log", "max_size", size),
            _ => service.note(&pair.place, "logs always have a largest size"),
        },
        "stdout_logfile_backups" => match value.parse::<u32>() {
            Ok(files @ 1..=100) => service.set_in("log", "max_files", files),
            _ => service.note(&pair.place, "1 to 100 files are kept"),
        },
        // The whole tree is always stopped and killed; both outputs are in one log.
        "autostart" | "stopasgroup" | "killasgroup" | "redirect_stderr" | "process_name"
        | "numprocs_start" => {}
        "startsecs" => service.note(
            &pair.place,
            "`startsecs`: write a `readiness` probe; without one, started is ready",
        ),
        "priority" => service.note(
            &pair.place,
            format!("`priority = {value}`: write `depends_on` for what must be there first"),
        ),
        "stdout_logfile" | "stderr_logfile" => service.note(
            &pair.place,
            format!("`{} = {value}`: `alicia logs` has the output", pair.key),
        ),
        key => service.note(&pair.place, format!("`{key} = {value}` has no counterpart")),
    }
}

fn is_false(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "false" | "no" | "off" | "0" | "none"
    )
}

fn whole(service: &mut Service, name: &str, pair: &Pair) {
    match pair.value.parse::<u32>() {
        Ok(number) => service.set(name, number),
        Err(_) => service.note(&pair.place, format!("`{}` is no number", pair.value)),
    }
}

fn exit_codes(service: &mut Service, value: &str) {
    let codes = value
        .split(',')
        .filter_map(|code| code.trim().parse::<u8>().ok());
    let codes: Vec<u8> = codes.filter(|code| *code != 0).collect();
    if !codes.is_empty() {
        service.set("success_exit_codes", codes);
    }
}

/// A signal with or without its `SIG`, when it is one of those that may ask for an end.
pub(crate) fn signal(found: &str) -> Option<String> {
    let name = found.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let known = [
        "TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "KILL",
    ];
    let by_number = [
        ("15", "TERM"),
        ("2", "INT"),
        ("3", "QUIT"),
        ("1", "HUP"),
        ("10", "USR1"),
        ("12", "USR2"),
        ("28", "WINCH"),
        ("9", "KILL"),
    ];
    let number = by_number.iter().find(|(number, _)| *number == name);
    let name = number.map_or(name, |(_, name)| name);
    known.contains(&name).then(|| format!("SIG{name}"))
}

/// `%(ENV_HOME)s` and `%(process_num)s` need a shell; others are known here.
fn command(value: &str, name: &str) -> Value {
    let value = value.replace('\n', " ");
    let expanded = expand(&value, name);
    let variables = expanded.contains("%(");
    let mut text = expanded;
    while let Some((before, rest)) = text.split_once("%(ENV_") {
        let Some((variable, after)) = rest.split_once(')') else {
            break;
        };
        text = format!("{before}${{{variable}}}{}", skip_conversion(after));
    }
    while let Some((before, rest)) = text.split_once("%(process_num)") {
        text = format!("{before}$((ALICIA_SLOT - 1)){}", skip_conversion(rest));
    }
    let text = text.replace("%%", "%");
    // supervisord runs no shell, so what looks like shell syntax is none.
    match variables {
        true => json!(["sh", "-c", format!("exec {text}")]),
        false => match shell_words::split(&text) {
            Ok(words) if shell::needs_shell(&text) => json!(words),
            _ => json!(text),
        },
    }
}

/// What follows the bracket: `s`, `d`, `02d`.
fn skip_conversion(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii_digit())
        .get(1..)
        .unwrap_or_default()
}

fn expand(value: &str, name: &str) -> String {
    value
        .replace("%(program_name)s", name)
        .replace("%(group_name)s", name)
        .replace("%(here)s", ".")
}

/// `A="x y",B='z',C=w`
fn environment(service: &mut Service, pair: &Pair, name: &str) {
    let text = pair.value.replace('\n', " ");
    let mut rest = text.trim();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return service.note(&pair.place, format!("`{rest}` is no `KEY=\"value\"`"));
        };
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, next) = match quote {
            Some(quote) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
            None => after
                .find(',')
                .map_or((after, ""), |end| after.split_at(end)),
        };
        let value = expand(value.trim(), name);
        if value.contains("%(") {
            let message = format!("`{}={value}`: values are taken as they are", key.trim());
            service.note(&pair.place, message);
        }
        service.set_in("environment", key.trim(), value);
        rest = next.trim_start().trim_start_matches(',').trim_start();
    }
}
