//! A new entry below `services:` as an edit of the text, so that comments and order stay. What comes out is read
//! again, and must be what was there plus the one service; where it is not, nothing is written.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use alicia_contract::ServiceName;
use alicia_file::{Document, Fault, Sources};
use serde_json::Value;

use crate::failure::Failure;

/// What a file begins with that is made for its first service.
const NEW_FILE: &str = "# The services of this fleet. What can be written here: `alicia schema`; what is wrong: `alicia check`.\n";

/// The indentation of entries where the file has none yet.
const INDENTATION_DEFAULT: usize = 2;

/// Why there is no new text.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The file cannot be read, as it stands.
    Faults(Vec<Fault>),
    /// What to do instead.
    Usage(String),
    Other(anyhow::Error),
}

impl Refusal {
    pub(super) fn tell(self, json: bool) -> Failure {
        match self {
            Self::Faults(faults) => Failure::Faults { faults, json },
            Self::Usage(text) => Failure::Usage(text),
            Self::Other(error) => Failure::Other(error),
        }
    }
}

/// The text of the file with one more service. A file that is not there is begun.
pub(super) fn add(file: &Path, name: &ServiceName, entry: &str) -> Result<String, Refusal> {
    let shown = file.display().to_string();
    let old = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => NEW_FILE.to_owned(),
        Err(error) => {
            return Err(Refusal::Other(
                anyhow::Error::new(error).context(format!("read {shown}")),
            ));
        }
    };
    let before = parse(&shown, &old).map_err(Refusal::Faults)?;
    if before["services"].get(name.as_str()).is_some() {
        return Err(Refusal::Usage(format!(
            "{shown} has a service {name} already; choose another name"
        )));
    }
    let new = insert(&old, entry);
    if parse(&shown, &new).is_ok_and(|after| is_one_more(before, &after, name, entry)) {
        return Ok(new);
    }
    Err(Refusal::Usage(format!(
        "{shown} is written in a way that an entry cannot be added to by itself; nothing was written. Write \
         `services:` as a block on lines of its own, and try again, or add this and the directory by hand:\n{entry}"
    )))
}

fn parse(name: &str, text: &str) -> Result<Value, Vec<Fault>> {
    Ok(Document::parse(Sources::new().file(name, text))?.to_json())
}

fn is_one_more(mut before: Value, after: &Value, name: &ServiceName, entry: &str) -> bool {
    let Ok(mut added) = parse("entry", &format!("services:\n{entry}")) else {
        return false;
    };
    if before["services"].is_null() {
        before["services"] = Value::Object(serde_json::Map::new());
    }
    before["services"][name.as_str()] = added["services"][name.as_str()].take();
    before == *after
}

/// Puts the entry behind the last line of the services, or begins them at the end of the file.
fn insert(text: &str, entry: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let end_of_line = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let (mut head, services, tail) = match lines.iter().position(|line| is_services(line)) {
        Some(at) => {
            let end = at + 1 + length_of_block(&lines[at + 1..]);
            (lines[..at].concat(), &lines[at..end], lines[end..].concat())
        }
        None => (text.to_owned(), &[][..], String::new()),
    };
    if services.is_empty() && !head.is_empty() {
        end_line(&mut head, end_of_line);
        head.push_str(end_of_line);
    }
    let mut block = match services.split_first() {
        // `services: {}` and `services:` become the head of a block; a comment after it stays.
        Some((first, rest)) => first.replacen(" {}", "", 1) + &rest.concat(),
        None => format!("services:{end_of_line}"),
    };
    end_line(&mut block, end_of_line);
    if services.len() > 1 {
        block.push_str(end_of_line);
    }
    let indentation = services
        .iter()
        .skip(1)
        .find(|line| is_content(line))
        .map_or(INDENTATION_DEFAULT, |line| {
            line.len() - line.trim_start_matches(' ').len()
        });
    for line in entry.lines() {
        let line = line.get(INDENTATION_DEFAULT..).unwrap_or(line);
        block.push_str(&format!("{:indentation$}{line}{end_of_line}", ""));
    }
    head + &block + &tail
}

