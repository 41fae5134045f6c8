//! What a run says on its notify socket: `sd_notify(3)`, and Alicia's own words beside it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::fleet::ServiceSpec;
use alicia_contract::orchestrator::InstanceState;
use alicia_contract::{InstanceId, UnixSeconds};

use super::Core;
use super::cause::{self, Said};
use super::event::Counters;

/// The longest text that is kept of what it says, in characters: a line.
const TEXT_CHARS_MAX: usize = 200;

/// The longest time by which one message extends a start, and by which all of them together put the end of a stop off:
/// an hour.
pub(super) const EXTEND_MAX: Duration = Duration::from_secs(3_600);

/// What a message says, as far as it is understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Notice {
    /// `READY=1`
    pub is_ready: bool,
    /// `STOPPING=1`
    pub is_stopping: bool,
    /// `STATUS=…`
    pub status: Option<String>,
    /// `EXTEND_TIMEOUT_USEC=…`
    pub extend: Option<Duration>,
    /// `X_ALICIA_CAUSE=…`, with `X_ALICIA_RESUME_AT=…`
    pub said: Option<Said>,
    /// `X_ALICIA_CHECKPOINT=done`
    pub is_saved: bool,
    /// `X_ALICIA_STEPS`, `X_ALICIA_TOKENS`, `X_ALICIA_COST_USD`, `X_ALICIA_ACTION`
    pub counters: Counters,
}

/// What a run has said so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Words {
    /// The last `STATUS`.
    pub(super) status: Option<String>,
    /// The last cause.
    pub(super) said: Option<Said>,
    /// It said that it is ready.
    pub(super) is_ready: bool,
    /// It is asked to save its work, and why; it is restarted then.
    pub(super) saving: Option<String>,
    /// It is not to be started again when it ends.
    pub(super) is_last: bool,
}

// === impl Notice ===

impl Notice {
    /// Reads a message. What is malformed is left out: a wrong field must not cost the others.
    #[must_use]
    pub fn read(fields: &BTreeMap<String, String>, now: UnixSeconds) -> Self {
        let field = |name: &str| fields.get(name).map(String::as_str);
        let is = |name, word| field(name).is_some_and(|found| found.trim() == word);
        let number = |name| {
            let number: f64 = field(name)?.trim().parse().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number)
        };
        let resume_at = number("X_ALICIA_RESUME_AT").filter(|at| *at > now);
        Self {
            is_ready: is("READY", "1"),
            is_stopping: is("STOPPING", "1"),
            status: field("STATUS").map(tidy),
            extend: field("EXTEND_TIMEOUT_USEC")
                .and_then(|text| text.trim().parse().ok())
                .map(|us| Duration::from_micros(us).min(EXTEND_MAX)),
            said: field("X_ALICIA_CAUSE")
                .and_then(cause::of_word)
                .map(|class| Said { class, resume_at }),
            is_saved: is("X_ALICIA_CHECKPOINT", "done"),
            counters: Counters {
                steps: number("X_ALICIA_STEPS"),
                tokens: number("X_ALICIA_TOKENS"),
                cost_usd: number("X_ALICIA_COST_USD"),
                action: field("X_ALICIA_ACTION").map(tidy),
            },
        }
    }
}

/// One line, without what a terminal would obey.
pub(super) fn tidy(text: &str) -> String {
    let plain = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TEXT_CHARS_MAX);
    plain.collect::<String>().trim().to_owned()
}

/// Whether an instance is ready when it says so: by its readiness probe, or because it has a notify socket
/// and no readiness probe.
pub(super) fn says_ready(spec: &ServiceSpec) -> bool {
    match &spec.readiness {
        Some(probe) => probe.notify,
        None => spec.notify.enabled,
    }
}

// === impl Core ===

