//! Commands: what looks like a shell but is none.

use alicia_contract::fleet::Command;

use super::Service;
use crate::schema::shorten;

/// Words that only a shell understands.
const SHELL_WORDS: [&str; 11] = [
    "&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1", "2>", "&>",
];

pub(super) fn check(service: &mut Service<'_, '_>) {
    let spec = service.spec;
    if spec.command == Command::default() {
        if spec.container.is_none() {
            let message = format!("`{}` has no `command`", service.name);
            let pointer = service.pointer("");
            let hint = "add `command:` (the program and its arguments), or `container:`";
            service.report.key(&pointer, message, hint);
        }
        return;
    }
    if let Some((message, hint)) = fault_of(&service.spec.command) {
        service.fault("command", message, hint);
    }
}

/// What is wrong with a command, and what to do.
pub(super) fn fault_of(command: &Command) -> Option<(String, String)> {
    match command {
        Command::List(words) if words.first().is_none_or(String::is_empty) => Some((
            "the command is empty".to_owned(),
            "write the program first".to_owned(),
        )),
        Command::List(_) => None,
        Command::Text(text) => fault_of_text(text),
    }
}

/// The words of a command.
///
/// # Errors
/// When a quote is not closed.
pub fn words(command: &Command) -> Result<Vec<String>, shell_words::ParseError> {
    match command {
        Command::List(words) => Ok(words.clone()),
        Command::Text(text) => shell_words::split(text),
    }
}

fn fault_of_text(text: &str) -> Option<(String, String)> {
    let shell = || {
        let quoted = shorten(text).replace('\\', "\\\\").replace('"', "\\\"");
        format!("write `[sh, -c, \"{quoted}\"]`")
    };
    let Ok(words) = shell_words::split(text) else {
        let message = "a quote in the command is not closed";
        return Some((
            message.to_owned(),
            "close it, or write the command as a list".to_owned(),
        ));
    };
    let Some(program) = words.first().filter(|word| !word.is_empty()) else {
        return Some((
            "the command is empty".to_owned(),
            "write the program first".to_owned(),
        ));
    };
    if let Some((name, _)) = program
        .split_once('=')
        .filter(|(name, _)| !name.contains('/'))
    {
        let message = format!("the command begins with the variable `{name}`, not with a program");
        return Some((message, format!("write `{name}` below `environment:`")));
    }
    if let Some(word) = words.iter().find(|word| is_shell(word)) {
        return Some((
            format!("no shell runs the command, so `{word}` does nothing"),
            shell(),
        ));
    }
    let variable = variable_in(text).filter(|_| !text.contains('\''))?;
    let message = format!("no shell runs the command, so `{variable}` is not replaced");
    Some((message, shell()))
}

fn is_shell(word: &str) -> bool {
    SHELL_WORDS.contains(&word) || (word.ends_with(';') && word.len() > 1)
}

/// The first `$NAME` or `${NAME}`.
fn variable_in(text: &str) -> Option<&str> {
    text.match_indices('$').find_map(|(at, _)| {
        let rest = &text[at + 1..];
        let braces = rest.strip_prefix('{');
        let name = braces.unwrap_or(rest);
        let length = name
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(name.len());
        let escaped = text[..at].ends_with('\\');
        let end = at + 1 + length + if braces.is_some() { 2 } else { 0 };
        (length > 0 && !escaped)
            .then(|| text.get(at..end))
            .flatten()
    })
}
