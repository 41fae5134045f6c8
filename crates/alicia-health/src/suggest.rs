//! What to do next, by rules over the evidence: how it ended, its last lines, what a check saw, what it depends on. Each
//! rule has a command that can be run as it stands.

use alicia_contract::id::ServiceName;
use alicia_contract::orchestrator::ExitCause;
use schemars::JsonSchema;
use serde::Serialize;

/// The most pieces of evidence that are shown with one piece of advice.
const EVIDENCE_MAX: usize = 3;

/// The longest piece that is shown, in characters.
const EVIDENCE_CHARS_MAX: usize = 200;

/// What is known of something that is wrong.
#[derive(Debug, Clone)]
pub(crate) struct Evidence<'e> {
    /// Who it is about.
    pub(crate) service: &'e ServiceName,
    /// How it ended, as what decides.
    pub(crate) class: ExitCause,
    /// Why, in words; or what a check saw.
    pub(crate) cause: &'e str,
    /// What it said last.
    pub(crate) last_lines: &'e [String],
    /// A service that it needs and that does not work.
    pub(crate) root: Option<&'e ServiceName>,
    /// Whether its part of the file was changed shortly before.
    pub(crate) after_change: bool,
}

/// What to do, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Advice {
    /// The rule, stable: `port_taken`, `disk_full`, …
    pub(crate) rule: String,
    /// What is wrong and what to do, in one sentence.
    pub(crate) advice: String,
    /// The command to run.
    pub(crate) command: String,
    /// What the rule saw.
    pub(crate) evidence: Vec<String>,
}

/// A rule over texts and the cause of an end.
struct Rule {
    name: &'static str,
    classes: &'static [ExitCause],
    /// Texts in the cause or the last lines, in lower case.
    marks: &'static [&'static str],
    advice: &'static str,
    command: Run,
}

