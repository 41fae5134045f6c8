//! What a new version of the fleet changes, service by service and field by field. Pure.

use std::collections::BTreeSet;

use alicia_contract::ServiceName;
use alicia_contract::deployment::{ChangeKind, DeploymentPlan, Effect, FieldChange, ServiceChange};
use alicia_contract::fleet::{Fleet, ServiceSpec, UpdateStrategy};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::digest::effect_of;
use super::plan::{Overrides, in_start_order};

/// What stands in the place of a value that looks like a secret.
pub const SECRET: &str = "(secret)";

/// Settings that are maps of free names: what is in them is compared entry by entry.
const MAPS: [&str; 5] = ["environment", "labels", "ports", "checks", "secrets"];

/// Parts of names whose values nobody should read.
const SECRET_NAMES: [&str; 9] = [
    "secret",
    "token",
    "passw",
    "api_key",
    "apikey",
    "auth",
    "credential",
    "private",
    "_key",
];

/// Bytes of the hash of a fleet that are kept: two versions differ in it, and people can read it aloud.
const DIGEST_BYTES: usize = 8;

/// What is compared.
pub struct Versions<'v> {
    /// What is in force.
    pub old: &'v Fleet,
    /// What would be.
    pub new: &'v Fleet,
    /// Which services would run by themselves.
    pub selected: &'v BTreeSet<ServiceName>,
    /// What people asked for beside the file.
    pub overrides: &'v dyn Fn(&ServiceName) -> Overrides,
    /// Whether any instance of a service is there now.
    pub runs: &'v dyn Fn(&ServiceName) -> bool,
    /// Whether a text looks like a secret.
    pub looks_secret: &'v dyn Fn(&str) -> bool,
}

