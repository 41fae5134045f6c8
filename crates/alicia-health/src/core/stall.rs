//! Time: what is overdue, and what to believe after the monitor itself was held up.

use std::time::Duration;

use alicia_contract::id::ServiceName;

use super::{Action, Link, Monitor, Now};

/// How long a lost service that nobody else knows any more is kept: a day, so that a night shift and a day
/// shift both see it.
const LOST_KEPT: Duration = Duration::from_secs(86_400);

impl Monitor {
    /// Before anything else is believed: whether ticks came in time.
    pub(super) fn check_punctual(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self
            .ticked
            .is_some_and(|last| gap(last, now) > self.settings.stall)
        {
            self.held_up += 1;
            self.punctual_since = Some(now.mono);
            self.ticked = Some(now);
            self.distrust();
            actions.push(Action::Changed);
        }
    }

    pub(super) fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.ticked = Some(now);
        let settled = self
            .punctual_since
            .is_some_and(|since| now.mono.saturating_sub(since) >= self.settings.settle);
        if settled {
            self.punctual_since = None;
            self.trust(now);
            actions.push(Action::Changed);
        }
        self.forget_lost(now, actions);
        let names: Vec<ServiceName> = self.watches.keys().cloned().collect();
        for name in names {
            self.look(&name, now, actions);
        }
        self.consider_restarts(now, actions);
        self.look_at_told(now, actions);
        let watches = &self.watches;
        self.book
            .forget(|service| watches.contains_key(service), now);
        let expired = self.book.expire_acknowledgements(now);
        actions.extend(expired.into_iter().map(super::alert));
    }

    /// While the bus is away nothing is heard: silence proves nothing, and the last picture stands.
    pub(super) fn take_link(&mut self, link: Link, now: Now) {
        if self.link == link {
            return;
        }
        self.link = link;
        let beats = self
            .watches
            .values_mut()
            .flat_map(|watch| watch.beats.values_mut());
        for beat in beats {
            match link {
                Link::Down => beat.fresh = false,
                Link::Up => beat.wait_again(now),
            }
        }
    }

    /// A service outside the fleet that was lost and never came back is forgotten in the end.
    fn forget_lost(&mut self, now: Now, actions: &mut Vec<Action>) {
        let old = |heard: Duration| now.mono.saturating_sub(heard) >= LOST_KEPT;
        for watch in self.watches.values_mut() {
            if watch.spec.is_none() && !watch.pictured && watch.registered.is_empty() {
                watch.beats.retain(|_, beat| !old(beat.heard_mono));
            }
        }
        self.forget_unwatched(now, actions);
    }

    /// Whatever is known may have changed unheard.
    fn distrust(&mut self) {
        for watch in self.watches.values_mut() {
            for beat in watch.beats.values_mut() {
                beat.fresh = false;
            }
            for slot in watch.slots.values_mut() {
                slot.fresh = false;
                for check in slot.checks.values_mut() {
                    check.fresh = false;
                }
            }
        }
    }

    /// Nothing to the contrary was heard for a while: the last picture counts again, and heartbeats are due
    /// from now on. Checks count again with their next try.
    fn trust(&mut self, now: Now) {
        for watch in self.watches.values_mut() {
            for slot in watch.slots.values_mut() {
                slot.fresh = true;
            }
            for beat in watch.beats.values_mut().filter(|beat| !beat.fresh) {
                if self.link == Link::Up {
                    beat.wait_again(now);
                }
            }
        }
    }
}

/// How long the last tick is ago, on the clock that says more: monotonic time stands still while the machine
/// sleeps, and wall time jumps when it is set.
fn gap(last: Now, now: Now) -> Duration {
    let wall = Duration::try_from_secs_f64((now.unix - last.unix).abs()).unwrap_or(Duration::MAX);
    now.mono.saturating_sub(last.mono).max(wall)
}