/// The command of a rule.
#[derive(Clone, Copy)]
enum Run {
    /// As it is.
    Text(&'static str),
    /// For the service: `{}` is its name.
    OfService(&'static str),
    /// Who holds the port that is named in the evidence.
    PortHolder,
    /// Installs the module that is named in the evidence.
    Install,
}

use ExitCause as Class;

/// The rules; the first that fits decides what an alert says.
const RULES: &[Rule] = &[
    Rule {
        name: "secret_missing",
        classes: &[],
        marks: &["alicia secret set"],
        advice: "a secret that it needs is not stored: store it, then start it",
        command: Run::Text("alicia secret list"),
    },
    Rule {
        name: "out_of_memory",
        classes: &[Class::OutOfMemory],
        marks: &[
            "out of memory",
            "oom-kill",
            "memoryerror",
            "cannot allocate memory",
            "heap out of memory",
            "std::bad_alloc",
        ],
        advice: "it ran out of memory: find what grows, or raise `limits.memory`",
        command: Run::Text("alicia ps"),
    },
    Rule {
        name: "port_taken",
        classes: &[Class::PortTaken],
        marks: &[
            "address already in use",
            "eaddrinuse",
            "port is taken",
            "port is already allocated",
        ],
        advice: "another program holds its port: end that one, or write `auto` for the port",
        command: Run::PortHolder,
    },
    Rule {
        name: "disk_full",
        classes: &[],
        marks: &[
            "no space left on device",
            "enospc",
            "disk full",
            "disk is full",
            "disk quota exceeded",
            "% or more",
        ],
        advice: "the disk is full: make room",
        command: Run::Text("df -h ."),
    },
    Rule {
        name: "descriptors",
        classes: &[],
        marks: &[
            "too many open files",
            "emfile",
            "open descriptors, expected",
        ],
        advice: "it has too many files open: look for what it does not close, or raise the limit",
        command: Run::Text("ulimit -n"),
    },
    Rule {
        name: "module_missing",
        classes: &[],
        marks: &[
            "modulenotfounderror",
            "no module named",
            "cannot find module",
        ],
        advice: "a library that it imports is not installed: install it where the service runs",
        command: Run::Install,
    },
    Rule {
        name: "program_missing",
        classes: &[Class::ProgramNotFound],
        marks: &[
            "program not found",
            "directory not found",
            "command not found",
            "exec format error",
        ],
        advice: "its program or directory is not there: mend `command` or `directory` in the file",
        command: Run::Text("alicia check"),
    },
    Rule {
        name: "certificate",
        classes: &[],
        marks: &[
            "certificate has expired",
            "certificate expired",
            "certificate_verify_failed",
            "the certificate is good for",
            "the certificate is not trusted",
            "certificate verify failed",
        ],
        advice: "a certificate is over, ends soon or is not trusted: renew it, or name its authority in `tls.ca`",
        command: Run::OfService("alicia health {}"),
    },
    Rule {
        name: "provider_limit",
        classes: &[Class::ProviderLimit, Class::ProviderQuota],
        marks: &[
            "rate limit",
            "rate_limit",
            "too many requests",
            "429",
            "insufficient_quota",
            "quota exceeded",
        ],
        advice: "a provider asks for fewer requests, or its quota is used up: wait, or raise the quota",
        command: Run::OfService("alicia logs {} --tail 50"),
    },
    Rule {
        name: "authentication",
        classes: &[Class::Authentication],
        marks: &[
            "authentication failed",
            "invalid api key",
            "invalid_api_key",
            "unauthorized",
            "bad credentials",
            "refuses the name or the password",
            "http 401",
            "http 403",
        ],
        advice: "a key or a password is wrong: mend the secret that it uses",
        command: Run::OfService("alicia logs {} --tail 50"),
    },
    Rule {
        name: "permission",
        classes: &[],
        marks: &[
            "permission denied",
            "eacces",
            "operation not permitted",
            "eperm",
        ],
        advice: "it may not use a file or a port: look at its user and the rights",
        command: Run::Text("alicia doctor"),
    },
    Rule {
        name: "configuration",
        classes: &[Class::Configuration],
        marks: &[
            "exit code 78",
            "invalid configuration",
            "missing environment variable",
            "missing required",
        ],
        advice: "its configuration is wrong: mend it, then start it",
        command: Run::Text("alicia check"),
    },
    Rule {
        name: "name_not_found",
        classes: &[],
        marks: &[
            "name or service not known",
            "temporary failure in name resolution",
            "enotfound",
            "nxdomain",
            "was not found: failed to lookup",
        ],
        advice: "a name cannot be looked up: look at the name and the name server",
        command: Run::Text("cat /etc/resolv.conf"),
    },
    Rule {
        name: "dependency_down",
        classes: &[],
        marks: &[
            "connection refused",
            "econnrefused",
            "could not connect",
            "failed to connect",
            "no route to host",
        ],
        advice: "what it connects to does not answer: look whether that runs",
        command: Run::Text("alicia ps"),
    },
    Rule {
        name: "start_timeout",
        classes: &[Class::StartTimeout],
        marks: &["not ready within"],
        advice: "it was not ready in time: see what it waits for, or raise `start_timeout`",
        command: Run::OfService("alicia logs {} --tail 50"),
    },
    Rule {
        name: "liveness",
        classes: &[Class::Liveness, Class::Watchdog],
        marks: &["liveness failed"],
        advice: "it ran but did not answer: see what it was busy with",
        command: Run::OfService("alicia logs {} --tail 50"),
    },
    Rule {
        name: "no_progress",
        classes: &[Class::Progress],
        marks: &["makes no progress", "no step for", "equal steps in a row"],
        advice: "the agent turns in circles: read its last steps",
        command: Run::OfService("alicia logs {} --tail 100"),
    },
    Rule {
        name: "budget",
        classes: &[Class::Budget],
        marks: &["tokens per hour", "per hour over"],
        advice: "the agent uses more than it should: lower its work, or raise its limit",
        command: Run::OfService("alicia logs {} --tail 100"),
    },
    Rule {
        name: "native_crash",
        classes: &[],
        marks: &[
            "sigsegv",
            "sigbus",
            "sigill",
            "sigabrt",
            "segmentation fault",
            "core dumped",
        ],
        advice: "the program itself broke: update it or a native library of it",
        command: Run::OfService("alicia logs {} --tail 50"),
    },
];

/// Signs of an error in a line of a log, in lower case.
const ERROR_MARKS: [&str; 6] = [
    "error",
    "exception",
    "fatal",
    "panic",
    "traceback",
    "critical",
];

/// All that fits, the most telling first; never empty.
pub(crate) fn all(evidence: &Evidence<'_>) -> Vec<Advice> {
    let service = evidence.service;
    let mut found = Vec::new();
    if let Some(root) = evidence.root {
        found.push(Advice {
            rule: "dependency_down".to_owned(),
            advice: format!("{root}, which it needs, does not work: mend that first"),
            command: logs(root),
            evidence: vec![format!("{service} depends on {root}")],
        });
    }
    found.extend(RULES.iter().filter_map(|rule| rule.judge(evidence)));
    if evidence.after_change {
        found.push(Advice {
            rule: "after_change".to_owned(),
            advice: "it fails since its part of the file was changed: take the change back"
                .to_owned(),
            command: format!("alicia rollback {service}"),
            evidence: vec!["it was changed less than ten minutes before".to_owned()],
        });
    }
    if found.is_empty() {
        found.push(from_the_log(evidence));
    }
    found.dedup_by(|later, earlier| later.rule == earlier.rule);
    found
}

/// The command for a service that ended or does not come up.
pub(crate) fn first(evidence: &Evidence<'_>) -> String {
    all(evidence)
        .into_iter()
        .next()
        .map_or_else(|| logs(evidence.service), |advice| advice.command)
}

/// The command for a check that fails.
pub(crate) fn of_check(service: &ServiceName, detail: &str) -> String {
    first(&Evidence {
        service,
        class: ExitCause::Unknown,
        cause: detail,
        last_lines: &[],
        root: None,
        after_change: false,
    })
}

/// The command that shows what a service said last.
pub(crate) fn logs(service: &ServiceName) -> String {
    format!("alicia logs {service} --tail 50")
}

fn from_the_log(evidence: &Evidence<'_>) -> Advice {
    let is_error = |line: &&String| {
        let line = line.to_lowercase();
        ERROR_MARKS.iter().any(|mark| line.contains(mark))
    };
    // The last error is the one that ended it; of a Python traceback that is its last line.
    let last = evidence.last_lines.iter().rev().find(is_error);
    let last = last.or(evidence.last_lines.last());
    let (rule, advice) = match last {
        Some(_) => ("error_in_log", "read what it said before it failed"),
        None => ("unknown", "nothing tells why: read its log"),
    };
    let cause = Some(evidence.cause).filter(|cause| !cause.is_empty());
    Advice {
        rule: rule.to_owned(),
        advice: advice.to_owned(),
        command: logs(evidence.service),
        evidence: last
            .map(String::as_str)
            .into_iter()
            .chain(cause)
            .map(short)
            .collect(),
    }
}

// === impl Rule ===

impl Rule {
    fn judge(&self, evidence: &Evidence<'_>) -> Option<Advice> {
        let texts =
            std::iter::once(evidence.cause).chain(evidence.last_lines.iter().map(String::as_str));
        let shows = |text: &&str| {
            let text = text.to_lowercase();
            self.marks.iter().any(|mark| text.contains(mark))
        };
        let mut seen: Vec<String> = texts.filter(shows).map(short).take(EVIDENCE_MAX).collect();
        if self.classes.contains(&evidence.class) {
            let cause = short(evidence.cause);
            if !cause.is_empty() && !seen.contains(&cause) {
                seen.insert(0, cause);
                seen.truncate(EVIDENCE_MAX);
            }
        } else if seen.is_empty() {
            return None;
        }
        Some(Advice {
            rule: self.name.to_owned(),
            advice: self.advice.to_owned(),
            command: self.command.text(evidence.service, &seen),
            evidence: seen,
        })
    }
}

// === impl Run ===

impl Run {
    fn text(self, service: &ServiceName, seen: &[String]) -> String {
        match self {
            Self::Text(text) => text.to_owned(),
            Self::OfService(text) => text.replace("{}", service.as_str()),
            Self::PortHolder => match seen.iter().find_map(|text| port_in(text)) {
                Some(port) => format!("ss -ltnp 'sport = :{port}'"),
                None => "alicia doctor".to_owned(),
            },
            Self::Install => match seen.iter().find_map(|text| module_in(text)) {
                Some((installer, module)) => format!("{installer} install {module}"),
                None => logs(service),
            },
        }
    }
}

/// The port in `127.0.0.1:8080`, `port 8080`, `:::8080`.
fn port_in(text: &str) -> Option<u16> {
    let after = |mark: &str| {
        let places = text.match_indices(mark);
        let numbers = places.filter_map(|(at, _)| {
            let rest = text[at + mark.len()..].trim_start();
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u16>().ok()
        });
        numbers.last()
    };
    after("port ").or_else(|| after(":"))
}

/// The module in `No module named 'requests.adapters'` (Python) and `Cannot find module 'express'` (Node.js). Only a name
/// that can be nothing else in a shell.
fn module_in(text: &str) -> Option<(&'static str, String)> {
    let quoted = |mark: &str| {
        let rest = text.split_once(mark)?.1.trim_start();
        let quote = rest
            .chars()
            .next()
            .filter(|sign| matches!(sign, '\'' | '"'))?;
        let name = rest[1..].split(quote).next()?;
        let plain = |sign: char| sign.is_ascii_alphanumeric() || "-_.@/".contains(sign);
        let is_name = name.chars().all(plain)
            && name.starts_with(|sign: char| sign.is_ascii_alphanumeric() || sign == '@');
        is_name.then(|| name.to_owned())
    };
    let top = |module: String| module.split('.').next().unwrap_or_default().to_owned();
    quoted("No module named")
        .map(|module| ("python3 -m pip", top(module)))
        .or_else(|| quoted("Cannot find module").map(|module| ("npm", module)))
}

fn short(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(EVIDENCE_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> ServiceName {
        ServiceName::new("api").expect("an id")
    }

    fn advice(class: ExitCause, cause: &str, lines: &[&str]) -> Vec<Advice> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        all(&Evidence {
            service: &api(),
            class,
            cause,
            last_lines: &lines,
            root: None,
            after_change: false,
        })
    }

    /// The evidence below is what real programs print.
    #[test]
    fn the_evidence_chooses_rule_and_command() {
        let check = |line: &str, rule: &str, command: &str| {
            let found = advice(ExitCause::Crash, "exit code 1", &["starting", line]);
            let first = &found[0];
            assert_eq!(
                (first.rule.as_str(), first.command.as_str()),
                (rule, command),
                "{line}"
            );
            assert_eq!(first.evidence[0], line);
        };
        check(
            "java.lang.OutOfMemoryError: Java heap space, out of memory",
            "out_of_memory",
            "alicia ps",
        );
        check("MemoryError", "out_of_memory", "alicia ps");
        check(
            "OSError: [Errno 98] Address already in use",
            "port_taken",
            "alicia doctor",
        );
        check(
            "Error: listen EADDRINUSE: address already in use :::8080",
            "port_taken",
            "ss -ltnp 'sport = :8080'",
        );
        check(
            "bind() to 0.0.0.0:8081 failed (98: Address already in use)",
            "port_taken",
            "ss -ltnp 'sport = :8081'",
        );
        check("write: No space left on device", "disk_full", "df -h .");
        check(
            "sqlite3.OperationalError: database or disk is full",
            "disk_full",
            "df -h .",
        );
        check("accept: Too many open files", "descriptors", "ulimit -n");
        check(
            "ModuleNotFoundError: No module named 'requests.adapters'",
            "module_missing",
            "python3 -m pip install requests",
        );
        check(
            "Error: Cannot find module 'express'",
            "module_missing",
            "npm install express",
        );
        check(
            "ModuleNotFoundError: No module named '$(reboot)'",
            "module_missing",
            "alicia logs api --tail 50",
        );
        check(
            "sh: 1: nodejs: command not found",
            "program_missing",
            "alicia check",
        );
        check(
            "ssl.SSLCertVerificationError: certificate verify failed: certificate has expired",
            "certificate",
            "alicia health api",
        );
        check(
            "openai.RateLimitError: Error code: 429",
            "provider_limit",
            "alicia logs api --tail 50",
        );
        check(
            "FATAL: password authentication failed for user \"api\"",
            "authentication",
            "alicia logs api --tail 50",
        );
        check(
            "PermissionError: [Errno 13] Permission denied: '/etc/shadow'",
            "permission",
            "alicia doctor",
        );
        check(
            "missing required setting DATABASE_URL",
            "configuration",
            "alicia check",
        );
        check(
            "socket.gaierror: [Errno -2] Name or service not known",
            "name_not_found",
            "cat /etc/resolv.conf",
        );
        check(
            "redis.exceptions.ConnectionError: Error 111 connecting to 127.0.0.1:6379. Connection refused.",
            "dependency_down",
            "alicia ps",
        );
        check(
            "thread 'main' panicked at src/main.rs:2:5",
            "error_in_log",
            "alicia logs api --tail 50",
        );
    }

    #[test]
    fn how_it_ended_is_enough() {
        let check = |class: ExitCause, cause: &str, rule: &str| {
            let found = advice(class, cause, &[]);
            assert_eq!(found[0].rule, rule);
            assert_eq!(found[0].evidence, [cause]);
        };
        check(
            ExitCause::OutOfMemory,
            "killed for want of memory",
            "out_of_memory",
        );
        check(ExitCause::PortTaken, "exit code 98", "port_taken");
        check(
            ExitCause::ProgramNotFound,
            "nodejs is not there",
            "program_missing",
        );
        check(ExitCause::Configuration, "exit code 2", "configuration");
        check(
            ExitCause::Liveness,
            "liveness failed: no answer",
            "liveness",
        );
        check(
            ExitCause::StartTimeout,
            "not ready within 1m",
            "start_timeout",
        );
        check(ExitCause::Progress, "no step for 10m", "no_progress");
        check(ExitCause::Crash, "killed by SIGSEGV", "native_crash");
        check(ExitCause::Crash, "killed by SIGKILL", "unknown");
    }

    #[test]
    fn what_a_check_saw_is_evidence() {
        let rule = |detail: &str| advice(ExitCause::Unknown, detail, &[])[0].rule.clone();
        assert_eq!(
            rule("the certificate is good for 3 more days, expected 14 or more"),
            "certificate"
        );
        assert_eq!(
            rule("10MiB free (1.0 %), expected 5 % or more"),
            "disk_full"
        );
        assert_eq!(
            rule("connection refused by 127.0.0.1:8080"),
            "dependency_down"
        );
        assert_eq!(
            rule("there is no name api.test (NXDOMAIN)"),
            "name_not_found"
        );
        assert_eq!(rule("HTTP 401: wrong key"), "authentication");
    }

    #[test]
    fn a_root_comes_first_and_a_change_is_named() {
        let (api, db) = (api(), ServiceName::new("db").expect("an id"));
        let lines = ["Connection refused".to_owned()];
        let evidence = Evidence {
            service: &api,
            class: ExitCause::Crash,
            cause: "exit code 1",
            last_lines: &lines,
            root: Some(&db),
            after_change: true,
        };
        let found = all(&evidence);
        let rules: Vec<&str> = found.iter().map(|advice| advice.rule.as_str()).collect();
        assert_eq!(rules, ["dependency_down", "after_change"]);
        assert_eq!(first(&evidence), "alicia logs db --tail 50");
        assert_eq!(found[1].command, "alicia rollback api");
    }
}
