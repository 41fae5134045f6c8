//! What an import makes: services with their settings, and notes about what has no counterpart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use alicia_contract::ServiceName;
use alicia_contract::id::ID_CHARS_MAX;
use serde_json::{Map, Value, json};

use crate::write;

/// What was not carried over, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it stands: `compose.yaml:12:5`, or the name of the file.
    pub place: String,
    /// What it is and what to do, in one line.
    pub message: String,
}

/// A service of the new file.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// Its settings, as in `alicia.yaml`.
    pub settings: Map<String, Value>,
    /// What was not carried over.
    pub notes: Vec<Note>,
}

/// The services of a new file.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// The name of the fleet, when the file has one.
    pub name: Option<String>,
    /// The services.
    pub services: BTreeMap<ServiceName, Service>,
    /// What is about no single service.
    pub notes: Vec<Note>,
    /// Names as they were in the file, where they had to change.
    renamed: BTreeMap<String, ServiceName>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

// === impl Service ===

impl Service {
    /// Sets a setting.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Sets a setting of a part, such as `stop.grace`.
    pub(crate) fn set_in(&mut self, part: &str, name: &str, value: impl Into<Value>) {
        let map = self
            .settings
            .entry(part.to_owned())
            .or_insert_with(|| json!({}));
        if let Some(map) = map.as_object_mut() {
            map.insert(name.to_owned(), value.into());
        }
    }

    /// Adds to a list.
    pub(crate) fn push(&mut self, name: &str, value: impl Into<Value>) {
        let list = self
            .settings
            .entry(name.to_owned())
            .or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(value.into());
        }
    }

    /// Adds to a list of a part, such as `on_exit.force_restart`.
    pub(crate) fn push_in(&mut self, part: &str, name: &str, values: Vec<Value>) {
        let map = self
            .settings
            .entry(part.to_owned())
            .or_insert_with(|| json!({}));
        if let Some(list) = map
            .as_object_mut()
            .map(|map| map.entry(name).or_insert_with(|| json!([])))
            .and_then(Value::as_array_mut)
        {
            list.extend(values);
        }
    }

    /// Says that something was not carried over.
    pub(crate) fn note(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.notes.push(Note {
            place: place.into(),
            message: message.into(),
        });
    }
}

// === impl Draft ===

impl Draft {
    /// A draft without services.
    pub(crate) fn named(name: Option<String>) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Says that something was not carried over.
    pub(crate) fn note(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.notes.push(Note {
            place: place.into(),
            message: message.into(),
        });
    }

    /// The name that a service gets: lower case, `-` for what is not allowed, and a number when it is taken.
    pub(crate) fn name_for(&mut self, found: &str) -> ServiceName {
        let taken: BTreeSet<&ServiceName> =
            self.services.keys().chain(self.renamed.values()).collect();
        let base = plain_name(found);
        let mut candidates =
            std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
        let name = candidates
            .find_map(|name| {
                ServiceName::new(name)
                    .ok()
                    .filter(|name| !taken.contains(name))
            })
            .expect("numbers do not end");
        if name.as_str() != found {
            self.renamed.insert(found.to_owned(), name.clone());
        }
        name
    }

    /// The new name of a service of the file.
    pub(crate) fn renamed(&self, found: &str) -> Option<ServiceName> {
        let own = || ServiceName::new(found).ok();
        let name = self.renamed.get(found).cloned().or_else(own)?;
        self.services.contains_key(&name).then_some(name)
    }

    /// Last touches: changed names are said, dependencies on what is not there become notes.
    pub(crate) fn finish(&mut self) {
        for (found, name) in std::mem::take(&mut self.renamed) {
            if let Some(service) = self.services.get_mut(&name) {
                let message = format!("the name was `{found}`: names are made of a-z, 0-9 and -");
                service.note("name", message);
            }
        }
        let names: BTreeSet<String> = self.services.keys().map(ToString::to_string).collect();
        for service in self.services.values_mut() {
            let Some(needs) = service
                .settings
                .get_mut("depends_on")
                .and_then(Value::as_object_mut)
            else {
                continue;
            };
            let missing: Vec<String> = needs
                .keys()
                .filter(|name| !names.contains(*name))
                .cloned()
                .collect();
            for name in &missing {
                needs.remove(name);
            }
            if needs.is_empty() {
                service.settings.remove("depends_on");
            }
            for name in missing {
                let message = format!("`{name}` is not among the imported services");
                service.note("depends_on", message);
            }
        }
    }

    /// The text of the new file. Notes stand as comments before their service.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        write::file(self)
    }

    /// All notes: those of services with the name of the service before them.
    #[must_use]
    pub fn all_notes(&self) -> Vec<(Option<&ServiceName>, &Note)> {
        let own = self.notes.iter().map(|note| (None, note));
        let of_services = self
            .services
            .iter()
            .flat_map(|(name, service)| service.notes.iter().map(move |note| (Some(name), note)));
        own.chain(of_services).collect()
    }
}

/// A name of the letters that are allowed; `service` when nothing is left.
pub(crate) fn plain_name(found: &str) -> String {
    let mut name = String::new();
    for c in found.chars() {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => name.push(c),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    // Room for a number behind it.
    let name: String = name
        .trim_matches('-')
        .chars()
        .take(ID_CHARS_MAX - 4)
        .collect();
    match name.trim_end_matches('-') {
        "" => "service".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_names_of_services() {
        for (found, expect) in [
            ("web", "web"),
            ("Web_Worker", "web-worker"),
            ("my.app:1", "my-app-1"),
            ("--", "service"),
            ("ÄÖ", "service"),
            (&"x".repeat(90), &"x".repeat(59)),
        ] {
            assert_eq!(plain_name(found), expect, "{found}");
        }
    }

    #[test]
    fn two_names_that_become_one_stay_two() {
        let mut draft = Draft::default();
        for found in ["a_b", "a.b"] {
            let name = draft.name_for(found);
            draft.services.insert(name, Service::default());
        }
        let names: Vec<&str> = draft.services.keys().map(ServiceName::as_str).collect();
        assert_eq!(names, ["a-b", "a-b-2"]);
    }
}
