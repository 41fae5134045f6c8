//! YAML text to a tree with places, with a limit on everything that a text can blow up.
//!
//! The scanner stops at its first error, so a text gives one syntax fault; what the scanner lets through and this
//! reader does not (duplicate keys, keys that are neither text nor whole numbers, tags) is collected and said at once.

use saphyr_parser::Parser;

use crate::fault::Fault;
use crate::layer::{Layers, Place, lines};
use crate::tree::{Content, Node};

use builder::Builder;

mod advice;
mod builder;

/// The largest file, in bytes: 10,000 services of 400 bytes each.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// The deepest nesting. The file itself needs 8; functions over the tree recurse, so it must be bounded.
pub const DEPTH_MAX: usize = 64;

/// The most values, anchors and aliases written out: 10,000 services of 50 values each.
pub const NODES_MAX: usize = 500_000;

/// The most bytes of text that anchors and aliases may add, four times the largest file.
pub const ALIAS_BYTES_MAX: usize = 16 << 20;

/// The most faults of one text; who has more mends these first.
const FAULTS_MAX: usize = 100;

/// Whose YAML a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Ours: YAML 1.2, and every key is text or a whole number.
    Own,
    /// That of other programs, read in order to import it: merge keys, and numbers as keys.
    Foreign,
}

/// Reads one text.
///
/// `layer` is where its places point to; the layers already hold its lines.
///
/// # Errors
/// Every fault that is found.
pub(crate) fn parse(
    text: &str,
    layer: u32,
    layers: &Layers,
    dialect: Dialect,
) -> Result<Node, Vec<Fault>> {
    let mut builder = Builder::new(layer, layers, dialect);
    let outcome = check_characters(text, layer, layers)
        .and_then(|()| builder.read(Parser::new_from_str(text), text));
    let mut faults = builder.faults;
    match outcome {
        Ok(()) if faults.is_empty() => {
            let place = Place {
                layer,
                line: 1,
                column: 1,
                width: 1,
            };
            Ok(builder.root.unwrap_or(Node::new(Content::Null, place)))
        }
        Ok(()) => Err(faults),
        Err(fault) => {
            faults.push(*fault);
            Err(faults)
        }
    }
}

/// Refuses control characters (YAML 1.2 section 5.1): the scanner would take some of them for the end of the text.
fn check_characters(text: &str, layer: u32, layers: &Layers) -> Result<(), Box<Fault>> {
    let is_bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let Some(at) = text.find(is_bad) else {
        return Ok(());
    };
    let found = text[at..].chars().next().unwrap_or_default();
    let place = place_of_byte(text, at, layer);
    Err(Box::new(
        layers
            .fault(
                place,
                "",
                format!("found the control character U+{:04X}", found as u32),
            )
            .with_hint("remove it, or write it as an escape in double quotes"),
    ))
}

/// The place of the character at a byte offset.
pub(crate) fn place_of_byte(text: &str, at: usize, layer: u32) -> Place {
    let before: Vec<&str> = lines(&text[..at]).collect();
    let last = before.last().map_or(0, |line| line.chars().count());
    Place {
        layer,
        line: narrow(before.len().max(1)),
        column: narrow(last + 1),
        width: 1,
    }
}

/// Positions fit: a file has at most `FILE_BYTES_MAX` bytes.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
