//! The engine's only clock. It runs on real sockets and real timers, below the module's context,
//! and measures spans only.

use std::time::Instant;

/// The monotonic time.
#[expect(
    clippy::disallowed_methods,
    reason = "the engine paces real sockets; see the module"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
