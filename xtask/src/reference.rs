//! `docs/file.md`: every key of `alicia.yaml` for people, from the same schema that editors and the program use.
//!
//! The schema is walked in reading order. Each mapping gets a section: its path in the file, a table of its keys, the
//! words that a key may have, and an example. The examples are in `reference/examples.yaml`; a section without one, an
//! example without a section and a key that no group of [`order`] names are faults, so that nothing new stays untold.
//! That each example is a good file is tested where the program is (`crates/alicia/tests/documents.rs`).

mod examples;
mod kind;
mod order;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use crate::links::anchor;

/// What stands before the first table.
const PREFACE: &str = include_str!("reference/preface.txt");

/// The whole page.
pub(crate) fn page(schema: &str) -> anyhow::Result<String> {
    let schema: Value = serde_json::from_str(schema).context("read the schema")?;
    let mut sections = Vec::new();
    let root = Section {
        definition: String::new(),
        paths: vec![String::new()],
        depth: 0,
    };
    sections.push(root);
    collect(&schema, &schema, "", 0, &mut sections)?;
    check_examples(&sections)?;

    let links: BTreeMap<&str, String> = sections
        .iter()
        .map(|section| (section.definition.as_str(), anchor(&section.title())))
        .collect();
    let book = Book {
        schema: &schema,
        links,
    };
    let mut text = PREFACE.to_owned();
    text.push_str("\n## All sections\n\n");
    for section in &sections {
        book.entry(section, &mut text)?;
    }
    for section in &sections {
        book.section(section, &mut text)?;
    }
    Ok(text)
}

/// A mapping of the file.
#[derive(Debug)]
struct Section {
    /// Its name among the definitions of the schema; empty: the file as a whole.
    definition: String,
    /// Where it stands in the file.
    paths: Vec<String>,
    /// How deep.
    depth: usize,
}

impl Section {
    fn title(&self) -> String {
        match self.paths[0].as_str() {
            "" => "The file".to_owned(),
            path => format!("`{path}`"),
        }
    }
}

/// Notes every mapping below this one, each once, with all the places where it stands.
fn collect(
    schema: &Value,
    mapping: &Value,
    path: &str,
    depth: usize,
    sections: &mut Vec<Section>,
) -> anyhow::Result<()> {
    let keys: Vec<&str> = properties(mapping).keys().map(String::as_str).collect();
    let groups = order::groups(path, &keys)?;
    for key in groups.iter().flat_map(|(_, keys)| keys) {
        let below = if path.is_empty() {
            (*key).to_owned()
        } else {
            format!("{path}.{key}")
        };
        for (definition, place) in kind::mappings(schema, &mapping["properties"][*key], &below) {
            let known = sections
                .iter_mut()
                .find(|section| section.definition == definition);
            if let Some(known) = known {
                known.paths.push(place);
                continue;
            }
            sections.push(Section {
                definition: definition.clone(),
                paths: vec![place.clone()],
                depth: depth + 1,
            });
            let inner = &schema["$defs"][&definition];
            collect(schema, inner, &place, depth + 1, sections)?;
        }
    }
    Ok(())
}

fn check_examples(sections: &[Section]) -> anyhow::Result<()> {
    let paths = || sections.iter().map(|section| section.paths[0].as_str());
    let missing: Vec<&str> = paths()
        .filter(|path| examples::of(path).is_none())
        .collect();
    let superfluous: Vec<&str> = examples::all()
        .map(|(path, _)| path)
        .filter(|path| !paths().any(|known| known == *path))
        .collect();
    if missing.is_empty() && superfluous.is_empty() {
        return Ok(());
    }
    bail!(
        "find an example for each section in xtask/src/reference/examples.yaml: missing for {missing:?}, of no section \
         {superfluous:?}"
    )
}

struct Book<'s> {
    schema: &'s Value,
    /// From the name of a definition to the anchor of its section.
    links: BTreeMap<&'s str, String>,
}

