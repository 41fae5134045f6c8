//! What the last lines of output say of a failure. Careful: a line that only talks about limits must
//! never park a healthy program, so a line counts only when it is the error itself.
//!
//! A provider's limit is found only when all of this holds:
//! - the line begins like an error that ends a program: the name of an exception that is about limits, or
//!   `error:`, `fatal:` and the like, and nothing before it (no time, no level of a log);
//! - it has the status 429 as a number of its own;
//! - it says how long to wait, or (for a quota) has the code `insufficient_quota`;
//! - nothing follows it but a stack trace: a program that went on would have said more.

use alicia_contract::UnixSeconds;
use alicia_contract::orchestrator::ExitCause;

use super::Said;

/// The longest wait that is believed, in seconds: a day.
const WAIT_S_MAX: f64 = 86_400.0;

/// Lines from the end that are looked at: an error and its stack trace.
pub const LINES_MAX: usize = 40;

/// The longest part of a line that is looked at, in bytes.
const LINE_BYTES_MAX: usize = 4_096;

/// What the last lines say, the oldest first; `now` is the wall clock at the end of the run.
#[must_use]
pub fn read(lines: &[String], now: UnixSeconds) -> Option<Said> {
    let mut last = lines.iter().rev().take(LINES_MAX);
    provider(last.clone(), now).or_else(|| {
        last.any(|line| is_port_taken(cut(line))).then_some(Said {
            class: ExitCause::PortTaken,
            resume_at: None,
        })
    })
}

fn cut(line: &str) -> &str {
    let mut end = line.len().min(LINE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

fn provider<'l>(last: impl Iterator<Item = &'l String>, now: UnixSeconds) -> Option<Said> {
    let error = last.map(|line| cut(line)).find(|line| !is_trace(line))?;
    if !begins_as_error(error) || !has_number(error, "429") {
        return None;
    }
    if error.contains("insufficient_quota") {
        return Some(Said {
            class: ExitCause::ProviderQuota,
            resume_at: None,
        });
    }
    let wait_s = wait(error)?;
    Some(Said {
        class: ExitCause::ProviderLimit,
        resume_at: Some(now + wait_s),
    })
}

/// A line of a stack trace, or the last words of a runtime (`Node.js v22.1.0`).
fn is_trace(line: &str) -> bool {
    let text = line.trim();
    text.is_empty()
        || text.starts_with("at ")
        || text.starts_with("Node.js v")
        || (text.starts_with("stack backtrace:")
            || text.starts_with("note: run with `RUST_BACKTRACE"))
        || matches!(text, "}" | "]" | "{" | "^")
}

/// Names of exceptions that are about limits, by their end.
const EXCEPTIONS: [&str; 6] = [
    "RateLimitError",
    "RateLimitException",
    "RateLimitExceeded",
    "TooManyRequestsError",
    "TooManyRequestsException",
    "QuotaExceededError",
];

/// Beginnings of a line that ends a program.
const BEGINNINGS: [&str; 6] = [
    "error:",
    "fatal:",
    "fatal error:",
    "uncaught error:",
    "panic:",
    "uncaught exception:",
];

fn begins_as_error(line: &str) -> bool {
    // `anthropic.RateLimitError: …`, `openai::RateLimitError: …`
    let name = line.split(':').find(|part| !part.is_empty()).unwrap_or("");
    let path = line
        .split(": ")
        .next()
        .filter(|path| path.len() < line.len())
        .unwrap_or(name);
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_'))
    };
    let exception = is_name(path) && EXCEPTIONS.iter().any(|end| path.ends_with(end));
    let lower = line
        .get(..24.min(line.len()))
        .unwrap_or_default()
        .to_ascii_lowercase();
    exception
        || BEGINNINGS
            .iter()
            .any(|beginning| lower.starts_with(beginning))
}

/// Whether a number stands there by itself: `429`, not `1429` or `4290` or `4.29`.
fn has_number(line: &str, number: &str) -> bool {
    line.match_indices(number).any(|(at, found)| {
        let apart = |c: Option<char>| !c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.');
        apart(line[..at].chars().next_back()) && {
            let mut rest = line[at + found.len()..].chars();
            let next = rest.next();
            // A point ends the sentence, unless a digit follows.
            match next {
                Some('.') => !rest.next().is_some_and(|c| c.is_ascii_digit()),
                next => apart(next),
            }
        }
    })
}

/// Words before the time to wait.
const WAITS: [&str; 7] = [
    "retry-after",
    "retry_after",
    "retryafter",
    "retry after",
    "try again in",
    "retry in",
    "retry again in",
];

