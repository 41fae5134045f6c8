//! Packets that wait for the broker's acknowledgement, by packet id. Pure.

use std::collections::HashMap;

/// Packet ids are given in turn from 1 to 65,535, never one that is still in use.
#[derive(Debug)]
pub(crate) struct Inflight<P> {
    last_id: u16,
    sequence: u64,
    pending: HashMap<u16, (u64, P)>,
}

impl<P> Inflight<P> {
    pub(crate) fn new() -> Self {
        Self {
            last_id: 0,
            sequence: 0,
            pending: HashMap::new(),
        }
    }

    /// Remembers a packet and gives its id.
    ///
    /// # Panics
    /// When all ids are in use: the session's window is far smaller.
    pub(crate) fn add(&mut self, packet: P) -> u16 {
        assert!(
            self.pending.len() < usize::from(u16::MAX),
            "the window is smaller than the number of packet ids"
        );
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.pending.contains_key(&self.last_id) {
                break;
            }
        }
        self.sequence += 1;
        self.pending.insert(self.last_id, (self.sequence, packet));
        self.last_id
    }

    /// The packet that an acknowledgement is for.
    pub(crate) fn take(&mut self, id: u16) -> Option<P> {
        self.pending.remove(&id).map(|(_, packet)| packet)
    }

    /// Everything that was not acknowledged, in the order in which it was sent.
    pub(crate) fn into_unacknowledged(self) -> Vec<P> {
        let mut pending: Vec<(u64, P)> = self.pending.into_values().collect();
        pending.sort_unstable_by_key(|(sequence, _)| *sequence);
        pending.into_iter().map(|(_, packet)| packet).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_use_is_not_given_again() {
        let mut inflight = Inflight::new();
        let held = inflight.add("held");
        for _ in 0..u32::from(u16::MAX) * 2 {
            let id = inflight.add("quick");
            assert_ne!(id, held);
            assert_ne!(id, 0);
            assert_eq!(inflight.take(id), Some("quick"));
        }
        assert_eq!(inflight.take(held), Some("held"));
        assert_eq!(inflight.take(held), None);
    }

    #[test]
    fn what_was_not_acknowledged_comes_back_in_order() {
        let mut inflight = Inflight::new();
        let ids: Vec<u16> = (0..100).map(|n| inflight.add(n)).collect();
        inflight.take(ids[7]);
        let left = inflight.into_unacknowledged();
        assert_eq!(left.len(), 99);
        assert!(left.is_sorted());
    }
}
