//! The binary: the command line and the list of modules. What people type first must work.
//!
//! Reading order: [`cli`] (what can be typed), [`modules`] (the only list of modules), [`place`] (which file, which
//! data directory, which host), [`api`] (talking to a running host), [`command`] (a file per command).

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "the command line prints, reads the environment and looks at the clock"
)]

mod cli;
mod modules;

mod place;

mod api;
mod command;
mod error_pages;
mod example;
mod failure;
mod hidden;
mod log;
mod pipe;
mod show;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::read();
    pipe::until_nobody_reads(|| match command::run(cli) {
        Ok(code) => code,
        Err(failure) => failure.tell(),
    })
}
