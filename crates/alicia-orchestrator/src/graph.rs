//! The graph of dependencies as people want to see it. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Condition, Fleet};
use alicia_file::graph::levels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The form of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// With the order and the critical path.
    #[default]
    Json,
    /// For Graphviz.
    Dot,
    /// For Mermaid.
    Mermaid,
}

/// Who needs whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Dependencies {
    /// Every service by name.
    pub(crate) services: BTreeMap<ServiceName, Links>,
    /// An order in which they start.
    pub(crate) order: Vec<ServiceName>,
    /// The services that start at the same time, level by level.
    pub(crate) levels: Vec<Vec<ServiceName>>,
    /// The longest chain, first to last: no start of the whole is quicker than these one after the other.
    pub(crate) critical_path: Vec<ServiceName>,
}

/// The neighbours of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Links {
    /// What it needs.
    pub(crate) depends_on: BTreeMap<ServiceName, Condition>,
    /// Who needs it.
    pub(crate) needed_by: Vec<ServiceName>,
}

// === impl Dependencies ===

impl Dependencies {
    /// The graph of a fleet. The file has no cycle; one that got through would have no levels.
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let levels = levels(fleet).unwrap_or_default();
        let mut services: BTreeMap<ServiceName, Links> = BTreeMap::new();
        for (name, spec) in &fleet.services {
            for need in spec.depends_on.0.keys() {
                services
                    .entry(need.clone())
                    .or_default()
                    .needed_by
                    .push(name.clone());
            }
            services.entry(name.clone()).or_default().depends_on = spec.depends_on.0.clone();
        }
        Self {
            order: levels.concat(),
            critical_path: critical_path(&services, &levels),
            services,
            levels,
        }
    }

    /// For Graphviz: an arrow from who needs to what is needed.
    pub(crate) fn dot(&self) -> String {
        let mut text = String::from("digraph fleet {\n");
        self.draw(&mut text, |text, name, need| match need {
            None => writeln!(text, "  \"{name}\";"),
            Some((need, condition)) => {
                writeln!(
                    text,
                    "  \"{name}\" -> \"{need}\" [label=\"{}\"];",
                    word(condition)
                )
            }
        });
        text.push_str("}\n");
        text
    }

    /// For Mermaid.
    pub(crate) fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        // Some names are words of Mermaid (`end`): ids get a prefix, and the name is the label.
        self.draw(&mut text, |text, name, need| match need {
            None => writeln!(text, "  s-{name}[\"{name}\"]"),
            Some((need, condition)) => {
                writeln!(text, "  s-{name} -->|{}| s-{need}", word(condition))
            }
        });
        text
    }

    fn draw(
        &self,
        text: &mut String,
        line: impl Fn(&mut String, &ServiceName, Option<(&ServiceName, Condition)>) -> std::fmt::Result,
    ) {
        for (name, links) in &self.services {
            let needs = links
                .depends_on
                .iter()
                .map(|(need, condition)| Some((need, *condition)));
            std::iter::once(None)
                .chain(needs)
                .try_for_each(|need| line(text, name, need))
                .expect("writing to a String cannot fail");
        }
    }
}

/// The longest chain: each level knows the longest way to each of its services.
fn critical_path(
    services: &BTreeMap<ServiceName, Links>,
    levels: &[Vec<ServiceName>],
) -> Vec<ServiceName> {
    let mut before: BTreeMap<&ServiceName, (usize, Option<&ServiceName>)> = BTreeMap::new();
    for name in levels.iter().flatten() {
        let needs = services[name].depends_on.keys();
        let longest = needs
            .filter_map(|need| Some((before.get(need)?.0 + 1, Some(need))))
            .max_by_key(|(length, _)| *length);
        before.insert(name, longest.unwrap_or((0, None)));
    }
    let last = before
        .iter()
        .max_by_key(|(_, (length, _))| *length)
        .map(|(name, _)| *name);
    let mut path: Vec<ServiceName> = std::iter::successors(last, |name| before[*name].1)
        .cloned()
        .collect();
    path.reverse();
    path
}

fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Started => "started",
        Condition::Healthy => "healthy",
        Condition::Completed => "completed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn graph() -> Dependencies {
        let fleet = serde_json::from_value(json!({ "name": "home", "services": {
            "api": { "command": "a", "depends_on": { "db": "healthy", "migrate": "completed" } },
            "clock": { "command": "c" },
            "db": { "command": "d" },
            "migrate": { "command": "m", "depends_on": { "db": "started" } },
        }}));
        Dependencies::of(&fleet.expect("a fleet"))
    }

    fn names(text: &str) -> Vec<ServiceName> {
        text.split(' ')
            .map(|name| ServiceName::new(name).expect("a name"))
            .collect()
    }

    #[test]
    fn the_longest_chain_is_the_critical_path() {
        let graph = graph();
        assert_eq!(graph.critical_path, names("db migrate api"));
        assert_eq!(
            graph.levels,
            [names("clock db"), names("migrate"), names("api")]
        );
        assert_eq!(
            graph.services[&names("db")[0]].needed_by,
            names("api migrate")
        );
    }

    #[test]
    fn both_drawings_name_the_conditions() {
        let graph = graph();
        assert!(
            graph
                .dot()
                .contains("\"api\" -> \"migrate\" [label=\"completed\"];\n")
        );
        assert!(graph.dot().contains("  \"clock\";\n"));
        assert!(
            graph
                .mermaid()
                .starts_with("flowchart LR\n  s-api[\"api\"]\n")
        );
        assert!(graph.mermaid().contains("  s-migrate -->|started| s-db\n"));
    }
}
