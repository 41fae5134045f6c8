//! Files that are made from the code: a change of what others see is then a visible diff.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, bail};

use crate::{output, root, tidy};

/// A generated file: where it lies and what it should hold.
struct Generated {
    path: &'static str,
    text: String,
}

/// Writes all of them.
pub(crate) fn write() -> anyhow::Result<()> {
    for file in generate()? {
        let path = root().join(file.path);
        fs::write(&path, file.text).with_context(|| format!("write {}", path.display()))?;
        println!("{}", file.path);
    }
    Ok(())
}

/// Says which are stale.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut stale = Vec::new();
    for file in generate()? {
        let found = fs::read_to_string(root().join(file.path)).unwrap_or_default();
        if found != file.text {
            stale.push(file.path);
        }
    }
    if stale.is_empty() {
        println!("generated files are up to date");
        return Ok(());
    }
    bail!(
        "find generated files up to date: {} differ; run `cargo xtask gen`",
        stale.join(", ")
    )
}

fn generate() -> anyhow::Result<Vec<Generated>> {
    let error_pages = Generated {
        path: "crates/alicia/src/error_pages.rs",
        text: error_pages()?,
    };
    // With the features of the whole workspace, as the tests have it: it is built once for both.
    output("cargo", &["build", "--quiet", "--workspace"])?;
    Ok(vec![
        error_pages,
        Generated {
            path: "docs/alicia.schema.json",
            text: alicia(&["schema"])?,
        },
        Generated {
            path: "docs/openapi.json",
            text: alicia(&["openapi"])?,
        },
        Generated {
            path: "docs/asyncapi.json",
            text: alicia(&["bus", "schema"])?,
        },
        Generated {
            path: "docs/command-line.md",
            text: command_line()?,
        },
    ])
}

/// The program that is asked: the one that was built last by `cargo build`, which [`generate`] sees to.
const PROGRAM: &str = "target/debug/alicia";

fn alicia(arguments: &[&str]) -> anyhow::Result<String> {
    let program = root().join(PROGRAM);
    output(&program.to_string_lossy(), arguments)
}

fn error_pages() -> anyhow::Result<String> {
    let mut text = String::from(
        "//! The pages of error codes, one file each in `docs/errors/`. Written by `cargo xtask gen`.\n\n\
         /// Code and text, in the order of the codes.\n\
         #[rustfmt::skip]\n\
         pub(crate) static ERROR_PAGES: &[(&str, &str)] = &[\n",
    );
    for name in tidy::error_pages()? {
        writeln!(
            text,
            "    (\"{name}\", include_str!(\"../../../docs/errors/{name}.md\")),"
        )?;
    }
    text.push_str("];\n");
    Ok(text)
}

/// The help of every command, one after the other.
fn command_line() -> anyhow::Result<String> {
    let mut text = String::from(
        "# Command line\n\nWritten by `cargo xtask gen` from the program's own help.\n",
    );
    let top = alicia(&["help"])?;
    section(&mut text, "alicia", &top)?;
    for command in commands(&top) {
        let help = alicia(&[&command, "--help"])?;
        section(&mut text, &format!("alicia {command}"), &help)?;
        for inner in commands(&help) {
            let help = alicia(&[&command, &inner, "--help"])?;
            section(&mut text, &format!("alicia {command} {inner}"), &help)?;
        }
    }
    Ok(text)
}

fn section(text: &mut String, title: &str, help: &str) -> anyhow::Result<()> {
    let trimmed: Vec<&str> = help.lines().map(str::trim_end).collect();
    writeln!(
        text,
        "\n## {title}\n\n```text\n{}\n```",
        trimmed.join("\n").trim_end()
    )?;
    Ok(())
}

/// The names in the part `Commands:` of a help text.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}
