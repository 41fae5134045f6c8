//! The orchestrator with a real keeper, real processes, a real store and a real broker.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "the helpers of these tests fail them, and say what is not tested"
)]

mod bus;
mod causes;
mod confined;
mod deployments;
mod life;
mod rest;
mod support;
mod survival;
