//! When the last run of each slot began: what is older in its log was said by others. Pure.

use std::collections::BTreeMap;

use alicia_contract::{Epoch, InstanceId};

use crate::core::event::SlotId;

/// The last run of each slot that had a process; kept when it has ended.
#[derive(Debug, Default)]
pub(super) struct Began {
    runs: BTreeMap<SlotId, Run>,
}

#[derive(Debug)]
struct Run {
    instance: InstanceId,
    epoch: Epoch,
    began_unix_us: u64,
}

// === impl Began ===

impl Began {
    /// A run has a process. Of two in one slot the later is the one with the higher epoch, whatever the clock said: it
    /// may have been set back between them.
    pub(super) fn note(
        &mut self,
        slot: &SlotId,
        (instance, epoch): (&InstanceId, Epoch),
        began_unix_us: u64,
    ) {
        let known = self.runs.get(slot);
        if known.is_some_and(|known| known.epoch > epoch) {
            return;
        }
        let run = Run {
            instance: instance.clone(),
            epoch,
            began_unix_us,
        };
        self.runs.insert(slot.clone(), run);
    }

    /// When the run of a slot began, in microseconds since 1970; none when this one, the last that was tried, never had a
    /// process.
    pub(super) fn of(&self, slot: &SlotId, instance: Option<&InstanceId>) -> Option<u64> {
        let run = self.runs.get(slot)?;
        (Some(&run.instance) == instance).then_some(run.began_unix_us)
    }

    /// Forgets the slots that there are no more.
    pub(super) fn retain(&mut self, is_there: impl Fn(&SlotId) -> bool) {
        self.runs.retain(|slot, _| is_there(slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::ServiceName;

    fn slot(slot: u32) -> SlotId {
        let service = ServiceName::new("api").expect("a name");
        SlotId { service, slot }
    }

    fn instance(name: &str) -> InstanceId {
        InstanceId::new(name).expect("an instance")
    }

    #[test]
    fn a_run_that_follows_a_clock_that_was_set_back_is_the_last_one() {
        let (first, second) = (instance("api-1-1"), instance("api-1-2"));
        let mut began = Began::default();
        began.note(&slot(1), (&first, Epoch(1)), 9_000);
        began.note(&slot(1), (&second, Epoch(2)), 2_000);
        assert_eq!(began.of(&slot(1), Some(&second)), Some(2_000));
        assert_eq!(began.of(&slot(1), Some(&first)), None);
        // The keeper says all of them again with each connection, in any order.
        began.note(&slot(1), (&first, Epoch(1)), 9_000);
        began.note(&slot(1), (&second, Epoch(2)), 2_000);
        assert_eq!(began.of(&slot(1), Some(&second)), Some(2_000));
        began.note(&slot(1), (&first, Epoch(1)), 9_000);
        assert_eq!(began.of(&slot(1), Some(&second)), Some(2_000));
    }

    #[test]
    fn what_never_had_a_process_never_began_and_a_slot_that_left_is_forgotten() {
        let run = instance("api-1-1");
        let mut began = Began::default();
        began.note(&slot(1), (&run, Epoch(1)), 5);
        assert_eq!(began.of(&slot(1), Some(&instance("api-1-2"))), None);
        assert_eq!(began.of(&slot(1), None), None);
        assert_eq!(began.of(&slot(2), Some(&run)), None);
        began.retain(|there| *there == slot(2));
        assert_eq!(began.of(&slot(1), Some(&run)), None);
    }
}
