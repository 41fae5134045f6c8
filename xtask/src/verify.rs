//! All that CI runs and a machine with Rust alone can run, in the order of what fails fastest.

use std::process::Command;

use anyhow::{Context, bail};

use crate::{generate, licences, root, tidy};

const STEPS: &[&[&str]] = &[
    &["fmt", "--all", "--check"],
    &[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ],
    &["test", "--workspace"],
    &["doc", "--workspace", "--no-deps"],
];

pub(crate) fn run() -> anyhow::Result<()> {
    tidy::run()?;
    licences::run()?;
    for step in STEPS {
        println!("cargo {}", step.join(" "));
        let status = Command::new("cargo")
            .args(*step)
            .env("RUSTDOCFLAGS", "--deny warnings")
            .current_dir(root())
            .status()
            .with_context(|| format!("run cargo {}", step.join(" ")))?;
        if !status.success() {
            bail!("pass cargo {}", step.join(" "));
        }
    }
    generate::check()
}
