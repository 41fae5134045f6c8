//! Random fleets under random faults, from a seed. [`World`] checks after each event what must always be true: no two
//! living copies of one slot and epoch, epochs that rise, no process that the core does not know, starts within the
//! limit, first starts after what they need. At the end every stop ends, and a fleet that is left alone comes to rest.
//!
//! `ALICIA_SIMULATION_SEEDS=100000` runs so many seeds, `ALICIA_SIMULATION_SEED=7` just the one that was printed,
//! and tells its story.
//! In release builds: `cargo test --release -p alicia-orchestrator simulation`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alicia_contract::InstanceId;
use alicia_contract::fleet::Fleet;
use alicia_contract::orchestrator::Verb;
use serde_json::{Value, json};

use super::world::{World, name, slot};
use crate::core::event::{Counters, Event, Role, SpawnFault, Verdict};

/// Seeds of a run that names no number: some seconds of a debug build.
const SEEDS_DEFAULT: u64 = 1_500;

/// Events before the end of each story.
const EVENTS_MAX: usize = 120;

/// Rounds after which everything must be over: a stop that is not heard is repeated in each.
const ROUNDS_MAX: u32 = 60;

/// Rounds of a fleet that is left alone, and how long each is: longer than the hour of a budget in all, and shorter
/// than the time in which an agent must make a step.
const RESTING_ROUNDS: u32 = 100;
const RESTING: Duration = Duration::from_secs(60);

const SERVICES_MAX: usize = 6;

#[test]
fn no_seed_breaks_a_rule() {
    let number = |variable: &str| {
        #[expect(
            clippy::disallowed_methods,
            reason = "the number of seeds is chosen from outside"
        )]
        let text = std::env::var(variable).ok()?;
        Some(text.parse::<u64>().expect("a number of seeds"))
    };
    if let Some(seed) = number("ALICIA_SIMULATION_SEED") {
        let mut story = Story::new(seed);
        story.world.is_told = true;
        return story.play();
    }
    let seeds = number("ALICIA_SIMULATION_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.load(Ordering::Relaxed) != u64::MAX {
                        return;
                    }
                    let story = AssertUnwindSafe(|| Story::new(seed).play());
                    if catch_unwind(story).is_err() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(
        failed == u64::MAX,
        "a rule is broken: run again with ALICIA_SIMULATION_SEED={failed}"
    );
}

