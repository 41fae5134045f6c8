//! How an update goes on: which instances to add, which to let go, when it is done, when it has failed.
//!
//! ```text
//!                 new settings                 watched for a while             all new, each ready
//!                ┌────────────► canary ───────────────────────────┐            for `min_healthy`
//!   (no update) ─┤                 │                              ▼         ┌──────────► done
//!                └─────────────────┼────────────────────────► forward ──────┘
//!                                  │  a new one ends, is not ready    │
//!                                  │  in time, or is unwell           │
//!                                  ├──────────────────────────────────┘
//!                                  ▼
//!              `auto_revert` ► reverting ── all old again, each ready ──► reverted
//!              else          ► halted      (a person decides)
//! ```
//!
//! It is a rule and no script: whatever happened, [`next`] looks at what is there and says the next steps. An
//! instance that serves is let go only when one more than the wanted number is ready, so that their number never
//! falls because of the update. A revert is the same rule with the old settings as the target.

use std::time::Duration;

use alicia_contract::fleet::{UpdateSpec, UpdateStrategy};

/// Where an update is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The first new ones are watched.
    Canary,
    /// On to the new settings.
    Forward,
    /// Back to the old settings, and why.
    Reverting(String),
    /// It failed and is left as it is.
    Halted(String),
}

/// One instance, as the rule sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its slot.
    pub slot: u32,
    /// Whether it has the settings that are the target.
    pub on_target: bool,
    /// How it is.
    pub condition: Condition,
}

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// On its way; since when its process runs, when it does.
    Coming(Option<Duration>),
    /// It serves, since then.
    Ready(Duration),
    /// It ended by itself, or does not work; why.
    Broken(String),
}

/// What the rule looks at.
#[derive(Debug, Clone)]
pub struct View<'v> {
    /// The settings of the update.
    pub settings: &'v UpdateSpec,
    /// How many instances are wanted.
    pub wanted: u32,
    /// Those that should stay, also when they do not run at the moment.
    pub instances: &'v [Seen],
    /// The same clock as in the conditions.
    pub now: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One more instance with the settings that are the target.
    Add,
    /// This one goes.
    Retire(u32),
    /// The canaries were well: on with the rest.
    Proceed,
    /// Everything is on the target.
    Finish,
    /// It does not work, and why.
    Fail(String),
    /// Nothing before this moment, unless something happens.
    Wait(Duration),
}

/// The next steps.
#[must_use]
pub fn next(phase: &Phase, view: &View<'_>) -> Vec<Step> {
    if let Phase::Halted(_) = phase {
        return Vec::new();
    }
    if !matches!(phase, Phase::Reverting(_))
        && let Some(why) = failure(view)
    {
        return vec![Step::Fail(why)];
    }
    let mut steps = Vec::new();
    let count = Count::of(view);
    // What does not serve is not worth keeping beside what replaces it.
    steps.extend(count.idle_old.iter().map(|slot| Step::Retire(*slot)));
    let goal = match phase {
        Phase::Canary => view.settings.canary.instances.min(view.wanted),
        _ => view.wanted,
    };
    let add = count.to_add(phase, view, goal);
    steps.extend((0..add).map(|_| Step::Add));
    steps.extend(count.to_retire(phase, view).map(Step::Retire));
    if steps.is_empty() && add == 0 {
        match phase {
            Phase::Canary if count.is_watched(view, goal) => steps.push(Step::Proceed),
            Phase::Canary => {}
            _ if count.is_finished(phase, view) => steps.push(Step::Finish),
            _ => {}
        }
    }
    if steps.is_empty() {
        steps.extend(wake(phase, view).map(Step::Wait));
    }
    steps
}

/// Why the new settings do not work.
fn failure(view: &View<'_>) -> Option<String> {
    let deadline = view.settings.deadline;
    view.instances
        .iter()
        .filter(|seen| seen.on_target)
        .find_map(|seen| match &seen.condition {
            Condition::Broken(why) => Some(why.clone()),
            Condition::Coming(Some(since)) if view.now >= *since + deadline.duration() => {
                Some(format!("not ready within {deadline}"))
            }
            _ => None,
        })
}

/// The instances by what they are good for.
struct Count {
    /// On the target, in all.
    new: u32,
    /// Those of them that were ready for long enough.
    stable: Vec<u32>,
    /// Those of them that do not work.
    broken: u32,
    /// Not on the target, and serving.
    ready_old: Vec<u32>,
    /// Not on the target, and not serving.
    idle_old: Vec<u32>,
}

