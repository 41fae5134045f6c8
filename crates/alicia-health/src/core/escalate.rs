//! Escalation: a group of alerts of which nobody takes note is told to others, step by step, until somebody does.

use std::time::Duration;

use alicia_contract::health::Severity;
use alicia_contract::unit::UnixSeconds;
use serde::{Deserialize, Serialize};

use super::matcher::Compiled;

/// Who is told when nobody takes note.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What it is known by, also after a change of the file: its content. Two of the same content are one.
    pub key: String,
    /// Only alerts for which all of these hold.
    pub matchers: Vec<Compiled>,
    /// The steps, by their time.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How long nobody took note.
    pub after: Duration,
    /// The channels that are told then.
    pub channels: Vec<String>,
    /// How bad it is called from then on; none: as bad as its alerts.
    pub severity: Option<Severity>,
}

/// How far a group has come; stored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Climb {
    /// Since when nobody has taken note.
    pub since: UnixSeconds,
    /// How many steps were taken.
    pub done: usize,
}

impl Policy {
    /// The steps that are due, when nobody took note for `waited`; none when all were taken.
    #[must_use]
    pub fn due(&self, climb: Climb, waited: Duration) -> &[Step] {
        let open = self.steps.get(climb.done..).unwrap_or_default();
        let due = open.iter().take_while(|step| step.after <= waited).count();
        &open[..due]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_in_order_each_once() {
        let step = |after_s: u64, channel: &str| Step {
            after: Duration::from_secs(after_s),
            channels: vec![channel.to_owned()],
            severity: None,
        };
        let policy = Policy {
            key: "all".to_owned(),
            matchers: Vec::new(),
            steps: vec![step(300, "pager"), step(900, "boss")],
        };
        let due = |done: usize, waited_s: u64| {
            let climb = Climb { since: 0.0, done };
            let due = policy.due(climb, Duration::from_secs(waited_s));
            due.iter()
                .map(|step| step.channels[0].as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(due(0, 299), [""; 0]);
        assert_eq!(due(0, 300), ["pager"]);
        assert_eq!(due(1, 899), [""; 0]);
        assert_eq!(due(1, 900), ["boss"]);
        assert_eq!(
            due(0, 900),
            ["pager", "boss"],
            "after a long stop both are due"
        );
        assert_eq!(due(2, 9_000), [""; 0]);
        assert_eq!(
            due(7, 9_000),
            [""; 0],
            "the file has fewer steps than before"
        );
    }
}