/// One fleet and what happens to it.
struct Story {
    random: fastrand::Rng,
    world: World,
    names: Vec<String>,
    /// The fleet before the file was changed last.
    before: Fleet,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let services = services(&mut random);
        let names = services
            .as_object()
            .expect("a map")
            .keys()
            .cloned()
            .collect();
        let mut world = World::new(services);
        let groups = groups(&mut random);
        world.fleet.groups = serde_json::from_value(groups).expect("groups");
        world.desired();
        let before = world.fleet.clone();
        Self {
            random,
            world,
            names,
            before,
        }
    }

    fn play(mut self) {
        for _ in 0..self.random.usize(0..EVENTS_MAX) {
            self.happen();
        }
        match self.random.bool() {
            true => self.shut_down(),
            false => self.come_to_rest(),
        }
    }

    fn shut_down(mut self) {
        self.world.tell(Event::Shutdown);
        for round in 0..ROUNDS_MAX {
            self.world.answer_spawns();
            self.world.finish_stops();
            self.world.pass(Duration::from_secs(15));
            if round == ROUNDS_MAX / 2 {
                self.world.tell(Event::ShutdownOverdue);
            }
        }
        assert!(
            self.world.core.is_quiet(),
            "a stop did not end: {:?}",
            self.world.core
        );
        assert!(
            self.world.held.is_empty(),
            "a process is left: {:?}",
            self.world.held
        );
    }

    /// Nothing bad happens any more: what is started by a person comes up, whatever was before.
    fn come_to_rest(mut self) {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        for name in &names {
            // What needs one of none would wait for ever.
            self.world.command(Verb::Scale, &[name], Some(1));
        }
        self.world.command(Verb::Start, &names, None);
        // What is held still waits for a person.
        self.world.command(Verb::Resume, &names, None);
        for round in 0..RESTING_ROUNDS {
            self.world.answer_spawns();
            self.world.finish_stops();
            self.make_progress(round);
            for instance in self.world.watched.keys().cloned().collect::<Vec<_>>() {
                self.world.judge(&instance, Role::Readiness, Verdict::Good);
            }
            for instance in self.jobs() {
                self.world.end(&instance, Some(0));
            }
            self.world.pass(RESTING);
        }
        let all: Vec<_> = self.world.fleet.services.keys().cloned().collect();
        assert!(
            self.world.core.is_settled(&all, Duration::MAX),
            "the fleet does not come to rest: {:?}\n{:#?}",
            self.updates(),
            self.world.core.status(0.0)
        );
    }

    /// The updates that are under way.
    fn updates(&self) -> Vec<String> {
        let services = self.world.core.services.iter();
        let under_way = services.filter_map(|(name, service)| {
            let update = service.update.as_ref()?;
            Some(format!("{name}: {update:?}, {} wanted", service.wanted))
        });
        under_way.collect()
    }

    /// Everybody gets on with its work.
    fn make_progress(&mut self, round: u32) {
        for instance in self.world.held.keys().cloned().collect::<Vec<_>>() {
            let counters = Counters {
                // More than any event before.
                steps: Some(1e9 + f64::from(round)),
                ..Counters::default()
            };
            self.world.tell(Event::Counted(instance, counters));
        }
    }

    /// Runs of services that others need to have completed.
    fn jobs(&self) -> Vec<InstanceId> {
        let held = self.world.held.iter().filter(|(_, held)| held.lives());
        held.filter(|(_, held)| held.command.starts_with("job"))
            .map(|(instance, _)| instance.clone())
            .collect()
    }

    fn pick(&mut self) -> Option<InstanceId> {
        let count = self.world.held.len();
        let which = self.random.usize(0..count.max(1));
        self.world.held.keys().nth(which).cloned()
    }

    fn happen(&mut self) {
        match self.random.u8(0..100) {
            0..20 => self.world.answer_spawn(None),
            20..23 => {
                let fault = match self.random.bool() {
                    true => SpawnFault::Lasting,
                    false => SpawnFault::Passing,
                };
                self.world.answer_spawn(Some(fault("it cannot".into())));
            }
            23..33 => self.world.finish_stops(),
            33..36 => self.world.lose_stops(),
            36..48 => {
                let ms = 10_u64.pow(self.random.u32(0..6));
                self.world
                    .pass(Duration::from_millis(self.random.u64(0..=ms)));
            }
            48..58 => self.command(),
            58..61 => self.change_file(),
            61..63 => {
                let dead = self.random.bool();
                self.world.lose_keeper(dead);
                // People go on asking meanwhile.
                for _ in 0..self.random.usize(0..3) {
                    self.command();
                }
                self.world.sync();
            }
            63..65 => self.world.crash_host(),
            65 => {
                let base = self.before.clone();
                self.world.crash_host_during(&base);
            }
            66 => self.set_clock(),
            67..70 => self.happen_to_load(),
            _ => self.happen_to_one(),
        }
    }

    /// Somebody sets the wall clock.
    fn set_clock(&mut self) {
        let by_s = [-86_400.0, -3_600.0, -1.0, 1.0, 3_600.0, 86_400.0];
        self.world.set_s += by_s[self.random.usize(0..by_s.len())];
    }

    /// The load of a service changes, or health says something of an instance.
    fn happen_to_load(&mut self) {
        let found = name(&self.names[self.random.usize(0..self.names.len())]);
        let event = match self.random.u8(0..5) {
            0 => Event::Called(found),
            1 => Event::Idle(found),
            2 | 3 => Event::Scaled(found, self.random.u32(0..5)),
            _ => {
                let slot = slot(found.as_str(), self.random.u32(1..4));
                Event::Ill(slot, self.world.unix(), "it says so".into())
            }
        };
        self.world.tell(event);
    }

    fn happen_to_one(&mut self) {
        let Some(instance) = self.pick() else {
            return;
        };
        match self.random.u8(0..34) {
            0..9 => {
                let codes = [None, Some(0), Some(1), Some(75), Some(77), Some(78)];
                let code = codes[self.random.usize(0..codes.len())];
                self.world.end(&instance, code);
            }
            9..11 => {
                // Only a leader that lives can fork.
                let held = self.world.held.get_mut(&instance);
                if let Some(held) = held.filter(|held| held.lives()) {
                    held.children = true;
                }
            }
            11..15 => self.world.empty(&instance),
            15..28 => {
                let role = match self.random.bool() {
                    true => Role::Readiness,
                    false => Role::Liveness,
                };
                let verdict = match self.random.u8(0..5) {
                    0 => Verdict::Bad("refused".into()),
                    _ => Verdict::Good,
                };
                self.world.judge(&instance, role, verdict);
            }
            28..31 => {
                let fields = self.fields();
                self.world.tell(Event::Notified(instance, fields));
            }
            _ => {
                let counters = Counters {
                    steps: Some(self.random.f64() * 100.0),
                    tokens: Some(self.random.f64() * 1e6),
                    cost_usd: Some(self.random.f64()),
                    action: Some("read".into()),
                };
                self.world.tell(Event::Counted(instance, counters));
            }
        }
    }

    fn fields(&mut self) -> BTreeMap<String, String> {
        let until = self.world.unix() + f64::from(self.random.u32(0..600));
        let all = [
            ("READY", "1".to_owned()),
            ("STOPPING", "1".to_owned()),
            ("WATCHDOG", "1".to_owned()),
            ("WATCHDOG", "trigger".to_owned()),
            ("STATUS", "at work".to_owned()),
            ("X_ALICIA_CAUSE", "provider-limit".to_owned()),
            ("X_ALICIA_CAUSE", "configuration".to_owned()),
            ("X_ALICIA_CAUSE", "nonsense".to_owned()),
            ("X_ALICIA_RESUME_AT", until.to_string()),
            ("X_ALICIA_STEPS", "x".to_owned()),
        ];
        let count = self.random.usize(1..4);
        let chosen = std::iter::repeat_with(|| all[self.random.usize(0..all.len())].clone());
        chosen
            .take(count)
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }

    fn command(&mut self) {
        let verbs = Verb::ALL;
        let verb = verbs[self.random.usize(0..verbs.len())];
        let name = self.names[self.random.usize(0..self.names.len())].clone();
        let all = verb != Verb::Scale && self.random.u8(0..5) == 0;
        let names: Vec<&str> = if all { Vec::new() } else { vec![&name] };
        let instances = self.random.u32(0..4);
        self.world.command(verb, &names, Some(instances));
    }

    /// One service gets another command, or goes.
    fn change_file(&mut self) {
        let found = name(&self.names[self.random.usize(0..self.names.len())]);
        let mut fleet = self.world.fleet.clone();
        let before = std::mem::replace(&mut self.before, fleet.clone());
        let is_needed = fleet
            .services
            .values()
            .any(|spec| spec.depends_on.0.contains_key(&found));
        if self.random.u8(0..6) == 0 {
            // Back to what was before, perhaps in the middle of an update.
            fleet.services = before.services;
            self.names = fleet.services.keys().map(ToString::to_string).collect();
        } else if self.random.u8(0..4) == 0 && !is_needed && fleet.services.len() > 1 {
            fleet.services.remove(&found);
            self.names.retain(|name| *name != found.as_str());
        } else if let Some(spec) = fleet.services.get_mut(&found) {
            let spec = Arc::make_mut(spec);
            let words = vec!["serve".to_owned(), self.random.u8(..).to_string()];
            if !spec.command_is_job() {
                spec.command = alicia_contract::fleet::Command::List(words);
            }
            spec.instances = self.random.u32(0..4);
        }
        self.world.fleet = fleet;
        self.world.desired();
    }
}

