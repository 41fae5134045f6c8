//! Random events against the model keeper. [`World`] checks after each of them what must always be true:
//! no two living runs in one slot, no spawn while a dependency is missing, epochs that rise, starts within
//! the limit, and no run in the keeper that the core does not know.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::fleet::GroupSpec;
use alicia_contract::orchestrator::{Spent, Verb};
use alicia_contract::{InstanceId, ServiceName};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{World, fleet, name};
use crate::core::event::{Counters, Event, Role, SpawnFault, Verdict};

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
    Say {
        which: usize,
        words: usize,
    },
    Count {
        which: usize,
        tokens: u32,
        same: bool,
    },
    Spend {
        service: usize,
        cents: u32,
    },
    LoseKeeper {
        dead: bool,
    },
    CrashHost,
}

/// What may be said on a notify socket.
const WORDS: [(&str, &str); 8] = [
    ("READY", "1"),
    ("STOPPING", "1"),
    ("STATUS", "at work"),
    ("EXTEND_TIMEOUT_USEC", "9000000"),
    ("X_ALICIA_CAUSE", "provider-limit"),
    ("X_ALICIA_CAUSE", "configuration"),
    ("X_ALICIA_CHECKPOINT", "done"),
    ("X_ALICIA_RESUME_AT", "nonsense"),
];

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
        9..=13 => {
            let then = ["pause", "checkpoint", "restart", "kill", "ask"][number - 9];
            let progress =
                json!({ "within": "20s", "repeat": 2, "tokens_per_minute": 80, "then": then });
            for name in ["web", "api"] {
                changed[name]["progress"] = progress.clone();
            }
            changed["db"]["readiness"] = json!({ "notify": true });
        }
        14 => {
            changed["web"]["budget"] = json!({ "cost_per_day_usd": 1.0, "wall_clock": "1m" });
            changed["api"]["budget"] = json!({ "tokens_per_day": 100, "restarts_per_hour": 3 });
        }
        15..=17 => {
            let strategy = ["one-for-one", "rest-for-one", "one-for-all"][number - 15];
            let rules = json!({ "strategy": strategy, "restarts": 2, "within": "1m" });
            changed["web"]["supervision"] = rules;
            for name in ["web", "api", "db"] {
                changed[name]["groups"] = json!(["team"]);
            }
        }
        _ => {}
    }
    changed
}

/// The group of the last variants: its rules, and those of the one above it.
fn groups(number: usize) -> BTreeMap<ServiceName, GroupSpec> {
    let Some(strategy) = number
        .checked_sub(15)
        .and_then(|at| ["rest-for-one", "one-for-all", "one-for-one"].get(at))
    else {
        return BTreeMap::new();
    };
    let rules = json!({ "strategy": strategy, "restarts": 3, "within": "1m" });
    serde_json::from_value(json!({
        "team": { "parent": "all", "supervision": rules, "budget": { "tokens_per_day": 200 } },
        "all": { "supervision": { "restarts": 1 } },
    }))
    .expect("groups")
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        Just(Verb::Start),
        Just(Verb::Stop),
        Just(Verb::Restart),
        Just(Verb::Scale),
        Just(Verb::Pause),
        Just(Verb::Resume)
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    let role = prop_oneof![Just(Role::Readiness), Just(Role::Liveness)];
    let code = prop_oneof![
        4 => Just(None),
        4 => Just(Some(0)),
        4 => Just(Some(1)),
        1 => Just(Some(75)),
        1 => Just(Some(78)),
    ];
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
        2 => (0_usize..18).prop_map(|variant| Happening::File { variant }),
        3 => (any::<usize>(), 0..WORDS.len())
            .prop_map(|(which, words)| Happening::Say { which, words }),
        3 => (any::<usize>(), 0_u32..90, any::<bool>())
            .prop_map(|(which, tokens, same)| Happening::Count { which, tokens, same }),
        1 => (0_usize..4, 0_u32..80)
            .prop_map(|(service, cents)| Happening::Spend { service, cents }),
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
            world.fleet.groups = groups(number);
            world.desired();
        }
        Happening::LoseKeeper { dead } => {
            world.lose_keeper(dead);
            world.sync();
        }
        Happening::CrashHost => world.crash_host(),
        Happening::Spend { service, cents } => {
            let spent = Spent {
                id: format!("m{}", world.transitions.len()),
                service: name(SERVICES[service]),
                instance: None,
                tokens: 0,
                cost_usd: f64::from(cents) / 100.0,
                at: 0.0,
            };
            world.tell(Event::Spent(spent));
        }
        Happening::End { which, .. }
        | Happening::Fork { which }
        | Happening::Empty { which }
        | Happening::Say { which, .. }
        | Happening::Count { which, .. }
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
        Happening::Say { words, .. } => {
            let (field, word) = WORDS[*words];
            let fields = [(field.to_owned(), word.to_owned())].into();
            world.tell(Event::Notified(instance.clone(), fields));
        }
        Happening::Count { tokens, same, .. } => {
            let counters = Counters {
                tokens: Some(f64::from(*tokens)),
                action: Some(if *same {
                    "read".into()
                } else {
                    tokens.to_string()
                }),
                ..Counters::default()
            };
            world.tell(Event::Counted(instance.clone(), counters));
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
        for round in 1..SHUTDOWN_ROUNDS_MAX {
            world.answer_spawns();
            world.finish_stops();
            let watched: Vec<_> = world.watched.keys().cloned().collect();
            for instance in watched {
                world.judge(&instance, Role::Readiness, Verdict::Good);
            }
            // Agents say that they are ready, and get on.
            for instance in world.held.keys().cloned().collect::<Vec<_>>() {
                let ready = [("READY".to_owned(), "1".to_owned())].into();
                world.tell(Event::Notified(instance.clone(), ready));
                let counters = Counters {
                    steps: Some(f64::from(round)),
                    ..Counters::default()
                };
                world.tell(Event::Counted(instance, counters));
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
