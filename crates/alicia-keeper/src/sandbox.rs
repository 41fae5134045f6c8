//! What an instance may do on the machine: everything is prepared here, before the child is made, so that
//! the child makes a handful of system calls and allocates nothing.

pub(crate) mod capabilities;
mod files;
mod system_calls;

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::protocol::{Failure, FailureCode, HeldBy, LimitState, Sandbox};
use crate::sys::{self, Landlock};

/// The interface of Landlock from which on each part can be enforced without a hole: truncation of files
/// since 3 (Linux 6.2), TCP ports since 4 (6.7), signals and abstract sockets since 6 (6.12).
const ABI_FILES: u32 = 3;
const ABI_NETWORK: u32 = 4;
const ABI_SCOPE: u32 = 6;

/// A sandbox that is ready to be entered.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) no_new_privileges: bool,
    pub(crate) ruleset: Option<OwnedFd>,
    /// Empty: no filter.
    pub(crate) filter: Vec<libc::sock_filter>,
    /// Capabilities that are kept, a bit each.
    pub(crate) capabilities: u64,
    /// What holds which part.
    pub(crate) states: Vec<LimitState>,
}

/// What this kernel offers for sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Version of Landlock's interface; 0: none.
    pub landlock_abi: u32,
    /// Filters of system calls.
    pub has_seccomp: bool,
}

impl Kernel {
    /// Asks the kernel.
    pub fn ask() -> Self {
        Self {
            landlock_abi: sys::landlock_abi(),
            has_seccomp: sys::has_seccomp() && system_calls::IS_KNOWN_MACHINE,
        }
    }

    /// What it cannot do, part by part, in words. Empty: everything.
    pub fn lacks(self) -> Vec<(&'static str, String)> {
        let parts = [
            ("sandbox.files", ABI_FILES, "6.2"),
            ("sandbox.network", ABI_NETWORK, "6.7"),
            ("sandbox.scope", ABI_SCOPE, "6.12"),
        ];
        let by_landlock = parts.into_iter().filter_map(|(part, abi, linux)| {
            let found = match self.landlock_abi {
                0 => "no Landlock".to_owned(),
                found => format!("Landlock with interface {found}"),
            };
            let text = format!("the kernel has {found}; interface {abi} (Linux {linux}) is needed");
            (self.landlock_abi < abi).then_some((part, text))
        });
        let by_seccomp = (!self.has_seccomp).then(|| {
            let text = "the kernel has no filters of system calls for this kind of processor";
            ("sandbox.system_calls", text.to_owned())
        });
        by_landlock.chain(by_seccomp).collect()
    }
}

/// Prepares everything. `program` can be executed in any case.
pub(crate) fn prepare(wanted: &Sandbox, program: &Path) -> Result<Prepared, Failure> {
    if !wanted.no_new_privileges {
        return Err(invalid(
            "no_new_privileges cannot be off: the kernel wants it for all the rest",
        ));
    }
    let lacks = Kernel::ask().lacks();
    let mut prepared = Prepared {
        no_new_privileges: true,
        ruleset: None,
        filter: Vec::new(),
        capabilities: capabilities::parse(&wanted.capabilities)?,
        states: Vec::new(),
    };
    let mut landlock = Landlock::default();
    let parts = [
        ("sandbox.files", HeldBy::Landlock, true),
        (
            "sandbox.network",
            HeldBy::Landlock,
            wanted.network.is_some(),
        ),
        ("sandbox.scope", HeldBy::Landlock, wanted.scoped),
        (
            "sandbox.system_calls",
            HeldBy::Seccomp,
            wanted.filter_system_calls || wanted.network.is_some(),
        ),
    ];
    for (part, held_by, _) in parts.into_iter().filter(|(_, _, is_wanted)| *is_wanted) {
        let lack = lacks.iter().find(|(lacking, _)| *lacking == part);
        let state = match lack {
            None => LimitState::held(part, held_by),
            Some((_, why)) if wanted.best_effort => {
                LimitState::held(part, HeldBy::None).because(why)
            }
            Some((_, why)) => return Err(refused(part, why)),
        };
        let is_held = state.held_by != HeldBy::None;
        prepared.states.push(state);
        match (part, &wanted.network) {
            _ if !is_held => {}
            ("sandbox.files", _) => files::rules(wanted, program, &mut landlock)?,
            ("sandbox.network", Some(network)) => {
                landlock.allow_ports(&network.bind, &network.connect)
            }
            ("sandbox.scope", _) => landlock.scope(),
            _ => {
                prepared.filter =
                    system_calls::filter(wanted.filter_system_calls, wanted.network.as_ref());
            }
        }
    }
    prepared.ruleset = landlock.make().map_err(|error| {
        Failure::system(
            format!("sandbox: no Landlock rules can be made: {error}"),
            &error,
        )
    })?;
    Ok(prepared)
}

fn refused(part: &str, why: &str) -> Failure {
    let message = format!(
        "{part} cannot be enforced here: {why}. Set `sandbox.best_effort: true` to start without it"
    );
    Failure::new(FailureCode::SandboxNotEnforced, message)
}

fn invalid(text: impl std::fmt::Display) -> Failure {
    Failure::new(FailureCode::InvalidRequest, format!("sandbox: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_said_part_by_part() {
        let check = |landlock_abi, has_seccomp, expect: &[&str]| {
            let kernel = Kernel {
                landlock_abi,
                has_seccomp,
            };
            let lacks = kernel.lacks();
            let names: Vec<_> = lacks.iter().map(|(part, _)| *part).collect();
            assert_eq!(names, expect);
        };
        check(7, true, &[]);
        check(6, false, &["sandbox.system_calls"]);
        check(4, true, &["sandbox.scope"]);
        check(3, true, &["sandbox.network", "sandbox.scope"]);
        check(
            0,
            true,
            &["sandbox.files", "sandbox.network", "sandbox.scope"],
        );
        let refusal = refused("sandbox.scope", "why");
        assert!(refusal.message.contains("best_effort"), "{refusal}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let check = |change: fn(&mut Sandbox), text: &str| {
            let mut wanted = Sandbox::default();
            change(&mut wanted);
            let failure = prepare(&wanted, Path::new("/bin/true")).unwrap_err();
            assert!(failure.message.contains(text), "{failure}");
        };
        check(|it| it.no_new_privileges = false, "no_new_privileges");
        check(|it| it.capabilities = vec!["fly".into()], "\"fly\"");
        if Kernel::ask().landlock_abi >= ABI_FILES {
            let files = |path: &str| crate::protocol::FileAccess {
                writable: vec![path.into()],
                ..Default::default()
            };
            let mut wanted = Sandbox {
                files: Some(files("/nonexistent")),
                ..Sandbox::default()
            };
            let failure = prepare(&wanted, Path::new("/bin/true")).unwrap_err();
            assert!(failure.message.contains("/nonexistent"), "{failure}");
            wanted.files = Some(files("relative"));
            let failure = prepare(&wanted, Path::new("/bin/true")).unwrap_err();
            assert!(failure.message.contains("absolute"), "{failure}");
        }
    }
}
