//! What the house does not allow, as far as a machine can see it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{actions, files, floors, links, output, root};

/// A longer source file has a seam somewhere.
const SOURCE_LINES_MAX: usize = 700;

/// The crate with system calls: it repeats the lints, since `forbid` cannot be lifted for one file.
const MAY_REPEAT_LINTS: &str = "alicia-keeper";

/// Marks of unfinished work.
const UNFINISHED: [&str; 4] = [
    "todo!(",
    "unimplemented!(",
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
];

/// Verbs of audit logs, which are written like codes and are none: nobody is answered with them.
const AUDIT_VERBS: [&str; 4] = ["acknowledge", "leave", "register", "restart"];

/// The client libraries, each with the family of its codes.
const LIBRARIES: [(&str, &str); 3] = [
    ("crates/alicia-bus/src", "bus"),
    ("crates/alicia-sdk/src", "service"),
    ("sdk/python/src/alicia_sdk", "service"),
];

/// Codes that every module can answer with through `ApiError`'s constructors.
const COMMON_CODES: [&str; 3] = ["internal", "not_found", "unavailable"];

pub(crate) fn run() -> anyhow::Result<()> {
    let metadata = output(
        "cargo",
        &[
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ],
    )
    .or_else(|_| output("cargo", &["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let mut faults: Vec<String> = floors::edges(&metadata)
        .iter()
        .filter_map(floors::fault)
        .collect();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        check_package(package, &mut faults)?;
    }
    for path in sources(&root())? {
        check_source(&path, &mut faults)?;
    }
    check_error_pages(&mut faults)?;
    links::check(&mut faults)?;
    actions::check(&mut faults)?;
    if faults.is_empty() {
        println!("tidy");
        return Ok(());
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    bail!("find the house tidy: {} faults", faults.len())
}

fn check_package(package: &Value, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let name = package["name"].as_str().unwrap_or_default();
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap_or_default());
    let directory = manifest
        .parent()
        .context("find the directory of a manifest")?;
    let folder = directory.file_name().unwrap_or_default().to_string_lossy();
    if folder != name {
        faults.push(format!(
            "{name}: the folder is {folder}, it must be the name of the crate"
        ));
    }
    if floors::place(name).is_none() {
        faults.push(format!("{name}: no place in xtask/src/floors.rs"));
    }
    if name != "xtask" && !directory.join("README.md").exists() {
        faults.push(format!("{name}: no README.md"));
    }
    if package["description"].as_str().is_none_or(str::is_empty) {
        faults.push(format!("{name}: no description"));
    }
    let text = fs::read_to_string(&manifest)?;
    let inherits = text.contains("[lints]\nworkspace = true");
    if !inherits && name != MAY_REPEAT_LINTS {
        faults.push(format!("{name}: `[lints] workspace = true` is missing"));
    }
    Ok(())
}

/// Every Rust file of ours.
fn sources(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let names = files("*.rs")?.into_iter();
    Ok(names.map(|name| root.join(name)).collect())
}

fn check_source(path: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let name = path.strip_prefix(root()).unwrap_or(path).display();
    let lines = text.lines().count();
    if lines > SOURCE_LINES_MAX {
        faults.push(format!(
            "{name}: {lines} lines, at most {SOURCE_LINES_MAX}; find the seam"
        ));
    }
    if path.ends_with("mod.rs") {
        faults.push(format!("{name}: write name.rs + name/ instead of mod.rs"));
    }
    let first = text
        .lines()
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let starts_well = ["//!", "#!["].iter().any(|start| first.starts_with(start));
    if !starts_well {
        faults.push(format!("{name}: no `//!` purpose at its start"));
    }
    for (at, line) in text.lines().enumerate() {
        if UNFINISHED.iter().any(|mark| line.contains(mark))
            && !name.to_string().starts_with("xtask/")
        {
            faults.push(format!("{name}:{}: unfinished: {}", at + 1, line.trim()));
        }
    }
    Ok(())
}

/// Each error code has a page, and each page is about a code.
fn check_error_pages(faults: &mut Vec<String>) -> anyhow::Result<()> {
    let pages = error_pages()?;
    let codes = error_codes()?;
    for code in &codes {
        if !pages.contains(code) {
            faults.push(format!("docs/errors/{code}.md is missing"));
        }
    }
    for page in pages.iter().filter(|page| !codes.contains(page)) {
        faults.push(format!(
            "docs/errors/{page}.md: no code of this name is in the sources"
        ));
    }
    Ok(())
}

/// The names of the pages of error codes, sorted.
pub(crate) fn error_pages() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let directory = root().join("docs/errors");
    if !directory.exists() {
        return Ok(names);
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if let Some(stem) = path
            .file_stem()
            .filter(|_| path.extension().is_some_and(|end| end == "md"))
        {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The codes in the sources of the host, the modules and the client libraries: `"<module>.<what>"` as a whole literal.
fn error_codes() -> anyhow::Result<Vec<String>> {
    let modules = [
        "host",
        "broker",
        "registry",
        "orchestrator",
        "health",
        "dashboard",
    ];
    let mut codes: Vec<String> = modules
        .iter()
        .filter(|module| **module != "dashboard")
        .flat_map(|module| {
            COMMON_CODES
                .iter()
                .map(move |code| format!("{module}.{code}"))
        })
        .collect();
    for path in sources(&root())? {
        let inside = path
            .strip_prefix(root())
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        let is_ours = ["alicia-host", "alicia-module"]
            .iter()
            .any(|name| inside.contains(name))
            || modules
                .iter()
                .any(|module| inside.starts_with(&format!("crates/alicia-{module}/src/")));
        if is_ours {
            codes.extend(
                literals(&fs::read_to_string(&path)?).filter(|text| is_code(text, &modules)),
            );
        }
    }
    for (directory, family) in LIBRARIES {
        for entry in fs::read_dir(root().join(directory))? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|end| end == "rs" || end == "py")
            {
                let text = fs::read_to_string(&path)?;
                codes.extend(literals(&text).filter(|text| is_code(text, &[family])));
            }
        }
    }
    codes.sort();
    codes.dedup();
    Ok(codes)
}

fn literals(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split('"').skip(1).step_by(2).map(str::to_owned)
}

fn is_code(text: &str, modules: &[&str]) -> bool {
    let Some((module, what)) = text.split_once('.') else {
        return false;
    };
    let is_word = !what.is_empty()
        && what
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    modules.contains(&module)
        && is_word
        && !AUDIT_VERBS.contains(&what)
        && !matches!(
            what,
            "db" | "rs" | "py" | "json" | "yaml" | "log" | "lock" | "key"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_from_other_texts() {
        let check = |text: &str, expected: bool| {
            assert_eq!(is_code(text, &["host", "registry"]), expected, "{text}");
        };
        check("host.no_such_path", true);
        check("registry.internal", true);
        check("host.json", false);
        check("registry.register", false);
        check("nobody.internal", false);
        check("host", false);
        check("host.No", false);
    }
}