/// The seconds to wait that the line names.
fn wait(line: &str) -> Option<f64> {
    let lower = line.to_ascii_lowercase();
    WAITS.iter().find_map(|word| {
        let at = lower.find(word)?;
        let rest =
            lower[at + word.len()..].trim_start_matches([' ', ':', '=', '"', '\'', '(', '\\']);
        duration(rest)
    })
}

/// `30`, `30s`, `1.5s`, `450ms`, `1m30s`, `2 minutes`: seconds, when it is more than nothing and at most a
/// day.
fn duration(text: &str) -> Option<f64> {
    let mut rest = text;
    let mut total_s = 0.0;
    let mut found = false;
    loop {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let Ok(number) = rest[..digits].trim_end_matches('.').parse::<f64>() else {
            break;
        };
        let after = rest[digits..].trim_start_matches(' ');
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let scale = match &after[..letters] {
            "" | "s" | "sec" | "secs" | "second" | "seconds" => Some(1.0),
            "ms" => Some(1e-3),
            "m" | "min" | "mins" | "minute" | "minutes" => Some(60.0),
            "h" | "hour" | "hours" => Some(3_600.0),
            _ => None,
        };
        total_s += number * scale.unwrap_or(1.0);
        found = true;
        let unit_follows = scale.is_some() && letters > 0;
        if !unit_follows {
            break;
        }
        rest = &after[letters..];
    }
    (found && total_s > 0.0 && total_s <= WAIT_S_MAX).then_some(total_s)
}

