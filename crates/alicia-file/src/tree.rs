//! The tree of a document: JSON with a place at each key and each value.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use crate::layer::Place;

/// A value and where it starts.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) place: Place,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Null,
    Truth(bool),
    /// The number, and how it is written: `1.10` is the number 1.1.
    Number(Number, Box<str>),
    Text(Box<str>),
    List(Vec<Node>),
    Map(Map),
}

/// Keys in alphabetical order; what order they have in the file, their places tell.
pub(crate) type Map = BTreeMap<Box<str>, Entry>;

/// What a key leads to, and where the key stands.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key_place: Place,
    pub(crate) node: Node,
}

/// How much a node holds, itself included.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) bytes: usize,
    pub(crate) depth: usize,
}

/// What a pointer leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'t> {
    pub(crate) node: &'t Node,
    /// Where its key stands, when it is a value of a map.
    pub(crate) key_place: Option<Place>,
}

// === impl Node ===

impl Node {
    pub(crate) fn new(content: Content, place: Place) -> Self {
        Self { content, place }
    }

    /// The node of a JSON value; every part of it has the one place.
    pub(crate) fn from_json(value: &Value, place: Place) -> Self {
        let content = match value {
            Value::Null => Content::Null,
            Value::Bool(truth) => Content::Truth(*truth),
            Value::Number(number) => Content::Number(number.clone(), number.to_string().into()),
            Value::String(text) => Content::Text(text.as_str().into()),
            Value::Array(items) => Content::List(
                items
                    .iter()
                    .map(|item| Self::from_json(item, place))
                    .collect(),
            ),
            Value::Object(map) => Content::Map(
                map.iter()
                    .map(|(key, value)| {
                        let node = Self::from_json(value, place);
                        (
                            key.as_str().into(),
                            Entry {
                                key_place: place,
                                node,
                            },
                        )
                    })
                    .collect(),
            ),
        };
        Self { content, place }
    }

    pub(crate) fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Truth(truth) => Value::Bool(*truth),
            Content::Number(number, _) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.to_string()),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(map) => map
                .iter()
                .map(|(key, entry)| (key.to_string(), entry.node.to_json()))
                .collect(),
        }
    }

    /// What a JSON pointer leads to, or the nearest that is there on the way, and whether it is the thing itself.
    pub(crate) fn find(&self, pointer: &str) -> (Found<'_>, bool) {
        let mut found = Found {
            node: self,
            key_place: None,
        };
        for segment in segments(pointer) {
            let Some(next) = found.node.child(&segment) else {
                return (found, false);
            };
            found = next;
        }
        (found, true)
    }

    fn child(&self, segment: &str) -> Option<Found<'_>> {
        match &self.content {
            Content::Map(map) => map.get(segment).map(|entry| Found {
                node: &entry.node,
                key_place: Some(entry.key_place),
            }),
            Content::List(items) => items.get(segment.parse::<usize>().ok()?).map(|node| Found {
                node,
                key_place: None,
            }),
            _ => None,
        }
    }

    pub(crate) fn size(&self) -> Size {
        let own = |bytes| Size {
            nodes: 1,
            bytes,
            depth: 1,
        };
        match &self.content {
            Content::Null | Content::Truth(_) => own(0),
            Content::Number(_, text) | Content::Text(text) => own(text.len()),
            Content::List(items) => items.iter().map(Self::size).fold(own(0), Size::with_child),
            Content::Map(map) => map.iter().fold(own(0), |size, (key, entry)| {
                let mut child = entry.node.size();
                child.bytes += key.len();
                size.with_child(child)
            }),
        }
    }
}

impl Size {
    fn with_child(self, child: Self) -> Self {
        Self {
            nodes: self.nodes + child.nodes,
            bytes: self.bytes + child.bytes,
            depth: self.depth.max(child.depth + 1),
        }
    }
}

impl Found<'_> {
    /// The text that stands for it: a scalar itself, otherwise the key that leads to it.
    pub(crate) fn place(&self) -> Place {
        let scalar = !matches!(self.node.content, Content::List(_) | Content::Map(_));
        match self.key_place {
            Some(key) if !scalar => key,
            _ => self.node.place,
        }
    }
}

/// The segments of a JSON pointer, without their escapes.
pub(crate) fn segments(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer
        .split('/')
        .skip(1)
        .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
}

/// The pointer of a child.
#[must_use]
pub fn pointer_to(parent: &str, segment: &str) -> String {
    format!("{parent}/{}", segment.replace('~', "~0").replace('/', "~1"))
}

/// The pointer of the parent and the last segment.
pub(crate) fn split_last(pointer: &str) -> (&str, &str) {
    pointer.rsplit_once('/').unwrap_or(("", pointer))
}
