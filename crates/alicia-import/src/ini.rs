//! Files of sections with `key = value` lines, as supervisord and systemd read them.

use alicia_file::{Fault, FileText};

/// How lines go on and what a comment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A line that begins with a space goes on; ` ;` begins a comment (Python's configparser).
    Python,
    /// A backslash at the end of a line: it goes on in the next (systemd.syntax(7)).
    Systemd,
}

/// A section of a file.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) place: String,
    pub(crate) pairs: Vec<Pair>,
}

/// One setting, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) place: String,
}

/// The sections of a file, in its order.
pub(crate) fn read(file: &FileText, style: Style) -> Result<Vec<Section>, Vec<Fault>> {
    let text = String::from_utf8_lossy(&file.bytes);
    let mut sections: Vec<Section> = Vec::new();
    let mut faults = Vec::new();
    let mut goes_on = false;
    for (line, number) in text.lines().zip(1..) {
        let place = format!("{}:{number}", file.name);
        let trimmed = line.trim();
        let is_comment = trimmed.starts_with(['#', ';']);
        if is_comment || trimmed.is_empty() {
            goes_on &= style == Style::Systemd && is_comment;
            continue;
        }
        let last = sections.last_mut();
        let continued = match style {
            Style::Python => line.starts_with([' ', '\t']),
            Style::Systemd => goes_on,
        };
        if let (true, Some(pair)) = (continued, last.and_then(|s| s.pairs.last_mut())) {
            pair.value
                .push(if style == Style::Python { '\n' } else { ' ' });
            goes_on = push_value(&mut pair.value, trimmed, style);
            continue;
        }
        match parse(trimmed) {
            Some(Line::Section(name)) => sections.push(Section {
                name: name.to_owned(),
                place,
                pairs: Vec::new(),
            }),
            Some(Line::Pair(key, value)) if !sections.is_empty() => {
                let mut pair = Pair {
                    key: key.to_owned(),
                    value: String::new(),
                    place,
                };
                goes_on = push_value(&mut pair.value, value, style);
                if let Some(section) = sections.last_mut() {
                    section.pairs.push(pair);
                }
            }
            _ => faults.push(
                Fault::of_value("", format!("{place}: found `{trimmed}`"))
                    .with_hint("expected `[section]`, or `key = value` in one"),
            ),
        }
    }
    match faults.is_empty() {
        true => Ok(sections),
        false => Err(faults),
    }
}

enum Line<'l> {
    Section(&'l str),
    Pair(&'l str, &'l str),
}

fn parse(line: &str) -> Option<Line<'_>> {
    if let Some(name) = line.strip_prefix('[') {
        return Some(Line::Section(name.split_once(']')?.0.trim()));
    }
    let (key, value) = line.split_once('=')?;
    Some(Line::Pair(key.trim(), value.trim()))
}

/// Adds a piece of a value; says whether the next line goes on.
fn push_value(value: &mut String, piece: &str, style: Style) -> bool {
    match style {
        Style::Python => {
            let end = piece.find(" ;").unwrap_or(piece.len());
            value.push_str(piece[..end].trim_end());
            false
        }
        Style::Systemd => {
            let goes_on = piece.ends_with('\\');
            value.push_str(piece.strip_suffix('\\').unwrap_or(piece).trim_end());
            goes_on
        }
    }
}
