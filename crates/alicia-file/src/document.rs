//! The document: all layers together, each value with its origin.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::fault::{Fault, Origin, in_order};
use crate::layer::{Layer, Layers, Place};
use crate::overlay;
use crate::schema::Schema;
use crate::source::{FileText, Sources, VARIABLE_PREFIX};
use crate::tree::{Content, Map, Node, pointer_to};
use crate::yaml::{self, Dialect, FILE_BYTES_MAX};

/// All layers together, each value with its origin.
#[derive(Debug, Clone)]
pub struct Document {
    layers: Layers,
    root: Node,
}

// === impl Document ===

impl Document {
    /// Reads all layers and puts them together.
    ///
    /// # Errors
    /// Every fault of every layer, in the order of files and lines.
    pub fn parse(sources: Sources) -> Result<Self, Vec<Fault>> {
        let mut layers = Layers::default();
        let layer = layers.add(Layer::Default);
        let place = Place {
            layer,
            ..Place::default()
        };
        let mut reading = Reading {
            root: Node::from_json(&sources.defaults, place),
            layers,
            dialect: match sources.foreign {
                true => Dialect::Foreign,
                false => Dialect::Own,
            },
            faults: Vec::new(),
        };
        reading.files(sources.files);
        for (name, text) in sources.variables {
            reading.variable(&name, &text);
        }
        for (pointer, text) in sources.flags {
            reading.flag(&pointer, &text);
        }
        reading.finish()
    }

