//! Names of signals.

/// Signals that people write into files, by name without `SIG`.
const NAMES: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];
/// The highest signal number of the kernel.
const NUMBER_MAX: i32 = 64;

/// The number of `SIGTERM`, `TERM`, `term` or `15`; `None` if there is no such signal.
pub fn number(name: &str) -> Option<i32> {
    let upper = name.trim().to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = NAMES
        .iter()
        .find(|(name, _)| *name == short)
        .map(|(_, number)| *number);
    by_name.or_else(|| short.parse().ok().filter(|number| is_number(*number)))
}

/// `SIGTERM` for 15; numbers without a name (real-time signals) stay numbers.
pub fn name(number: i32) -> String {
    match NAMES.iter().find(|(_, candidate)| *candidate == number) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

/// Whether there is a signal of that number.
pub fn is_number(number: i32) -> bool {
    (1..=NUMBER_MAX).contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_belong_together() {
        for (text, expect) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            (" Int ", Some(2)),
            ("9", Some(9)),
            ("40", Some(40)),
            ("0", None),
            ("65", None),
            ("SIGFOO", None),
            ("", None),
        ] {
            assert_eq!(number(text), expect, "{text}");
        }
        for (name, number_of) in NAMES {
            assert_eq!(number(&super::name(number_of)), Some(number_of), "{name}");
        }
    }
}