/// The digest of a fleet: the same for the same settings, whatever the layout of the file.
#[must_use]
pub fn digest(fleet: &Fleet) -> String {
    let hash = Sha256::digest(serde_json::to_string(fleet).unwrap_or_default());
    let bytes = hash[..DIGEST_BYTES].iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

impl Versions<'_> {
    /// Every service with what would happen to it, those that change first, in the order of their start.
    #[must_use]
    pub fn plan(&self, from: Option<u64>) -> DeploymentPlan {
        let names: BTreeSet<ServiceName> = self.new.services.keys().cloned().collect();
        let mut order = in_start_order(self.new, &names);
        let gone = self
            .old
            .services
            .keys()
            .filter(|name| !names.contains(*name));
        order.extend(gone.cloned());
        let services = order.iter().map(|name| self.change(name));
        let (changed, same): (Vec<_>, Vec<_>) =
            services.partition(|change| change.change != ChangeKind::Stay);
        DeploymentPlan {
            changes: !changed.is_empty(),
            from,
            digest: digest(self.new),
            services: changed.into_iter().chain(same).collect(),
            sections: Vec::new(),
        }
    }

    /// What would happen to one service.
    #[must_use]
    pub fn change(&self, name: &ServiceName) -> ServiceChange {
        let (old, new) = (self.old.services.get(name), self.new.services.get(name));
        let overrides = (self.overrides)(name);
        let fields = match (old, new) {
            (Some(old), Some(new)) => self.fields(old, new),
            _ => Vec::new(),
        };
        let (change, why) = self.kind(name, &fields);
        let is_update = change == ChangeKind::Update;
        let strategy = new
            .filter(|_| is_update)
            .and_then(|new| new.update.as_ref());
        ServiceChange {
            service: name.clone(),
            change,
            strategy: strategy.map(|update| update.strategy),
            why,
            held: new.and_then(|new| held(&overrides, old.map(AsRef::as_ref), new)),
            fields,
        }
    }

    fn kind(&self, name: &ServiceName, fields: &[FieldChange]) -> (ChangeKind, String) {
        let (old, new) = (self.old.services.get(name), self.new.services.get(name));
        let runs = (self.runs)(name);
        let enabled = (self.overrides)(name).enabled;
        let wanted = enabled.unwrap_or_else(|| self.selected.contains(name));
        let (old, new) = match (old, new) {
            (_, None) if runs => {
                return (ChangeKind::Stop, "it is no longer in the file".into());
            }
            (_, None) => {
                return (
                    ChangeKind::Apply,
                    "it is no longer in the file, and does not run".into(),
                );
            }
            (None, Some(_)) if wanted => return (ChangeKind::Start, "it is new".into()),
            (None, Some(_)) => return (ChangeKind::Apply, "it is new, and is not to run".into()),
            (Some(old), Some(new)) => (old, new),
        };
        let cause = fields
            .iter()
            .find(|field| field.effect == Effect::NewProcess);
        match (cause, fields) {
            (None, []) => (ChangeKind::Stay, "its settings are the same".into()),
            (Some(cause), _) if runs && wanted => {
                let why = format!("`{}` changed: {}", cause.field, cause.why);
                let in_steps = new.update.as_ref();
                match in_steps.filter(|update| update.strategy != UpdateStrategy::Recreate) {
                    Some(_) => (ChangeKind::Update, why),
                    None => (ChangeKind::Restart, why),
                }
            }
            _ if old.instances != new.instances => (
                ChangeKind::Scale,
                format!("from {} to {} instances", old.instances, new.instances),
            ),
            _ if !runs => (
                ChangeKind::Apply,
                "it does not run; the next start has them".into(),
            ),
            _ => (
                ChangeKind::Apply,
                "nothing that changed needs a new process".into(),
            ),
        }
    }

    /// The settings that differ.
    fn fields(&self, old: &ServiceSpec, new: &ServiceSpec) -> Vec<FieldChange> {
        if old == new {
            return Vec::new();
        }
        let (old, new) = (object(old), object(new));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let mut found = Vec::new();
        for name in names {
            let (before, after) = (old.get(name), new.get(name));
            if before == after {
                continue;
            }
            match (before, after) {
                (None | Some(Value::Object(_)), None | Some(Value::Object(_))) if is_map(name) => {
                    let empty = Map::new();
                    let entries = |value: Option<&'_ Value>| match value {
                        Some(Value::Object(entries)) => entries.clone(),
                        _ => empty.clone(),
                    };
                    let (before, after) = (entries(before), entries(after));
                    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                    for key in keys {
                        if before.get(key) != after.get(key) {
                            let path = format!("{name}.{key}");
                            found.push(self.field(name, &path, before.get(key), after.get(key)));
                        }
                    }
                }
                _ => found.push(self.field(name, name, before, after)),
            }
        }
        // What makes the difference comes first.
        found.sort_by_key(|field| field.effect != Effect::NewProcess);
        found
    }

    fn field(
        &self,
        name: &str,
        path: &str,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> FieldChange {
        let (effect, why) = effect_of(name);
        let shown = |value: Option<&Value>| match value {
            Some(_) if name == "environment" && is_secret_name(path) => SECRET.into(),
            Some(value) => self.shown(value),
            None => Value::Null,
        };
        FieldChange {
            field: path.to_owned(),
            old: shown(old),
            new: shown(new),
            effect,
            why: why.to_owned(),
        }
    }

    /// A value as it may be shown.
    fn shown(&self, value: &Value) -> Value {
        match value {
            Value::String(text) if self.is_secret_text(text) => SECRET.into(),
            Value::Array(items) => self.shown_list(items),
            Value::Object(entries) => {
                let entries = entries.iter().map(|(name, value)| {
                    let hidden = is_secret_name(name) && value.is_string();
                    let value = if hidden {
                        SECRET.into()
                    } else {
                        self.shown(value)
                    };
                    (name.clone(), value)
                });
                Value::Object(entries.collect())
            }
            other => other.clone(),
        }
    }

    /// What follows `--token` is as secret as the token.
    fn shown_list(&self, items: &[Value]) -> Value {
        let follows = |at: usize| {
            let before = at.checked_sub(1).and_then(|at| items[at].as_str());
            before.is_some_and(|word| {
                word.starts_with('-') && !word.contains('=') && is_secret_name(word)
            })
        };
        let shown = items
            .iter()
            .enumerate()
            .map(|(at, item)| match follows(at) {
                true => SECRET.into(),
                false => self.shown(item),
            });
        Value::Array(shown.collect())
    }

    fn is_secret_text(&self, text: &str) -> bool {
        let says = |word: &str| match word.split_once('=') {
            Some((name, _)) => is_secret_name(name),
            None => false,
        };
        let words = || text.split_whitespace();
        words().any(|word| says(word) || (self.looks_secret)(word))
            || words()
                .any(|word| word.starts_with('-') && !word.contains('=') && is_secret_name(word))
                && words().count() > 1
            || (self.looks_secret)(text)
    }

    /// A whole fleet as it may be shown.
    #[must_use]
    pub fn shown_fleet(&self, fleet: &Fleet) -> Value {
        let mut whole = serde_json::to_value(fleet).unwrap_or_default();
        if let Some(services) = whole.get_mut("services").and_then(Value::as_object_mut) {
            for service in services.values_mut() {
                let environment = service
                    .get_mut("environment")
                    .and_then(Value::as_object_mut);
                for (name, value) in environment.into_iter().flatten() {
                    if is_secret_name(name) {
                        *value = SECRET.into();
                    }
                }
                *service = self.shown(service);
            }
        }
        whole
    }
}

fn object(spec: &ServiceSpec) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn is_map(name: &str) -> bool {
    MAPS.contains(&name)
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|part| name.contains(part)) || name == "key"
}

