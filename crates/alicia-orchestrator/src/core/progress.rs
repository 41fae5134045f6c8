//! Whether a run gets on: steps, tokens, cost, and whether it repeats itself.

use std::collections::VecDeque;
use std::time::Duration;

use alicia_contract::fleet::{Progress, ProgressAction};
use alicia_contract::orchestrator::{ExitCause, InstanceState, Work};
use alicia_contract::{InstanceId, Period};

use super::event::{Action, Counters, Now, SlotId};
use super::service::StopCause;
use super::{Core, Owner};

/// The time over which tokens are counted.
const MINUTE: Duration = Duration::from_secs(60);
/// The time over which cost is counted.
const HOUR: Duration = Duration::from_secs(3_600);
/// Points that are kept of each: of the minute one a second, of the hour one a minute.
const POINTS_MAX: u32 = 60;

/// What a run has told of its work.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauge {
    work: Work,
    has_told: bool,
    /// When it last got on.
    risen: Duration,
    /// Whether the last message was about that.
    rises: bool,
    /// So often in a row the same action was told.
    repeats: u32,
    tokens: Window,
    cost: Window,
    /// What it was last found guilty of; not found again before it gets on.
    tripped: bool,
    /// The next look.
    deadline: Option<Duration>,
}

/// How much a counter rose lately.
#[derive(Debug, Clone, Default)]
struct Window {
    /// Moments and values, the oldest first.
    points: VecDeque<(Duration, f64)>,
}

// === impl Window ===

impl Window {
    fn take(&mut self, at: Duration, value: f64, span: Duration) {
        if self.points.is_empty() || self.points.back().is_some_and(|(_, last)| value < *last) {
            // The first, or a counter that began anew.
            self.points.clear();
            self.points.push_back((at, 0.0));
        }
        let granule = span / POINTS_MAX;
        match self.points.back_mut() {
            Some((last_at, last)) if at.saturating_sub(*last_at) < granule && *last > 0.0 => {
                *last = value;
            }
            _ => self.points.push_back((at, value)),
        }
        // One point from before the window stays: what it rose from.
        while self
            .points
            .get(1)
            .is_some_and(|(second, _)| at.saturating_sub(*second) >= span)
        {
            self.points.pop_front();
        }
    }

    /// How much it rose within the window.
    fn rise(&self) -> f64 {
        match (self.points.front(), self.points.back()) {
            (Some((_, first)), Some((_, last))) => last - first,
            _ => 0.0,
        }
    }
}

// === impl Gauge ===

impl Gauge {
    /// From now on it must get on.
    pub(super) fn begin(&mut self, now: Now) {
        self.risen = now.monotonic;
        self.repeats = 0;
        self.tripped = false;
        if self.work.at == 0.0 {
            self.work.at = now.unix;
        }
    }

    /// Takes what it tells. Says how many tokens and dollars are new.
    fn take(&mut self, told: &Counters, now: Now) -> (f64, f64) {
        if *told == Counters::default() {
            return (0.0, 0.0);
        }
        self.rises = false;
        let before = (self.work.tokens, self.work.cost_usd);
        let mut risen = false;
        let mut set = |old: &mut f64, new: Option<f64>| {
            let Some(new) = new.filter(|new| new.is_finite() && *new >= 0.0) else {
                return;
            };
            risen |= new > *old;
            *old = new;
        };
        set(&mut self.work.steps, told.steps);
        set(&mut self.work.tokens, told.tokens);
        // Cost alone is no progress.
        if let Some(cost) = told
            .cost_usd
            .filter(|cost| cost.is_finite() && *cost >= 0.0)
        {
            self.work.cost_usd = cost;
        }
        if let Some(action) = &told.action {
            let same = self.work.action.as_ref() == Some(action);
            self.repeats = if same {
                self.repeats.saturating_add(1)
            } else {
                1
            };
            self.work.action = Some(action.clone());
        }
        self.has_told = true;
        if risen {
            self.rises = true;
            self.risen = now.monotonic;
            self.work.at = now.unix;
        }
        self.tokens.take(now.monotonic, self.work.tokens, MINUTE);
        self.cost.take(now.monotonic, self.work.cost_usd, HOUR);
        let fresh = |old: f64, new: f64| if new < old { new } else { new - old };
        (
            fresh(before.0, self.work.tokens),
            fresh(before.1, self.work.cost_usd),
        )
    }

    /// What it has told, when it has.
    pub(super) fn work(&self) -> Option<Work> {
        self.has_told.then(|| self.work.clone())
    }

