//! Shared subscriptions: each message of a group goes to one member.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::subscribe::SharedSubscription;
use rmqtt::types::{
    ClientId, Id, IsOnline, NodeId, SharedGroup, SubscriptionIdentifier, SubscriptionOptions,
    TopicName,
};

use super::core::Core;

/// A member as the library describes it; the last field says whether it is connected.
type Member = (
    NodeId,
    ClientId,
    SubscriptionOptions,
    Option<Vec<SubscriptionIdentifier>>,
    Option<IsOnline>,
);

/// Chooses the connected member for whom the least is waiting, in turn among equals.
pub(crate) struct LeastLoaded {
    core: Arc<Core>,
    turn: AtomicUsize,
}

impl LeastLoaded {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            turn: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl SharedSubscription for LeastLoaded {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(
        &self,
        _scx: &ServerContext,
        _group: &SharedGroup,
        _publisher: &Id,
        _topic: &TopicName,
        members: &[Member],
    ) -> Option<(usize, IsOnline)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let loads: Vec<(bool, usize)> = members
            .iter()
            .map(|(_, client_id, _, _, online)| {
                let load = self
                    .core
                    .accounts
                    .get(client_id)
                    .map_or(0, |a| a.held_bytes());
                (online.unwrap_or(false), load)
            })
            .collect();
        choose(&loads, turn)
    }
}

fn choose(loads: &[(bool, usize)], turn: usize) -> Option<(usize, bool)> {
    let start = turn.checked_rem(loads.len())?;
    let (after, before) = (
        loads.iter().enumerate().skip(start),
        loads.iter().enumerate().take(start),
    );
    after
        .chain(before)
        .min_by_key(|(_, (online, load))| (!online, *load))
        .map(|(index, (online, _))| (index, *online))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connected_and_least_loaded_is_chosen_in_turn() {
        assert_eq!(choose(&[], 3), None);
        assert_eq!(choose(&[(false, 0), (true, 9)], 0), Some((1, true)));
        assert_eq!(choose(&[(true, 5), (true, 2)], 0), Some((1, true)));
        assert_eq!(choose(&[(true, 0), (true, 0)], 0), Some((0, true)));
        assert_eq!(choose(&[(true, 0), (true, 0)], 1), Some((1, true)));
        assert_eq!(choose(&[(false, 7), (false, 3)], 0), Some((1, false)));
    }
}