impl Book<'_> {
    fn mapping(&self, section: &Section) -> &Value {
        match section.definition.as_str() {
            "" => self.schema,
            name => &self.schema["$defs"][name],
        }
    }

    /// A line of the table of contents.
    fn entry(&self, section: &Section, text: &mut String) -> anyhow::Result<()> {
        let indent = "  ".repeat(section.depth);
        let about = one_line(description(self.mapping(section)));
        let clause = [". ", ": ", "; "]
            .iter()
            .filter_map(|end| about.find(end))
            .min()
            .map_or(about.as_str(), |end| &about[..end]);
        writeln!(
            text,
            "{indent}- [{}](#{}): {}",
            section.title(),
            anchor(&section.title()),
            clause.trim_end_matches('.')
        )?;
        Ok(())
    }

    fn section(&self, section: &Section, text: &mut String) -> anyhow::Result<()> {
        let mapping = self.mapping(section);
        let level = "#".repeat((section.depth + 2).min(4));
        writeln!(text, "\n{level} {}\n", section.title())?;
        let about = description(mapping);
        if !about.is_empty() {
            writeln!(text, "{about}\n")?;
        }
        if let [_, others @ ..] = section.paths.as_slice()
            && !others.is_empty()
        {
            let others: Vec<String> = others.iter().map(|path| format!("`{path}`")).collect();
            writeln!(text, "The same at {}.\n", others.join(", "))?;
        }
        let example = examples::of(&section.paths[0]).unwrap_or_default();
        writeln!(text, "```yaml\n{example}\n```\n")?;

        let keys: Vec<&str> = properties(mapping).keys().map(String::as_str).collect();
        for (group, keys) in order::groups(&section.paths[0], &keys)? {
            if !group.is_empty() {
                writeln!(text, "**{group}**\n")?;
            }
            writeln!(text, "| key | value | default | |\n|---|---|---|---|")?;
            for key in &keys {
                self.row(mapping, key, text)?;
            }
            text.push('\n');
            self.words(mapping, &keys, text)?;
        }
        while text.ends_with("\n\n") {
            text.pop();
        }
        Ok(())
    }

    fn row(&self, mapping: &Value, key: &str, text: &mut String) -> anyhow::Result<()> {
        let value = &mapping["properties"][key];
        let is_required = mapping["required"]
            .as_array()
            .is_some_and(|required| required.iter().any(|name| name == key));
        let default = if is_required {
            "required".to_owned()
        } else {
            kind::default(self.schema, value)
        };
        writeln!(
            text,
            "| `{key}` | {} | {default} | {} |",
            cell(&kind::text(self.schema, &self.links, value)),
            cell(&one_line(self.about(value)))
        )?;
        Ok(())
    }

    /// What is said of a key; else of what it holds.
    fn about<'b>(&'b self, value: &'b Value) -> &'b str {
        match description(value) {
            "" => kind::definition(self.schema, value).map_or("", description),
            said => said,
        }
    }

    /// The words that keys may have, each with what it means; once for keys that have the same ones.
    fn words(&self, mapping: &Value, keys: &[&str], text: &mut String) -> anyhow::Result<()> {
        let mut lists: Vec<(Vec<String>, kind::Words<'_>)> = Vec::new();
        for key in keys {
            let words = kind::words(self.schema, &mapping["properties"][*key]);
            let key = format!("`{key}`");
            match lists.iter_mut().find(|(_, known)| *known == words) {
                Some((keys, _)) => keys.push(key),
                None if words.is_empty() => {}
                None => lists.push((vec![key], words)),
            }
        }
        for (keys, words) in lists {
            writeln!(text, "{}:\n", keys.join(", "))?;
            for (word, about) in words {
                writeln!(text, "- `{word}`: {}", one_line(about))?;
            }
            text.push('\n');
        }
        Ok(())
    }
}

/// The keys of a mapping.
fn properties(mapping: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    mapping["properties"].as_object().unwrap_or(&NONE)
}

fn description(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> String {
        let path = crate::root().join("docs/alicia.schema.json");
        std::fs::read_to_string(path).expect("the schema is kept in git")
    }

    #[test]
    fn every_key_of_the_schema_is_on_the_page() {
        let schema = schema();
        let page = page(&schema).expect("a page");
        let schema: Value = serde_json::from_str(&schema).expect("JSON");
        let definitions = schema["$defs"].as_object().expect("definitions").values();
        let keys: Vec<&String> = definitions
            .chain([&schema])
            .flat_map(|mapping| properties(mapping).keys())
            .collect();
        assert!(keys.len() > 300, "{} keys", keys.len());
        for key in keys {
            assert!(page.contains(&format!("\n| `{key}` | ")), "{key}");
        }
    }

    #[test]
    fn links_inside_of_the_page_lead_somewhere() {
        let page = page(&schema()).expect("a page");
        let headings = crate::links::headings(&page);
        let links = page.split("](#").skip(1);
        let targets: Vec<&str> = links.filter_map(|rest| rest.split(')').next()).collect();
        assert!(targets.len() > 50, "{} links", targets.len());
        for target in targets {
            assert!(headings.iter().any(|heading| heading == target), "{target}");
        }
    }

    #[test]
    fn a_key_that_nobody_has_put_in_order_is_a_fault() {
        let mut schema: Value = serde_json::from_str(&schema()).expect("JSON");
        schema["$defs"]["ServiceSpec"]["properties"]["novelty"] =
            serde_json::json!({"type": "string", "description": "New."});
        let refused = page(&schema.to_string()).expect_err("nobody knows it");
        assert!(format!("{refused:#}").contains("novelty"), "{refused:#}");
    }

    #[test]
    fn a_section_without_an_example_is_a_fault() {
        let mut schema: Value = serde_json::from_str(&schema()).expect("JSON");
        schema["$defs"]["Fresh"] =
            serde_json::json!({"type": "object", "properties": {"a": {"type": "string"}}});
        schema["$defs"]["Budget"]["properties"]["fresh"] =
            serde_json::json!({"$ref": "#/$defs/Fresh"});
        let refused = page(&schema.to_string()).expect_err("it has no example");
        assert!(format!("{refused:#}").contains("fresh"), "{refused:#}");
    }
}
