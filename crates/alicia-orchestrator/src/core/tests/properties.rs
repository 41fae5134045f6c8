//! Random events against the model keeper. [`World`] checks after each of them what must always be true:
//! no two living runs in one slot, no spawn while a dependency is missing, epochs that rise, starts within
//! the limit, and no run in the keeper that the core does not know.

use std::time::Duration;

use alicia_contract::InstanceId;
use alicia_contract::orchestrator::Verb;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{World, fleet};
use crate::core::event::{Event, Role, SpawnFault, Verdict};

/// Rounds after which a shutdown must be over: a stop that is not heard is repeated in each.
const SHUTDOWN_ROUNDS_MAX: u32 = 50;

#[derive(Debug, Clone)]
enum Happening {
    AnswerSpawn,
    FailSpawn {
        lasting: bool,
    },
    End {
        which: usize,
        code: Option<i32>,
    },
    Fork {
        which: usize,
    },
    Empty {
        which: usize,
    },
    FinishStops,
    LoseStops,
    Pass {
        ms: u64,
    },
    Judge {
        which: usize,
        role: Role,
        good: bool,
    },
    Command {
        verb: Verb,
        service: usize,
        instances: u32,
    },
    File {
        variant: usize,
    },
    LoseKeeper {
        dead: bool,
    },
    CrashHost,
}

const SERVICES: [&str; 4] = ["web", "api", "db", "migrate"];

fn variant(number: usize) -> Value {
    let base = json!({
        "web": { "command": "web", "depends_on": ["api"], "instances": 2 },
        "api": { "command": "api", "depends_on": { "db": "healthy", "migrate": "completed" },
                 "liveness": { "tcp": { "port": 1 } } },
        "db": { "command": "db", "readiness": { "tcp": { "port": 1 } }, "start_timeout": "5s" },
        "migrate": { "command": "m", "restart": "on-failure", "depends_on": { "db": "started" } },
    });
    let mut changed = base;
    match number {
        1 => changed["db"]["command"] = json!("db --new"),
        2 => changed["web"]["instances"] = json!(1),
        3 => drop(changed.as_object_mut().expect("a map").remove("web")),
        4 => changed["api"]["start_limit"] = json!({ "starts": 2, "within": "1m" }),
        5 => changed["migrate"]["restart"] = json!("never"),
        6..=8 => {
            let strategy = ["rolling", "blue-green", "recreate"][number - 6];
            for name in ["web", "api", "db"] {
                changed[name]["command"] = json!(format!("{name} --{strategy}"));
                changed[name]["update"] = json!({ "strategy": strategy, "min_healthy": "2s" });
            }
        }
        _ => {}
    }
    changed
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        Just(Verb::Start),
        Just(Verb::Stop),
        Just(Verb::Restart),
        Just(Verb::Scale)
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    let role = prop_oneof![Just(Role::Readiness), Just(Role::Liveness)];
    let code = prop_oneof![Just(None), Just(Some(0)), Just(Some(1))];
    prop_oneof![
        8 => Just(Happening::AnswerSpawn),
        1 => any::<bool>().prop_map(|lasting| Happening::FailSpawn { lasting }),
        5 => (any::<usize>(), code).prop_map(|(which, code)| Happening::End { which, code }),
        1 => any::<usize>().prop_map(|which| Happening::Fork { which }),
        2 => any::<usize>().prop_map(|which| Happening::Empty { which }),
        4 => Just(Happening::FinishStops),
        1 => Just(Happening::LoseStops),
        4 => (0_u64..20_000).prop_map(|ms| Happening::Pass { ms }),
        6 => (any::<usize>(), role, prop::bool::weighted(0.8))
            .prop_map(|(which, role, good)| Happening::Judge { which, role, good }),
        3 => (verb(), 0_usize..5, 0_u32..4).prop_map(|(verb, service, instances)| {
            Happening::Command { verb, service, instances }
        }),
        1 => (0_usize..9).prop_map(|variant| Happening::File { variant }),
        1 => any::<bool>().prop_map(|dead| Happening::LoseKeeper { dead }),
        1 => Just(Happening::CrashHost),
    ]
}

