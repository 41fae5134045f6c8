//! The rule against a model of a service whose instances come up, break and go as they like.

use std::collections::BTreeMap;

use alicia_contract::Period;
use alicia_contract::fleet::CanarySpec;
use proptest::prelude::*;

use super::*;

/// Steps without an event after which a rule that goes round in circles is found out.
const STEPS_MAX: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Coming,
    Ready(Duration),
    Broken,
}

/// A service as an update sees it: versions 0 (old) and 1 (new).
#[derive(Debug)]
struct Model {
    settings: UpdateSpec,
    wanted: u32,
    target: u8,
    phase: Phase,
    slots: BTreeMap<u32, (u8, Life, Duration)>,
    now: Duration,
    ended: Option<u8>,
    /// No old one has broken by itself so far.
    old_are_well: bool,
}

impl Model {
    fn new(settings: UpdateSpec, wanted: u32) -> Self {
        let phase = match settings.strategy {
            UpdateStrategy::Canary => Phase::Canary,
            _ => Phase::Forward,
        };
        let slots =
            (1..=wanted).map(|slot| (slot, (0, Life::Ready(Duration::ZERO), Duration::ZERO)));
        Self {
            settings,
            wanted,
            target: 1,
            phase,
            slots: slots.collect(),
            now: Duration::from_secs(100),
            ended: None,
            old_are_well: true,
        }
    }

    fn seen(&self) -> Vec<Seen> {
        let condition = |life: Life, since: Duration| match life {
            Life::Coming => Condition::Coming(Some(since)),
            Life::Ready(since) => Condition::Ready(since),
            Life::Broken => Condition::Broken("exit code 1".into()),
        };
        let slots = self.slots.iter();
        slots
            .map(|(slot, (version, life, since))| Seen {
                slot: *slot,
                on_target: *version == self.target,
                condition: condition(*life, *since),
            })
            .collect()
    }

    fn ready(&self) -> usize {
        let lives = self.slots.values();
        lives
            .filter(|(_, life, _)| matches!(life, Life::Ready(_)))
            .count()
    }

    /// Follows the rule until it has nothing more to say.
    fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.ended.is_some() {
                return;
            }
            let instances = self.seen();
            let steps = next(
                &self.phase,
                &View {
                    settings: &self.settings,
                    wanted: self.wanted,
                    instances: &instances,
                    now: self.now,
                },
            );
            let mut moved = false;
            let before = self.ready();
            for step in steps {
                moved |= self.take(step);
            }
            let lost = before.saturating_sub(self.ready());
            assert!(
                lost == 0 || self.ready() >= self.wanted as usize,
                "it took away what served: {self:?}"
            );
            if !moved {
                return;
            }
        }
        panic!("the rule does not come to rest: {self:?}");
    }

    fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Add => {
                let free = (1..)
                    .find(|slot| !self.slots.contains_key(slot))
                    .expect("a number");
                self.slots
                    .insert(free, (self.target, Life::Coming, self.now));
            }
            Step::Retire(slot) => drop(self.slots.remove(&slot)),
            Step::Proceed => self.phase = Phase::Forward,
            Step::Finish => self.ended = Some(self.target),
            Step::Fail(why) => {
                self.phase = Phase::Reverting(why);
                self.target = 0;
            }
            Step::Wait(at) => {
                assert!(at > self.now, "it waits for the past");
                return false;
            }
        }
        true
    }

    /// An event of the outside: something with the instance of this rank.
    fn happen(&mut self, which: usize, what: u8, ms: u64) {
        self.now += Duration::from_millis(ms);
        let now = self.now;
        let rank = which % self.slots.len().max(1);
        if let Some((version, life, since)) = self.slots.values_mut().nth(rank) {
            match (what, *life) {
                (0..=3, Life::Coming) => *life = Life::Ready(now),
                (4, _) => {
                    self.old_are_well &= *version == 1;
                    *life = Life::Broken;
                }
                (5, Life::Broken) => (*life, *since) = (Life::Coming, now),
                _ => {}
            }
        }
        self.settle();
    }
}

fn settings() -> impl Strategy<Value = UpdateSpec> {
    let strategy = prop_oneof![
        Just(UpdateStrategy::Rolling),
        Just(UpdateStrategy::BlueGreen),
        Just(UpdateStrategy::Canary)
    ];
    (strategy, 1_u32..4, 1_u32..4, 0_u64..5_000, 1_u32..4).prop_map(
        |(strategy, surge, parallel, min_healthy_ms, canaries)| UpdateSpec {
            strategy,
            surge,
            parallel,
            min_healthy: Period::from_millis(min_healthy_ms),
            deadline: Period::from_secs(20),
            canary: CanarySpec {
                instances: canaries,
                watched: Period::from_secs(3),
            },
            auto_revert: true,
        },
    )
}