impl Count {
    fn of(view: &View<'_>) -> Self {
        let min_healthy = view.settings.min_healthy.duration();
        let slots = |wanted: &dyn Fn(&Seen) -> bool| {
            let found = view.instances.iter().filter(|seen| wanted(seen));
            found.map(|seen| seen.slot).collect::<Vec<u32>>()
        };
        let is_ready = |seen: &Seen| matches!(seen.condition, Condition::Ready(_));
        let is_stable = |seen: &Seen| matches!(seen.condition, Condition::Ready(since) if view.now >= since + min_healthy);
        let is_broken = |seen: &Seen| matches!(seen.condition, Condition::Broken(_));
        Self {
            new: count(&slots(&|seen| seen.on_target)),
            stable: slots(&|seen| seen.on_target && is_stable(seen)),
            broken: count(&slots(&|seen| seen.on_target && is_broken(seen))),
            ready_old: slots(&|seen| !seen.on_target && is_ready(seen)),
            idle_old: slots(&|seen| !seen.on_target && !is_ready(seen)),
        }
    }

    fn to_add(&self, phase: &Phase, view: &View<'_>, goal: u32) -> u32 {
        let settings = view.settings;
        let (above, at_once) = match (phase, settings.strategy) {
            // What went well before comes back all at once.
            (Phase::Reverting(_), _) | (_, UpdateStrategy::BlueGreen) => (view.wanted, view.wanted),
            (Phase::Canary, _) => (goal, goal),
            // Nothing serves: there is nothing to go easy on.
            _ if self.stable.is_empty() && self.ready_old.is_empty() => (view.wanted, view.wanted),
            _ => (settings.surge, settings.parallel),
        };
        let room = (view.wanted + above).saturating_sub(self.new + count(&self.ready_old));
        let coming = self.new - count(&self.stable);
        goal.saturating_sub(self.new)
            .min(room)
            .min(at_once.saturating_sub(coming))
    }

    /// Old ones that are one too many now, and new ones when fewer are wanted.
    fn to_retire(&self, phase: &Phase, view: &View<'_>) -> impl Iterator<Item = u32> {
        let all_or_none = view.settings.strategy == UpdateStrategy::BlueGreen
            && !matches!(phase, Phase::Reverting(_))
            && count(&self.stable) < view.wanted;
        let held = *phase == Phase::Canary || all_or_none;
        let serving = count(&self.stable) + count(&self.ready_old);
        let surplus = match held {
            // Fewer may be wanted than when the update began: those would take the room of new ones.
            true => count(&self.ready_old).saturating_sub(view.wanted),
            false => serving.saturating_sub(view.wanted),
        };
        let old: Vec<u32> = self
            .ready_old
            .iter()
            .copied()
            .take(surplus as usize)
            .collect();
        let left = surplus - count(&old);
        let too_many = left.min(self.new.saturating_sub(view.wanted));
        let new = self.stable.iter().rev().copied().take(too_many as usize);
        old.into_iter().chain(new.collect::<Vec<_>>())
    }

    fn is_watched(&self, view: &View<'_>, goal: u32) -> bool {
        let watched = view.settings.canary.watched.duration();
        let ready = view.instances.iter().filter(|seen| {
            seen.on_target
                && matches!(seen.condition, Condition::Ready(since) if view.now >= since + watched)
        });
        ready.count() >= goal as usize && count(&self.stable) >= goal
    }

    fn is_finished(&self, phase: &Phase, view: &View<'_>) -> bool {
        let gave_up = match phase {
            Phase::Reverting(_) => self.broken,
            _ => 0,
        };
        self.ready_old.is_empty() && count(&self.stable) + gave_up >= view.wanted
    }
}

/// When the next step may be due by time alone.
fn wake(phase: &Phase, view: &View<'_>) -> Option<Duration> {
    let settings = view.settings;
    let watched = match phase {
        Phase::Canary => settings.canary.watched.duration(),
        _ => Duration::ZERO,
    };
    let patience = settings.min_healthy.duration().max(watched);
    let due = |seen: &Seen| match seen.condition {
        Condition::Ready(since) => Some(since + patience).filter(|at| *at > view.now),
        Condition::Coming(since) => since.map(|since| since + settings.deadline.duration()),
        Condition::Broken(_) => None,
    };
    let new = view.instances.iter().filter(|seen| seen.on_target);
    new.filter_map(due).filter(|at| *at > view.now).min()
}

fn count(slots: &[u32]) -> u32 {
    u32::try_from(slots.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
