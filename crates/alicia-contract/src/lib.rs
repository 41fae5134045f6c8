//! What the parts of Alicia say to each other: ids, units, topics, the envelope and the messages.
//!
//! Floor 0: data only. No I/O, no async, no clock, no randomness of its own. Every type that crosses
//! a wall (bus, REST, `alicia.yaml`) is defined here with serde and schemars, so that the JSON
//! Schemas, the AsyncAPI document and the checks come from one source.
//!
//! Reading order: [`id`], [`mod@unit`], [`topic`], [`envelope`], then one file per part:
//! [`fleet`] (the `services:` of the file), [`orchestrator`], [`discovery`], [`health`],
//! [`broker`], [`platform`], [`problem`]; last the list of all topics, [`catalogue`].

pub mod id;
pub mod unit;

pub mod envelope;
pub mod object;
pub mod topic;

pub mod a2a;
pub mod audit;
pub mod broker;
pub mod catalogue;
pub mod deployment;
pub mod discovery;
pub mod fleet;
pub mod health;
pub mod identity;
pub mod orchestrator;
pub mod platform;
pub mod problem;

pub use envelope::{Envelope, MessageType, Priority};
pub use id::{Epoch, InstanceId, ServiceName};
pub use problem::Problem;
pub use topic::{CallTopic, EventTopic, Prefix, StateTopic};
pub use unit::{ByteSize, Period, UnixSeconds};
