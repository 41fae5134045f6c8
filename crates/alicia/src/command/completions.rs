//! `alicia completions`: what a shell needs to complete command lines.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, Completions};
use crate::failure::Outcome;

pub(super) fn run(completions: &Completions) -> Outcome {
    let mut command = Cli::command();
    clap_complete::generate(
        completions.shell,
        &mut command,
        "alicia",
        &mut std::io::stdout(),
    );
    Ok(ExitCode::SUCCESS)
}
