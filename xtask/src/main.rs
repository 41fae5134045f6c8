//! The project's own chores: `cargo xtask tidy`, `cargo xtask gen [--check]`, `cargo xtask verify`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

mod actions;
mod floors;
mod generate;
mod licences;
mod links;
mod reference;
mod tidy;
mod verify;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const USAGE: &str = "cargo xtask tidy           look for what the house does not allow
cargo xtask licences       the licences of all dependencies
cargo xtask gen [--check]  write the generated files, or say which are stale
cargo xtask verify         all that CI runs and a machine with Rust alone can run";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["tidy"] => tidy::run(),
        ["licences"] => licences::run(),
        ["gen"] => generate::write(),
        ["gen", "--check"] => generate::check(),
        ["verify"] => verify::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the project.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("xtask lies in the root").to_owned()
}

/// The files of ours whose names fit, below the root; those too that git does not follow yet.
fn files(pattern: &str) -> anyhow::Result<Vec<String>> {
    let listed = output(
        "git",
        &[
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            pattern,
        ],
    )?;
    let names = listed.lines().filter(|name| root().join(name).exists());
    Ok(names.map(str::to_owned).collect())
}

/// Runs a program in the root and gives what it wrote.
fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let line = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .with_context(|| format!("run {line}"))?;
    if !output.status.success() {
        bail!("run {line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
