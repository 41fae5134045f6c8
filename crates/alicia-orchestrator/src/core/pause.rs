//! Paused: the processes of a run are held still, and let go again.

use alicia_contract::orchestrator::{ExitCause, InstanceState};

use super::event::{Action, SlotId};
use super::{Core, notice};

const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

impl Core {
    /// Holds a run still; nothing, where there is none that is ready or on its way.
    pub(super) fn pause(&mut self, id: &SlotId, reason: &str, cause: ExitCause) {
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let is_up = matches!(slot.state, InstanceState::Running | InstanceState::Starting);
        if !is_up || !slot.runs() {
            return;
        }
        let Some(run) = slot.run.as_mut() else { return };
        // One that is held still saves nothing; when it goes on, it has its time to get on again.
        run.words.saving = None;
        run.was_paused = true;
        let instance = run.instance.clone();
        self.set_slot_timer(id, None);
        self.actions.push(Action::Unwatch(instance.clone()));
        self.actions.push(Action::Signal {
            instance,
            signal: SIGSTOP,
        });
        self.transition_because(id, InstanceState::Paused, reason.to_owned(), cause);
    }

    /// Lets a paused run go on, and one that is parked start.
    pub(super) fn resume(&mut self, id: &SlotId, reason: &str) {
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        match slot.state {
            InstanceState::Parked => {
                slot.parks = 0;
                self.waive_budget(&id.service);
                self.unpark(id, reason);
            }
            InstanceState::Paused => {
                slot.attention = None;
                self.let_go(id);
                self.go_on_after_pause(id, reason);
            }
            _ => {}
        }
    }

    /// The keeper may not have heard that a run is paused, or goes on.
    pub(super) fn repeat_pause(&mut self, id: &SlotId) {
        let Some(slot) = self.slot(id).filter(|slot| slot.runs()) else {
            return;
        };
        let Some(run) = &slot.run else { return };
        match (slot.state, run.was_paused) {
            (InstanceState::Paused, _) => {
                let instance = run.instance.clone();
                self.actions.push(Action::Signal {
                    instance,
                    signal: SIGSTOP,
                });
            }
            (_, true) => self.let_go(id),
            (_, false) => {}
        }
    }

    /// Lets the processes of a paused run run again.
    pub(super) fn let_go(&mut self, id: &SlotId) {
        if let Some(instance) = self.slot(id).and_then(|slot| slot.instance.clone()) {
            self.actions.push(Action::Signal {
                instance,
                signal: SIGCONT,
            });
        }
    }

    fn go_on_after_pause(&mut self, id: &SlotId, reason: &str) {
        let now = self.now;
        let asks = self
            .spec_of(id)
            .is_some_and(|spec| spec.readiness.is_some() || notice::says_ready(&spec));
        let Some(run) = self.run_mut(id) else { return };
        let age = now.monotonic.saturating_sub(run.started);
        run.gauge.begin(now);
        if run.was_ready || !asks {
            self.ready(id, reason, age);
        } else {
            self.begin(id, age);
        }
    }
}
