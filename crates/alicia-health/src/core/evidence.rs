//! What is known besides the process: verdicts of checks, and heartbeats.

use std::time::Duration;

use alicia_contract::health::{Heartbeat, HeartbeatStatus};
use alicia_contract::unit::UnixSeconds;
use alicia_probe::{Threshold, Verdict};

use super::Now;

/// The verdict of one check on one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Good or bad; none while there are too few tries.
    pub good: Option<bool>,
    /// Since when.
    pub since: UnixSeconds,
    /// The last result in words.
    pub detail: String,
    /// How long the last try took.
    pub latency_ms: Option<f64>,
    /// When the last try was made.
    pub at: UnixSeconds,
    /// How often the verdict turned bad; tells occurrences apart.
    pub falls: u32,
    threshold: Threshold,
    /// Whether it is not older than the last time the monitor was held up.
    pub fresh: bool,
}

/// The last heartbeat of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    /// What it said.
    pub status: HeartbeatStatus,
    /// Why.
    pub detail: String,
    /// How long until the next is overdue; none: it announced no interval.
    pub timeout: Option<Duration>,
    /// When it was heard, for waits.
    pub heard_mono: Duration,
    /// When it was heard.
    pub heard: UnixSeconds,
    /// Since when it says this, or is lost.
    pub since: UnixSeconds,
    /// Since when it is overdue, or its last will has not been taken back.
    pub lost: bool,
    /// How often it was lost; tells occurrences apart.
    pub losses: u32,
    /// Whether one came at all; none yet where the file demands them.
    pub came: bool,
    /// Whether it is not older than the last time the monitor was held up.
    pub fresh: bool,
}

// === impl Check ===

/// One try of a check, as the prober reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct Try {
    /// Whether it succeeded.
    pub good: bool,
    /// The result in words.
    pub detail: String,
    /// How long it took.
    pub latency_ms: f64,
    /// When it was begun.
    pub begun: Duration,
}

impl Check {
    /// No verdict yet. It turns after `rise` successes or `fall` failures in a row.
    pub(crate) fn new(rise: u32, fall: u32, now: Now) -> Self {
        Self {
            good: None,
            since: now.unix,
            detail: "no result yet".to_owned(),
            latency_ms: None,
            at: now.unix,
            falls: 0,
            threshold: Threshold::new(rise, fall),
            fresh: true,
        }
    }

    /// Counts a try.
    pub(crate) fn count(&mut self, attempt: Try, now: Now) {
        self.detail = attempt.detail;
        self.latency_ms = Some(attempt.latency_ms);
        self.at = now.unix;
        self.fresh = true;
        let turned = self.threshold.observe(attempt.good);
        if let Some(verdict) = turned {
            self.good = Some(verdict == Verdict::Good);
            self.falls += u32::from(verdict == Verdict::Bad);
            self.since = now.unix;
        }
    }
}

// === impl Beat ===

impl Beat {
    /// One that the file demands and that did not come yet.
    pub(super) fn awaited(timeout: Duration, now: Now) -> Self {
        Self {
            status: HeartbeatStatus::Healthy,
            detail: "none yet".to_owned(),
            timeout: Some(timeout),
            heard_mono: now.mono,
            heard: now.unix,
            since: now.unix,
            lost: false,
            losses: 0,
            came: false,
            fresh: true,
        }
    }

    pub(super) fn take(&mut self, heartbeat: &Heartbeat, timeout: Option<Duration>, now: Now) {
        if self.status != heartbeat.status || self.lost {
            self.since = now.unix;
        }
        self.status = heartbeat.status;
        self.detail = heartbeat.detail.clone().unwrap_or_default();
        self.timeout = timeout;
        self.heard_mono = now.mono;
        self.heard = now.unix;
        self.lost = false;
        self.came = true;
        self.fresh = true;
    }

    /// Notes when it is overdue. A last will counts only after `offline_after`: the connection may come
    /// back, or the process may have ended, which says more.
    pub(crate) fn look(&mut self, offline_after: Duration, now: Now) {
        let silent = now.mono.saturating_sub(self.heard_mono);
        let overdue = match self.status {
            HeartbeatStatus::Offline => silent >= offline_after,
            HeartbeatStatus::Stopping => false,
            _ => self.timeout.is_some_and(|timeout| silent > timeout),
        };
        if overdue && !self.lost && self.fresh {
            self.lost = true;
            self.losses += 1;
            self.since = now.unix;
        }
    }

    /// Starts the wait for the next one anew: nothing could be heard meanwhile.
    pub(crate) fn wait_again(&mut self, now: Now) {
        self.fresh = true;
        self.heard_mono = now.mono;
    }
}
