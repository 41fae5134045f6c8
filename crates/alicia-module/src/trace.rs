//! One id follows a request through modules: into the lines of the log, the rows of the audit log, the messages on the bus.
//!
//! The form is that of W3C Trace Context: `00-<trace>-<span>-<flags>` in the header `traceparent`. Code that handles a
//! request runs within [`scope`]; code in between passes nothing on.

use std::fmt;

use alicia_store::audit::Origin;
use tracing::Instrument;

/// What a request is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    trace: u128,
    span: u64,
    flags: u8,
}

// === impl Trace ===

impl Trace {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = [0; 24];
        // Ids that repeat are a nuisance, not a danger: better than no answer.
        if getrandom::fill(&mut bytes).is_err() {
            tracing::warn!("the system gives no random numbers for the id of a request");
        }
        let (trace, span) = bytes.split_at(16);
        Self {
            trace: u128::from_be_bytes(trace.try_into().unwrap_or_default()) | 1,
            span: u64::from_be_bytes(span.try_into().unwrap_or_default()) | 1,
            flags: 0,
        }
    }

    /// Reads a `traceparent` (W3C Trace Context 1, section 3.2.2); `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next()?;
            let is_hex = part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (part.len() == digits && is_hex).then_some(part)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_last = parts.next().is_none();
        let found = Self {
            trace: u128::from_str_radix(trace, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        let is_known = version != "ff" && (version != "00" || is_last);
        (is_known && found.trace != 0 && found.span != 0).then_some(found)
    }

    /// Our own part of it.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            trace: self.trace,
            flags: self.flags,
            ..Self::new()
        }
    }

    /// The id of the whole: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

/// As a `traceparent`.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.span, self.flags
        )
    }
}

/// Does the work of a request: its lines of the log, audit rows and messages say where it came from (`rest
/// 127.0.0.1:50412`, `bus`) and what it is a part of.
pub async fn scope<F: Future>(trace: Trace, from: &str, work: F) -> F::Output {
    let id = trace.id();
    let span = tracing::info_span!("request", trace_id = %id);
    let work = alicia_bus::trace::scope(trace.to_string(), work);
    Origin::new(from, &id).scope(work).instrument(span).await
}

/// The same for a message that was received, by the `traceparent` of its envelope.
pub async fn scope_of_message<F: Future>(traceparent: Option<&str>, work: F) -> F::Output {
    let trace = traceparent
        .and_then(Trace::parse)
        .map_or_else(Trace::new, Trace::child);
    scope(trace, "bus", work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_recommendation_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::parse(good).expect("the example of the recommendation");
        assert_eq!(trace.to_string(), good);
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let child = trace.child();
        assert!(child.id() == trace.id() && child != trace);
        assert!(Trace::parse(&format!("01{}-what-comes", &good[2..])).is_some());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(bad), None, "{bad}");
        }
        assert_ne!(Trace::new().id(), Trace::new().id());
    }

    #[tokio::test]
    async fn work_knows_where_it_came_from() {
        let trace = Trace::new();
        let seen = scope(trace, "rest 127.0.0.1:1", async {
            (Origin::current(), alicia_bus::trace::current())
        });
        let (origin, traceparent) = seen.await;
        assert_eq!(origin, Origin::new("rest 127.0.0.1:1", &trace.id()));
        assert_eq!(traceparent, Some(trace.to_string()));
        assert_eq!(alicia_bus::trace::current(), None);
    }
}
