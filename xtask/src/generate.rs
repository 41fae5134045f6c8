//! Files that are made from the code: a change of what others see is then a visible diff.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, bail};

use crate::{output, reference, root, tidy};

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
    let schema = alicia(&["schema"])?;
    Ok(vec![
        error_pages,
        Generated {
            path: "docs/file.md",
            text: reference::page(&schema)?,
        },
        Generated {
            path: "docs/alicia.schema.json",
            text: schema,
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

/// The help of every command, one after the other; what is the same for all stands with the first one only.
fn command_line() -> anyhow::Result<String> {
    let mut text = String::from(
        "# Command line\n\nWritten by `cargo xtask gen` from the program's own help. The options of every command are \
         told once, below `alicia`; what to use for what is in [how-to.md](how-to.md).\n",
    );
    command(&mut text, &[])?;
    Ok(text)
}

/// The help of a command, and of those below it.
fn command(text: &mut String, words: &[&str]) -> anyhow::Result<()> {
    let help = alicia(&[words, &["--help"][..]].concat())?;
    let title = [&["alicia"][..], words].concat().join(" ");
    let own = if words.is_empty() {
        help.clone()
    } else {
        without_common(&help)
    };
    section(text, &title, &own)?;
    for inner in commands(&help) {
        command(text, &[words, &[inner.as_str()][..]].concat())?;
    }
    Ok(())
}

/// The heading of the options that every command has.
const COMMON: &str = "Options of every command:";

/// A help text without the options that every command has.
fn without_common(help: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut is_common = false;
    let mut leaves_out = false;
    for line in help.lines() {
        let is_heading = !line.is_empty() && !line.starts_with(' ');
        if is_heading {
            if leaves_out && kept.last().is_some_and(|last| !last.is_empty()) {
                kept.push("");
            }
            is_common = line.starts_with(COMMON);
            leaves_out = is_common;
        } else if !is_common && line.trim_start().starts_with('-') {
            let usual = ["-h, --help", "-V, --version"];
            leaves_out = usual
                .iter()
                .any(|option| line.trim_start().starts_with(option));
        }
        if !leaves_out {
            kept.push(line);
        }
    }
    // A list that had nothing but these has only its heading left.
    let text = kept.join("\n").replace("Options:\n\n", "");
    let text = text.trim_end();
    text.strip_suffix("\nOptions:")
        .unwrap_or(text)
        .trim_end()
        .to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "\
List things

Usage: alicia things [OPTIONS]

Options:
      --all      Also those that are over
  -h, --help     Print help
  -V, --version  Print version

Options of every command:
      --json  Write JSON instead of text
              and more of it

Examples:
  alicia things
";

    #[test]
    fn what_every_command_has_is_left_out() {
        let kept = without_common(HELP);
        assert!(
            kept.contains("--all") && kept.contains("Examples:\n  alicia things"),
            "{kept}"
        );
        for gone in ["--json", "and more", "--help", "--version", "every command"] {
            assert!(!kept.contains(gone), "{gone}: {kept}");
        }
    }

    #[test]
    fn a_list_of_nothing_else_goes() {
        let kept = without_common(&HELP.replace("      --all      Also those that are over\n", ""));
        assert!(!kept.contains("Options:"), "{kept}");
    }

    #[test]
    fn commands_below_a_command_are_found() {
        let help = "Usage: x\n\nCommands:\n  list   List\n         further words\n  help   Print\n\nOptions:\n  --all\n";
        assert_eq!(commands(help), ["list"]);
    }
}
