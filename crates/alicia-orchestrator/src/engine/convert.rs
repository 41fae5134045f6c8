//! Between the keeper's words and the core's. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::orchestrator::{Exit, ExitCause};
use alicia_contract::{Epoch, InstanceId, ServiceName, UnixSeconds};
use alicia_keeper::protocol::{
    self, Containment, ExitStatus, Failure, FailureCode, InstanceInfo, InstanceState,
};
use alicia_keeper::signals;
use serde::{Deserialize, Serialize};

use super::confine::limits_held;
use crate::core::digest::Digest;
use crate::core::event::{Found, FoundState, Process, SlotId, SpawnFault};

/// What the keeper keeps for us with each run, so that a new host knows it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Labels {
    pub(crate) service: ServiceName,
    pub(crate) slot: u32,
    pub(crate) epoch: Epoch,
    pub(crate) digest: Digest,
    #[serde(default)]
    pub(crate) ports: BTreeMap<ServiceName, u16>,
}

impl Labels {
    pub(crate) fn of(info: &InstanceInfo) -> Option<Self> {
        Labels::deserialize(&info.labels).ok()
    }
}

/// A run as the core wants it; none when its name is no instance id, and so not ours.
pub(crate) fn found(info: &InstanceInfo, unix: UnixSeconds) -> Option<Found> {
    let labels = Labels::of(info);
    let started_s = unix_seconds(info.started_unix_ms);
    Some(Found {
        instance: InstanceId::new(info.instance.clone()).ok()?,
        slot: labels.as_ref().map(|labels| SlotId {
            service: labels.service.clone(),
            slot: labels.slot,
        }),
        epoch: labels
            .as_ref()
            .map_or_else(Epoch::default, |labels| labels.epoch),
        digest: labels
            .as_ref()
            .map(|labels| labels.digest.clone())
            .unwrap_or_default(),
        pid: info.pid,
        containment: containment_name(info.containment).to_owned(),
        state: found_state(info),
        limits: limits_held(&info.limits),
        said: info.notified.clone(),
        empty: info.empty,
        age: Duration::try_from_secs_f64(unix - started_s).unwrap_or_default(),
        ports: labels.map(|labels| labels.ports).unwrap_or_default(),
    })
}

fn found_state(info: &InstanceInfo) -> FoundState {
    match (&info.exit, info.state) {
        (Some(ended), _) => FoundState::Exited {
            exit: exit(ended),
            requested: ended.requested,
        },
        (None, InstanceState::Stopping) => FoundState::Stopping,
        (None, _) => FoundState::Running,
    }
}

pub(crate) fn process(info: &InstanceInfo) -> Process {
    Process {
        pid: info.pid,
        containment: containment_name(info.containment).to_owned(),
        limits: limits_held(&info.limits),
        ports: Labels::of(info)
            .map(|labels| labels.ports)
            .unwrap_or_default(),
    }
}

/// As `InstanceStatus::containment` says it.
fn containment_name(containment: Containment) -> &'static str {
    match containment {
        Containment::Cgroup => "cgroup2",
        Containment::Scan => "sweep",
    }
}

/// How a leader ended, with the cause in words.
pub(crate) fn exit(exit: &protocol::Exit) -> Exit {
    let (code, signal, cause) = match exit.status {
        ExitStatus::Code(code) => (Some(code), None, format!("exit code {code}")),
        ExitStatus::Signal { signal, core } => {
            let name = signals::name(signal);
            let core = if core { ", with a core dump" } else { "" };
            let cause = if exit.out_of_memory && exit.over_limit.is_none() {
                format!("out of memory: the kernel sent {name}")
            } else {
                format!("killed by {name}{core}")
            };
            (None, Some(name), cause)
        }
        ExitStatus::Lost => (None, None, "ended while nobody could see how".to_owned()),
    };
    let class = match exit.status {
        _ if exit.watchdog => ExitCause::Watchdog,
        ExitStatus::Signal { .. } if exit.out_of_memory || exit.oom_killed => {
            ExitCause::OutOfMemory
        }
        // A child of it was killed, and it did not do without.
        ExitStatus::Code(1..) if exit.oom_killed => ExitCause::OutOfMemory,
        ExitStatus::Lost => ExitCause::Lost,
        _ => ExitCause::Unknown,
    };
    let cause = match class {
        ExitCause::Watchdog => format!("its watchdog was not fed: {cause}"),
        ExitCause::OutOfMemory if !cause.starts_with("out of memory") => {
            let over = exit.over_limit.as_ref().map_or("", |_| "over its limit, ");
            format!("out of memory: {over}{cause}")
        }
        _ => match &exit.over_limit {
            Some(limit) => {
                let why = exit.over_limit_why.as_ref();
                let why = why.map_or_else(String::new, |why| format!("{why}; "));
                format!("over its limit of {limit}: {why}{cause}")
            }
            None => cause,
        },
    };
    Exit {
        code,
        signal,
        cause,
        class,
        at: unix_seconds(exit.at_unix_ms),
        ..Exit::default()
    }
}

