//! Holds `docs/actions.md` against the documents of the command line, of REST and of the bus, in both directions: what stands
//! there exists, and every route that changes something and every request of the bus stands there.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context;
use serde_json::Value;

use crate::root;

/// The columns of a table: what is done, then how in each of the three.
const COLUMNS: usize = 4;

/// In the place of an action that one of the three does not have, before the reason.
const NOWHERE: &str = "–";

/// Words of a reason: fewer say nothing.
const REASON_WORDS_MIN: usize = 2;

/// Methods of HTTP that change something.
const CHANGING: [&str; 4] = ["post", "put", "patch", "delete"];

/// Publishers that are part of the program: what they tell on their own is no action of anybody.
const MODULES: [&str; 5] = ["registry", "health", "orchestrator", "host", "the host"];

/// Adds what is wrong with the page.
pub(crate) fn check(faults: &mut Vec<String>) -> anyhow::Result<()> {
    let read = |name: &str| {
        let path = root().join("docs").join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let known = Known {
        commands: read("command-line.md")?,
        rest: serde_json::from_str(&read("openapi.json")?).context("read openapi.json")?,
        bus: serde_json::from_str(&read("asyncapi.json")?).context("read asyncapi.json")?,
    };
    let found = known.faults(&read("actions.md")?);
    faults.extend(
        found
            .into_iter()
            .map(|fault| format!("docs/actions.md: {fault}")),
    );
    Ok(())
}

/// What there is.
struct Known {
    commands: String,
    rest: Value,
    bus: Value,
}

/// One line of a table.
struct Row<'p> {
    action: &'p str,
    /// Command line, REST, bus.
    cells: [&'p str; 3],
}

// === impl Known ===

impl Known {
    fn faults(&self, page: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let rows = rows(page, &mut faults);
        let routes: BTreeSet<String> = self.routes(|_| true).collect();
        let topics: BTreeSet<String> = self.topics(|_| true).collect();
        for row in &rows {
            for cell in row.cells {
                let reason = cell.strip_prefix(NOWHERE).map(str::split_whitespace);
                let is_reason = reason.is_some_and(|words| words.count() >= REASON_WORDS_MIN);
                if items(cell).next().is_none() != is_reason {
                    let expected = "a name in backticks, or `–` and why not";
                    faults.push(format!(
                        "{}: found {cell:?}, expected {expected}",
                        row.action
                    ));
                }
            }
            let [command, route, topic] = row.cells;
            let exists: [&dyn Fn(&str) -> bool; 3] = [
                &|item: &str| self.has_command(item),
                &|item: &str| routes.contains(item),
                &|item: &str| topics.contains(item),
            ];
            for (cell, exists) in [command, route, topic].into_iter().zip(exists) {
                let unknown = items(cell).filter(|item| !exists(item));
                faults.extend(unknown.map(|item| format!("{}: there is no `{item}`", row.action)));
            }
        }
        let listed: BTreeSet<&str> = rows
            .iter()
            .flat_map(|row| row.cells.into_iter().flat_map(items))
            .collect();
        let changing = self.routes(|method| CHANGING.contains(&method));
        let asked = self.topics(is_asked);
        let missing = changing
            .chain(asked)
            .filter(|one| !listed.contains(one.as_str()));
        faults.extend(missing.map(|one| format!("`{one}` is in no row")));
        faults
    }

    /// Whether the program has this command, with the options that are named.
    fn has_command(&self, item: &str) -> bool {
        let (words, options): (Vec<&str>, Vec<&str>) =
            item.split(' ').partition(|word| !word.starts_with('-'));
        let Some(section) = self.section(&words) else {
            // One below a command whose parts have no section of their own.
            let Some((last, before)) = words.split_last() else {
                return false;
            };
            let start = format!("  {last} ");
            let listed = self.section(before).unwrap_or_default();
            return options.is_empty() && listed.lines().any(|line| line.starts_with(&start));
        };
        options
            .iter()
            .all(|option| section.split_whitespace().any(|word| word == *option))
    }

    /// What the reference says of a command.
    fn section(&self, words: &[&str]) -> Option<&str> {
        let heading = format!("\n## {}\n", words.join(" "));
        let start = self.commands.find(&heading)? + heading.len();
        let text = &self.commands[start..];
        Some(text.find("\n## ").map_or(text, |end| &text[..end]))
    }

    /// `POST /api/…` of each route whose method fits.
    fn routes(&self, fits: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
        let paths = self.rest["paths"].as_object().into_iter().flatten();
        paths.flat_map(move |(path, operations)| {
            let methods = operations.as_object().into_iter().flatten();
            let methods = methods.filter(|(method, _)| fits(method));
            let named = methods.map(|(method, _)| format!("{} {path}", method.to_uppercase()));
            named.collect::<Vec<_>>()
        })
    }

    /// Each topic of the channels that fit, once for each of its verbs.
    fn topics(&self, fits: impl Fn(&Value) -> bool) -> impl Iterator<Item = String> {
        let channels = self.bus["channels"].as_object().into_iter().flatten();
        let channels = channels.map(|(_, channel)| channel);
        channels
            .filter(move |channel| fits(channel))
            .flat_map(|channel| {
                let address = channel["address"].as_str().unwrap_or_default();
                match channel["parameters"]["verb"]["enum"].as_array() {
                    None => vec![address.to_owned()],
                    Some(verbs) => verbs
                        .iter()
                        .filter_map(Value::as_str)
                        .map(|verb| address.replace("{verb}", verb))
                        .collect(),
                }
            })
    }
}

/// Whether somebody asks or tells something there, rather than a module of itself.
fn is_asked(channel: &Value) -> bool {
    let publisher = channel["description"]
        .as_str()
        .and_then(|text| text.split("Published by: ").nth(1))
        .map(|text| text.trim_end_matches('.'));
    match channel["x-alicia-kind"].as_str() {
        Some("call") => true,
        Some("event") => publisher.is_none_or(|publisher| !MODULES.contains(&publisher)),
        _ => false,
    }
}

/// The lines of all tables, without their heads.
fn rows<'p>(page: &'p str, faults: &mut Vec<String>) -> Vec<Row<'p>> {
    let mut rows = Vec::new();
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [action, command, route, topic] = cells[..] else {
            faults.push(format!(
                "found {} columns, expected {COLUMNS}: {line}",
                cells.len()
            ));
            continue;
        };
        if action != "action" && !action.starts_with("---") {
            rows.push(Row {
                action,
                cells: [command, route, topic],
            });
        }
    }
    rows
}

