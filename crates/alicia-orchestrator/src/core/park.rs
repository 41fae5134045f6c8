//! Parked: it makes no sense now, and will from a known moment on. Uses up no restart.

use std::time::Duration;

use alicia_contract::UnixSeconds;
use alicia_contract::orchestrator::InstanceState;

use super::Core;
use super::event::SlotId;

/// The longest that one is parked at a time: a month, the longest period of a provider's quota.
const PARK_MAX: Duration = Duration::from_secs(31 * 86_400);

/// The longest that one is parked when nobody says until when.
const PARK_UNTOLD_MAX: Duration = Duration::from_secs(3_600);

/// The shortest that one is parked; doubles with each time in a row, so that a provider that names a
/// moment that is always too early is not asked ever again.
const PARK_MIN: Duration = Duration::from_secs(1);
const PARK_MIN_MAX: Duration = Duration::from_secs(60);

/// How often it is looked whether the moment has come until which one is parked: the wall clock may be set, and
/// goes on while a machine sleeps.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What is left of a wait that is no wait: less than clocks agree about, in seconds.
const LEFT_S_MIN: f64 = 0.001;

/// The time from one that was parked to the next: 5 starts a second, so that a provider whose limit ended is
/// not asked by a whole fleet at once.
const RESUME_SPACING: Duration = Duration::from_millis(200);

impl Core {
    /// Parks a slot that has no run, until then.
    pub(super) fn park(&mut self, id: &SlotId, reason: &str, until: Option<UnixSeconds>) {
        let Some(spec) = self.spec_of(id) else {
            return;
        };
        let now = self.now;
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let doubled = 1_u32.checked_shl(slot.parks).unwrap_or(u32::MAX);
        let wait = match until {
            Some(at) => {
                let wait = Duration::try_from_secs_f64(at - now.unix).unwrap_or_default();
                wait.max(PARK_MIN.saturating_mul(doubled).min(PARK_MIN_MAX))
                    .min(PARK_MAX)
            }
            None => {
                let wait = spec.on_exit.park_for.duration();
                wait.saturating_mul(doubled)
                    .clamp(PARK_MIN, PARK_UNTOLD_MAX)
            }
        };
        slot.parks = slot.parks.saturating_add(1);
        slot.has_turn = false;
        // A start that ended so does not count towards a crash loop.
        slot.starts.pop_back();
        slot.next_start = Some(now.unix + wait.as_secs_f64());
        // A moment that somebody named is one of the wall clock; a time without one is only so long.
        let at_most = until.map_or(wait, |_| PARK_MAX);
        slot.parked_at_most = now.monotonic + at_most;
        self.transition(id, InstanceState::Parked, reason.to_owned());
        self.wait_parked(id);
    }

    /// Its budget is used up before it could start.
    pub(super) fn park_spent(&mut self, id: &SlotId) {
        let out = self
            .services
            .get(&id.service)
            .and_then(|service| service.spent_out.clone());
        let now = self.now;
        let (Some(out), Some(slot)) = (out, self.slot_mut(id)) else {
            return;
        };
        let wait = Duration::try_from_secs_f64(out.until - now.unix)
            .unwrap_or_default()
            .clamp(PARK_MIN, PARK_MAX);
        slot.has_turn = false;
        slot.next_start = Some(now.unix + wait.as_secs_f64());
        slot.parked_at_most = now.monotonic + PARK_MAX;
        self.transition(id, InstanceState::Parked, out.reason);
        self.wait_parked(id);
    }

    /// Sets the next look at one that is parked; none, when its time is over.
    fn wait_parked(&mut self, id: &SlotId) -> bool {
        let now = self.now;
        let Some(slot) = self.slot(id) else {
            return false;
        };
        let left_s = slot.next_start.map_or(0.0, |at| at - now.unix);
        let left_at_most = slot.parked_at_most.saturating_sub(now.monotonic);
        if left_s < LEFT_S_MIN || left_at_most.is_zero() {
            return false;
        }
        let left = Duration::try_from_secs_f64(left_s).unwrap_or(PARK_MAX);
        let wait = left.min(left_at_most).min(LOOK_EVERY);
        self.set_slot_timer(id, Some(now.monotonic + wait));
        true
    }

    /// The time is over: it starts, or gets a turn when others start now.
    pub(super) fn park_due(&mut self, id: &SlotId) {
        let now = self.now.monotonic;
        let free_at = self.resume_free_at;
        let has_turn = self.slot(id).is_some_and(|slot| slot.has_turn);
        if !has_turn && self.wait_parked(id) {
            return;
        }
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        if !slot.has_turn && now < free_at {
            slot.has_turn = true;
            self.resume_free_at = free_at + RESUME_SPACING;
            self.set_slot_timer(id, Some(free_at));
            return;
        }
        if !slot.has_turn {
            self.resume_free_at = now + RESUME_SPACING;
        }
        self.unpark(id, "the time for which it was parked is over");
    }

    /// Ends the parking of a slot.
    pub(super) fn unpark(&mut self, id: &SlotId, why: &str) {
        self.set_slot_timer(id, None);
        self.transition(id, InstanceState::Waiting, why.to_owned());
    }

    /// A slot that is remembered as parked, or as failed with another try to come, takes up its wait.
    pub(super) fn take_up_wait(&mut self, id: &SlotId) {
        let now = self.now;
        let Some(spec) = self.spec_of(id) else {
            return;
        };
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let Some(at) = slot.next_start else { return };
        let left = Duration::try_from_secs_f64(at - now.unix).unwrap_or_default();
        if slot.state == InstanceState::Parked {
            slot.parked_at_most = now.monotonic + PARK_MAX;
            let first_look = left.min(LOOK_EVERY);
            return self.set_slot_timer(id, Some(now.monotonic + first_look));
        }
        // The clock may have been set back meanwhile: no try is further away than when it failed.
        let limit = &spec.start_limit;
        let longest = limit.retry_every.duration().max(limit.within.duration());
        self.set_slot_timer(id, Some(now.monotonic + left.min(longest)));
    }
}
