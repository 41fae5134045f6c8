//! Events of the scanner become a tree, within limits.

use std::collections::HashMap;
use std::collections::btree_map;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::{ALIAS_BYTES_MAX, DEPTH_MAX, Dialect, FAULTS_MAX, NODES_MAX, advice, narrow};
use crate::fault::Fault;
use crate::layer::{Layers, Place, lines};
use crate::scalar;
use crate::tree::{Content, Entry, Map, Node, Size, pointer_to};

/// A collection that is still open.
struct Frame {
    content: Open,
    place: Place,
    anchor: usize,
    pointer: String,
}

enum Open {
    List(Vec<Node>),
    /// The key that waits for its value stands beside the map.
    Map(Map, Option<(Box<str>, Place)>),
}

/// Builds the tree out of the events of the scanner.
pub(super) struct Builder<'l> {
    layer: u32,
    dialect: Dialect,
    layers: &'l Layers,
    frames: Vec<Frame>,
    anchors: HashMap<usize, (Node, Size)>,
    pub(super) root: Option<Node>,
    documents: usize,
    nodes: usize,
    alias_bytes: usize,
    pub(super) faults: Vec<Fault>,
}

/// The key whose value adds keys to the map around it.
const MERGE_KEY: &str = "<<";

type Step = Result<(), Box<Fault>>;

// === impl Builder ===

