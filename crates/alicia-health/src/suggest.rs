//! What to do next, by rules over the evidence. Each is a command that can be run as it stands.

use alicia_contract::id::ServiceName;

/// Texts in the cause or the last lines, and the command that helps. The first that fits is taken.
const RULES: [(&[&str], &str); 5] = [
    (
        &[
            "program not found",
            "No such file or directory",
            "directory not found",
        ],
        "alicia check",
    ),
    (
        &["address already in use", "EADDRINUSE", "port is taken"],
        "alicia doctor",
    ),
    (&["No space left on device", "disk full"], "df -h ."),
    (&["Too many open files"], "ulimit -n"),
    (&["out of memory", "MemoryError"], "alicia ps"),
];

/// The command for a service that ended or does not come up.
pub(crate) fn for_exit(service: &ServiceName, cause: &str, last_lines: &[String]) -> String {
    let texts: Vec<String> = std::iter::once(cause)
        .chain(last_lines.iter().map(String::as_str))
        .map(str::to_lowercase)
        .collect();
    let shows = |mark: &str| texts.iter().any(|text| text.contains(&mark.to_lowercase()));
    match RULES
        .iter()
        .find(|(marks, _)| marks.iter().any(|mark| shows(mark)))
    {
        Some((_, command)) => (*command).to_owned(),
        None => logs(service),
    }
}

/// The command that shows what a service said last.
pub(crate) fn logs(service: &ServiceName) -> String {
    format!("alicia logs {service} --tail 50")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_evidence_chooses_the_command() {
        let check = |cause: &str, line: &str, expected: &str| {
            let api = ServiceName::new("api").expect("id");
            assert_eq!(for_exit(&api, cause, &[line.to_owned()]), expected);
        };
        check("exit code 1", "Traceback", "alicia logs api --tail 50");
        check("program not found: nodejs", "", "alicia check");
        check(
            "exit code 1",
            "OSError: [Errno 98] Address already in use",
            "alicia doctor",
        );
        check("exit code 1", "write: No space left on device", "df -h .");
    }
}
