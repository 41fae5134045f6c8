//! What `alicia keeper` does, as a program of its own: the tests start it as the host starts Alicia.

use std::process::ExitCode;

use alicia_keeper::{EXIT_LOCKED, Error, Options};

fn main() -> ExitCode {
    // The first argument is the command, `keeper`.
    let options = match Options::parse(std::env::args_os().skip(2)) {
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
    drop(writeln!(std::io::stderr(), "failed to {message}"));
    code
}