    /// The whole as JSON. Texts are as they were written: nothing is interpolated.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.root.to_json()
    }

    /// Whether there is a value, `null` included.
    #[must_use]
    pub fn contains(&self, pointer: &str) -> bool {
        self.root.find(pointer).1
    }

    /// The keys of a map, or nothing.
    #[must_use]
    pub fn keys(&self, pointer: &str) -> Vec<&str> {
        match self.root.find(pointer) {
            (found, true) => match &found.node.content {
                Content::Map(map) => map.keys().map(AsRef::as_ref).collect(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// A part of the document as a type. `None` when it is not there or `null`.
    ///
    /// # Errors
    /// A fault at the value that does not fit.
    pub fn get<T: DeserializeOwned>(&self, pointer: &str) -> Result<Option<T>, Fault> {
        let (found, exact) = self.root.find(pointer);
        if !exact || matches!(found.node.content, Content::Null) {
            return Ok(None);
        }
        let value = found.node.to_json();
        serde_path_to_error::deserialize(value)
            .map(Some)
            .map_err(|error| {
                let inner = error
                    .path()
                    .iter()
                    .fold(pointer.to_owned(), |pointer, segment| {
                        use serde_path_to_error::Segment;
                        match segment {
                            Segment::Seq { index } => pointer_to(&pointer, &index.to_string()),
                            Segment::Map { key } => pointer_to(&pointer, key),
                            Segment::Enum { .. } | Segment::Unknown => pointer,
                        }
                    });
                // Errors of the contract read after "failed to".
                let message = match error.into_inner().to_string() {
                    message if message.starts_with("read ") => format!("cannot {message}"),
                    message => message,
                };
                self.fault_at(&inner, message)
            })
    }

    /// A fault at a value: the value itself when it is a scalar, otherwise its key. When the value is not there, at the
    /// nearest that is there around it.
    #[must_use]
    pub fn fault_at(&self, pointer: &str, message: impl Into<String>) -> Fault {
        self.layers.fault(self.place(pointer), pointer, message)
    }

    /// A fault at the key of a value.
    #[must_use]
    pub fn fault_at_key(&self, pointer: &str, message: impl Into<String>) -> Fault {
        let (found, _) = self.root.find(pointer);
        let place = found.key_place.unwrap_or(found.node.place);
        self.layers.fault(place, pointer, message)
    }

    /// Where a value comes from.
    #[must_use]
    pub fn origin(&self, pointer: &str) -> Origin {
        self.layers.origin(self.place(pointer))
    }

    /// Everything that does not fit the schema, in the order of files and lines.
    #[must_use]
    pub fn check(&self, schema: &Schema) -> Vec<Fault> {
        in_order(schema.check(self))
    }

    /// How a number is written, where that is not how it is read: `1.10` is the number 1.1.
    pub(crate) fn number_as_written(&self, pointer: &str) -> Option<&str> {
        match &self.root.find(pointer).0.node.content {
            Content::Number(number, text) if number.to_string() != **text => Some(text),
            _ => None,
        }
    }

    /// Whether a value is a list.
    pub(crate) fn is_list(&self, pointer: &str) -> bool {
        matches!(self.root.find(pointer), (found, true) if matches!(found.node.content, Content::List(_)))
    }

    fn place(&self, pointer: &str) -> Place {
        self.root.find(pointer).0.place()
    }
}

/// A document while its layers are read.
struct Reading {
    layers: Layers,
    root: Node,
    dialect: Dialect,
    faults: Vec<Fault>,
}

impl Reading {
    fn files(&mut self, files: Vec<FileText>) {
        let mut joined = Node::new(Content::Null, Place::default());
        let first = self.layers.next();
        let any = !files.is_empty();
        for file in files {
            match self.file(&file) {
                Ok(node) => {
                    let faults = overlay::join(&mut joined, node, &self.layers);
                    self.faults.extend(faults);
                }
                Err(faults) => self.faults.extend(faults),
            }
        }
        if !matches!(joined.content, Content::Null) {
            overlay::cover(&mut self.root, joined);
        }
        if any {
            // What is missing at the top is missing in the first file.
            self.root.place = Place {
                layer: first,
                line: 1,
                column: 1,
                width: 1,
            };
        }
    }

    fn file(&mut self, file: &FileText) -> Result<Node, Vec<Fault>> {
        if file.bytes.len() > FILE_BYTES_MAX {
            let layer = self.layers.add(Layer::file(&file.name, ""));
            let mib = FILE_BYTES_MAX >> 20;
            let message = format!("this file is larger than {mib} MiB");
            let place = Place {
                layer,
                line: 1,
                column: 1,
                width: 1,
            };
            let fault = self.layers.fault(place, "", message);
            return Err(vec![fault.with_hint("split it into a directory of files")]);
        }
        let text = match std::str::from_utf8(&file.bytes) {
            Ok(text) => text,
            Err(error) => return Err(vec![self.not_utf8(file, error.valid_up_to())]),
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let layer = self.layers.add(Layer::file(&file.name, text));
        let node = yaml::parse(text, layer, &self.layers, self.dialect)?;
        match node.content {
            Content::Map(_) | Content::Null => Ok(node),
            _ => {
                let fault = self
                    .layers
                    .fault(node.place, "", "this is not a map of keys");
                Err(vec![
                    fault.with_hint("begin with a key, such as `services:`"),
                ])
            }
        }
    }

    fn not_utf8(&mut self, file: &FileText, valid_up_to: usize) -> Fault {
        let readable = String::from_utf8_lossy(&file.bytes);
        let layer = self.layers.add(Layer::file(&file.name, &readable));
        let place = yaml::place_of_byte(&readable, valid_up_to, layer);
        let message = format!("the byte 0x{:02X} is not UTF-8", file.bytes[valid_up_to]);
        self.layers
            .fault(place, "", message)
            .with_hint("save the file as UTF-8")
    }

    fn variable(&mut self, name: &str, text: &str) {
        let levels = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name);
        let pointer = overlay::pointer_of_variable(levels, &self.root);
        let layer = Layer::Environment {
            variable: name.to_owned(),
        };
        self.set(layer, &pointer, text);
    }

    fn flag(&mut self, pointer: &str, text: &str) {
        let layer = Layer::Flag {
            flag: format!("{pointer}={text}"),
        };
        match pointer.starts_with('/') {
            true => self.set(layer, pointer, text),
            false => {
                let layer = self.layers.add(layer);
                let message = format!("found {pointer:?}, expected a pointer such as /http/listen");
                let place = Place {
                    layer,
                    ..Place::default()
                };
                let fault = self.layers.fault(place, "", message);
                self.faults.push(fault.with_hint("start it with `/`"));
            }
        }
    }

    fn set(&mut self, layer: Layer, pointer: &str, text: &str) {
        let layer = self.layers.add(layer);
        let place = Place {
            layer,
            ..Place::default()
        };
        match overlay::value(text, place, &self.layers) {
            Ok(node) => {
                let set = overlay::set(&mut self.root, pointer, node, &self.layers);
                self.faults.extend(set.err().map(|fault| *fault));
            }
            Err(faults) => self.faults.extend(faults),
        }
    }

    fn finish(self) -> Result<Document, Vec<Fault>> {
        if !self.faults.is_empty() {
            return Err(in_order(self.faults));
        }
        let root = match self.root.content {
            Content::Null => Node::new(Content::Map(Map::new()), self.root.place),
            _ => self.root,
        };
        Ok(Document {
            layers: self.layers,
            root,
        })
    }
}
