//! What follows an end: nothing, a restart, slow retries, a rest. The cause decides.

use alicia_contract::fleet::{ExitMatch, Reaction, RestartPolicy, ServiceSpec};
use alicia_contract::orchestrator::{Exit, ExitCause, InstanceState};

use super::event::SlotId;
use super::{Core, back_off};

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Follows {
    /// It is done.
    Completed,
    /// It is started again, up to the limit.
    Restart,
    /// It is tried again slowly.
    Slowly,
    /// It is parked.
    Park,
    /// It is given up; why.
    GivenUp(&'static str),
}

/// What follows an end, by the file, the policy and the cause, in this order.
pub(super) fn follows(spec: &ServiceSpec, exit: &Exit) -> Follows {
    let on_exit = &spec.on_exit;
    let success = exit.class == ExitCause::Success;
    let listed = |list: &[ExitMatch]| {
        // How the orchestrator itself ended it says nothing about the program.
        !is_own(exit.class)
            && list
                .iter()
                .any(|exit_match| exit_match.is_met_by(exit.code, exit.signal.as_deref()))
    };
    if listed(&on_exit.prevent_restart) {
        return done_or(success, Follows::GivenUp("it is in `prevent_restart`"));
    }
    if listed(&on_exit.force_restart) {
        return Follows::Restart;
    }
    match (on_exit.named(exit.class), spec.restart) {
        (Some(Reaction::Restart), _) => Follows::Restart,
        (Some(Reaction::Slowly), _) => Follows::Slowly,
        (Some(Reaction::Park), _) => Follows::Park,
        (Some(Reaction::Fail), _) => done_or(success, Follows::GivenUp("`on_exit` says so")),
        (None, RestartPolicy::Never) => done_or(success, Follows::GivenUp("it is never restarted")),
        (None, RestartPolicy::OnFailure) if success => Follows::Completed,
        (None, _) => by_cause(exit.class),
    }
}

fn done_or(success: bool, other: Follows) -> Follows {
    if success { Follows::Completed } else { other }
}

fn is_own(class: ExitCause) -> bool {
    matches!(
        class,
        ExitCause::Liveness
            | ExitCause::Progress
            | ExitCause::StartTimeout
            | ExitCause::Watchdog
            | ExitCause::Budget
            | ExitCause::Supervision
    )
}

/// The defaults: what a restart cannot mend is tried slowly, what time mends is parked.
fn by_cause(class: ExitCause) -> Follows {
    match class {
        ExitCause::Configuration | ExitCause::Authentication | ExitCause::ProgramNotFound => {
            Follows::Slowly
        }
        ExitCause::ProviderLimit | ExitCause::ProviderQuota => Follows::Park,
        _ => Follows::Restart,
    }
}

/// What a class adds to the words of an end; none, where these say it already.
pub(super) fn in_words(class: ExitCause) -> Option<&'static str> {
    match class {
        ExitCause::Configuration => Some("its configuration is wrong"),
        ExitCause::PortTaken => Some("a port is taken"),
        ExitCause::Authentication => Some("it was not let in"),
        ExitCause::ProviderLimit => Some("a provider asks for fewer requests"),
        ExitCause::ProviderQuota => Some("the quota at a provider is used up"),
        _ => None,
    }
}

impl Core {
    /// Decides what follows the end of a run that nobody asked for.
    pub(super) fn follow(&mut self, id: &SlotId, is_last: bool) {
        let Some(spec) = self.spec_of(id) else {
            return;
        };
        self.note_good_run(id);
        let Some(exit) = self.slot(id).and_then(|slot| slot.exit.clone()) else {
            return;
        };
        let cause = exit.cause.clone();
        let follows = if is_last {
            Follows::GivenUp("`alicia start` starts it again")
        } else {
            follows(&spec, &exit)
        };
        match follows {
            Follows::Completed => self.transition(id, InstanceState::Completed, cause),
            Follows::GivenUp(why) => {
                self.transition(id, InstanceState::Failed, format!("{cause}; {why}"));
            }
            Follows::Park => self.park(id, &cause, exit.resume_at),
            Follows::Slowly => self.fail_slowly(id, &cause),
            Follows::Restart => self.try_again(id, &cause),
        }
    }

    /// A run that was long enough makes up for what was before.
    fn note_good_run(&mut self, id: &SlotId) {
        let Some(spec) = self.spec_of(id) else {
            return;
        };
        let now = self.now.monotonic;
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        let started = slot.starts.back().copied().unwrap_or(now);
        if now.saturating_sub(started) >= spec.back_off.reset_after.duration() {
            slot.streak = 0;
            slot.slow = false;
            slot.parks = 0;
        }
    }

    /// Decides about the restart of a slot whose run does not do what it should.
    pub(super) fn try_again(&mut self, id: &SlotId, cause: &str) {
        let Some(spec) = self.spec_of(id) else {
            return;
        };
        if self.book_restart(&id.service) {
            return self.park_spent(id);
        }
        if self.supervise(id, cause) {
            return;
        }
        let (now, random) = (self.now, self.random.f64());
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        if slot.slow {
            return self.fail_slowly(id, cause);
        }
        let limit = &spec.start_limit;
        let within = limit.within.duration();
        slot.starts
            .retain(|start| now.monotonic.saturating_sub(*start) <= within);
        let starts = slot.starts.len();
        if limit.starts > 0 && starts >= limit.starts as usize {
            let reason = format!("{cause}; {starts} starts within {}", limit.within);
            return self.fail_slowly(id, &reason);
        }
        slot.streak = slot.streak.saturating_add(1);
        slot.restarts = slot.restarts.saturating_add(1);
        let wait = back_off::wait(&spec.back_off, slot.streak, random);
        slot.next_start = Some(now.unix + wait.as_secs_f64());
        self.transition(id, InstanceState::Backoff, cause.to_owned());
        let at = (!wait.is_zero()).then(|| now.monotonic + wait);
        self.set_slot_timer(id, at);
    }