    /// What is wrong, in words.
    fn fault(&self, limits: &Progress, now: Duration) -> Option<String> {
        let stuck = limits
            .within
            .filter(|within| now.saturating_sub(self.risen) >= within.duration());
        if let Some(within) = stuck {
            return Some(format!("no step and no token within {within}"));
        }
        if let Some(repeat) = limits.repeat.filter(|repeat| self.repeats >= *repeat) {
            let action = self.work.action.as_deref().unwrap_or_default();
            return Some(format!("the same action {repeat} times in a row: {action}"));
        }
        let tokens = self.tokens.rise();
        if let Some(limit) = limits.tokens_per_minute.filter(|limit| tokens > *limit) {
            return Some(format!(
                "{tokens:.0} tokens within a minute, at most {limit:.0}"
            ));
        }
        let cost = self.cost.rise();
        let limit = limits.cost_per_hour.filter(|limit| cost > *limit)?;
        Some(format!("{cost:.2} $ within an hour, at most {limit:.2} $"))
    }

    /// When it is looked at next, when nothing comes before.
    fn due(&self, limits: &Progress) -> Option<Duration> {
        limits.within.map(|within| self.risen + within.duration())
    }
}

// === impl Core ===

impl Core {
    /// It is ready: from now on it must get on.
    pub(super) fn watch_progress(&mut self, id: &SlotId) {
        let now = self.now;
        let Some(limits) = self.spec_of(id).and_then(|spec| spec.progress.clone()) else {
            return;
        };
        let Some(run) = self.run_mut(id) else { return };
        run.gauge.begin(now);
        let at = run.gauge.due(&limits);
        self.set_gauge_timer(id, at);
    }

    fn set_gauge_timer(&mut self, id: &SlotId, at: Option<Duration>) {
        let Some(run) = self.run_mut(id) else { return };
        let before = std::mem::replace(&mut run.gauge.deadline, at);
        let instance = run.instance.clone();
        self.replace_timer(before, at, || Owner::Gauge(instance.clone()));
    }

    pub(super) fn gauge_due(&mut self, instance: &InstanceId, at: Duration) {
        let Some(id) = self.slot_of(instance) else {
            return;
        };
        let Some(limits) = self.spec_of(&id).and_then(|spec| spec.progress.clone()) else {
            return;
        };
        let Some(slot) = self.slot(&id) else { return };
        let Some(run) = slot.run.as_ref() else { return };
        if run.gauge.deadline != Some(at) || slot.state != InstanceState::Running {
            return;
        }
        let next = run.gauge.due(&limits).filter(|next| *next > at);
        self.set_gauge_timer(&id, next);
        self.judge_progress(&id);
    }

    /// A run tells of its work.
    pub(super) fn counted(&mut self, instance: &InstanceId, told: &Counters) {
        let now = self.now;
        let Some(id) = self.slot_of(instance) else {
            return;
        };
        let Some(run) = self.run_mut(&id).filter(|run| !run.ended) else {
            return;
        };
        if *told == Counters::default() {
            return;
        }
        let (tokens, cost_usd) = run.gauge.take(told, now);
        let gets_on = run.gauge.rises;
        self.revision += 1;
        self.book_agent(&id.service, tokens, cost_usd);
        if gets_on {
            self.look_again(&id);
        }
        self.judge_progress(&id);
    }

    /// It gets on after it did not: from now on it is looked at again.
    fn look_again(&mut self, id: &SlotId) {
        let Some(limits) = self.spec_of(id).and_then(|spec| spec.progress.clone()) else {
            return;
        };
        let Some(run) = self.run_mut(id) else { return };
        if run.gauge.deadline.is_none() {
            let at = run.gauge.due(&limits);
            self.set_gauge_timer(id, at);
        }
    }

    /// Does something about a run that does not get on.
    fn judge_progress(&mut self, id: &SlotId) {
        let now = self.now.monotonic;
        let Some(limits) = self.spec_of(id).and_then(|spec| spec.progress.clone()) else {
            return;
        };
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let running = slot.state == InstanceState::Running && slot.runs();
        let Some(run) = slot.run.as_mut().filter(|_| running) else {
            return;
        };
        let fault = run.gauge.fault(&limits, now);
        let was_tripped = std::mem::replace(&mut run.gauge.tripped, fault.is_some());
        let is_saving = run.words.saving.is_some();
        let Some(fault) = fault else {
            // Whatever it was, it is over.
            if was_tripped {
                slot.attention = None;
            }
            return;
        };
        if was_tripped || is_saving {
            return;
        }
        match limits.then {
            ProgressAction::Ask => {
                let text = format!("{fault}; it goes on, a person should look");
                slot.attention = Some(text.clone());
                self.note(id, text, ExitCause::Progress);
            }
            ProgressAction::Pause => {
                let text = format!("{fault}; `alicia resume` lets it go on");
                slot.attention = Some(text.clone());
                self.pause(id, &text, ExitCause::Progress);
            }
            ProgressAction::Checkpoint => self.save_first(id, &limits, fault),
            ProgressAction::Restart => self.unwell(id, ExitCause::Progress, fault),
            ProgressAction::Kill => {
                run.words.is_last = true;
                let text = format!("{fault}; it was killed");
                self.stop_run(
                    id,
                    StopCause::Unwell(ExitCause::Progress, text.clone()),
                    &text,
                );
            }
        }
    }

