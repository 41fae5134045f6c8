//! Publishes the directory of keys: who may act, and with which keys they sign.

use std::time::Duration;

use alicia_bus::Bus;
use alicia_contract::identity::KEYS;
use alicia_identity::Authority;
use alicia_module::Clock;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

/// What is not told of as a change: ends of overlapping root keys, and when API keys were used.
const CHORES_EVERY: Duration = Duration::from_secs(60);

/// What changes so shortly after another change is told with it: a restart ends one run and begins the next. What a
/// new process signs before the directory has gone round is by a key that other services do not know yet.
const CHANGES_SETTLE: Duration = Duration::from_millis(5);

/// Publishes each change, the latest only, until it is told to end.
pub(crate) async fn publish(
    bus: Bus,
    identity: Authority,
    clock: Clock,
    ending: CancellationToken,
) {
    let mut changes = identity.changes();
    let mut chores = interval(CHORES_EVERY);
    chores.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut roots = Vec::new();
    loop {
        changes.mark_unchanged();
        let now = clock.unix();
        roots.clone_from(&identity.root_keys(now));
        // The bus remembers it, and says it again on each new connection.
        let (directory, version) = identity.signed_directory(now);
        if let Err(error) = identity.note_published(version) {
            tracing::warn!(%error, "the version of the directory of keys was not written down");
        }
        let published = bus.set(KEYS, &[], &directory);
        tokio::select! {
            () = ending.cancelled() => return,
            published = published => if let Err(error) = published {
                tracing::debug!(%error, "the directory of keys was not published yet");
            }
        }
        loop {
            tokio::select! {
                () = ending.cancelled() => return,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    sleep(CHANGES_SETTLE).await;
                    break;
                }
                _ = chores.tick() => {
                    if let Err(error) = identity.keep_last_used() {
                        tracing::warn!(%error, "it was not written down when keys were last used");
                    }
                    if identity.root_keys(clock.unix()) != roots {
                        break;
                    }
                }
            }
        }
    }
}
