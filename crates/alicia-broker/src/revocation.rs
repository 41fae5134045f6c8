//! Whoever loses its identity loses its connection: holders of revoked or expired keys, and services
//! that left the fleet. Permissions are asked for at each message anyway; this ends what is left.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::fleet::Fleet;
use alicia_contract::platform::KeyInfo;
use alicia_contract::unit::UnixSeconds;
use alicia_identity::Authority as House;
use alicia_module::Clock;
use tokio::sync::watch;

use crate::engine::Engine;

/// How long a revoked key may stay connected.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is looked at.
pub(crate) struct Watch {
    pub(crate) engine: Arc<Engine>,
    pub(crate) house: House,
    pub(crate) clock: Clock,
    pub(crate) fleet: watch::Receiver<Arc<Fleet>>,
}

impl Watch {
    /// Looks again and again, until the task is cancelled.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        let mut changes = self.house.changes();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    // The host may be another process.
                    self.house.refresh();
                    self.look();
                }
                // An epoch has begun: the one before it is cut off at once.
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let ended = self.engine.disconnect_fenced();
            if ended > 0 {
                tracing::info!(ended, "connections of runs that are over were ended");
            }
        }
    }

    fn look(&self) {
        let keys = self.house.keys();
        let keys = valid_keys(&keys, self.clock.unix());
        let fleet = Arc::clone(&self.fleet.borrow());
        let agents = self.house.agents();
        for name in self.engine.identities() {
            let is_agent = agents.iter().any(|agent| agent.name.as_str() == &*name);
            if !is_agent && !is_known(&name, &keys, &fleet) {
                let ended = self.engine.disconnect_identity(&name);
                tracing::info!(identity = &*name, ended, "identity is gone");
            }
        }
    }
}

fn valid_keys(keys: &[KeyInfo], now: UnixSeconds) -> HashSet<&str> {
    let valid = |key: &&KeyInfo| key.expires.is_none_or(|expires| expires > now);
    keys.iter()
        .filter(valid)
        .map(|key| key.name.as_str())
        .collect()
}

fn is_known(identity: &str, keys: &HashSet<&str>, fleet: &Fleet) -> bool {
    match identity.split_once('/') {
        Some(("key", name)) => keys.contains(name),
        Some(("system", _)) => true,
        _ => fleet
            .services
            .keys()
            .any(|service| service.as_str() == identity),
    }
}

#[cfg(test)]
mod tests {
    use alicia_contract::fleet::ServiceSpec;
    use alicia_contract::id::ServiceName;
    use alicia_contract::platform::Scope;

    use super::*;

    fn key(name: &str, expires: Option<f64>) -> KeyInfo {
        KeyInfo {
            name: name.into(),
            prefix: "alk_x".into(),
            scope: Some(Scope::Read),
            scopes: Vec::new(),
            created: 0.0,
            expires,
            last_used: None,
        }
    }

    #[test]
    fn revoked_and_expired_keys_and_services_that_left_are_unknown() {
        let all = [key("ann", None), key("bob", Some(10.0))];
        let service = ServiceName::new("api").expect("a name");
        let fleet = Fleet {
            name: "test".into(),
            services: [(service, ServiceSpec::new(vec!["true".into()]).into())].into(),
            ..Fleet::default()
        };
        let known = |identity: &str, now: f64| is_known(identity, &valid_keys(&all, now), &fleet);
        assert!(known("key/ann", 20.0) && known("key/bob", 5.0));
        assert!(!known("key/bob", 20.0) && !known("key/eve", 5.0));
        assert!(known("api", 0.0) && !known("db", 0.0));
        assert!(known("system/health", 0.0));
    }
}
