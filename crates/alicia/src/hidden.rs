//! Host and keeper hold secrets for moments: their memory is not written into core files, and no other process of the same
//! user may read it (`prctl(2)`, `PR_SET_DUMPABLE`).
//!
//! Services are not affected: the flag ends with `execve`, and only the soft limit of core files is lowered, which a service
//! may raise again.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Hides this process. Where the system does not let it, it goes on, and says so.
pub(crate) fn hide() {
    let limit = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Core)
    };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        eprintln!("warning: core files cannot be switched off ({error})");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("warning: others of this user may read the memory of this process ({error})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_process_leaves_no_core_and_is_not_readable() {
        let before = getrlimit(Resource::Core);
        hide();
        let after = getrlimit(Resource::Core);
        assert_eq!((after.current, after.maximum), (Some(0), before.maximum));
        let behavior = rustix::process::dumpable_behavior().expect("the kernel says it");
        assert_eq!(behavior, DumpableBehavior::NotDumpable);
    }
}
