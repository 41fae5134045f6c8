//! The keeper alone: for tests and benchmarks, and to show how a program embeds it.

use std::process::ExitCode;

use alicia_keeper::{EXIT_LOCKED, Error, Options};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(message) => return complain(&message, ExitCode::FAILURE),
    };
    match alicia_keeper::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::Locked { .. }) => {
            complain(&error.to_string(), ExitCode::from(EXIT_LOCKED))
        }
        Err(error) => complain(&error.to_string(), ExitCode::FAILURE),
    }
}

fn complain(message: &str, code: ExitCode) -> ExitCode {
    use std::io::Write;
    drop(writeln!(
        std::io::stderr(),
        "alicia-keeper: failed to {message}"
    ));
    code
}
