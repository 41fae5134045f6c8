//! Why a run ended, as a class that decides what follows. Structured signals come first; the text of the
//! output is the last and careful step.
//!
//! | first | signal | class |
//! |---|---|---|
//! | 1 | the orchestrator's own reason to end it | liveness, progress, start-timeout, budget, … |
//! | 2 | what it said on its notify socket (`X_ALICIA_CAUSE`) | as said |
//! | 3 | the kernel or the keeper | out-of-memory, watchdog, lost |
//! | 4 | `on_exit.codes`, `success_exit_codes` and 0 | as said, success |
//! | 5 | `sysexits.h`: 75, 77, 78 | provider-limit, authentication, configuration |
//! | 6 | the last lines of output ([`output`]), after a failure only | port-taken, provider-limit, provider-quota |
//! | 7 | | crash |

pub mod output;

use alicia_contract::UnixSeconds;
use alicia_contract::fleet::ServiceSpec;
use alicia_contract::orchestrator::{Exit, ExitCause};

/// `EX_TEMPFAIL` of `sysexits.h`: try again later. Agents use it for a provider's limit.
const EX_TEMPFAIL: i32 = 75;
/// `EX_NOPERM`.
const EX_NOPERM: i32 = 77;
/// `EX_CONFIG`.
const EX_CONFIG: i32 = 78;

/// A class, and from when on it makes sense again, as somebody said it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Said {
    /// The class.
    pub class: ExitCause,
    /// The time that was given.
    pub resume_at: Option<UnixSeconds>,
}

/// All that is known of an end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'e> {
    /// The settings.
    pub(super) spec: &'e ServiceSpec,
    /// How it ended; `class` as far as the kernel and the keeper know it.
    pub(super) exit: &'e Exit,
    /// Why the orchestrator ended it, when it did.
    pub(super) own: Option<ExitCause>,
    /// What it said itself.
    pub(super) said: Option<Said>,
    /// What its output says.
    pub(super) output: Option<Said>,
}

/// The class of an end.
pub(super) fn classify(evidence: &Evidence<'_>) -> Said {
    let plain = |class| Said {
        class,
        resume_at: None,
    };
    let Evidence { spec, exit, .. } = *evidence;
    if let Some(own) = evidence.own {
        return plain(own);
    }
    if let Some(said) = evidence.said {
        return said;
    }
    if !exit.class.is_unknown() {
        return plain(exit.class);
    }
    let listed = exit
        .code
        .and_then(|code| spec.on_exit.codes.get(&code.to_string()));
    match (listed, exit.code) {
        (Some(class), _) => plain(*class),
        (None, Some(_)) if is_success(spec, exit) => plain(ExitCause::Success),
        (None, Some(EX_TEMPFAIL)) => Said {
            class: ExitCause::ProviderLimit,
            resume_at: evidence.output.and_then(|said| said.resume_at),
        },
        (None, Some(EX_NOPERM)) => plain(ExitCause::Authentication),
        (None, Some(EX_CONFIG)) => plain(ExitCause::Configuration),
        (None, Some(_)) => evidence.output.unwrap_or(plain(ExitCause::Crash)),
        (None, None) => plain(ExitCause::Crash),
    }
}

/// Whether the exit code counts as success.
pub(super) fn is_success(spec: &ServiceSpec, exit: &Exit) -> bool {
    exit.code.is_some_and(|code| {
        code == 0 || u8::try_from(code).is_ok_and(|code| spec.success_exit_codes.contains(&code))
    })
}

/// Whether the last lines of output may say something that nothing else does.
#[must_use]
pub fn wants_output(spec: &ServiceSpec, exit: &Exit) -> bool {
    let known = exit
        .code
        .is_none_or(|code| spec.on_exit.codes.contains_key(&code.to_string()));
    let settled = matches!(exit.code, Some(EX_NOPERM | EX_CONFIG));
    spec.on_exit.read_output
        && exit.class.is_unknown()
        && !known
        && !settled
        && !is_success(spec, exit)
}