/// Whether a start that failed is worth another try, and what a person can do about it.
pub(crate) fn fault(failure: &Failure) -> SpawnFault {
    use FailureCode as Code;
    let advice = match failure.code {
        Code::ProgramNotFound => "; install it, or correct `command`",
        Code::ProgramNotExecutable => "; make it executable with `chmod +x`, or correct `command`",
        Code::DirectoryNotFound | Code::DirectoryNotAccessible => {
            "; make the directory, or correct `directory`"
        }
        Code::UserUnknown => "; add the user, or correct `user`",
        Code::SandboxNotEnforced => "; `alicia doctor` tells what this kernel can do",
        Code::NotPermitted => "; run Alicia as root, or remove `user`",
        _ => "",
    };
    let reason = format!("{}{advice}", failure.message);
    match failure.code {
        Code::ProgramNotFound
        | Code::ProgramNotExecutable
        | Code::DirectoryNotFound
        | Code::DirectoryNotAccessible
        | Code::UserUnknown
        | Code::GroupUnknown
        | Code::NotPermitted
        | Code::SandboxNotEnforced
        | Code::ArgumentsTooLong
        | Code::InvalidRequest => SpawnFault::Lasting(reason),
        _ => SpawnFault::Passing(reason),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 milliseconds are 285,000 years"
)]
fn unix_seconds(ms: u64) -> UnixSeconds {
    ms as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_in_words() {
        let check = |status, out_of_memory, expected: &str| {
            let ended = protocol::Exit {
                status,
                out_of_memory,
                oom_killed: out_of_memory,
                watchdog: false,
                over_limit: None,
                over_limit_why: None,
                memory_peak_bytes: None,
                requested: false,
                at_unix_ms: 1_500,
                ran_ms: 0,
                usage: protocol::Usage::default(),
            };
            let exit = exit(&ended);
            assert_eq!((exit.cause.as_str(), exit.at), (expected, 1.5));
        };
        let signal = |signal, core| ExitStatus::Signal { signal, core };
        check(ExitStatus::Code(3), false, "exit code 3");
        check(signal(9, false), false, "killed by SIGKILL");
        check(
            signal(11, true),
            false,
            "killed by SIGSEGV, with a core dump",
        );
        check(
            signal(9, false),
            true,
            "out of memory: the kernel sent SIGKILL",
        );
        check(ExitStatus::Lost, false, "ended while nobody could see how");
    }

    #[test]
    fn a_limit_that_was_broken_is_the_cause() {
        let check =
            |status, (over, oom_killed): (Option<&str>, bool), expect: (ExitCause, &str)| {
                let ended = protocol::Exit {
                    status,
                    out_of_memory: oom_killed && over == Some("memory"),
                    oom_killed,
                    watchdog: false,
                    over_limit: over.map(str::to_owned),
                    over_limit_why: over.map(|_| "this was seen".to_owned()),
                    memory_peak_bytes: None,
                    requested: false,
                    at_unix_ms: 1_500,
                    ran_ms: 0,
                    usage: protocol::Usage::default(),
                };
                let exit = exit(&ended);
                assert_eq!((exit.class, exit.cause.as_str()), expect);
            };
        let killed = ExitStatus::Signal {
            signal: 9,
            core: false,
        };
        use ExitCause::{OutOfMemory, Unknown};
        let text = "out of memory: over its limit, killed by SIGKILL";
        check(killed, (Some("memory"), true), (OutOfMemory, text));
        let text = "over its limit of processes: this was seen; killed by SIGKILL";
        check(killed, (Some("processes"), false), (Unknown, text));
        let text = "out of memory: exit code 1";
        check(ExitStatus::Code(1), (None, true), (OutOfMemory, text));
        check(ExitStatus::Code(0), (None, true), (Unknown, "exit code 0"));
    }

    #[test]
    fn only_what_may_go_away_by_itself_is_tried_again() {
        let check = |code, lasting| {
            let fault = fault(&Failure::new(code, "no"));
            assert_eq!(matches!(fault, SpawnFault::Lasting(_)), lasting, "{code:?}");
        };
        check(FailureCode::ProgramNotFound, true);
        check(FailureCode::DirectoryNotFound, true);
        check(FailureCode::UserUnknown, true);
        check(FailureCode::ProcessLimit, false);
        check(FailureCode::TooManyFiles, false);
        check(FailureCode::Other, false);
    }
}
