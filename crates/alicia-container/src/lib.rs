//! Services in containers: a process that stands for a container of Docker or Podman.
//!
//! ```text
//! keeper ──spawn──▶ stand-in ──Engine API over its Unix socket──▶ container
//!    ▲  output, exit   │ ▲ output, exit status
//!    └─────────────────┘ └──────────────────────────────────────────┘
//! ```
//!
//! The keeper supervises the [stand-in](run) as it does any process: its output is that of the container, its exit
//! status too, a signal that it gets goes on to the container. So restarts, logs, probes and limits are the same code
//! for both kinds of service. What the engine holds beyond the life of a stand-in (it was killed, or the machine lost
//! the keeper) carries labels, by which [`remove`] finds it: before each start, and after each end.

pub use engine::{Engine, Error};
pub use exec::{Inside, exec, fleet_of};
pub use settings::{Mark, Settings, request};
pub use standin::{Ended, run};
pub use sweep::{Which, remove};

mod engine;
mod exec;
mod frames;
mod settings;
mod standin;
mod sweep;
