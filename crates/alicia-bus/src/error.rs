//! What can go wrong, as the caller sees it. Each reads after "failed to".

use std::time::Duration;

use alicia_contract::Problem;
use alicia_contract::envelope::{DropReason, MESSAGE_BYTES_MAX};

/// A publish or a subscription did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not connected in time, or the broker did not acknowledge in time. It may still have happened.
    #[error("reach the broker about {topic} within {after:?}")]
    TimedOut {
        /// The topic or filter.
        topic: String,
        /// How long it was tried.
        after: Duration,
    },
    /// The broker says that this client may not.
    #[error("use {topic}: the broker says that this client may not")]
    NotAllowed {
        /// The topic or filter.
        topic: String,
    },
    /// The broker refused for another reason.
    #[error("use {topic}: the broker refused with {reason}")]
    Refused {
        /// The topic or filter.
        topic: String,
        /// The MQTT reason code, by name.
        reason: String,
    },
    /// The message is larger than this side or the broker takes.
    #[error("publish on {topic}: {bytes} bytes are more than {bytes_max}")]
    TooLarge {
        /// The topic.
        topic: String,
        /// The size of the message.
        bytes: usize,
        /// The largest size, [`MESSAGE_BYTES_MAX`] or less when the broker takes less.
        bytes_max: usize,
    },
    /// The text is not an MQTT topic or filter, or too long.
    #[error("use {0:?}: it is not a valid topic or filter")]
    Topic(String),
    /// The message cannot be written as JSON.
    #[error("write the message for {topic} as JSON")]
    Encode {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Too many states are remembered; see [`crate::Bus::set`].
    #[error("set {topic}: this client holds {states_max} states already")]
    TooManyStates {
        /// The topic.
        topic: String,
        /// The limit.
        states_max: usize,
    },
    /// Too many subscriptions are open.
    #[error("subscribe to {filter}: this client has {subscriptions_max} subscriptions already")]
    TooManySubscriptions {
        /// The filter.
        filter: String,
        /// The limit.
        subscriptions_max: usize,
    },
    /// The connection task has ended.
    #[error("use the bus: its connection was closed")]
    Closed,
}

impl Error {
    pub(crate) fn too_large(topic: &str, bytes: usize) -> Self {
        Self::TooLarge {
            topic: topic.to_owned(),
            bytes,
            bytes_max: MESSAGE_BYTES_MAX,
        }
    }
}

/// A call had no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The broker says that nobody subscribes to the topic.
    #[error("call {topic}: nobody listens there")]
    NobodyListens {
        /// The topic.
        topic: String,
    },
    /// No answer in time.
    #[error("call {topic}: no answer within {after:?}")]
    TimedOut {
        /// The topic.
        topic: String,
        /// The deadline.
        after: Duration,
    },
    /// The answer is an error.
    #[error("call {topic}: {}", .problem.detail)]
    Refused {
        /// The topic.
        topic: String,
        /// What the responder says.
        problem: Box<Problem>,
    },
    /// An answer came and cannot be read.
    #[error("call {topic}: the answer cannot be read: {reason}")]
    Answer {
        /// The topic.
        topic: String,
        /// Why.
        reason: DropReason,
    },
    /// Too many calls wait for their answers.
    #[error("call {topic}: {calls_max} calls wait for an answer already")]
    TooManyCalls {
        /// The topic.
        topic: String,
        /// The limit.
        calls_max: usize,
    },
    /// The request could not be sent.
    #[error("send the request")]
    Bus(#[from] Error),
}