/// A class as a program may say it of itself. What only the orchestrator or the kernel can know is not
/// taken from a program.
#[must_use]
pub fn of_word(word: &str) -> Option<ExitCause> {
    let class = match word.trim() {
        "success" => ExitCause::Success,
        "crash" => ExitCause::Crash,
        "out-of-memory" => ExitCause::OutOfMemory,
        "configuration" => ExitCause::Configuration,
        "port-taken" => ExitCause::PortTaken,
        "authentication" => ExitCause::Authentication,
        "provider-limit" | "provider-rate-limit" => ExitCause::ProviderLimit,
        "provider-quota" => ExitCause::ProviderQuota,
        _ => return None,
    };
    Some(class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(settings: serde_json::Value) -> ServiceSpec {
        serde_json::from_value(settings).expect("a service")
    }

    fn exit(code: Option<i32>, class: ExitCause) -> Exit {
        Exit {
            code,
            class,
            ..Exit::default()
        }
    }

    fn said(class: ExitCause) -> Said {
        Said {
            class,
            resume_at: Some(9.0),
        }
    }

    #[test]
    fn the_better_signal_wins() {
        let spec = spec(json!({ "command": "x", "success_exit_codes": [3],
            "on_exit": { "codes": { "75": "configuration", "9": "provider-quota" } } }));
        let unknown = ExitCause::Unknown;
        let check = |exit: Exit, own, said, output, expected| {
            let evidence = Evidence {
                spec: &spec,
                exit: &exit,
                own,
                said,
                output,
            };
            assert_eq!(classify(&evidence).class, expected, "{exit:?}");
        };
        let limit = Some(said(ExitCause::ProviderLimit));
        check(exit(Some(0), unknown), None, None, None, ExitCause::Success);
        check(exit(Some(3), unknown), None, None, None, ExitCause::Success);
        check(exit(Some(1), unknown), None, None, None, ExitCause::Crash);
        check(exit(None, unknown), None, None, limit, ExitCause::Crash);
        check(
            exit(Some(1), unknown),
            None,
            None,
            limit,
            ExitCause::ProviderLimit,
        );
        check(
            exit(Some(0), unknown),
            None,
            None,
            limit,
            ExitCause::Success,
        );
        check(
            exit(Some(0), unknown),
            None,
            limit,
            None,
            ExitCause::ProviderLimit,
        );
        check(
            exit(Some(77), unknown),
            None,
            None,
            limit,
            ExitCause::Authentication,
        );
        check(
            exit(Some(78), unknown),
            None,
            None,
            None,
            ExitCause::Configuration,
        );
        check(
            exit(Some(75), unknown),
            None,
            None,
            None,
            ExitCause::Configuration,
        );
        check(
            exit(Some(9), unknown),
            None,
            None,
            None,
            ExitCause::ProviderQuota,
        );
        check(
            exit(None, ExitCause::OutOfMemory),
            None,
            None,
            limit,
            ExitCause::OutOfMemory,
        );
        check(
            exit(None, ExitCause::OutOfMemory),
            Some(ExitCause::Liveness),
            limit,
            limit,
            ExitCause::Liveness,
        );
    }

    #[test]
    fn a_program_cannot_say_what_only_others_can_know() {
        for word in ["operator", "liveness", "host-shutdown", "", "unknown"] {
            assert_eq!(of_word(word), None, "{word}");
        }
        assert_eq!(
            of_word(" provider-rate-limit"),
            Some(ExitCause::ProviderLimit)
        );
    }

    #[test]
    fn output_is_read_only_after_a_failure_that_nothing_explains() {
        let plain = spec(json!({ "command": "x" }));
        let check = |code, expected| {
            let found = wants_output(&plain, &exit(code, ExitCause::Unknown));
            assert_eq!(found, expected, "{code:?}");
        };
        check(Some(1), true);
        check(Some(75), true);
        check(Some(0), false);
        check(Some(78), false);
        check(None, false);
        let off = spec(json!({ "command": "x", "on_exit": { "read_output": false } }));
        assert!(!wants_output(&off, &exit(Some(1), ExitCause::Unknown)));
    }
}
