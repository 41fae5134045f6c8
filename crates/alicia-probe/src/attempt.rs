//! One try, and what came of it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alicia_contract::Period;
use rustix::io::Errno;
use tokio::time::Instant;

use crate::target::Target;

/// The longest detail, in characters: it is shown in a table and carried in every status.
pub(crate) const DETAIL_CHARS_MAX: usize = 300;

/// What the kernel says when a process cannot have what it asks for, whatever it asks: no descriptor, no memory, no port
/// to connect from, no process.
const LACKS: [i32; 6] = [
    Errno::MFILE.raw_os_error(),
    Errno::NFILE.raw_os_error(),
    Errno::NOMEM.raw_os_error(),
    Errno::NOBUFS.raw_os_error(),
    Errno::ADDRNOTAVAIL.raw_os_error(),
    Errno::AGAIN.raw_os_error(),
];

/// A deadline that is noticed later than this, and than half of the timeout, is no evidence: the machine slept, the process
/// was stopped, or it had no processor.
const LATE_MIN: Duration = Duration::from_millis(50);

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it is good.
    pub ok: bool,
    /// False when the try could not be made, because this process lacked what it takes (descriptors, memory, ports,
    /// processes, or the processor at the moment of the deadline). That says nothing about the target: it is neither good
    /// nor bad.
    pub made: bool,
    /// What was seen, in a few words: "HTTP 503, expected 200".
    pub detail: String,
    /// How long it took.
    pub latency: Duration,
}

/// Tries once. Never takes much longer than `timeout`: a program that must be killed takes some milliseconds more.
///
/// Dropping the future closes the connection, and kills the program with its process group.
pub async fn attempt(target: &Target, timeout: Duration) -> Outcome {
    let deadline = Deadline::new(timeout);
    // Boxed, so that a task which waits for its next try is as small whatever its kind.
    let exchange: Pin<Box<dyn Future<Output = Seen> + Send + '_>> = match target {
        Target::Http(target) => Box::pin(target.attempt(&deadline)),
        Target::Tcp(target) => Box::pin(target.attempt(&deadline)),
        Target::Mqtt(target) => Box::pin(target.attempt(&deadline)),
        Target::Grpc(target) => Box::pin(target.attempt(&deadline)),
        Target::Dns(target) => Box::pin(target.attempt(&deadline)),
        Target::Llm(target) => Box::pin(target.attempt(&deadline)),
        Target::Exec(target) => Box::pin(target.attempt(&deadline)),
        Target::Process(target) => Box::pin(std::future::ready(target.attempt(&deadline))),
        Target::Disk(target) => Box::pin(target.attempt(&deadline)),
        Target::Gpu(target) => Box::pin(target.attempt(&deadline)),
    };
    let result = exchange.await;
    let latency = deadline.elapsed();
    let result = result.and_then(|detail| quick_enough(detail, latency, target.latency_max()));
    let (ok, detail) = match result {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    // What others say may hold anything; it is shown in one line.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let detail = detail.chars().take(DETAIL_CHARS_MAX).map(plain).collect();
    Outcome {
        ok,
        made: ok || !deadline.lacked.load(Ordering::Relaxed),
        detail,
        latency,
    }
}

/// A good answer may still be a late one.
pub(crate) fn quick_enough(detail: String, took: Duration, limit: Option<Duration>) -> Seen {
    match limit.filter(|limit| took > *limit) {
        None => Ok(detail),
        Some(limit) => {
            let took_ms = took.as_secs_f64() * 1e3;
            Err(format!(
                "{detail}, but it took {took_ms:.0}ms, expected at most {}",
                Period(limit)
            ))
        }
    }
}

/// What was seen: good or bad.
pub(crate) type Seen = Result<String, String>;

/// The end of a try.
#[derive(Debug)]
pub(crate) struct Deadline {
    started: Instant,
    timeout: Duration,
    /// This process lacked something in the course of the try.
    lacked: AtomicBool,
}

// === impl Deadline ===

impl Deadline {
    fn new(timeout: Duration) -> Self {
        Self {
            started: now(),
            timeout,
            lacked: AtomicBool::new(false),
        }
    }

    /// Passes an error on, and remembers when it is for want of something of our own.
    pub(crate) fn own(&self, error: io::Error) -> io::Error {
        if error
            .raw_os_error()
            .is_some_and(|code| LACKS.contains(&code))
        {
            self.lacked.store(true, Ordering::Relaxed);
        }
        error
    }

    /// Remembers that a deadline was noticed much too late: who had no processor to notice it had none to read the answer.
    fn stood_still(&self, late: Duration) {
        if late >= LATE_MIN.max(self.timeout / 2) {
            self.lacked.store(true, Ordering::Relaxed);
        }
    }

    /// Waits, but not longer than to the end of the try.
    pub(crate) async fn within<T>(
        &self,
        what_is_missing: &str,
        wait: impl Future<Output = T>,
    ) -> Result<T, String> {
        // A timeout of centuries is no timeout.
        let Some(end) = self.started.checked_add(self.timeout) else {
            return Ok(wait.await);
        };
        let answer = tokio::time::timeout_at(end, wait).await;
        answer.map_err(|_| {
            self.stood_still(now().saturating_duration_since(end));
            format!("{what_is_missing} within {}", Period(self.timeout))
        })
    }

    fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.started)
    }
}

/// The clock of the runtime, which tests may pause.
#[expect(
    clippy::disallowed_methods,
    reason = "a latency is measured, and the runtime's clock is what deadlines run on"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