fn pick(world: &World, which: usize) -> Option<InstanceId> {
    let count = world.held.len();
    (count > 0)
        .then(|| world.held.keys().nth(which % count).cloned())
        .flatten()
}

fn happen(world: &mut World, happening: &Happening) {
    match *happening {
        Happening::AnswerSpawn => world.answer_spawn(None),
        Happening::FailSpawn { lasting } => {
            let fault = if lasting {
                SpawnFault::Lasting
            } else {
                SpawnFault::Passing
            };
            world.answer_spawn(Some(fault("it cannot".into())));
        }
        Happening::Pass { ms } => world.pass(Duration::from_millis(ms)),
        Happening::FinishStops => world.finish_stops(),
        Happening::LoseStops => world.lose_stops(),
        Happening::Command {
            verb,
            service,
            instances,
        } => {
            let name: Vec<&str> = SERVICES.get(service).copied().into_iter().collect();
            world.command(verb, &name, Some(instances));
        }
        Happening::File { variant: number } => {
            world.fleet = fleet(variant(number));
            world.desired();
        }
        Happening::LoseKeeper { dead } => {
            world.lose_keeper(dead);
            world.sync();
        }
        Happening::CrashHost => world.crash_host(),
        Happening::End { which, .. }
        | Happening::Fork { which }
        | Happening::Empty { which }
        | Happening::Judge { which, .. } => {
            if let Some(instance) = pick(world, which) {
                happen_to(world, &instance, happening);
            }
        }
    }
}

fn happen_to(world: &mut World, instance: &InstanceId, happening: &Happening) {
    match happening {
        Happening::End { code, .. } => world.end(instance, *code),
        Happening::Empty { .. } => world.empty(instance),
        Happening::Fork { .. } => {
            // Only a leader that lives can fork.
            if let Some(held) = world.held.get_mut(instance).filter(|held| held.lives()) {
                held.children = true;
            }
        }
        Happening::Judge { role, good, .. } => {
            let verdict = if *good {
                Verdict::Good
            } else {
                Verdict::Bad("refused".into())
            };
            world.judge(instance, *role, verdict);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold_and_a_shutdown_ends(
        happenings in prop::collection::vec(happening(), 0..120)
    ) {
        let mut world = World::new(variant(0));
        for happening in &happenings {
            happen(&mut world, happening);
        }
        world.tell(Event::Shutdown);
        for _ in 0..SHUTDOWN_ROUNDS_MAX {
            world.answer_spawns();
            world.finish_stops();
            world.pass(Duration::from_secs(15));
        }
        prop_assert!(world.core.is_quiet(), "not quiet: {:?}", world.core);
        prop_assert!(world.held.is_empty());
    }

    #[test]
    fn left_alone_the_fleet_comes_to_rest_and_everything_wanted_runs(
        happenings in prop::collection::vec(happening(), 0..60)
    ) {
        let mut world = World::new(variant(0));
        for happening in &happenings {
            happen(&mut world, happening);
        }
        world.command(Verb::Start, &SERVICES, None);
        for _ in 0..SHUTDOWN_ROUNDS_MAX {
            world.answer_spawns();
            world.finish_stops();
            let watched: Vec<_> = world.watched.keys().cloned().collect();
            for instance in watched {
                world.judge(&instance, Role::Readiness, Verdict::Good);
            }
            if world.is_running("migrate", 1) {
                world.end(&world.run("migrate", 1), Some(0));
            }
            world.pass(Duration::from_secs(15));
        }
        let all: Vec<_> = world.fleet.services.keys().cloned().collect();
        prop_assert!(world.core.is_settled(&all, Duration::MAX), "{:#?}", world.core.status(0.0));
    }
}
