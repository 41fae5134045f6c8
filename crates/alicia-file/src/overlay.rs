//! How layers come together: fragments beside each other, environment and flags on top.

use std::collections::btree_map;

use crate::fault::Fault;
use crate::layer::{Layers, Place};
use crate::scalar;
use crate::tree::{Content, Entry, Map, Node, pointer_to, segments};
use crate::yaml;

/// Keys at this level and above are shared by fragments (`services`); below it each belongs to one (`services.api`).
const SHARED_LEVELS: usize = 1;

/// Puts a fragment beside what is there. What is in both is a fault that names both.
pub(crate) fn join(base: &mut Node, fragment: Node, layers: &Layers) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut joining = Joining {
        layers,
        faults: &mut faults,
    };
    match (&mut base.content, fragment.content) {
        (Content::Null, content) => *base = Node::new(content, fragment.place),
        (_, Content::Null) => {}
        (Content::Map(base), Content::Map(fragment)) => joining.maps(base, fragment, "", 0),
        // That a document must be a map is said later, where it is checked.
        _ => {}
    }
    faults
}

struct Joining<'j> {
    layers: &'j Layers,
    faults: &'j mut Vec<Fault>,
}

impl Joining<'_> {
    fn maps(&mut self, base: &mut Map, fragment: Map, pointer: &str, level: usize) {
        for (key, entry) in fragment {
            let pointer = pointer_to(pointer, &key);
            let Some(first) = base.get_mut(&key) else {
                base.insert(key, entry);
                continue;
            };
            match (&mut first.node.content, entry.node.content) {
                (Content::Map(first), Content::Map(second)) if level < SHARED_LEVELS => {
                    self.maps(first, second, &pointer, level + 1);
                }
                _ => {
                    let origin = self.layers.origin(first.key_place);
                    let message = format!("`{key}` is in two files, first at {origin}");
                    let fault = self.layers.fault(entry.key_place, &pointer, message);
                    self.faults.push(fault.with_hint("remove one of them"));
                }
            }
        }
    }
}

/// Puts a layer on top: maps come together, everything else is replaced.
pub(crate) fn cover(base: &mut Node, top: Node) {
    match (&mut base.content, top.content) {
        (Content::Map(map), Content::Map(top_map)) => {
            base.place = top.place;
            for (key, entry) in top_map {
                match map.entry(key) {
                    btree_map::Entry::Vacant(slot) => {
                        slot.insert(entry);
                    }
                    btree_map::Entry::Occupied(mut slot) => {
                        slot.get_mut().key_place = entry.key_place;
                        cover(&mut slot.get_mut().node, entry.node);
                    }
                }
            }
        }
        (_, content) => *base = Node::new(content, top.place),
    }
}

/// The pointer that a variable means; levels are looked up in the tree, so that `MY_API` finds `my-api`.
pub(crate) fn pointer_of_variable(name: &str, base: &Node) -> String {
    let mut pointer = String::new();
    for level in name.to_lowercase().split("__") {
        let (found, exact) = base.find(&pointer);
        let dashed = level.replace('_', "-");
        let known = match &found.node.content {
            Content::Map(map) if exact => {
                !map.contains_key(level) && map.contains_key(dashed.as_str())
            }
            _ => false,
        };
        pointer = pointer_to(&pointer, if known { &dashed } else { level });
    }
    pointer
}

/// The value of a variable or flag: a list or map in brackets, a quoted text, or otherwise what the text is.
pub(crate) fn value(text: &str, place: Place, layers: &Layers) -> Result<Node, Vec<Fault>> {
    let trimmed = text.trim();
    if !trimmed.starts_with(['[', '{', '"', '\'']) {
        return Ok(Node::new(scalar::resolve(trimmed), place));
    }
    let node = yaml::parse(trimmed, place.layer, layers, yaml::Dialect::Own)?;
    // Positions inside a variable help nobody: the whole of it is one place.
    Ok(Node::from_json(&node.to_json(), place))
}

/// Sets a value; maps on the way to it are made.
pub(crate) fn set(
    base: &mut Node,
    pointer: &str,
    value: Node,
    layers: &Layers,
) -> Result<(), Box<Fault>> {
    let place = value.place;
    if segments(pointer).count() + value.size().depth > yaml::DEPTH_MAX {
        let message = format!("nested more than {} levels deep", yaml::DEPTH_MAX);
        let fault = layers.fault(place, pointer, message);
        return Err(Box::new(fault.with_hint("name a value that is there")));
    }
    let mut node = base;
    let mut passed = String::new();
    for segment in segments(pointer) {
        if matches!(node.content, Content::Null) {
            node.content = Content::Map(Map::new());
        }
        let next = pointer_to(&passed, &segment);
        let here = std::mem::replace(&mut passed, next);
        let origin = layers.origin(node.place);
        let fault = |found: &str| {
            let here = if here.is_empty() { "/" } else { &here };
            let message = format!("sets {pointer}, but {here} ({origin}) {found}");
            let hint = "name a value that is there, or change the file";
            Box::new(layers.fault(place, pointer, message).with_hint(hint))
        };
        node = match &mut node.content {
            Content::Map(map) => {
                let new = || Entry {
                    key_place: place,
                    node: Node::new(Content::Null, place),
                };
                &mut map.entry(segment.into()).or_insert_with(new).node
            }
            Content::List(items) => {
                let length = items.len();
                let index = segment
                    .parse::<usize>()
                    .ok()
                    .filter(|index| *index < length);
                let Some(index) = index else {
                    return Err(fault(&format!("is a list of {length} items")));
                };
                &mut items[index]
            }
            _ => return Err(fault("is neither a map nor a list")),
        };
    }
    *node = value;
    Ok(())
}
