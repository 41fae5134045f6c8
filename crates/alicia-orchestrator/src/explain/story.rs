//! The story of one slot, from its history and its present. Pure.

use alicia_contract::UnixSeconds;
use alicia_contract::fleet::Condition;
use alicia_contract::orchestrator::{
    Exit, ExitCause, Explanation, InstanceState, InstanceStatus, ServiceStatus, SlotExplanation,
    Step, StepKind, Transition,
};

use crate::history::{Entry, Past};

/// Links of the chain that are told; older ones are of an earlier story.
const STEPS_MAX: usize = 24;

/// Whether as many instances as are wanted are as a dependent needs them. After an update their numbers need not be
/// the first ones.
pub(super) fn meets(needed: &ServiceStatus, condition: Condition) -> bool {
    let good = needed.instances.iter().filter(|instance| match condition {
        _ if instance.state == InstanceState::Completed => true,
        Condition::Started => matches!(
            instance.state,
            InstanceState::Starting | InstanceState::Running
        ),
        Condition::Healthy => instance.state == InstanceState::Running,
        Condition::Completed => false,
    });
    needed.wanted > 0 && good.count() >= needed.wanted as usize
}

/// Why one slot is where it is.
pub(super) fn of_slot(
    service: &ServiceStatus,
    instance: &InstanceStatus,
    past: &Past,
    now: UnixSeconds,
) -> SlotExplanation {
    let name = format!("{}-{}", service.service, instance.slot);
    let mut entries: Vec<&Entry> = past
        .own
        .iter()
        .filter(|(slot, _)| *slot == instance.slot || *slot == 0)
        .map(|(_, entry)| entry)
        .chain(&past.starts)
        .collect();
    entries.sort_by(|a, b| a.at().total_cmp(&b.at()));
    let steps = chain(&entries);
    SlotExplanation {
        summary: summary(&name, instance, &steps, now),
        next: next(instance, now),
        instance: name,
        state: instance.state,
        since: instance.since,
        steps,
    }
}