    /// It does not work, and is tried again slowly, unless the file says to give it up.
    pub(super) fn fail_slowly(&mut self, id: &SlotId, cause: &str) {
        let Some(spec) = self.spec_of(id) else {
            return;
        };
        let limit = &spec.start_limit;
        if limit.give_up {
            return self.transition(id, InstanceState::Failed, format!("{cause}: given up"));
        }
        let now = self.now;
        let Some(slot) = self.slot_mut(id) else {
            return;
        };
        slot.slow = true;
        slot.bring_back = None;
        // Never more starts than the limit says, also when it is tried again often.
        let counted = slot.starts.len().checked_sub(limit.starts.max(1) as usize);
        let room_at = counted
            .and_then(|surplus| slot.starts.get(surplus))
            .map(|start| *start + limit.within.duration())
            .filter(|_| limit.starts > 0);
        let at = (now.monotonic + limit.retry_every.duration()).max(room_at.unwrap_or_default());
        let wait = at.saturating_sub(now.monotonic);
        slot.next_start = Some(now.unix + wait.as_secs_f64());
        let shown = alicia_contract::Period::from_millis(
            u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        );
        let reason = format!("{cause}; the next try is in {shown}");
        self.transition(id, InstanceState::Failed, reason);
        self.set_slot_timer(id, Some(at));
    }

    /// The time for another try of one that failed has come.
    pub(super) fn try_once_more(&mut self, id: &SlotId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.restarts = slot.restarts.saturating_add(1);
        }
        self.transition(id, InstanceState::Waiting, "it is tried again".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(settings: Value, exit: &Exit, expected: &Follows) {
        let mut with_command = settings.clone();
        with_command["command"] = json!("x");
        let spec: ServiceSpec = serde_json::from_value(with_command).expect("a service");
        assert_eq!(follows(&spec, exit), *expected, "{settings} {exit:?}");
    }

    fn ended(class: ExitCause) -> Exit {
        Exit {
            code: Some(1),
            class,
            ..Exit::default()
        }
    }

    #[test]
    fn each_cause_has_its_default() {
        let all = |class, expected: &Follows| check(json!({}), &ended(class), expected);
        for class in [
            ExitCause::Success,
            ExitCause::Crash,
            ExitCause::OutOfMemory,
            ExitCause::PortTaken,
            ExitCause::Liveness,
            ExitCause::Progress,
            ExitCause::StartTimeout,
            ExitCause::Watchdog,
            ExitCause::Lost,
        ] {
            all(class, &Follows::Restart);
        }
        for class in [
            ExitCause::Configuration,
            ExitCause::Authentication,
            ExitCause::ProgramNotFound,
        ] {
            all(class, &Follows::Slowly);
        }
        for class in [ExitCause::ProviderLimit, ExitCause::ProviderQuota] {
            all(class, &Follows::Park);
        }
    }

    #[test]
    fn the_file_comes_before_the_policy_and_the_policy_before_the_default() {
        let never = json!({ "restart": "never" });
        let on_failure = json!({ "restart": "on-failure" });
        let given_up = Follows::GivenUp("it is never restarted");
        check(never.clone(), &ended(ExitCause::ProviderLimit), &given_up);
        check(
            never.clone(),
            &ended(ExitCause::Success),
            &Follows::Completed,
        );
        check(
            on_failure.clone(),
            &ended(ExitCause::Success),
            &Follows::Completed,
        );
        check(on_failure, &ended(ExitCause::Crash), &Follows::Restart);
        let mut named = never;
        named["on_exit"] = json!({ "provider-limit": "park", "out-of-memory": "fail",
            "success": "restart", "crash": "slowly" });
        check(
            named.clone(),
            &ended(ExitCause::ProviderLimit),
            &Follows::Park,
        );
        check(named.clone(), &ended(ExitCause::Success), &Follows::Restart);
        check(named.clone(), &ended(ExitCause::Crash), &Follows::Slowly);
        check(
            named,
            &ended(ExitCause::OutOfMemory),
            &Follows::GivenUp("`on_exit` says so"),
        );
    }

    #[test]
    fn lists_of_exits_come_first_but_do_not_see_what_we_did_ourselves() {
        let lists = json!({ "restart": "never", "on_exit": {
            "prevent_restart": [3, "SIGTERM"], "force_restart": [4, "SIGHUP"] } });
        let exit = |code: Option<i32>, signal: Option<&str>, class| Exit {
            code,
            signal: signal.map(str::to_owned),
            class,
            ..Exit::default()
        };
        let crash = ExitCause::Crash;
        let prevented = Follows::GivenUp("it is in `prevent_restart`");
        check(lists.clone(), &exit(Some(3), None, crash), &prevented);
        check(
            lists.clone(),
            &exit(None, Some("SIGTERM"), crash),
            &prevented,
        );
        check(
            lists.clone(),
            &exit(Some(4), None, crash),
            &Follows::Restart,
        );
        check(
            lists.clone(),
            &exit(None, Some("SIGHUP"), crash),
            &Follows::Restart,
        );
        let never = Follows::GivenUp("it is never restarted");
        check(
            lists,
            &exit(None, Some("SIGTERM"), ExitCause::Liveness),
            &never,
        );
    }
}
