//! What follows ends, progress, budgets, supervision: values that must make sense together.

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Budget, ExitMatch, Fleet};

use super::{Report, Service};
use crate::nearest::{nearest, one_of};
use crate::tree::pointer_to;

/// Groups above each other; the orchestrator follows no more.
const DEPTH_MAX: usize = 32;

/// Signals that end a process or can be sent to one, by name.
const SIGNALS: [&str; 20] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGPWR",
    "SIGSYS",
];

pub(super) fn check(service: &mut Service<'_, '_>) {
    check_on_exit(service);
    check_progress(service);
    check_start_limit(service);
    if let Some(budget) = &service.spec.budget
        && let Some((part, message, hint)) = fault_of_budget(budget)
    {
        service.fault(&format!("budget/{part}"), message, hint);
    }
    check_groups_of(service);
}

fn check_on_exit(service: &mut Service<'_, '_>) {
    let on_exit = &service.spec.on_exit;
    for code in on_exit.codes.keys() {
        if !code.parse::<u8>().is_ok_and(|code| code > 0) {
            let message = format!("`{code}` is no exit code of a failure");
            let pointer = pointer_to(&service.pointer("on_exit/codes"), code);
            service.report.key(&pointer, message, "use 1 to 255");
        }
    }
    for (part, list) in [
        ("prevent_restart", &on_exit.prevent_restart),
        ("force_restart", &on_exit.force_restart),
    ] {
        for (index, entry) in list.iter().enumerate() {
            let ExitMatch::Signal(signal) = entry else {
                continue;
            };
            if SIGNALS.contains(&signal.as_str()) {
                continue;
            }
            let hint = match nearest(signal, SIGNALS) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("use {}", one_of(SIGNALS)),
            };
            let message = format!("there is no signal `{signal}` that ends a process");
            service.fault(&format!("on_exit/{part}/{index}"), message, hint);
        }
    }
    let both = on_exit
        .prevent_restart
        .iter()
        .find(|entry| on_exit.force_restart.contains(entry));
    if let Some(entry) = both {
        let shown = match entry {
            ExitMatch::Code(code) => code.to_string(),
            ExitMatch::Signal(signal) => signal.clone(),
        };
        let message = format!("`{shown}` is in `prevent_restart` and in `force_restart`");
        service.fault("on_exit", message, "remove it from one of them");
    }
    if on_exit.park_for.duration().is_zero() {
        let message = "`park_for` is 0s, so that it starts again at once";
        service.fault("on_exit/park_for", message, "write for example `1m`");
    }
}

fn check_progress(service: &mut Service<'_, '_>) {
    let Some(progress) = &service.spec.progress else {
        return;
    };
    let nothing = progress.within.is_none()
        && progress.repeat.is_none()
        && progress.tokens_per_minute.is_none()
        && progress.cost_per_hour.is_none();
    if nothing {
        let message = "`progress` does not say what to look at";
        let hint = "add `within`, `repeat`, `tokens_per_minute` or `cost_per_hour`";
        service.fault("progress", message, hint);
    }
    if progress
        .within
        .is_some_and(|within| within.duration().is_zero())
    {
        let message = "`within` is 0s, so that no step is ever in time";
        service.fault("progress/within", message, "write for example `5m`");
    }
    if progress.repeat.is_some_and(|repeat| repeat < 2) {
        let message = "doing something once is no repetition";
        service.fault("progress/repeat", message, "use 2 or more");
    }
}

fn check_start_limit(service: &mut Service<'_, '_>) {
    if service.spec.start_limit.retry_every.duration().is_zero() {
        let message = "`retry_every` is 0s, which is a crash loop without an end";
        let hint = "write for example `5m`, or `give_up: true`";
        service.fault("start_limit/retry_every", message, hint);
    }
}

fn fault_of_budget(budget: &Budget) -> Option<(&'static str, String, String)> {
    let costs = budget.cost_per_day_usd.is_some_and(|cost| cost < 0.0);
    let nothing = *budget == Budget::default();
    if costs {
        let message = "a cost below zero is no limit".to_owned();
        return Some(("cost_per_day_usd", message, "use 0 or more".to_owned()));
    }
    nothing.then(|| {
        let hint = "add `tokens_per_day`, `cost_per_day_usd`, `restarts_per_hour` or `wall_clock`"
            .to_owned();
        ("", "`budget` limits nothing".to_owned(), hint)
    })
}

/// A service has one supervisor.
fn check_groups_of(service: &mut Service<'_, '_>) {
    let groups = &service.fleet.groups;
    let supervising: Vec<&str> = service
        .spec
        .groups
        .iter()
        .filter(|name| {
            let group = groups.get(*name);
            group.is_some_and(|group| group.supervision.is_some())
        })
        .map(ServiceName::as_str)
        .collect();
    if let [_, _, ..] = supervising.as_slice() {
        let message = format!("it is supervised by {} groups", supervising.len());
        let hint = format!("keep one of {}", one_of(supervising.iter().copied()));
        service.fault("groups", message, hint);
    }
}

/// The groups as a whole: parents that exist, no circles, somebody in each.
pub(super) fn check_groups(fleet: &Fleet, report: &mut Report<'_>) {
    let named: Vec<&str> = fleet
        .services
        .values()
        .flat_map(|spec| &spec.groups)
        .chain(
            fleet
                .groups
                .values()
                .filter_map(|group| group.parent.as_ref()),
        )
        .map(ServiceName::as_str)
        .collect();
    for (name, group) in &fleet.groups {
        let pointer = pointer_to("/groups", name.as_str());
        if !named.contains(&name.as_str()) {
            let hint = match nearest(name.as_str(), named.iter().copied()) {
                Some(other) => format!("did you mean `{other}`?"),
                None => format!("write `groups: [{name}]` in a service"),
            };
            report.key(
                &pointer,
                format!("no service is in the group `{name}`"),
                hint,
            );
        }
        if let Some(budget) = &group.budget
            && let Some((part, message, hint)) = fault_of_budget(budget)
        {
            report.value(&format!("{pointer}/budget/{part}"), message, hint);
        }
        check_parent(fleet, report, name);
    }
}

fn check_parent(fleet: &Fleet, report: &mut Report<'_>, name: &ServiceName) {
    let parent_of = |name: &ServiceName| {
        fleet
            .groups
            .get(name)
            .and_then(|group| group.parent.clone())
    };
    let Some(parent) = parent_of(name) else {
        return;
    };
    let pointer = format!("{}/parent", pointer_to("/groups", name.as_str()));
    if !fleet.groups.contains_key(&parent) {
        let others = || fleet.groups.keys().filter(|other| *other != name);
        let hint = match nearest(parent.as_str(), others().map(ServiceName::as_str)) {
            Some(other) => format!("did you mean `{other}`?"),
            None => format!("add `{parent}: {{supervision: {{}}}}` to `groups`"),
        };
        report.value(&pointer, format!("there is no group `{parent}`"), hint);
        return;
    }
    let mut above = Some(parent);
    for _ in 0..DEPTH_MAX {
        match above {
            Some(found) if found == *name => {
                let message = format!("the group `{name}` is above itself");
                report.value(&pointer, message, "remove one `parent` of the circle");
                return;
            }
            Some(found) => above = parent_of(&found),
            None => return,
        }
    }
    let message = format!("more than {DEPTH_MAX} groups above each other, or a circle of them");
    report.value(&pointer, message, "remove one `parent`");
}
