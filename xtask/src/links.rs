//! Links between the pages of the project: each leads to a file that is there, and to a heading that is in it.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::{files, root};

/// Looks at every page.
pub(crate) fn check(faults: &mut Vec<String>) -> anyhow::Result<()> {
    for name in files("*.md")? {
        let path = root().join(&name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {name}"))?;
        for link in links(&text) {
            if let Some(fault) = fault(&path, &text, &link) {
                faults.push(format!("{name}: the link `{link}`: {fault}"));
            }
        }
    }
    Ok(())
}

/// The targets of links on a page, without those to other places and those in blocks of code.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let parts = prose.split("](").skip(1);
    parts
        .filter_map(|part| part.split([')', ' ']).next())
        .filter(|target| !target.contains(':') && !target.contains('{') && !target.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let mut is_code = false;
    let lines = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Why a link leads nowhere.
fn fault(from: &Path, own: &str, link: &str) -> Option<String> {
    let (file, heading) = match link.split_once('#') {
        Some((file, heading)) => (file, Some(heading)),
        None => (link, None),
    };
    let target = from.parent()?.join(file);
    if !file.is_empty() && !target.exists() {
        return Some("there is no such file".to_owned());
    }
    let heading = heading?;
    let text = if file.is_empty() {
        own.to_owned()
    } else {
        fs::read_to_string(&target).ok()?
    };
    let is_there = headings(&text).iter().any(|known| known == heading);
    (!is_there).then(|| "there is no such heading".to_owned())
}

/// The anchors of the headings of a page.
pub(crate) fn headings(page: &str) -> Vec<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
        .map(anchor)
        .collect()
}

/// The anchor of a heading, as GitHub makes it.
pub(crate) fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code_only() {
        let page = "See [a](a.md#x), [b](https://b) and\n```\n[c](c.md)\n```\n[d](#d).";
        assert_eq!(links(page), ["a.md#x", "#d"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_a_fault() {
        let page = root().join("README.md");
        let check = |link: &str, is_good: bool| {
            let found = fault(&page, "# One word\n", link);
            assert_eq!(found.is_none(), is_good, "{link}: {found:?}");
        };
        check("#one-word", true);
        check("#two-words", false);
        check("docs/adr", true);
        check("docs/nowhere.md", false);
        check("docs/architecture.md#two-processes-one-binary", true);
        check("docs/architecture.md#three-processes", false);
    }

    #[test]
    fn anchors_are_those_of_the_page() {
        assert_eq!(
            anchor("`health.escalations[].steps[]`"),
            "healthescalationssteps"
        );
        assert_eq!(anchor("`services.NAME.back_off`"), "servicesnameback_off");
        assert_eq!(
            anchor("ASVS 5.0 level 2, and more"),
            "asvs-50-level-2-and-more"
        );
    }
}