/// What people asked for by hand, where it decides what the deployment does.
fn held(overrides: &Overrides, old: Option<&ServiceSpec>, new: &ServiceSpec) -> Option<String> {
    let stopped = (overrides.enabled == Some(false))
        .then(|| "it was stopped by hand and stays stopped; `alicia start` starts it".to_owned());
    let scaled = overrides.scale.map(|scale| {
        let asked = scale.instances;
        if scale.file_instances == new.instances {
            format!("it was scaled to {asked} by hand, which stays")
        } else {
            format!(
                "it was scaled to {asked} by hand, which ends, because the file says {}",
                new.instances
            )
        }
    });
    let started = (overrides.enabled == Some(true) && old.is_none())
        .then(|| "it was started by hand".to_owned());
    let said: Vec<String> = [stopped, scaled, started].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Scale, Selection};
    use super::*;
    use serde_json::json;

    fn fleet(services: Value) -> Fleet {
        serde_json::from_value(json!({ "name": "home", "services": services })).expect("a fleet")
    }

    fn plan_with(old: &Fleet, new: &Fleet, overrides: Overrides) -> DeploymentPlan {
        let selected = Selection::default().services(new);
        let versions = Versions {
            old,
            new,
            selected: &selected,
            overrides: &|_| overrides,
            runs: &|name| old.services.contains_key(name),
            looks_secret: &|text| text.starts_with("sk-"),
        };
        versions.plan(Some(1))
    }

    fn check(old: Value, new: Value, expected: &[(&str, ChangeKind, &[&str])]) {
        let plan = plan_with(&fleet(old), &fleet(new), Overrides::default());
        let found: Vec<_> = plan
            .services
            .iter()
            .map(|change| {
                let fields: Vec<_> = change
                    .fields
                    .iter()
                    .map(|field| field.field.as_str())
                    .collect();
                (change.service.as_str(), change.change, fields)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, kind, fields)| (*name, *kind, fields.to_vec()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_service_is_told_what_would_happen_to_it_and_which_fields_decide() {
        let old = json!({
            "api": { "command": "api", "environment": { "LEVEL": "info" } },
            "db": { "command": "db" },
            "gone": { "command": "gone" },
            "web": { "command": "web", "update": {} },
            "worker": { "command": "worker" },
        });
        let new = json!({
            "api": { "command": "api", "environment": { "LEVEL": "debug", "MORE": 1 }, "labels": { "team": "a" } },
            "db": { "command": "db", "restart": "never" },
            "fresh": { "command": "fresh" },
            "web": { "command": "web --new", "update": { "surge": 2 } },
            "worker": { "command": "worker", "instances": 3 },
        });
        check(
            old,
            new,
            &[
                (
                    "api",
                    ChangeKind::Restart,
                    &["environment.LEVEL", "environment.MORE", "labels.team"],
                ),
                ("db", ChangeKind::Apply, &["restart"]),
                ("fresh", ChangeKind::Start, &[]),
                ("web", ChangeKind::Update, &["command", "update"]),
                ("worker", ChangeKind::Scale, &["instances"]),
                ("gone", ChangeKind::Stop, &[]),
            ],
        );
    }

    #[test]
    fn the_same_settings_in_another_layout_are_no_change() {
        let old = fleet(json!({ "api": { "command": "api", "depends_on": [] } }));
        let new = fleet(json!({ "api": { "command": "api", "instances": 1 } }));
        let plan = plan_with(&old, &new, Overrides::default());
        assert!(!plan.changes, "{plan:?}");
        assert_eq!(digest(&old), digest(&new));
    }

    #[test]
    fn secrets_are_told_to_change_and_not_shown() {
        let service = |secret: &str| {
            fleet(json!({ "api": {
                "command": ["api", "--token", secret, format!("--api-key={secret}")],
                "environment": { "DB_PASSWORD": secret, "URL": format!("sk-{secret}"), "LEVEL": "info" },
            }}))
        };
        let (old, new) = (service("canary-1"), service("canary-2"));
        let plan = plan_with(&old, &new, Overrides::default());
        let text = serde_json::to_string(&plan).expect("json");
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("environment.DB_PASSWORD"), "{text}");
        let selected = BTreeSet::new();
        let versions = Versions {
            old: &old,
            new: &new,
            selected: &selected,
            overrides: &|_| Overrides::default(),
            runs: &|_| false,
            looks_secret: &|text| text.starts_with("sk-"),
        };
        let shown = versions.shown_fleet(&new).to_string();
        assert!(
            !shown.contains("canary") && shown.contains("\"LEVEL\":\"info\""),
            "{shown}"
        );
    }

    #[test]
    fn what_was_asked_for_by_hand_is_said() {
        let old = fleet(json!({ "api": { "command": "api", "instances": 2 } }));
        let new = fleet(json!({ "api": { "command": "api --new", "instances": 2 } }));
        let stopped = Overrides {
            enabled: Some(false),
            scale: Some(Scale {
                instances: 5,
                file_instances: 2,
            }),
        };
        let plan = plan_with(&old, &new, stopped);
        let held = plan.services[0].held.clone().expect("it says so");
        assert!(
            held.contains("stays stopped") && held.contains("scaled to 5"),
            "{held}"
        );
        assert_eq!(plan.services[0].change, ChangeKind::Apply);
    }
}