/// The whole service in one sentence.
pub(super) fn of_service(
    service: &ServiceStatus,
    slots: &[SlotExplanation],
    held_back_by: &[Explanation],
) -> String {
    let name = &service.service;
    if slots.is_empty() {
        return format!(
            "{name} has no instances and none is wanted now: it has `instances: 0`, was scaled to 0, or runs on demand and \
             nobody is connected."
        );
    }
    if let [only] = slots {
        return with_root(only.summary.clone(), held_back_by);
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for slot in slots {
        let word = word(slot.state);
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    with_root(
        format!(
            "{name} has {} instances: {}.",
            slots.len(),
            counts.join(", ")
        ),
        held_back_by,
    )
}

/// Adds the end of the chain of dependencies: what all the waiting comes down to.
fn with_root(summary: String, held_back_by: &[Explanation]) -> String {
    let mut root = held_back_by.first();
    while let Some(deeper) = root.and_then(|root| root.held_back_by.first()) {
        root = Some(deeper);
    }
    match root {
        Some(root) => format!("{summary} It comes down to this: {}", root.summary),
        None => summary,
    }
}

/// The newest links of the chain, the oldest of them first.
fn chain(entries: &[&Entry]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut told: Option<&Exit> = None;
    for entry in entries {
        let mut links = links(entry);
        // One that is given up, or parked, while it waits for another try is shown with the end from before.
        if let Entry::Transition(transition) = entry
            && let Some(exit) = &transition.exit
        {
            if told == Some(exit) {
                links.retain(|link| link.kind != StepKind::Exit);
            } else if links.iter().any(|link| link.kind == StepKind::Exit) {
                told = Some(exit);
            }
        }
        for step in links {
            fold(&mut steps, step);
        }
    }
    let surplus = steps.len().saturating_sub(STEPS_MAX);
    steps.drain(..surplus);
    steps
}

/// What happened again and again is one link: a pair of links that repeats itself is counted.
fn fold(steps: &mut Vec<Step>, step: Step) {
    let same = |a: &Step, b: &Step| {
        a.kind == b.kind && a.text == b.text && a.cause == b.cause && a.by == b.by
    };
    for back in 1..=4_usize.min(steps.len()) {
        let at = steps.len() - back;
        let repeats = same(&steps[at], &step) && step.kind != StepKind::Command;
        // Only what lies between the two and is known from before may be passed over.
        let between_is_repeated = steps[at + 1..]
            .iter()
            .all(|link| link.kind != StepKind::Command);
        if repeats && between_is_repeated {
            let mut again = steps.remove(at);
            again.times += 1;
            again.at = step.at;
            // Of the last of them, also when that one said nothing.
            again.last_lines = step.last_lines;
            steps.push(again);
            return;
        }
    }
    steps.push(step);
}

fn links(entry: &Entry) -> Vec<Step> {
    let plain = |at, kind, text: String| Step {
        at,
        kind,
        text,
        by: None,
        cause: ExitCause::Unknown,
        times: 1,
        last_lines: Vec::new(),
    };
    match entry {
        Entry::Transition(transition) => of_transition(transition),
        Entry::Command {
            at,
            verb,
            by,
            reason,
        } => {
            let because = reason
                .as_ref()
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default();
            let text = format!("{by} asked to {verb} it{because}");
            vec![Step {
                by: Some(by.clone()),
                ..plain(*at, StepKind::Command, text)
            }]
        }
        Entry::Host { at, version } => vec![plain(
            *at,
            StepKind::Host,
            format!("the host started (version {version})"),
        )],
        Entry::Keeper { at } => vec![plain(
            *at,
            StepKind::Keeper,
            "a new keeper started: the one before it, or the machine, had ended".to_owned(),
        )],
    }
}

/// A change, and before it the end that brought it about.
fn of_transition(transition: &Transition) -> Vec<Step> {
    let mut steps = Vec::new();
    let ended = matches!(
        transition.to,
        InstanceState::Backoff
            | InstanceState::Failed
            | InstanceState::Completed
            | InstanceState::Parked
    );
    if let Some(exit) = transition.exit.as_ref().filter(|_| ended) {
        steps.push(Step {
            at: exit.at,
            kind: StepKind::Exit,
            text: format!("it ended: {}", exit.cause),
            by: None,
            cause: exit.class,
            times: 1,
            last_lines: transition.last_lines.clone(),
        });
    }
    let text = match transition.to {
        to if to == transition.from => transition.reason.clone(),
        InstanceState::Waiting => format!("it waits: {}", transition.reason),
        // Of what repeats itself, the process id would make each one new.
        InstanceState::Starting => "its process started".to_owned(),
        InstanceState::Running => format!("it was ready: {}", transition.reason),
        InstanceState::Backoff => "it is to be started again".to_owned(),
        InstanceState::Stopping => format!("it was asked to end: {}", transition.reason),
        InstanceState::Stopped => format!("it was stopped: {}", transition.reason),
        InstanceState::Completed => "it is done".to_owned(),
        InstanceState::Failed => format!("it failed: {}", transition.reason),
        InstanceState::Parked => format!("it was parked: {}", transition.reason),
        InstanceState::Paused => format!("it was paused: {}", transition.reason),
    };
    steps.push(Step {
        at: transition.at,
        kind: StepKind::Transition,
        text,
        by: None,
        cause: if steps.is_empty() {
            transition.cause
        } else {
            ExitCause::Unknown
        },
        times: 1,
        last_lines: Vec::new(),
    });
    steps
}

fn word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Waiting => "waiting",
        InstanceState::Starting => "starting",
        InstanceState::Running => "running",
        InstanceState::Backoff => "about to be restarted",
        InstanceState::Stopping => "stopping",
        InstanceState::Stopped => "stopped",
        InstanceState::Completed => "completed",
        InstanceState::Failed => "failed",
        InstanceState::Parked => "parked",
        InstanceState::Paused => "paused",
    }
}

fn summary(name: &str, instance: &InstanceStatus, steps: &[Step], now: UnixSeconds) -> String {
    let reason = &instance.reason;
    let asked = steps
        .iter()
        .rev()
        .find(|step| step.kind == StepKind::Command)
        .and_then(|step| step.by.clone());
    let by = || {
        asked
            .map(|by| format!(" ({by} asked last)"))
            .unwrap_or_default()
    };
    let since = span(now - instance.since);
    match instance.state {
        InstanceState::Running if instance.restarts > 0 => {
            let cause = instance.exit.as_ref().map_or_else(String::new, |exit| {
                format!(", the last time because of this: {}", exit.cause)
            });
            let times = match instance.restarts {
                1 => "once".to_owned(),
                times => format!("{times} times"),
            };
            format!("{name} has been running for {since}; it was restarted {times}{cause}.")
        }
        InstanceState::Running => format!("{name} has been running for {since}: {reason}."),
        InstanceState::Stopped => format!("{name} has been stopped for {since}: {reason}{}.", by()),
        InstanceState::Completed => format!("{name} is done since {since}: {reason}."),
        InstanceState::Paused => format!("{name} has been paused for {since}: {reason}."),
        state => format!("{name} is {} since {since}: {reason}.", word(state)),
    }
}