proptest! {
    #[test]
    fn it_ends_all_new_or_all_old_and_never_takes_away_what_serves(
        settings in settings(),
        wanted in 0_u32..6,
        events in prop::collection::vec((any::<usize>(), 0_u8..8, 0_u64..3_000), 0..80),
    ) {
        let mut model = Model::new(settings, wanted);
        model.settle();
        for (which, what, ms) in events {
            let well = model.ready() >= wanted as usize && model.old_are_well;
            let broke_ready = what == 4;
            model.happen(which, what, ms);
            // Only what broke by itself may be missing.
            if well && !broke_ready {
                prop_assert!(model.ready() >= wanted as usize, "{model:?}");
            }
        }
        // Left alone, everything comes up, and the update ends.
        for _ in 0..200 {
            for slot in 0..model.slots.len() {
                model.happen(slot, 0, 0);
                model.happen(slot, 5, 0);
            }
            model.happen(0, 7, 1_000);
        }
        prop_assert!(model.ended.is_some(), "it never ends: {model:?}");
        let target = model.target;
        prop_assert!(model.slots.values().all(|(version, ..)| *version == target), "a mixture: {model:?}");
        prop_assert_eq!(model.slots.len(), wanted as usize);
    }

    #[test]
    fn no_more_run_than_wanted_and_surge(
        settings in settings(),
        wanted in 1_u32..6,
        rounds in 1_usize..60,
    ) {
        let above = match settings.strategy {
            UpdateStrategy::BlueGreen => wanted,
            UpdateStrategy::Canary => settings.surge.max(settings.canary.instances),
            _ => settings.surge,
        };
        let mut model = Model::new(settings, wanted);
        model.settle();
        for round in 0..rounds {
            model.happen(round, 0, 700);
            let most = (wanted + above) as usize;
            prop_assert!(model.slots.len() <= most, "{} run, at most {most}: {model:?}", model.slots.len());
        }
    }
}

fn rolling(wanted: u32) -> Model {
    let settings = UpdateSpec {
        min_healthy: Period::from_secs(5),
        ..UpdateSpec::default()
    };
    let mut model = Model::new(settings, wanted);
    model.settle();
    model
}

fn versions(model: &Model) -> Vec<(u32, u8)> {
    let slots = model.slots.iter();
    slots
        .map(|(slot, (version, ..))| (*slot, *version))
        .collect()
}

#[test]
fn an_old_one_goes_only_when_a_new_one_was_ready_for_long_enough() {
    let mut model = rolling(2);
    assert_eq!(versions(&model), [(1, 0), (2, 0), (3, 1)]);
    model.happen(2, 0, 0);
    assert_eq!(versions(&model), [(1, 0), (2, 0), (3, 1)]);
    model.happen(0, 7, 5_000);
    assert_eq!(versions(&model), [(1, 1), (2, 0), (3, 1)]);
    model.happen(0, 0, 0);
    model.happen(0, 7, 5_000);
    assert_eq!(versions(&model), [(1, 1), (3, 1)]);
    assert_eq!(model.ended, Some(1));
}

#[test]
fn one_that_breaks_or_is_late_brings_the_old_settings_back() {
    let check = |what: u8, ms: u64| {
        let mut model = rolling(2);
        model.happen(2, what, ms);
        assert_eq!(versions(&model), [(1, 0), (2, 0)], "{model:?}");
        assert_eq!((model.ended, model.target), (Some(0), 0));
    };
    check(4, 0);
    check(7, 120_000);
}

#[test]
fn canaries_are_watched_before_the_rest_follows() {
    let settings = UpdateSpec {
        strategy: UpdateStrategy::Canary,
        min_healthy: Period::from_secs(1),
        ..UpdateSpec::default()
    };
    let mut model = Model::new(settings, 3);
    model.settle();
    model.happen(3, 0, 0);
    model.happen(0, 7, 29_000);
    assert_eq!((model.phase.clone(), model.slots.len()), (Phase::Canary, 4));
    model.happen(0, 7, 1_000);
    assert_eq!(model.phase, Phase::Forward);
    assert_eq!(versions(&model), [(1, 1), (2, 0), (3, 0), (4, 1)]);
}

#[test]
fn blue_green_changes_over_in_one_step() {
    let settings = UpdateSpec {
        strategy: UpdateStrategy::BlueGreen,
        min_healthy: Period::from_secs(1),
        ..UpdateSpec::default()
    };
    let mut model = Model::new(settings, 2);
    model.settle();
    assert_eq!(model.slots.len(), 4);
    model.happen(2, 0, 0);
    model.happen(0, 7, 2_000);
    assert_eq!(model.slots.len(), 4);
    model.happen(3, 0, 0);
    model.happen(0, 7, 2_000);
    assert_eq!(versions(&model), [(3, 1), (4, 1)]);
}
