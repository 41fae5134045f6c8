//! The licences of all dependencies against the list in `deny.toml`, for machines without cargo-deny.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{output, root};

/// Says which dependency has no licence that is allowed.
pub(crate) fn run() -> anyhow::Result<()> {
    let allowed = allowed()?;
    let metadata: Value = serde_json::from_str(&output(
        "cargo",
        &["metadata", "--format-version", "1", "--locked"],
    )?)?;
    let mut refused = Vec::new();
    let mut count = 0;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        if package["source"].is_null() {
            continue;
        }
        count += 1;
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence, &allowed) {
            refused.push(format!(
                "{} {}: {licence:?}",
                package["name"], package["version"]
            ));
        }
    }
    if refused.is_empty() {
        println!("{count} dependencies have licences that are allowed");
        return Ok(());
    }
    bail!("find only allowed licences: {}", refused.join("; "))
}

/// The list `allow` of `deny.toml`.
fn allowed() -> anyhow::Result<BTreeSet<String>> {
    let text = fs::read_to_string(root().join("deny.toml")).context("read deny.toml")?;
    let (_, list) = text
        .split_once("allow = [")
        .context("find `allow = [` in deny.toml")?;
    let (list, _) = list
        .split_once(']')
        .context("find the end of the list in deny.toml")?;
    Ok(list
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect())
}

/// An SPDX expression of `OR`, `AND` and brackets (annex D of the SPDX specification 2.3): `AND` binds closer.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.trim().replace('/', " OR ");
    let words: Vec<String> = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let mut parser = Parser {
        words: &words,
        at: 0,
        allowed,
    };
    let holds = parser.alternatives();
    holds && parser.at == words.len()
}

struct Parser<'a> {
    words: &'a [String],
    at: usize,
    allowed: &'a BTreeSet<String>,
}

impl Parser<'_> {
    fn alternatives(&mut self) -> bool {
        let mut holds = self.all();
        while self.takes("OR") {
            holds |= self.all();
        }
        holds
    }

    fn all(&mut self) -> bool {
        let mut holds = self.one();
        while self.takes("AND") {
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        if self.takes("(") {
            let holds = self.alternatives();
            return self.takes(")") && holds;
        }
        let Some(name) = self.words.get(self.at) else {
            return false;
        };
        self.at += 1;
        if self.takes("WITH") {
            let exception = self.words.get(self.at).map_or("", String::as_str);
            self.at += 1;
            return self.allowed.contains(&format!("{name} WITH {exception}"));
        }
        self.allowed.contains(name)
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at).is_some_and(|next| next == word);
        self.at += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read() {
        let allowed: BTreeSet<String> = ["MIT", "Apache-2.0 WITH LLVM-exception", "ISC"]
            .map(str::to_owned)
            .into();
        let check = |expression: &str, expected: bool| {
            assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
        };
        check("MIT", true);
        check("GPL-3.0", false);
        check("GPL-3.0 OR MIT", true);
        check("GPL-3.0/MIT", true);
        check("ISC AND GPL-3.0", false);
        check("ISC AND (GPL-3.0 OR MIT)", true);
        check("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true);
        check("", false);
        check("MIT MIT", false);
    }
}