impl<'l> Builder<'l> {
    pub(super) fn new(layer: u32, layers: &'l Layers, dialect: Dialect) -> Self {
        Self {
            layer,
            dialect,
            layers,
            frames: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            documents: 0,
            nodes: 0,
            alias_bytes: 0,
            faults: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, parser: Parser<'_, StrInput<'_>>, text: &str) -> Step {
        for event in parser {
            let (event, span) = event.map_err(|error| self.syntax(&error, text))?;
            self.take(event, self.place(span))?;
            if self.faults.len() >= FAULTS_MAX {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Step {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.document(place),
            Event::Alias(id) => self.alias(id, place),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                self.scalar(
                    Scalar {
                        text: &text,
                        plain,
                        anchor,
                        tag: tag.as_deref(),
                    },
                    place,
                )
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", place);
                self.open(Open::List(Vec::new()), anchor, place)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", place);
                self.open(Open::Map(Map::new(), None), anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn document(&mut self, place: Place) -> Step {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        let fault = self.fault(
            place,
            "a second document starts here, expected one in a file",
        );
        Err(Box::new(fault.with_hint(
            "remove the `---`, or move what follows to a file of its own",
        )))
    }

    fn scalar(&mut self, scalar: Scalar<'_>, place: Place) -> Step {
        if self.awaits_key() {
            self.key(&scalar, place);
            return Ok(());
        }
        self.count(1, place)?;
        if scalar.text.contains('\0') {
            let fault = self.fault(
                place,
                "found a NUL character, which no program can be given",
            );
            self.faults.push(fault.with_hint("remove the `\\0`"));
        }
        let content = self.content(&scalar, place);
        // An empty value has no text of its own: its key stands for it.
        let place = match (&content, self.frames.last()) {
            (
                Content::Null,
                Some(Frame {
                    content: Open::Map(_, Some((_, key))),
                    ..
                }),
            ) if scalar.text.is_empty() => *key,
            _ => place,
        };
        self.put(Node::new(content, place), scalar.anchor)
    }

    fn content(&mut self, scalar: &Scalar<'_>, place: Place) -> Content {
        let text = || Content::Text(scalar.text.into());
        let Some(tag) = scalar.tag else {
            return if scalar.plain {
                scalar::resolve(scalar.text)
            } else {
                text()
            };
        };
        let resolved = scalar::resolve(scalar.text);
        let fits = match (core_suffix(tag), &resolved) {
            (Some("str"), _) => return text(),
            (Some("int"), Content::Number(number, _)) => !number.is_f64(),
            (Some("float"), Content::Number(..))
            | (Some("bool"), Content::Truth(_))
            | (Some("null"), Content::Null) => true,
            _ => false,
        };
        if !fits {
            let fault = self.fault(
                place,
                format!("found the tag `{tag}`, which does not fit here"),
            );
            self.faults
                .push(fault.with_hint("remove the tag: the schema says what a value is"));
        }
        resolved
    }

    fn check_tag(&mut self, tag: Option<&Tag>, expected: &str, place: Place) {
        if let Some(tag) = tag.filter(|tag| core_suffix(tag) != Some(expected)) {
            let fault = self.fault(
                place,
                format!("found the tag `{tag}`, which does not fit here"),
            );
            self.faults
                .push(fault.with_hint("remove the tag: the schema says what a value is"));
        }
    }

    fn awaits_key(&self) -> bool {
        matches!(
            self.frames.last(),
            Some(Frame {
                content: Open::Map(_, None),
                ..
            })
        )
    }

    fn key(&mut self, scalar: &Scalar<'_>, place: Place) {
        let text = scalar.text;
        let own = self.dialect == Dialect::Own;
        let fault = match (scalar.plain, scalar::resolve(text)) {
            (true, Content::Null) => Some((
                "found a value without a key".to_owned(),
                "write the key before the `:`".to_owned(),
            )),
            // A whole number has one way to be written, so that as a key it is the text that it looks like.
            (true, Content::Number(..)) if text.bytes().all(|byte| byte.is_ascii_digit()) => None,
            (true, Content::Truth(_) | Content::Number(..)) if own => Some((
                format!("found the key {text}, which is not text"),
                format!("write it in quotes: `\"{text}\":`"),
            )),
            (true, _) if own && text == MERGE_KEY => Some((
                "found `<<`: merge keys are not part of YAML 1.2".to_owned(),
                "write the keys out; an alias may stand for a whole value".to_owned(),
            )),
            _ => None,
        };
        if let Some((message, hint)) = fault {
            let fault = self.fault(place, message).with_hint(hint);
            self.faults.push(fault);
        }
        if let Some(Frame {
            content: Open::Map(_, key),
            ..
        }) = self.frames.last_mut()
        {
            *key = Some((text.into(), place));
        }
    }

    fn open(&mut self, content: Open, anchor: usize, place: Place) -> Step {
        if self.awaits_key() {
            let fault = self.fault(place, "found a list or a map as a key, expected text");
            return Err(Box::new(fault.with_hint(
                "write the key as text; a value that starts with `{` or `[` needs quotes",
            )));
        }
        if self.frames.len() >= DEPTH_MAX {
            return Err(Box::new(self.too_deep(place)));
        }
        self.count(1, place)?;
        let pointer = self.pointer();
        self.frames.push(Frame {
            content,
            place,
            anchor,
            pointer,
        });
        Ok(())
    }

    fn close(&mut self) -> Step {
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        let content = match frame.content {
            Open::List(items) => Content::List(items),
            Open::Map(map, _) => Content::Map(self.merge(map)),
        };
        self.put(Node::new(content, frame.place), frame.anchor)
    }

    /// In files of others, `<<: *name` and `<<: [*a, *b]` add the keys that a map does not have itself
    /// (the merge key of YAML 1.1, <https://yaml.org/type/merge.html>).
    fn merge(&mut self, mut map: Map) -> Map {
        if self.dialect == Dialect::Own {
            return map;
        }
        let Some(merged) = map.remove(MERGE_KEY) else {
            return map;
        };
        let sources = match merged.node.content {
            Content::List(items) => items,
            content => vec![Node::new(content, merged.node.place)],
        };
        for source in sources {
            match source.content {
                Content::Map(entries) => {
                    for (key, entry) in entries {
                        map.entry(key).or_insert(entry);
                    }
                }
                _ => {
                    let fault = self.fault(source.place, "found a value after `<<` that is no map");
                    let hint = "write an alias of a map, such as `<<: *defaults`";
                    self.faults.push(fault.with_hint(hint));
                }
            }
        }
        map
    }

    fn alias(&mut self, id: usize, place: Place) -> Step {
        if self.awaits_key() {
            let fault = self.fault(place, "found an alias as a key, expected text");
            return Err(Box::new(fault.with_hint("write the key out")));
        }
        let Some((node, size)) = self
            .anchors
            .get(&id)
            .map(|(node, size)| (node.clone(), *size))
        else {
            let fault = self.fault(place, "this alias stands inside of what it stands for");
            return Err(Box::new(fault.with_hint("write the value out")));
        };
        if self.frames.len() + size.depth > DEPTH_MAX {
            return Err(Box::new(self.too_deep(place)));
        }
        self.pay(size, place)?;
        self.put(node, 0)
    }

    /// Counts a copy that an anchor or an alias makes.
    fn pay(&mut self, size: Size, place: Place) -> Step {
        self.alias_bytes += size.bytes;
        if self.alias_bytes > ALIAS_BYTES_MAX {
            return Err(Box::new(self.too_much(place)));
        }
        self.count(size.nodes, place)
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, node: Node, anchor: usize) -> Step {
        if anchor > 0 {
            // The copy for aliases is paid for like one: anchors around anchors would fill the memory.
            let size = node.size();
            self.pay(size, node.place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let (layer, pointer) = (self.layer, self.pointer());
        match self.frames.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map(map, key)) => {
                let nowhere = Place {
                    layer,
                    ..node.place
                };
                let (key, key_place) = key.take().unwrap_or(("".into(), nowhere));
                match map.entry(key) {
                    btree_map::Entry::Vacant(slot) => {
                        slot.insert(Entry { key_place, node });
                    }
                    btree_map::Entry::Occupied(first) => {
                        let (key, first) = (first.key(), first.get().key_place);
                        let message = format!(
                            "the key `{key}` is here for the second time, first at line {}, column {}",
                            first.line, first.column
                        );
                        let fault = self.layers.fault(key_place, &pointer, message);
                        self.faults.push(fault.with_hint("remove one of them"));
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, place: Place) -> Step {
        self.nodes += nodes;
        match self.nodes > NODES_MAX {
            true => Err(Box::new(self.too_much(place))),
            false => Ok(()),
        }
    }

    /// The pointer of the value that comes next.
    fn pointer(&self) -> String {
        match self.frames.last() {
            None => String::new(),
            Some(frame) => match &frame.content {
                Open::List(items) => pointer_to(&frame.pointer, &items.len().to_string()),
                Open::Map(_, Some((key, _))) => pointer_to(&frame.pointer, key),
                Open::Map(_, None) => frame.pointer.clone(),
            },
        }
    }

    fn fault(&self, place: Place, message: impl Into<String>) -> Fault {
        self.layers.fault(place, &self.pointer(), message)
    }

    fn too_deep(&self, place: Place) -> Fault {
        self.fault(place, format!("nested more than {DEPTH_MAX} levels deep"))
            .with_hint("close a bracket, or write it flatter")
    }

    fn too_much(&self, place: Place) -> Fault {
        let what = format!("more than {NODES_MAX} values or too much text, aliases written out");
        self.fault(place, what)
            .with_hint("split the fleet, or use fewer aliases")
    }

    fn syntax(&self, error: &ScanError, text: &str) -> Box<Fault> {
        let all: Vec<&str> = lines(text).collect();
        let (mut line, mut column) = (error.marker().line(), error.marker().col());
        if error.info().contains("tab") {
            // The scanner sometimes stands at the end of the line before the tab.
            let mut from_here = all.iter().skip(line.saturating_sub(1));
            line += from_here
                .position(|line| advice::tab_in_indent(line).is_some())
                .unwrap_or(0);
        }
        if all
            .iter()
            .skip(line.saturating_sub(1))
            .all(|line| line.trim().is_empty())
        {
            // At the end of the text: what is missing is missing in its last line.
            line = all
                .iter()
                .rposition(|line| !line.trim().is_empty())
                .map_or(1, |at| at + 1);
            column = usize::MAX;
        }
        let content = all.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let column = column.min(content.chars().count()) + 1;
        let advice = advice::of(error.info(), content, column - 1);
        let column = advice.column.map_or(column, |column| column + 1);
        let place = Place {
            layer: self.layer,
            line: narrow(line),
            column: narrow(column),
            width: 1,
        };
        // The scanner reads ahead, and may meet its own limit of 255 first.
        if error.info().contains("recursion limit") {
            return Box::new(self.too_deep(place));
        }
        Box::new(
            self.layers
                .fault(place, "", advice.message)
                .with_hint(advice.hint),
        )
    }

    fn place(&self, span: Span) -> Place {
        let (start, end) = (span.start, span.end);
        let width = match start.line() == end.line() {
            true => narrow(end.col().saturating_sub(start.col())).max(1),
            false => u32::MAX,
        };
        Place {
            layer: self.layer,
            line: narrow(start.line().max(1)),
            column: narrow(start.col() + 1),
            width,
        }
    }
}

/// A scalar as the scanner gives it.
struct Scalar<'e> {
    text: &'e str,
    plain: bool,
    anchor: usize,
    tag: Option<&'e Tag>,
}

/// `str` of `!!str`; `!` alone means text too.
fn core_suffix(tag: &Tag) -> Option<&str> {
    match (
        tag.is_yaml_core_schema(),
        tag.handle.as_str(),
        tag.suffix.as_str(),
    ) {
        (true, _, suffix) => Some(suffix),
        (false, "" | "!", "" | "!") => Some("str"),
        _ => None,
    }
}