impl Core {
    pub(super) fn notified(&mut self, instance: &InstanceId, fields: &BTreeMap<String, String>) {
        let Some(id) = self.slot_of(instance) else {
            return;
        };
        let notice = Notice::read(fields, self.now.unix);
        let now = self.now.monotonic;
        let Some(slot) = self.slot_mut(&id) else {
            return;
        };
        let state = slot.state;
        let Some(run) = slot.run.as_mut().filter(|run| !run.ended) else {
            return;
        };
        let age = now.saturating_sub(run.started);
        let is_stopping = run.stop.is_some();
        if notice.said.is_some() {
            run.words.said = notice.said;
        }
        run.words.is_ready |= notice.is_ready;
        let says = notice.status.clone().filter(|text| !text.is_empty());
        let is_saved = notice.is_saved && run.words.saving.is_some();
        if notice.status.is_some() && run.words.status != says {
            run.words.status = says;
            self.revision += 1;
        }
        self.counted(instance, &notice.counters);
        if is_stopping {
            if let Some(extend) = notice.extend {
                self.extend_stop(&id, extend);
            }
            return;
        }
        if is_saved {
            return self.saved(&id);
        }
        if state != InstanceState::Starting {
            return;
        }
        if notice.is_ready && self.waits_for_word(&id) {
            self.ready(&id, "it says that it is ready", age);
        } else if let Some(extend) = notice.extend {
            let at = now + extend;
            let later = self
                .slot(&id)
                .and_then(|slot| slot.deadline)
                .is_some_and(|deadline| deadline < at);
            if later {
                self.set_slot_timer(&id, Some(at));
            }
        }
    }

    /// Whether the readiness of this slot is told by itself.
    pub(super) fn waits_for_word(&self, id: &super::event::SlotId) -> bool {
        self.spec_of(id).is_some_and(|spec| says_ready(&spec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::orchestrator::ExitCause;

    fn read(fields: &[(&str, &str)]) -> Notice {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Notice::read(&fields, 1_000.0)
    }

    #[test]
    fn a_message_is_understood() {
        let found = read(&[
            ("READY", "1"),
            ("STATUS", "reads 3\u{1b}[31m mails\n"),
            ("X_ALICIA_CAUSE", "provider-limit"),
            ("X_ALICIA_RESUME_AT", "1060"),
            ("X_ALICIA_STEPS", "7"),
            ("X_ALICIA_ACTION", "search"),
            ("EXTEND_TIMEOUT_USEC", "5000000"),
        ]);
        assert!(found.is_ready);
        assert_eq!(found.status.as_deref(), Some("reads 3 [31m mails"));
        let said = found.said.expect("a cause");
        assert_eq!(
            (said.class, said.resume_at),
            (ExitCause::ProviderLimit, Some(1_060.0))
        );
        assert_eq!(found.counters.steps, Some(7.0));
        assert_eq!(found.counters.action.as_deref(), Some("search"));
        assert_eq!(found.extend, Some(Duration::from_secs(5)));
    }

    #[test]
    fn what_is_malformed_is_left_out() {
        let found = read(&[
            ("READY", "yes"),
            ("X_ALICIA_CAUSE", "operator"),
            ("X_ALICIA_RESUME_AT", "NaN"),
            ("X_ALICIA_STEPS", "-1"),
            ("X_ALICIA_TOKENS", "many"),
            ("X_ALICIA_COST_USD", "inf"),
            ("EXTEND_TIMEOUT_USEC", "-3"),
        ]);
        assert_eq!(found, Notice::default());
        let past = read(&[
            ("X_ALICIA_CAUSE", "provider-quota"),
            ("X_ALICIA_RESUME_AT", "3"),
        ]);
        assert_eq!(past.said.expect("a cause").resume_at, None);
        assert_eq!(
            read(&[("EXTEND_TIMEOUT_USEC", "18446744073709551615")]).extend,
            Some(EXTEND_MAX)
        );
        assert_eq!(
            read(&[("STATUS", &"x".repeat(9_999))])
                .status
                .map(|s| s.len()),
            Some(200)
        );
    }
}
