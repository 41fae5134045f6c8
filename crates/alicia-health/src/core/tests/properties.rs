//! What holds whatever happens: replay is exact, episodes pair, a held-up monitor blames nobody.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::story::{Story, TICK_MS};
use super::*;

/// One step of a story.
#[derive(Debug, Clone)]
enum Step {
    Enter(&'static str, InstanceState),
    Change(&'static str, InstanceState),
    Show,
    Probe(&'static str, bool),
    Beat(&'static str, HeartbeatStatus),
    Link(Link),
    Wait(u64),
    Stall,
}

fn any_step() -> impl Strategy<Value = Step> {
    let service = prop::sample::select(vec!["api", "db"]);
    let state = prop::sample::select(vec![
        InstanceState::Waiting,
        InstanceState::Starting,
        InstanceState::Running,
        InstanceState::Backoff,
        InstanceState::Stopping,
        InstanceState::Stopped,
        InstanceState::Completed,
        InstanceState::Failed,
    ]);
    let status = prop::sample::select(vec![
        HeartbeatStatus::Healthy,
        HeartbeatStatus::Degraded,
        HeartbeatStatus::Unhealthy,
        HeartbeatStatus::Stopping,
        HeartbeatStatus::Offline,
    ]);
    prop_oneof![
        3 => (service.clone(), state.clone()).prop_map(|(s, state)| Step::Enter(s, state)),
        1 => (service.clone(), state).prop_map(|(s, state)| Step::Change(s, state)),
        1 => Just(Step::Show),
        3 => (service.clone(), any::<bool>()).prop_map(|(s, good)| Step::Probe(s, good)),
        2 => (service, status).prop_map(|(s, status)| Step::Beat(s, status)),
        1 => prop::sample::select(vec![Link::Up, Link::Down]).prop_map(Step::Link),
        3 => (1..80_u64).prop_map(|n| Step::Wait(n * TICK_MS)),
        1 => Just(Step::Stall),
    ]
}

fn play(story: &mut Story, step: &Step) {
    match step {
        Step::Enter(service, state) => story.enter(service, *state),
        Step::Change(service, state) => story.change(service, *state),
        Step::Show => story.show(),
        Step::Probe(service, good) => story.probe(service, *good),
        Step::Beat(service, status) => story.beat(service, *status),
        Step::Link(link) => story.tell(Event::Link(*link)),
        Step::Wait(ms) => story.wait(*ms),
        Step::Stall => {
            story.ms += 30_000;
            story.tell(Event::Tick);
        }
    }
}

proptest! {
    /// Of each id the news are: fired, perhaps changed, resolved once; and of one key only one fires.
    #[test]
    fn every_episode_fires_once_and_is_resolved_at_most_once(
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        let mut story = Story::new(&["api", "db"]);
        for step in &steps {
            play(&mut story, step);
            let firing: Vec<_> = story.monitor.book().firing()
                .map(|a| (a.rule.clone(), a.service.clone(), a.instance.clone(), a.labels.clone()))
                .collect();
            let distinct: BTreeSet<_> = firing.iter().map(|key| format!("{key:?}")).collect();
            prop_assert_eq!(firing.len(), distinct.len());
        }
        let ids: BTreeSet<&str> = story.news.iter().map(|alert| alert.id.as_str()).collect();
        for id in ids {
            let of: Vec<&Alert> = story.news.iter().filter(|alert| alert.id == id).collect();
            prop_assert_eq!(of[0].state, AlertState::Firing);
            let resolved = of.iter().filter(|alert| alert.state == AlertState::Resolved).count();
            let still = story.monitor.book().firing().any(|alert| alert.id == id);
            prop_assert_eq!(resolved, usize::from(!still), "{:?}", of);
            if resolved == 1 {
                prop_assert_eq!(of[of.len() - 1].state, AlertState::Resolved);
            }
        }
    }

    /// The same events give the same state; and repeating a message changes no alert.
    #[test]
    fn replay_is_exact_and_repeats_are_no_news(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut one = Story::new(&["api", "db"]);
        let mut two = Story::new(&["api", "db"]);
        let mut repeated = Story::new(&["api", "db"]);
        for step in &steps {
            play(&mut one, step);
            play(&mut two, step);
            prop_assert_eq!(&one.actions, &two.actions);
            play(&mut repeated, step);
            if matches!(step, Step::Enter(..) | Step::Show) {
                repeated.tell(Event::Status(Box::new(repeated.fleet.clone())));
            }
        }
        prop_assert_eq!(one.told(), two.told());
        prop_assert_eq!(one.told(), repeated.told());
    }

    /// Stopped services have no alerts, once it is known that they are stopped.
    #[test]
    fn what_is_stopped_is_silent(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut story = Story::new(&["api", "db"]);
        for step in &steps {
            play(&mut story, step);
        }
        story.enter("api", InstanceState::Stopped);
        story.enter("db", InstanceState::Stopped);
        story.wait(600_000);
        prop_assert_eq!(story.firing(), [""; 0]);
    }

    /// Right after the monitor was held up nobody is down, and nothing new fires before it has settled,
    /// unless it is said anew.
    #[test]
    fn a_stall_blames_nobody(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut story = Story::new(&["api", "db"]);
        for step in &steps {
            play(&mut story, step);
        }
        story.news.clear();
        play(&mut story, &Step::Stall);
        for service in ["api", "db"] {
            prop_assert!(story.state(service) != HealthState::Down);
            prop_assert!(story.state(service) != HealthState::Unhealthy);
        }
        story.wait(4_000);
        let fired = story.news.iter().filter(|alert| alert.state == AlertState::Firing).count();
        prop_assert_eq!(fired, 0, "{:?}", story.news);
    }
}
