//! One try of a health probe, with a deadline.
//!
//! ```text
//! Probe ──Target::resolve──▶ Target ──attempt(timeout)──▶ Outcome ──Threshold──▶ good, bad
//!                                         ▲
//!                                       Ticker: when to try
//! ```
//!
//! Nothing runs on its own here: a try is a future, and dropping it ends the connection or the process that it
//! started. Probes of the kind `log_line` are evaluated by whoever reads the output.

pub use attempt::{Outcome, attempt};
pub use http::{BODY_BYTES_MAX, HttpTarget};
pub use target::{Context, Target, TargetError};
pub use threshold::{Threshold, Verdict};
pub use ticker::{First, Ticker};

mod attempt;
mod connect;
mod disk;
mod dns;
mod exec;
mod gpu;
mod grpc;
mod http;
mod llm;
mod mqtt;
mod process;
mod secret;
mod target;
mod threshold;
mod ticker;
mod tls;
