//! The host dies by `kill -9`; the services do not notice, and nothing that they say or do is lost.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use alicia_contract::orchestrator::{InstanceState, ProcessRow};
use alicia_testkit::house::{House, is_alive};
use alicia_testkit::until;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const SERVICES: usize = 5;

const KILLS: u32 = 100;

/// A host starts in some 300 ms; so it dies before, while and after it takes the services over.
const LIFE_MS_MAX: u64 = 700;

/// Every so many kills the host is let come up, and says what it found.
const ASKED_EVERY: u32 = 10;

/// Lines without gap, as fast as a chatty service writes them.
const COUNTER: &str = r#"
import itertools, time
for number in itertools.count(1):
    print("line", number, flush=True)
    time.sleep(0.01)
"#;

fn counters() -> String {
    let mut file = "name: survival\nservices:\n".to_owned();
    for number in 1..=SERVICES {
        write!(
            file,
            "  counter-{number}:\n    command: [python3, -u, counter.py]\n    \
             readiness: {{log_line: {{contains: line 1}}}}\n"
        )
        .expect("a text");
    }
    file
}

fn pids(rows: &[ProcessRow]) -> BTreeMap<String, u32> {
    let pid = |row: &ProcessRow| row.pid.expect("it runs");
    rows.iter()
        .map(|row| (row.instance.clone(), pid(row)))
        .collect()
}

/// xorshift64 of Marsaglia (2003): enough to choose moments, and repeatable from the printed seed.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }

    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(self.0 % LIFE_MS_MAX)
    }
}

/// The numbers that a service wrote, from its log file.
fn numbers(house: &House, service: &str) -> Vec<u64> {
    let path = house.data().join(format!("logs/{service}/1.log"));
    let text = fs::read_to_string(path).expect("the log is there");
    let number = |line: &str| {
        let (_, number) = line.split_once(" line ")?;
        number.parse().ok()
    };
    text.lines()
        .map(|line| number(line).expect("each line holds a number"))
        .collect()
}

#[tokio::test]
async fn the_host_dies_a_hundred_times_and_the_services_do_not_notice() {
    let mut house = House::new(ALICIA, &counters());
    fs::write(house.path().join("counter.py"), COUNTER).expect("the program is written");
    house.start_host().await;
    let before = pids(&house.all_running().await);
    assert_eq!(before.len(), SERVICES);

    let mut moments = Moments::new();
    println!("seed {}", moments.0);
    for kill in 1..=KILLS {
        house.kill_host();
        house.spawn_host(&[]);
        if kill % ASKED_EVERY == 0 {
            house.host_answers().await;
            assert_eq!(
                pids(&house.all_running().await),
                before,
                "after kill {kill}"
            );
        } else {
            // Not a wait for something, but the random moment of the next kill.
            tokio::time::sleep(moments.next()).await;
        }
        for (instance, pid) in &before {
            let service = instance.strip_suffix("-1").expect("its slot");
            assert_eq!(
                house.processes_of(service),
                [*pid],
                "{instance} after kill {kill}"
            );
        }
    }

    house.host_answers().await;
    let after = house.all_running().await;
    assert_eq!(pids(&after), before);
    assert!(after.iter().all(|row| row.restarts == 0), "{after:?}");

    house.says(&["stop"]).exits(0);
    for number in 1..=SERVICES {
        let service = format!("counter-{number}");
        house
            .reaches(&format!("{service}-1"), InstanceState::Stopped)
            .await;
        let numbers = numbers(&house, &service);
        let complete: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert!(
            numbers.len() > 1_000,
            "{service} wrote {} lines",
            numbers.len()
        );
        assert!(
            numbers == complete,
            "{service}: {}",
            first_difference(&numbers)
        );
    }
}

fn first_difference(numbers: &[u64]) -> String {
    let mut text = String::new();
    for (at, number) in numbers.iter().enumerate() {
        if *number != at as u64 + 1 {
            write!(text, "line {} holds the number {number}", at + 1).expect("a text");
            break;
        }
    }
    text
}

const LEAVERS: &str = r#"
services:
  fails: {command: [sh, -c, 'while [ ! -e go ]; do sleep 0.05; done; exec sh -c "exit 7"']}
  done:
    command: [sh, -c, 'while [ ! -e go ]; do sleep 0.05; done; echo all done']
    restart: on-failure
  stays: {command: [sleep, '1000']}
"#;

#[tokio::test]
async fn what_ends_while_the_host_is_away_is_known_when_it_is_back() {
    let mut house = House::start(ALICIA, LEAVERS).await;
    let before = pids(&house.all_running().await);
    house.kill_host();

    fs::write(house.path().join("go"), "").expect("the sign is given");
    for instance in ["fails-1", "done-1"] {
        let pid = before[instance];
        until(&format!("{instance} has ended"), || async {
            !is_alive(pid)
        })
        .await;
    }
    fs::remove_file(house.path().join("go")).expect("the sign is taken away");

    house.start_host().await;
    let fails = house.reaches("fails-1", InstanceState::Running).await;
    let exit = fails.exit.expect("it ended");
    assert_eq!((exit.code, fails.restarts), (Some(7), 1), "{exit:?}");
    assert_eq!(exit.cause, "exit code 7");
    assert_ne!(fails.pid, Some(before["fails-1"]));

    let done = house.reaches("done-1", InstanceState::Completed).await;
    assert_eq!(
        (done.exit.expect("it ended").code, done.restarts),
        (Some(0), 0)
    );

    let stays = house.reaches("stays-1", InstanceState::Running).await;
    assert_eq!((stays.pid, stays.restarts), (Some(before["stays-1"]), 0));
}

#[tokio::test]
async fn a_host_that_cannot_start_leaves_alone_what_an_earlier_one_started() {
    let mut house = House::start(ALICIA, "services: {api: {command: [sleep, '1000']}}\n").await;
    let before = pids(&house.all_running().await);
    house.kill_host();
    // The last module cannot open its database, when all the others run.
    let database = |end: &str| house.data().join(format!("data/dashboard.db{end}"));
    let [whole, log, shared] = ["", "-wal", "-shm"].map(database);
    for path in [&log, &shared] {
        // They are there only while there is something to write back.
        fs::remove_file(path).ok();
    }
    let kept = fs::read(&whole).expect("a database");
    fs::write(
        &whole,
        "this is no database, whatever its name says\n".repeat(200),
    )
    .expect("written");
    house.spawn_host(&[]);
    let ended = house.host_ended().await;
    assert!(!ended.success(), "{}", house.host_log());
    assert_eq!(house.processes_of("api"), [before["api-1"]]);
    fs::write(&whole, kept).expect("written");
    house.start_host().await;
    assert_eq!(pids(&house.all_running().await), before);
}
