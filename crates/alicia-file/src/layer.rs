//! The texts that a document is made of, and places in them.

use crate::fault::{Excerpt, Fault, Origin};

/// The longest part of a line that a fault shows, in characters: what fits a terminal beside the line number.
const EXCERPT_CHARS_MAX: usize = 100;

/// How much of a long line is shown before the fault, in characters.
const EXCERPT_CHARS_BEFORE: usize = 40;

/// A place in one layer. Small, because every key and every value has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// The index of the layer.
    pub(crate) layer: u32,
    /// From 1.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
    /// In characters; more than the line has stands for "to its end".
    pub(crate) width: u32,
}

/// One text that values come from.
#[derive(Debug, Clone)]
pub(crate) enum Layer {
    Default,
    File { name: String, lines: Vec<Box<str>> },
    Environment { variable: String },
    Flag { flag: String },
}

/// All texts of a document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layers(Vec<Layer>);

// === impl Layer ===

impl Layer {
    pub(crate) fn file(name: &str, text: &str) -> Self {
        Self::File {
            name: name.to_owned(),
            lines: lines(text).map(Into::into).collect(),
        }
    }
}

/// The lines of a text, ended by LF, CR LF or CR as YAML 1.2 section 5.4 defines it.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

// === impl Layers ===

impl Layers {
    /// The index of the layer that is added next.
    pub(crate) fn next(&self) -> u32 {
        u32::try_from(self.0.len()).expect("layers are fewer than the arguments of a program")
    }

    /// Adds a layer and says its index.
    pub(crate) fn add(&mut self, layer: Layer) -> u32 {
        let index = self.next();
        self.0.push(layer);
        index
    }

    /// The origin of a place, to be named in a sentence.
    pub(crate) fn origin(&self, place: Place) -> Origin {
        match self.0.get(place.layer as usize) {
            Some(Layer::File { name, .. }) => Origin::File {
                file: name.clone(),
                line: place.line,
                column: place.column,
            },
            Some(Layer::Environment { variable }) => Origin::Environment {
                variable: variable.clone(),
            },
            Some(Layer::Flag { flag }) => Origin::Flag { flag: flag.clone() },
            Some(Layer::Default) => Origin::Default,
            None => Origin::Value,
        }
    }

    /// The place itself, or the last of the text when the scanner stood behind its end.
    fn inside(&self, place: Place) -> Place {
        let Some(Layer::File { lines, .. }) = self.0.get(place.layer as usize) else {
            return place;
        };
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let end = |line: &str| narrow(line.chars().count()) + 1;
        match lines.get((place.line as usize).saturating_sub(1)) {
            Some(line) => Place {
                column: place.column.clamp(1, end(line)),
                ..place
            },
            None => Place {
                line: narrow(lines.len()).max(1),
                column: lines.last().map_or(1, |line| end(line)),
                ..place
            },
        }
    }

    /// A fault at a place.
    pub(crate) fn fault(&self, place: Place, pointer: &str, message: impl Into<String>) -> Fault {
        let place = self.inside(place);
        Fault {
            origin: self.origin(place),
            pointer: pointer.to_owned(),
            message: message.into(),
            hint: None,
            excerpt: self.excerpt(place).map(Box::new),
        }
    }

    fn excerpt(&self, place: Place) -> Option<Excerpt> {
        let Some(Layer::File { lines, .. }) = self.0.get(place.layer as usize) else {
            return None;
        };
        let line = lines.get((place.line as usize).checked_sub(1)?)?;
        let start = (place.column as usize).saturating_sub(1);
        let first = match line.chars().count() {
            chars if chars <= EXCERPT_CHARS_MAX => 0,
            _ => start.saturating_sub(EXCERPT_CHARS_BEFORE),
        };
        let text: String = line
            .chars()
            .skip(first)
            .take(EXCERPT_CHARS_MAX)
            .map(|c| match c {
                '\t' => ' ',
                c if c.is_control() => '\u{fffd}',
                c => c,
            })
            .collect();
        let start = start - first;
        let room = text.chars().count().saturating_sub(start);
        Some(Excerpt {
            text,
            start,
            width: (place.width as usize).min(room).max(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_in_yaml() {
        let found: Vec<&str> = lines("a\r\nb\rc\n\nd").collect();
        assert_eq!(found, ["a", "b", "c", "", "d"]);
    }

    #[test]
    fn a_long_line_is_cut_around_the_fault() {
        let mut layers = Layers::default();
        let text = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let layer = layers.add(Layer::file("alicia.yaml", &text));
        let place = Place {
            layer,
            line: 1,
            column: 501,
            width: 4,
        };
        let excerpt = layers.excerpt(place).expect("the line is there");
        assert_eq!(excerpt.text.chars().count(), EXCERPT_CHARS_MAX);
        assert_eq!(
            &excerpt.text[excerpt.start..excerpt.start + excerpt.width],
            "HERE"
        );
    }

    #[test]
    fn an_underline_never_leaves_its_line() {
        let mut layers = Layers::default();
        let layer = layers.add(Layer::file("alicia.yaml", "ab\tc\u{1b}"));
        let place = Place {
            layer,
            line: 1,
            column: 4,
            width: u32::MAX,
        };
        let excerpt = layers.excerpt(place).expect("the line is there");
        assert_eq!(
            (excerpt.text.as_str(), excerpt.start, excerpt.width),
            ("ab c\u{fffd}", 3, 2)
        );
    }
}