trait Job {
    fn command_is_job(&self) -> bool;
}

impl Job for alicia_contract::fleet::ServiceSpec {
    fn command_is_job(&self) -> bool {
        matches!(&self.command, alicia_contract::fleet::Command::List(words) if words[0] == "job")
    }
}

fn groups(random: &mut fastrand::Rng) -> Value {
    let strategies = ["one-for-one", "one-for-all", "rest-for-one"];
    let mut supervision = || {
        json!({
            "strategy": strategies[random.usize(0..strategies.len())],
            "restarts": random.u32(0..6),
            "within": "1m",
        })
    };
    json!({
        "inner": { "parent": "outer", "supervision": supervision() },
        "outer": { "supervision": supervision() },
    })
}

fn services(random: &mut fastrand::Rng) -> Value {
    let count = random.usize(1..=SERVICES_MAX);
    let mut services = json!({});
    for index in 0..count {
        let is_job = random.u8(0..5) == 0;
        let mut spec = match is_job {
            true => json!({ "command": ["job"], "restart": "on-failure" }),
            false => {
                json!({ "command": ["serve", index.to_string()], "instances": random.u32(0..4) })
            }
        };
        spec["start_limit"] = json!({ "starts": random.u32(0..7), "within": "1m" });
        if random.u8(0..3) == 0 {
            spec["readiness"] = json!({ "tcp": { "port": 1 } });
            spec["start_timeout"] = json!("20s");
        }
        if random.u8(0..3) == 0 {
            spec["liveness"] = json!({ "tcp": { "port": 1 } });
        }
        if random.u8(0..3) == 0 {
            spec["groups"] = json!([if random.bool() { "inner" } else { "outer" }]);
        }
        if random.u8(0..4) == 0 && !is_job {
            let strategies = ["rolling", "blue-green", "canary", "recreate"];
            let strategy = strategies[random.usize(0..strategies.len())];
            spec["update"] =
                json!({ "strategy": strategy, "min_healthy": "1s", "deadline": "30s" });
        }
        if random.u8(0..6) == 0 && !is_job {
            spec["on_demand"] = json!({});
        } else if random.u8(0..6) == 0 && !is_job {
            spec["scaling"] = json!({ "min": 0, "max": 4, "cpu": 0.5 });
        }
        if random.u8(0..5) == 0 {
            let then = ["pause", "checkpoint", "restart", "kill", "ask"];
            spec["progress"] = json!({ "within": "2m", "then": then[random.usize(0..then.len())] });
        }
        if random.u8(0..5) == 0 {
            spec["budget"] =
                json!({ "restarts_per_hour": random.u32(1..6), "tokens_per_day": 1_000_000_000 });
        }
        let mut needs = json!({});
        for earlier in 0..index {
            if random.u8(0..4) == 0 {
                let found = format!("s{earlier}");
                let condition = match services[&found]["command"][0] == "job" {
                    true => "completed",
                    false => ["started", "healthy"][random.usize(0..2)],
                };
                needs[&found] = json!(condition);
            }
        }
        spec["depends_on"] = needs;
        services[format!("s{index}")] = spec;
    }
    services
}
