//! Leases: renewed by heartbeats, ended by time.

use std::time::Duration;

use alicia_contract::discovery::Presence;
use alicia_contract::health::{Heartbeat, HeartbeatStatus};
use alicia_contract::id::InstanceId;

use super::entry::{Ending, Entry};
use super::{Action, Now, Registry, move_to};

impl Registry {
    /// A heartbeat renews the lease of the instance it names, or of the only one of its service. One from
    /// somebody else, or of an instance that is gone, does nothing.
    pub(super) fn heartbeat(
        &mut self,
        heartbeat: &Heartbeat,
        source: Option<&str>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(instance) = self.instance_of(heartbeat) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&instance) else {
            return;
        };
        let service = entry.registration.service.as_str();
        // The topic of a heartbeat is the service's own, so an unnamed sender is the service itself.
        let source = source.unwrap_or(service);
        if source != entry.owner && source != service {
            return;
        }
        let (grace, is_supervised) = (self.limits.grace, entry.supervised);
        match heartbeat.status {
            // A farewell or a last will is no sign of life. Supervised ones end with their process.
            HeartbeatStatus::Stopping | HeartbeatStatus::Offline if is_supervised => {}
            HeartbeatStatus::Stopping => {}
            HeartbeatStatus::Offline if entry.presence == Presence::Present => {
                entry.deadline = Some(now.mono + grace);
                move_to(
                    entry,
                    Presence::Suspect,
                    "its connection to the bus broke",
                    now,
                    actions,
                );
            }
            HeartbeatStatus::Offline => {}
            _ => see(entry, now, actions),
        }
        self.pulse(&instance, heartbeat, now);
    }

    fn instance_of(&self, heartbeat: &Heartbeat) -> Option<InstanceId> {
        let named = |entry: &Entry| entry.registration.instance.clone();
        if let Some(instance) = &heartbeat.instance {
            let entry = self.entries.get(instance)?;
            let fits = entry.is_live() && entry.registration.service == heartbeat.service;
            return fits.then(|| named(entry));
        }
        let mut live = self.live(&heartbeat.service);
        let only = live.next().map(named)?;
        live.next().is_none().then_some(only)
    }

    /// Ends what time ends. When the tick itself comes late, the registry was held up and may have
    /// missed signs of life: every lease starts anew instead of running out.
    pub(super) fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        let late = self
            .ticked
            .map_or(Duration::ZERO, |last| now.mono.saturating_sub(last));
        self.ticked = Some(now.mono);
        if late > self.limits.stall {
            self.renew_all(now);
            self.excuse_silence(now);
            return;
        }
        self.listen_for_silence(now);
        let due: Vec<InstanceId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.deadline.is_some_and(|deadline| deadline <= now.mono))
            .map(|(id, _)| id.clone())
            .collect();
        for instance in due {
            self.run_out(&instance, now, actions);
        }
    }

    fn renew_all(&mut self, now: Now) {
        let grace = self.limits.grace;
        for entry in self
            .entries
            .values_mut()
            .filter(|entry| entry.deadline.is_some())
        {
            let span = match entry.presence {
                Presence::Present | Presence::Unverified => entry.lease(),
                Presence::Suspect => grace,
                Presence::Gone => continue,
            };
            entry.deadline = Some(now.mono + span);
        }
    }

    fn run_out(&mut self, instance: &InstanceId, now: Now, actions: &mut Vec<Action>) {
        let grace = self.limits.grace;
        let Some(entry) = self.entries.get_mut(instance) else {
            return;
        };
        match entry.presence {
            Presence::Present | Presence::Unverified => {
                entry.deadline = Some(now.mono + grace);
                let lease_s = entry.registration.lease_s;
                let reason = format!("no sign of life for {lease_s} s, its lease");
                move_to(entry, Presence::Suspect, &reason, now, actions);
            }
            Presence::Suspect => self.end(
                instance,
                Ending::Expired,
                "no sign of life after its lease ran out",
                now,
                actions,
            ),
            Presence::Gone => {
                self.remove(instance);
                actions.push(Action::Forget(instance.clone()));
            }
        }
    }
}

/// A sign of life. Renewals are not written: after a restart everything is `unverified` anyway.
pub(super) fn see(entry: &mut Entry, now: Now, actions: &mut Vec<Action>) {
    entry.seen = now.unix;
    entry.deadline = (!entry.supervised).then(|| now.mono + entry.lease());
    if entry.presence != Presence::Present {
        move_to(entry, Presence::Present, "seen again", now, actions);
    }
}
