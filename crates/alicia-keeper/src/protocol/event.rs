//! What the keeper tells without being asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Exit, InstanceInfo};

/// Something happened. Every connected host gets every event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A process was started.
    Started(InstanceInfo),
    /// The leader ended. Its output up to here is in the log.
    Exited {
        /// Whose.
        instance: String,
        /// Which run.
        run: u64,
        /// How.
        exit: Exit,
        /// No process of it is left; else [`Event::Emptied`] follows.
        empty: bool,
    },
    /// The last process of the instance is gone, some time after its leader.
    Emptied {
        /// Whose.
        instance: String,
        /// Which run.
        run: u64,
        /// How many processes the keeper killed by force.
        killed: u32,
    },
    /// A stop is complete: the leader ended and no process is left.
    Stopped {
        /// Whose.
        instance: String,
        /// Which run.
        run: u64,
        /// How the leader ended.
        exit: Exit,
        /// How many processes the keeper killed by force.
        killed: u32,
    },
    /// The log of an instance cannot be written, or can be again.
    Log(LogTrouble),
    /// A process of the instance said something on its `NOTIFY_SOCKET` (`sd_notify(3)`). What was said
    /// before its end is told before [`Event::Exited`].
    Notified {
        /// Whose.
        instance: String,
        /// Which run.
        run: u64,
        /// Process id of the sender, which is of this instance.
        pid: u32,
        /// `READY`, `STATUS`, `WATCHDOG`, `MAINPID` (only of a process of the instance), `STOPPING`,
        /// `RELOADING`, `MONOTONIC_USEC`, `EXTEND_TIMEOUT_USEC`, `ERRNO`, `BUSERROR`, `EXIT_STATUS` and
        /// every `X_ALICIA_*`. The last of a name counts; others are left out.
        fields: BTreeMap<String, String>,
    },
    /// Somebody connects to a held socket that no instance serves. Told once for each
    /// [`Request::WatchListener`](super::Request::WatchListener).
    ListenerReady {
        /// Which.
        name: String,
    },
    /// The keeper stops everything and ends.
    ShuttingDown,
    /// This host read too slowly: so many events were not sent. List again.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// A kind of event that this build does not know.
    #[serde(skip)]
    Unknown(Value),
}

impl Event {
    /// Decodes an event, also one of a newer keeper.
    pub fn from_value(value: Value) -> Self {
        serde_json::from_value(value.clone()).unwrap_or(Self::Unknown(value))
    }
}

/// Whether a log can be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTrouble {
    /// Whose log.
    pub instance: String,
    /// The system's message, while it cannot be written; `None` when it can be again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Lines that were lost.
    pub lines_dropped: u64,
    /// They were lost because there were more in a second than allowed. Told once a second while it lasts.
    #[serde(default)]
    pub flood: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_of_a_newer_keeper_is_kept_as_unknown() {
        let value = json!({"frozen": {"instance": "a"}});
        assert_eq!(Event::from_value(value.clone()), Event::Unknown(value));
    }

    #[test]
    fn an_event_with_a_new_field_is_understood() {
        let value = json!({"emptied": {"instance": "a", "run": 3, "killed": 1, "mood": "calm"}});
        let expect = Event::Emptied {
            instance: "a".into(),
            run: 3,
            killed: 1,
        };
        assert_eq!(Event::from_value(value), expect);
    }
}