    /// Asks it to save its work; it is restarted when it says so, or when the time is over.
    fn save_first(&mut self, id: &SlotId, limits: &Progress, fault: String) {
        let at = self.now.monotonic + limits.checkpoint_within.duration();
        let Some(run) = self.run_mut(id) else { return };
        let instance = run.instance.clone();
        run.words.saving = Some(fault.clone());
        let within: Period = limits.checkpoint_within;
        let action = match limits.checkpoint_signal {
            Some(signal) => Action::Signal {
                instance,
                signal: signal.number(),
            },
            None => Action::Checkpoint(id.clone(), instance),
        };
        self.actions.push(action);
        self.set_slot_timer(id, Some(at));
        let text = format!("{fault}; it has {within} to save its work");
        self.note(id, text, ExitCause::Progress);
    }

    /// It has saved its work, or its time for that is over.
    pub(super) fn saved(&mut self, id: &SlotId) {
        let Some(run) = self.run_mut(id) else { return };
        if let Some(fault) = run.words.saving.take() {
            self.unwell(id, ExitCause::Progress, fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limits(settings: serde_json::Value) -> Progress {
        serde_json::from_value(settings).expect("limits")
    }

    fn now(s: u64) -> Now {
        Now {
            monotonic: Duration::from_secs(s),
            unix: 1_000.0 + Duration::from_secs(s).as_secs_f64(),
        }
    }

    fn told(steps: f64, tokens: f64, cost_usd: f64, action: &str) -> Counters {
        Counters {
            steps: Some(steps),
            tokens: Some(tokens),
            cost_usd: Some(cost_usd),
            action: Some(action.to_owned()),
        }
    }

    #[test]
    fn steps_and_tokens_are_progress_and_cost_is_none() {
        let limits = limits(json!({ "within": "10s" }));
        let mut gauge = Gauge::default();
        gauge.begin(now(0));
        let stuck = |gauge: &Gauge, s| gauge.fault(&limits, now(s).monotonic);
        assert_eq!(stuck(&gauge, 9), None);
        assert_eq!(
            stuck(&gauge, 10).as_deref(),
            Some("no step and no token within 10s")
        );
        gauge.take(&told(1.0, 0.0, 0.0, "a"), now(9));
        assert_eq!(stuck(&gauge, 18), None);
        gauge.take(&told(1.0, 5.0, 0.0, "a"), now(18));
        assert_eq!(stuck(&gauge, 27), None);
        gauge.take(&told(1.0, 5.0, 3.0, "a"), now(27));
        assert!(stuck(&gauge, 28).is_some(), "cost alone is no progress");
    }

    #[test]
    fn repetition_counts_the_same_action_in_a_row() {
        let limits = limits(json!({ "repeat": 3 }));
        let mut gauge = Gauge::default();
        let mut step = |n: u64, action| {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            gauge.take(&told(n as f64, 0.0, 0.0, action), now(n));
            gauge.fault(&limits, now(n).monotonic)
        };
        assert_eq!(step(1, "ls"), None);
        assert_eq!(step(2, "ls"), None);
        assert_eq!(step(3, "cat"), None);
        assert_eq!(step(4, "ls"), None);
        assert_eq!(step(5, "ls"), None);
        let fault = step(6, "ls").expect("a loop");
        assert_eq!(fault, "the same action 3 times in a row: ls");
    }

    #[test]
    fn velocity_counts_what_is_new_within_the_window() {
        let limits = limits(json!({ "tokens_per_minute": 100.0, "cost_per_hour": 1.0 }));
        let mut gauge = Gauge::default();
        // A hundred a minute for five minutes is just right.
        for s in (0..300_u32).step_by(6) {
            gauge.take(&told(1.0, f64::from(s) / 0.6, 0.0, "a"), now(s.into()));
            assert_eq!(gauge.fault(&limits, now(s.into()).monotonic), None, "{s}");
        }
        gauge.take(&told(1.0, 700.0, 0.0, "a"), now(301));
        let fault = gauge.fault(&limits, now(301).monotonic).expect("too fast");
        assert!(
            fault.contains("tokens within a minute, at most 100"),
            "{fault}"
        );
        gauge.take(&told(1.0, 700.0, 0.0, "a"), now(400));
        assert_eq!(
            gauge.fault(&limits, now(400).monotonic),
            None,
            "it slowed down"
        );
        gauge.take(&told(1.0, 700.0, 1.5, "a"), now(401));
        let fault = gauge.fault(&limits, now(401).monotonic).expect("too dear");
        assert_eq!(fault, "1.50 $ within an hour, at most 1.00 $");
    }

    #[test]
    fn a_counter_that_begins_anew_is_no_negative_spending() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.take(&told(1.0, 10.0, 1.0, "a"), now(1)), (10.0, 1.0));
        assert_eq!(gauge.take(&told(2.0, 14.0, 1.5, "a"), now(2)), (4.0, 0.5));
        assert_eq!(gauge.take(&told(0.0, 3.0, 0.25, "a"), now(3)), (3.0, 0.25));
        assert_eq!(gauge.take(&Counters::default(), now(4)), (0.0, 0.0));
    }
}
