//! What is known besides the process: verdicts of checks, and heartbeats.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::health::{Heartbeat, HeartbeatStatus};
use alicia_contract::unit::UnixSeconds;
use alicia_probe::{Threshold, Verdict};

use super::Now;
use super::agents::Work;
use super::phi::{PHI_MAX, Rhythm};

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
    /// How long it was silent when it was found lost.
    pub silent: Duration,
    /// The numbers that it told.
    pub numbers: BTreeMap<String, f64>,
    /// What it tells of an agent's work.
    pub work: Work,
    /// Until when the next is due, by its own word; none: it announced nothing.
    announced: Option<Duration>,
    /// Its rhythm; only where the file demands no timeout does it decide.
    rhythm: Rhythm,
    /// Whether one came at all; none yet where the file demands them.
    pub came: bool,
    /// Whether it is not older than the last time the monitor was held up.
    pub fresh: bool,
}

/// When the next heartbeat is due.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Due {
    /// After this it is lost.
    pub timeout: Option<Duration>,
    /// The interval that was announced, where no timeout of the file overrides it.
    pub announced: Option<Duration>,
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
            silent: Duration::ZERO,
            numbers: BTreeMap::new(),
            work: Work::default(),
            announced: None,
            rhythm: Rhythm::default(),
            came: false,
            fresh: true,
        }
    }

    pub(super) fn take(&mut self, heartbeat: &Heartbeat, due: Due, now: Now) {
        if let Some(announced) = due.announced
            && self.came
            && self.fresh
            && !self.lost
        {
            let interval = now.mono.saturating_sub(self.heard_mono);
            self.rhythm.take(interval, announced);
        }
        self.announced = due.announced;
        if self.status != heartbeat.status || self.lost {
            self.since = now.unix;
        }
        self.status = heartbeat.status;
        self.detail = heartbeat.detail.clone().unwrap_or_default();
        self.timeout = due.timeout;
        let numbers = heartbeat.counters.iter().chain(&heartbeat.resources);
        self.numbers = numbers
            .map(|(name, value)| (name.clone(), *value))
            .collect();
        self.heard_mono = now.mono;
        self.heard = now.unix;
        self.lost = false;
        self.came = true;
        self.fresh = true;
    }

    /// Notes when it is overdue: by the timeout, or earlier when its rhythm says so. A last will counts only after `offline_after`: the connection may come
    /// back, or the process may have ended, which says more.
    pub(crate) fn look(&mut self, offline_after: Duration, now: Now) {
        let silent = now.mono.saturating_sub(self.heard_mono);
        let overdue = match self.status {
            HeartbeatStatus::Offline => silent >= offline_after,
            HeartbeatStatus::Stopping => false,
            _ => self.timeout.is_some_and(|timeout| silent > timeout) || self.is_unlikely(silent),
        };
        if overdue && !self.lost && self.fresh {
            self.lost = true;
            self.losses += 1;
            self.silent = silent;
            self.since = now.unix;
        }
    }

    fn is_unlikely(&self, silent: Duration) -> bool {
        let phi = self
            .announced
            .and_then(|announced| self.rhythm.phi(silent, announced));
        phi.is_some_and(|phi| phi > PHI_MAX)
    }

    /// Starts the wait for the next one anew: nothing could be heard meanwhile.
    pub(crate) fn wait_again(&mut self, now: Now) {
        self.fresh = true;
        self.heard_mono = now.mono;
    }
}
