//! `alicia ps | head -1`: whoever reads the output may go away early, and that is no fault.
//!
//! Rust ignores SIGPIPE, so that printing panics then. Setting the signal back takes unsafe code; this takes the panic
//! for what it is.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

/// How the standard library begins the message, and how it ends it (`std::io::stdio`, `strerror(EPIPE)`).
const PRINTING: &str = "failed printing to std";
const BROKEN_PIPE: &str = "Broken pipe (os error 32)";

/// Runs a command to its end, or until nobody reads what it prints.
pub(crate) fn until_nobody_reads(command: impl FnOnce() -> ExitCode) -> ExitCode {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !is_broken_pipe(panic.payload()) {
            told(panic);
        }
    }));
    match panic::catch_unwind(AssertUnwindSafe(command)) {
        Ok(code) => code,
        Err(payload) if is_broken_pipe(payload.as_ref()) => ExitCode::SUCCESS,
        Err(payload) => panic::resume_unwind(payload),
    }
}

fn is_broken_pipe(payload: &(dyn Any + Send)) -> bool {
    let text = payload.downcast_ref::<String>();
    text.is_some_and(|text| text.starts_with(PRINTING) && text.ends_with(BROKEN_PIPE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_pipe_is_no_fault() {
        let check = |text: &str, expected: bool| {
            assert_eq!(is_broken_pipe(&text.to_owned()), expected, "{text}");
        };
        check("failed printing to stdout: Broken pipe (os error 32)", true);
        check(
            "failed printing to stdout: No space left on device (os error 28)",
            false,
        );
        check("something else: Broken pipe (os error 32)", false);
        assert!(!is_broken_pipe(&"failed printing to stdout"));
    }
}