fn next(instance: &InstanceStatus, now: UnixSeconds) -> Option<String> {
    let at = || instance.next_start.map(|at| span(at - now));
    match instance.state {
        InstanceState::Backoff => at().map(|wait| format!("it is started again in {wait}")),
        InstanceState::Parked => {
            at().map(|wait| format!("it starts in {wait}; `alicia resume` starts it now"))
        }
        InstanceState::Failed => Some(match at() {
            Some(wait) => format!("it is tried again in {wait}; `alicia start` tries it now"),
            None => "nothing, until somebody says `alicia start`".to_owned(),
        }),
        InstanceState::Paused => Some("nothing, until somebody says `alicia resume`".to_owned()),
        InstanceState::Running => instance.attention.clone(),
        _ => None,
    }
}

/// A length of time in its two largest units.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds are shown whole and not negative"
)]
fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes, rest) = (
        whole / 86_400,
        whole / 3_600 % 24,
        whole / 60 % 60,
        whole % 60,
    );
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::{Epoch, ServiceName};

    fn change(at: f64, from: InstanceState, to: InstanceState, reason: &str) -> Entry {
        let ended = matches!(to, InstanceState::Backoff | InstanceState::Failed);
        Entry::Transition(Box::new(Transition {
            service: ServiceName::new("api").expect("a name"),
            slot: 1,
            instance: None,
            epoch: Epoch(1),
            from,
            to,
            reason: reason.to_owned(),
            exit: ended.then(|| Exit {
                code: Some(1),
                cause: "exit code 1".to_owned(),
                class: ExitCause::Crash,
                at,
                ..Exit::default()
            }),
            cause: ExitCause::Unknown,
            next_start: None,
            last_lines: if ended {
                vec![format!("line of {at}")]
            } else {
                Vec::new()
            },
            pid: Some(7),
            restarts: 0,
            at,
        }))
    }

    #[test]
    fn the_lines_of_an_end_that_repeats_itself_are_those_of_the_last() {
        let ended = |at, lines: &[&str]| {
            let Entry::Transition(mut end) = change(
                at,
                InstanceState::Running,
                InstanceState::Failed,
                "exit code 1",
            ) else {
                unreachable!("a change is a transition")
            };
            end.last_lines = lines.iter().map(ToString::to_string).collect();
            Entry::Transition(end)
        };
        let lines = |entries: &[Entry]| {
            let steps = chain(&entries.iter().collect::<Vec<_>>());
            let exit = steps.iter().find(|step| step.kind == StepKind::Exit);
            let exit = exit.expect("it ended");
            (exit.times, exit.last_lines.clone())
        };
        let (loud, silent) = (ended(1.0, &["boom"]), ended(2.0, &[]));
        assert_eq!(lines(&[loud.clone(), silent.clone()]), (2, Vec::new()));
        assert_eq!(lines(&[silent, loud]), (2, vec!["boom".to_owned()]));
    }

    #[test]
    fn an_end_is_told_once_however_often_what_follows_it_changes() {
        use InstanceState::{Backoff, Failed, Parked, Running};
        let ended = change(1.0, Running, Backoff, "exit code 1");
        let Entry::Transition(again) = &ended else {
            unreachable!("a change is a transition")
        };
        // Its budget is used up before it starts again: it never ran in between, and so said nothing.
        let mut parked = again.clone();
        (parked.from, parked.to, parked.at) = (Backoff, Parked, 2.0);
        parked.reason = "its budget is used up".to_owned();
        parked.last_lines.clear();
        let next = change(3.0, Running, Failed, "exit code 1");
        let (parked, ends) = (Entry::Transition(parked), |entries: &[&Entry]| {
            let steps = chain(entries);
            assert!(
                steps
                    .iter()
                    .any(|step| step.text.contains("its budget is used up"))
            );
            let exits = steps.into_iter().filter(|step| step.kind == StepKind::Exit);
            exits
                .map(|end| (end.times, end.last_lines))
                .collect::<Vec<_>>()
        });
        let line = |text: &str| vec![text.to_owned()];
        assert_eq!(ends(&[&ended, &parked]), [(1, line("line of 1"))]);
        assert_eq!(ends(&[&ended, &parked, &next]), [(2, line("line of 3"))]);
    }

    fn service(state: InstanceState, reason: &str) -> ServiceStatus {
        ServiceStatus {
            service: ServiceName::new("api").expect("a name"),
            description: None,
            wanted: 1,
            depends_on: std::collections::BTreeMap::new(),
            restart: alicia_contract::fleet::RestartPolicy::Always,
            groups: Vec::new(),
            instances: vec![InstanceStatus {
                slot: 1,
                state,
                since: 100.0,
                reason: reason.to_owned(),
                next_start: Some(400.0),
                ..InstanceStatus::default()
            }],
        }
    }

    #[test]
    fn a_crash_loop_is_told_once_with_its_count_and_what_comes_next() {
        use InstanceState::{Backoff, Failed, Running, Starting, Waiting};
        let mut own = vec![
            (
                0,
                Entry::Command {
                    at: 1.0,
                    verb: "start".into(),
                    by: "key/ann".into(),
                    reason: Some("try it".into()),
                },
            ),
            (1, change(2.0, Waiting, Starting, "its process runs")),
            (1, change(3.0, Starting, Running, "its process runs")),
        ];
        for at in 0..5 {
            let at = 10.0 + f64::from(at);
            own.push((1, change(at, Running, Backoff, "exit code 1")));
            own.push((1, change(at + 0.2, Backoff, Starting, "its process runs")));
            own.push((1, change(at + 0.3, Starting, Running, "its process runs")));
        }
        own.push((
            1,
            change(100.0, Running, Failed, "exit code 1; 6 starts within 1m"),
        ));
        let past = Past {
            own,
            starts: vec![Entry::Host {
                at: 0.5,
                version: "1.2.3".into(),
            }],
        };
        let status = service(Failed, "exit code 1; 6 starts within 1m");
        let told = of_slot(&status, &status.instances[0], &past, 160.0);
        let texts: Vec<(&str, u32)> = told
            .steps
            .iter()
            .map(|step| (step.text.as_str(), step.times))
            .collect();
        assert_eq!(
            texts,
            [
                ("the host started (version 1.2.3)", 1),
                ("key/ann asked to start it: try it", 1),
                ("it is to be started again", 5),
                ("its process started", 6),
                ("it was ready: its process runs", 6),
                ("it ended: exit code 1", 6),
                ("it failed: exit code 1; 6 starts within 1m", 1),
            ]
        );
        let exit = &told.steps[5];
        assert_eq!((exit.cause, exit.at), (ExitCause::Crash, 100.0));
        assert_eq!(exit.last_lines, ["line of 100"]);
        assert_eq!(
            told.summary,
            "api-1 is failed since 1m 0s: exit code 1; 6 starts within 1m."
        );
        assert_eq!(
            told.next.as_deref(),
            Some("it is tried again in 4m 0s; `alicia start` tries it now")
        );
    }

    #[test]
    fn a_dependency_is_met_or_not() {
        let check = |state, condition, expected| {
            let found = meets(&service(state, ""), condition);
            assert_eq!(found, expected, "{state:?} {condition:?}");
        };
        check(InstanceState::Running, Condition::Healthy, true);
        check(InstanceState::Starting, Condition::Healthy, false);
        check(InstanceState::Starting, Condition::Started, true);
        check(InstanceState::Completed, Condition::Completed, true);
        check(InstanceState::Running, Condition::Completed, false);
        check(InstanceState::Parked, Condition::Started, false);
    }

    #[test]
    fn commands_are_never_folded_and_the_chain_is_bounded() {
        let command = |n: u32| Entry::Command {
            at: f64::from(n),
            verb: "restart".into(),
            by: "key/bob".into(),
            reason: None,
        };
        let entries: Vec<Entry> = (0..60).map(command).collect();
        let steps = chain(&entries.iter().collect::<Vec<_>>());
        assert_eq!(steps.len(), STEPS_MAX);
        assert!(steps.iter().all(|step| step.times == 1));
        assert_eq!(steps.last().map(|step| step.at), Some(59.0));
    }

    #[test]
    fn a_dependency_is_met_by_as_many_as_are_wanted_whatever_their_numbers_are() {
        let mut needed = service(InstanceState::Running, "it is ready");
        needed.instances[0].slot = 2;
        assert!(meets(&needed, Condition::Healthy));
        needed.wanted = 2;
        assert!(!meets(&needed, Condition::Healthy), "one is missing");
        // The old one of an update that goes on is on its way out.
        let mut leaving = needed.instances[0].clone();
        (leaving.slot, leaving.state) = (1, InstanceState::Stopping);
        needed.instances.push(leaving);
        needed.wanted = 1;
        assert!(meets(&needed, Condition::Started));
        assert!(!meets(&needed, Condition::Completed));
    }
}