/// How the usual runtimes say that a port is taken: C, Python, Node, Go, Rust, Java, Ruby, PHP, nginx,
/// uvicorn, .NET, gunicorn. A line that says so of another try (`retrying`, `fallback`) does not count.
fn is_port_taken(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let goes_on = [
        "retry",
        "trying",
        "fallback",
        "falling back",
        "another port",
        "next port",
        "if ",
    ];
    if goes_on.iter().any(|word| lower.contains(word)) {
        return false;
    }
    let in_use = lower.contains("address already in use") || lower.contains("addrinuse");
    let marked = [
        "eaddrinuse",
        "addrinuse",
        "errno 98",
        "os error 98",
        "(98",
        "bind",
        "listen",
    ];
    (in_use && marked.iter().any(|mark| lower.contains(mark)))
        || lower.starts_with("[error] connection in use: (")
        || lower.contains("] [error] connection in use: (")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: f64 = 1_000.0;

    fn said(text: &str) -> Option<(ExitCause, Option<f64>)> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        read(&lines, NOW).map(|said| (said.class, said.resume_at))
    }

    #[test]
    fn an_error_of_a_provider_that_says_how_long_parks() {
        let check = |text: &str, resume_at: f64| {
            let expected = Some((ExitCause::ProviderLimit, Some(resume_at)));
            assert_eq!(said(text), expected, "{text}");
        };
        check(
            "Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    go()\n\
             anthropic.RateLimitError: Error code: 429 - {'type': 'error', 'error': {'type': \
             'rate_limit_error'}}, retry-after: 30",
            1_030.0,
        );
        check(
            "openai.RateLimitError: Error code: 429 - {'error': {'message': 'Rate limit reached. Please \
             try again in 1m30s.'}}",
            1_090.0,
        );
        check(
            "RateLimitError: 429 {\"type\":\"error\",\"retry_after\": 2.5}\n    at makeRequest \
             (/app/a.js:3:9)\n    at async main (/app/a.js:9:1)\n\nNode.js v22.1.0",
            1_002.5,
        );
        check(
            "error: HTTP 429 Too Many Requests (Retry-After=450ms)",
            1_000.45,
        );
        check("fatal: provider said 429, try again in 2 minutes", 1_120.0);
    }

    #[test]
    fn a_quota_is_told_apart() {
        let text =
            "openai.RateLimitError: Error code: 429 - {'error': {'code': 'insufficient_quota'}}";
        assert_eq!(said(text), Some((ExitCause::ProviderQuota, None)));
    }

    /// Lines that talk about limits, handle them, or look like them. None may park.
    const TALK: [&str; 44] = [
        "INFO got 429 from upstream, retry-after: 30, retrying",
        "2026-11-21T10:00:00Z ERROR RateLimitError: Error code: 429, retry after 30s",
        "WARN RateLimitError: 429; retry-after: 30; attempt 1 of 5",
        "rate limit exceeded",
        "Rate limit reached, please try again in 20s",
        "error: rate limit",
        "error: too many requests, retry after 30",
        "error: 429",
        "error: HTTP 429 Too Many Requests",
        "RateLimitError: Error code: 429",
        "RateLimitError: slow down, retry-after: 30",
        "error: request 4290 failed, retry after 30",
        "error: order 1429 not found, try again in 5s",
        "error: version 4.29 is too old, retry in 5s",
        "error: took 429ms, retry after 30",
        "error: wrote rows 428-429.5, retry in 3s",
        "error: HTTP 429, retry-after: soon",
        "error: HTTP 429, retry-after: 0",
        "error: HTTP 429, retry-after: 999999999",
        "error: HTTP 429, retry-after: -5",
        "error: HTTP 429, retry-after:",
        "{\"level\":\"error\",\"status\":429,\"retry_after\":30}",
        "[error] 429 from api, retry-after 30",
        "the test for RateLimitError: 429 retry-after: 30 passed",
        "assert error.message == 'RateLimitError: 429 retry-after: 30'",
        "# error: HTTP 429 (retry-after: 30)",
        "> error: HTTP 429 (retry-after: 30)",
        "user said: error: HTTP 429 (retry-after: 30)",
        "GET /v1/messages 429 retry-after=30",
        "127.0.0.1 - - \"POST /chat HTTP/1.1\" 429 12 retry-after: 30",
        "memory limit exceeded, retry after 30s",
        "file size limit 429 exceeded; try again in 30s",
        "context limit reached at 429 tokens, retry after compaction",
        "ulimit: open files 429",
        "docs: a RateLimitError: 429 carries retry-after: 30",
        "error: HTTP 429 (retry-after: 30)\nhandled, going on",
        "anthropic.RateLimitError: Error code: 429, retry-after: 30\nsub-agent 3 recovered",
        "RateLimitError: 429 retry-after: 30\nValueError: broken",
        "error: HTTP 429 (retry-after: 30)\nSegmentation fault",
        "MyRateLimitErrorHandler: 429 retry-after: 30",
        "handled RateLimitError: 429, retry after 30",
        "error: quota exceeded insufficient_quota",
        "insufficient_quota 429",
        "limit limit limit 429 retry after 30 limit",
    ];

    #[test]
    fn talk_about_limits_parks_nothing() {
        let parked: Vec<_> = TALK.iter().filter(|text| said(text).is_some()).collect();
        assert!(parked.is_empty(), "{parked:#?}");
    }

    #[test]
    fn a_port_that_is_taken_is_seen_in_the_words_of_each_runtime() {
        let taken = [
            "OSError: [Errno 98] Address already in use",
            "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use",
            "Error: listen EADDRINUSE: address already in use :::3000\n    at Server.setupListenHandle [as _listen2]",
            "2026/11/21 10:00:00 listen tcp :8080: bind: address already in use",
            "thread 'main' panicked at src/main.rs:3:5: Os { code: 98, kind: AddrInUse, message: \"Address already in use\" }",
            "Error: Address already in use (os error 98)",
            "Caused by: java.net.BindException: Address already in use",
            "in `initialize': Address already in use - bind(2) for \"127.0.0.1\" port 80 (Errno::EADDRINUSE)",
            "Failed to listen on localhost:8000 (reason: Address already in use)",
            "nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)",
            "System.IO.IOException: Failed to bind to address http://127.0.0.1:5000: address already in use.",
            "[2026-11-21 10:00:00 +0000] [7] [ERROR] Connection in use: ('127.0.0.1', 8000)",
        ];
        for text in taken {
            assert_eq!(said(text), Some((ExitCause::PortTaken, None)), "{text}");
        }
        let talk = [
            "bind: address already in use, trying another port",
            "EADDRINUSE on 3000, falling back to 3001",
            "the address of the customer is in use",
            "listening on 8080",
            "if the address is already in use, bind elsewhere: address already in use",
        ];
        for text in talk {
            assert_eq!(said(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_stumble(lines in proptest::collection::vec(".{0,200}", 0..20)) {
            let found = read(&lines, NOW);
            if let Some(Said { resume_at: Some(at), .. }) = found {
                proptest::prop_assert!(at > NOW && at <= NOW + WAIT_S_MAX);
            }
        }

        #[test]
        fn words_about_limits_alone_park_nothing(
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "rate", "limit", "429", "retry-after:", "30", "quota", "exceeded", "INFO", "error",
                    "handled", "agent", "tokens", "too many requests",
                ]),
                1..12,
            )
        ) {
            // No word of these has the form of an error that ends a program.
            let line = words.join(" ");
            proptest::prop_assert_eq!(read(&[line], NOW), None);
        }
    }
}