fn end_line(text: &mut String, end_of_line: &str) {
    if !text.ends_with('\n') {
        text.push_str(end_of_line);
    }
}

/// `services:` at the left margin, with nothing or an empty map behind it.
fn is_services(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("services:") else {
        return false;
    };
    let value = rest.split(" #").next().unwrap_or_default().trim();
    value.is_empty() || value == "{}"
}

/// How many of these lines belong to the block: up to the last indented one before the next key.
fn length_of_block(lines: &[&str]) -> usize {
    let is_next = |line: &&str| !line.starts_with([' ', '#', '\n', '\r']);
    let end = lines.iter().position(is_next).unwrap_or(lines.len());
    let is_inside = |line: &&str| line.starts_with(' ') && !line.trim().is_empty();
    lines[..end]
        .iter()
        .rposition(is_inside)
        .map_or(0, |last| last + 1)
}

fn is_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "  new:\n    command: [new]\n    ports: {http: auto}\n";

    fn added(text: &str) -> Result<String, Refusal> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("alicia.yaml");
        fs::write(&file, text).expect("writes");
        add(&file, &ServiceName::new("new").expect("is a name"), ENTRY)
    }

    #[test]
    fn the_entry_is_put_behind_the_last_service() {
        let check = |text: &str, expected: &str| {
            assert_eq!(added(text).expect("can be added"), expected, "to {text:?}");
        };
        let block = ENTRY;
        check(
            "services:\n  a:\n    command: a\n",
            &format!("services:\n  a:\n    command: a\n\n{block}"),
        );
        check(
            "services:\n  a: {command: a}",
            &format!("services:\n  a: {{command: a}}\n\n{block}"),
        );
        check(
            "# mine\nservices: # all\n  a: {command: a}\n  # b: {command: b}\n\n# the rest\nname: x\n",
            &format!(
                "# mine\nservices: # all\n  a: {{command: a}}\n  # b: {{command: b}}\n\n{block}\n# the rest\nname: x\n"
            ),
        );
        check(
            "services: {}\nname: x\n",
            &format!("services:\n{block}name: x\n"),
        );
        check("services:\n", &format!("services:\n{block}"));
        check("name: x", &format!("name: x\n\nservices:\n{block}"));
        check("", &format!("services:\n{block}"));
    }

    #[test]
    fn indentation_and_line_ends_are_those_of_the_file() {
        let found = added("services:\r\n    a: {command: a}\r\n").expect("can be added");
        let expected = "    new:\r\n      command: [new]\r\n      ports: {http: auto}\r\n";
        assert_eq!(
            found,
            format!("services:\r\n    a: {{command: a}}\r\n\r\n{expected}")
        );
    }

    #[test]
    fn what_cannot_be_edited_safely_is_refused_with_the_entry_to_add() {
        for text in [
            "services: {a: {command: a}}\n",
            "\"services\":\n  a: {command: a}\n",
            "services:\n  a:\n    command: a\n    description: |+\n      x\n\n\n",
        ] {
            match added(text) {
                Err(Refusal::Usage(said)) => assert!(said.contains(ENTRY), "{said}"),
                other => panic!("{text:?} gave {other:?}"),
            }
        }
        assert!(matches!(added("services: [\n"), Err(Refusal::Faults(_))));
        assert!(matches!(
            added("services:\n  new: {command: x}\n"),
            Err(Refusal::Usage(_))
        ));
    }

    #[test]
    fn a_file_that_is_not_there_is_begun() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let name = ServiceName::new("new").expect("is a name");
        let text = add(&directory.path().join("alicia.yaml"), &name, ENTRY).expect("is begun");
        assert!(text.starts_with('#') && text.ends_with(ENTRY), "{text}");
    }
}