/// What stands in backticks.
fn items(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known() -> Known {
        Known {
            commands: "# Command line\n\n## alicia stop\n\n```text\nOptions:\n      --all  Everything\n```\n\n\
                       ## alicia alerts\n\n```text\nCommands:\n  ack   Take note\n```\n"
                .to_owned(),
            rest: json!({ "paths": { "/api/stop": { "post": {} }, "/api/status": { "get": {} } } }),
            bus: json!({ "channels": {
                "requests": {
                    "address": "a/{verb}", "x-alicia-kind": "call", "description": "A call. Published by: anyone.",
                    "parameters": { "verb": { "enum": ["stop", "ack"] } },
                },
                "beats": { "address": "a/beat", "x-alicia-kind": "event", "description": "An event. Published by: any service." },
                "told": { "address": "a/told", "x-alicia-kind": "event", "description": "An event. Published by: registry." },
            } }),
        }
    }

    const PAGE: &str = "\
| action | command line | REST | bus |
|---|---|---|---|
| stop | `alicia stop --all` | `POST /api/stop` | `a/stop` |
| note | `alicia alerts ack` | – nobody would | `a/ack`, `a/told` |
| beat | – a program does | `GET /api/status` | `a/beat` |
";

    #[test]
    fn a_page_that_is_true_has_no_faults() {
        assert_eq!(known().faults(PAGE), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_page_is_said() {
        let check = |from: &str, to: &str, expected: &str| {
            let page = PAGE.replace(from, to);
            assert_ne!(page, PAGE, "{from}");
            let faults = known().faults(&page).join("\n");
            assert!(faults.contains(expected), "{faults}");
        };
        check(
            "alicia stop --all",
            "alicia stop --none",
            "no `alicia stop --none`",
        );
        check(
            "alicia alerts ack",
            "alicia alerts nack",
            "no `alicia alerts nack`",
        );
        check("alicia stop --all", "alicia go", "no `alicia go`");
        check("POST /api/stop", "GET /api/stop", "no `GET /api/stop`");
        check(
            "`POST /api/stop`",
            "– it is not wanted",
            "`POST /api/stop` is in no row",
        );
        check("`a/ack`, ", "", "`a/ack` is in no row");
        check("`a/beat`", "– it is not wanted", "`a/beat` is in no row");
        check("`a/stop`", "`a/halt`", "no `a/halt`");
        check("– nobody would", "", "note: found \"\"");
        check("– nobody would", "–", "note: found \"–\"");
        check("| stop | ", "| stop ", "expected 4");
    }
}
