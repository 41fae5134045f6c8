//! Keys that were written one mapping too high: `stop_grace` for the key `grace` below `stop`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{foreign, words};
use crate::nearest::{near, one_of};

/// A key in more places than this is not guessed.
const PLACES_MAX: usize = 3;

/// The deepest nesting of alternatives in a schema that is followed; a schema of ours has two.
const ALTERNATIVES_MAX: usize = 4;

/// The keys of the mappings directly below one, as paths: `stop.grace`.
pub(super) struct Below<'s>(BTreeSet<Path<'s>>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path<'s> {
    section: &'s str,
    key: &'s str,
    whole: String,
}

// === impl Below ===

impl<'s> Below<'s> {
    /// What a schema has below its own keys.
    pub(super) fn of(root: &'s Value, schema: &'s Value) -> Self {
        let sections = schema["properties"].as_object();
        let paths = sections.into_iter().flatten().flat_map(|(section, below)| {
            let mut mappings = Vec::new();
            collect(root, below, ALTERNATIVES_MAX, &mut mappings);
            let keys = mappings
                .into_iter()
                .filter_map(|mapping| mapping["properties"].as_object())
                .flatten();
            keys.map(move |(key, _)| Path {
                section,
                key,
                whole: format!("{section}.{key}"),
            })
        });
        Self(paths.collect())
    }

    /// What to do about a key that has a path below here and another name elsewhere.
    pub(super) fn foreign(&self, key: &str) -> Option<String> {
        self.find(foreign::path_here(key)?).map(Path::proposal)
    }

    /// What to do about a key that is a path below here, or nearly, but for what stands between its parts; with how many
    /// characters differ.
    pub(super) fn path(&self, key: &str) -> Option<(usize, String)> {
        let (distance, whole) = near(key, self.wholes())?;
        self.find(whole).map(|path| (distance, path.proposal()))
    }

    /// What to do about a key that is the last part of a path below here.
    pub(super) fn last_part(&self, key: &str) -> Option<String> {
        let places: Vec<&Path<'_>> = self.0.iter().filter(|path| path.key == key).collect();
        match &places[..] {
            [one] => Some(one.proposal()),
            many if (2..=PLACES_MAX).contains(&many.len()) => {
                let wholes = many.iter().map(|path| path.whole.as_str());
                Some(format!("did you mean {}?", one_of(wholes)))
            }
            _ => None,
        }
    }

    /// What to do about a key that begins with one that has others below it.
    pub(super) fn first_part(&self, key: &str) -> Option<String> {
        let begins = |path: &&Path<'_>| {
            key.strip_prefix(path.section)
                .is_some_and(|rest| rest.starts_with(['_', '-', '.']))
        };
        let longest = self.0.iter().filter(begins);
        let section = longest
            .map(|path| path.section)
            .max_by_key(|name| name.len())?;
        let keys = self.0.iter().filter(|path| path.section == section);
        let keys = one_of(keys.map(|path| path.key));
        Some(format!("below `{section}` there can be {keys}"))
    }

    fn find(&self, whole: &str) -> Option<&Path<'s>> {
        self.0.iter().find(|path| path.whole == whole)
    }

    fn wholes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|path| path.whole.as_str())
    }
}

// === impl Path ===

impl Path<'_> {
    fn proposal(&self) -> String {
        let Self {
            section,
            key,
            whole,
        } = self;
        format!("did you mean `{whole}`? write `{section}: {{{key}: …}}`")
    }
}

/// The mappings among a schema and its alternatives.
fn collect<'s>(root: &'s Value, schema: &'s Value, depth: usize, found: &mut Vec<&'s Value>) {
    let schema = words::resolve(root, schema);
    if schema["properties"].is_object() {
        found.push(schema);
    }
    if depth > 0 {
        for branch in words::branches(root, schema) {
            collect(root, branch, depth - 1, found);
        }
    }
}
