//! The keeper with real processes, sockets, files and cgroups.

#![expect(
    clippy::disallowed_methods,
    reason = "tests own their tasks and their clock; there is no context here"
)]

mod containment;
mod fleet;
mod life;
mod output;
mod socket;
mod survival;
