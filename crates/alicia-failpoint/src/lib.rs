//! Places where a test ends the process, to see what is lost.
//!
//! Between two steps that belong together (started, and written down; written down, and acknowledged) stands
//! `failpoint("part/edge")`. In a build with debug assertions the environment variable [`VARIABLE`] names one of them,
//! and the process is killed there, as by `kill -9`: nothing is flushed, no destructor runs. In other builds the call is
//! nothing at all.
//!
//! `crates/alicia/tests/failpoints.rs` runs the house once per point of [`POINTS`].

/// Names the point: `orchestrator/spawned`, or `orchestrator/spawned@3` for the third time that it is passed.
pub const VARIABLE: &str = "ALICIA_FAILPOINT";

/// Every point, in the order of a start, a change and a message. A call with another name is refused by the tests
/// of whoever makes it.
pub const POINTS: [&str; 15] = [
    // The host asks for a process.
    "orchestrator/spawn",
    "orchestrator/spawned",
    // The keeper makes it.
    "keeper/spawn",
    "keeper/spawned",
    "keeper/recorded",
    // It ends.
    "keeper/reaped",
    "orchestrator/exited",
    // What follows behind.
    "orchestrator/record",
    "orchestrator/recorded",
    "orchestrator/published",
    // A command is written down, and acknowledged.
    "orchestrator/command",
    "orchestrator/commanded",
    // A registration is written down, and told.
    "registry/recorded",
    // An alert is written down, told, and struck off.
    "health/stored",
    "health/published",
];

/// Ends the process when the environment says that it is to end here.
///
/// # Panics
/// Where the name is none of [`POINTS`], in builds with debug assertions.
#[inline]
pub fn failpoint(name: &str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _unused_in_this_build = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{POINTS, VARIABLE};

    struct Armed {
        name: String,
        /// How often it is passed before it ends the process.
        left: AtomicU32,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub(super) fn pass(name: &str) {
        debug_assert!(POINTS.contains(&name), "{name} is not in POINTS");
        let Some(armed) = ARMED.get_or_init(read) else {
            return;
        };
        if armed.name == name && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a point may be anywhere, and is set by the test from outside"
    )]
    fn read() -> Option<Armed> {
        parse(&std::env::var(VARIABLE).ok()?)
    }

    fn parse(text: &str) -> Option<Armed> {
        let (name, count) = text.split_once('@').unwrap_or((text, "1"));
        Some(Armed {
            name: name.to_owned(),
            left: AtomicU32::new(count.parse().ok().filter(|count| *count > 0)?),
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_named_with_a_count() {
            let check = |text: &str, expect: Option<(&str, u32)>| {
                let armed = parse(text);
                let found = armed
                    .as_ref()
                    .map(|armed| (armed.name.as_str(), armed.left.load(Ordering::Relaxed)));
                assert_eq!(found, expect, "{text}");
            };
            check("a.b", Some(("a.b", 1)));
            check("a.b@3", Some(("a.b", 3)));
            check("a.b@0", None);
            check("a.b@x", None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_is_not_armed_does_nothing() {
        POINTS.iter().for_each(|name| failpoint(name));
    }
}
