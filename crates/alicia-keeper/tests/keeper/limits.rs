//! Limits of whole trees are in force, or it is said why not, and an instance that breaks them hurts nobody else.

use std::path::{Path, PathBuf};

use alicia_keeper::protocol::{Exit, ExitStatus, HeldBy, InstanceInfo, ResourceLimit, StartSpec};

use crate::fleet::{Fleet, Mode, signal, stop_within, text, until};
use crate::probe;

const MIB: u64 = 1 << 20;

fn held_by(info: &InstanceInfo, limit: &str) -> HeldBy {
    let state = info.limits.iter().find(|it| it.limit == limit);
    let state = state.unwrap_or_else(|| panic!("{limit} in {info:?}"));
    assert!(
        state.why.is_some() || matches!(state.held_by, HeldBy::Cgroup2 | HeldBy::Rlimit),
        "{state:?}"
    );
    state.held_by
}

fn eating(fleet: &Fleet, instance: &str, (what, mib): (&str, u64)) -> StartSpec {
    let mut spec = probe::spec(fleet, instance, what);
    spec.environment.insert("EAT".into(), mib.to_string());
    spec
}

/// A stand-in of the look (`RLIMIT_DATA`) lets a program end by itself, and badly.
fn check_out_of_memory(exit: &Exit, by: HeldBy) {
    assert!(exit.status == signal(9) || by == HeldBy::Polled, "{exit:?}");
    assert_ne!(exit.status, ExitStatus::Code(0));
    assert!(
        exit.out_of_memory && exit.oom_killed && !exit.requested,
        "{exit:?}"
    );
}

#[tokio::test]
async fn over_its_memory_a_tree_is_killed_as_a_whole_and_the_cause_is_known() {
    for mode in [Mode::Best, Mode::Scan] {
        let mut fleet = Fleet::new(mode).await;
        // Without a limit it ends well, so the limit is what ends it below.
        fleet.start(eating(&fleet, "free", ("eat", 200))).await;
        let exit = fleet.exited("free").await;
        assert_eq!((exit.status, exit.oom_killed), (ExitStatus::Code(0), false));
        let mut roomy = eating(&fleet, "roomy", ("eat", 20));
        roomy.limits.memory_bytes_max = Some(200 * MIB);
        fleet.start(roomy).await;
        let exit = fleet.exited("roomy").await;
        assert_eq!((exit.status, exit.oom_killed), (ExitStatus::Code(0), false));
        for what in ["eat", "eat-in-a-child"] {
            let mut spec = eating(&fleet, what, (what, 10_000));
            spec.limits.memory_bytes_max = Some(64 * MIB);
            let info = fleet.start(spec).await;
            let by = held_by(&info, "memory");
            assert!(mode == Mode::Best || by == HeldBy::Polled, "{by:?}");
            assert!(info.not_enforced.is_empty(), "{info:?}");
            let exit = fleet.exited(what).await;
            check_out_of_memory(&exit, by);
            if by != HeldBy::Polled {
                let peak = exit.memory_peak_bytes.unwrap();
                assert!((32 * MIB..=65 * MIB).contains(&peak), "{peak}");
            }
        }
        until("nothing is left", || fleet.processes().is_empty()).await;
    }
}

#[tokio::test]
async fn more_processes_than_allowed_are_not_made_or_end_the_tree() {
    for mode in [Mode::Best, Mode::Scan] {
        let fleet = Fleet::new(mode).await;
        let script =
            "i=0; while [ $i -lt 60 ]; do sleep 100 & i=$((i+1)); done; touch done; sleep 100";
        let free = fleet.start(fleet.shell("free", script)).await;
        assert!(free.limits.is_empty());
        until("it has made all", || fleet.path().join("done").exists()).await;
        until("all of them are there", || fleet.processes().len() > 60).await;
        fleet.client.stop(stop_within("free", 0)).await.unwrap();
        let mut spec = fleet.shell("a", script);
        spec.limits.processes_max = Some(20);
        let info = fleet.start(spec).await;
        check_processes(&fleet, "a", (held_by(&info, "processes"), 20)).await;
        until("nothing is left", || fleet.processes().is_empty()).await;
    }
}

/// Forks are refused, or the keeper ends the tree when it looks, or when it hears of too many that were refused.
async fn check_processes(fleet: &Fleet, instance: &str, (by, limit): (HeldBy, usize)) {
    let mut end = None;
    loop {
        let listing = fleet.client.list().await.unwrap();
        let info = listing
            .instances
            .into_iter()
            .find(|it| it.instance == instance);
        end = info.and_then(|it| it.exit).or(end);
        let is_over = end.as_ref().is_some_and(|it| it.over_limit.is_some());
        // The shell says that it cannot fork, and gives up or goes on.
        if is_over || fleet.texts(instance).iter().any(|it| it.contains("fork")) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    match end.as_ref().and_then(|it| it.over_limit.as_deref()) {
        Some(over) => {
            let why = end.as_ref().and_then(|it| it.over_limit_why.as_deref());
            let is_storm = why.is_some_and(|why| why.contains("were refused within a second"));
            assert_eq!(
                (over, is_storm),
                ("processes", by != HeldBy::Polled),
                "{why:?}"
            );
            assert!(end.is_some_and(|it| !it.oom_killed && !it.requested));
        }
        None => {
            // A look may come late; a controller never does.
            assert!(by == HeldBy::Polled || fleet.processes().len() <= limit);
            drop(fleet.client.stop(stop_within(instance, 0)).await);
        }
    }
}

/// Doubles until it is stopped, and ends by itself at 1,024 processes: a bomb without an end would take the
/// whole machine where nothing but the keeper's look holds it.
const BOMB: &str = "f() { if [ $1 -gt 0 ]; then f $(($1-1)) & f $(($1-1)) & fi; sleep 100; }; f 9";

#[tokio::test]
async fn a_fork_bomb_is_contained_and_others_are_served() {
    for mode in [Mode::Best, Mode::Scan] {
        let fleet = Fleet::new(mode).await;
        let mut spec = fleet.shell("bomb", BOMB);
        spec.limits.processes_max = Some(100);
        spec.log.lines_per_s_max = Some(100);
        let info = fleet.start(spec).await;
        for number in 0..20 {
            let name = format!("good-{number}");
            fleet.start(fleet.shell(&name, "echo served")).await;
            until("it is served", || fleet.texts(&name) == ["served"]).await;
        }
        check_processes(&fleet, "bomb", (held_by(&info, "processes"), 100)).await;
        until("nothing is left", || fleet.processes().is_empty()).await;
    }
}

/// One that makes processes until so many were refused, which is told in the directory of its own.
fn forking(fleet: &Fleet, instance: &str, refused: u64) -> StartSpec {
    let mut spec = probe::spec(fleet, instance, "fork");
    let directory = fleet.path().join(instance);
    std::fs::create_dir(&directory).unwrap();
    spec.directory = text(&directory).into();
    spec.environment
        .insert("REFUSED".into(), refused.to_string());
    spec.limits.processes_max = Some(30);
    spec
}

/// Refused forks are counted where a controller holds the limit.
fn counts_refused_forks(info: &InstanceInfo) -> bool {
    let by = held_by(info, "processes");
    let is_counted = matches!(by, HeldBy::Cgroup1 | HeldBy::Cgroup2);
    if !is_counted {
        assert!(
            std::env::var_os("ALICIA_REQUIRE_ALL").is_none(),
            "ALICIA_REQUIRE_ALL=1, and no controller of processes can be used: {info:?}"
        );
        println!("skipped: no controller of processes can be used");
    }
    is_counted
}

async fn check_storm(fleet: &mut Fleet, instance: &str) {
    let exit = fleet.exited(instance).await;
    let why = exit.over_limit_why.clone().unwrap_or_default();
    let (count, rest) = why.split_once(' ').unwrap();
    assert!(count.parse::<u64>().unwrap() > 50, "{why}");
    assert_eq!(
        rest,
        "forks were refused within a second, with 30 processes and threads allowed"
    );
    assert_eq!(exit.over_limit.as_deref(), Some("processes"));
    assert_eq!(exit.status, signal(9));
    assert!(!exit.requested && !exit.oom_killed, "{exit:?}");
    let said = format!("over its limit of processes: {why}; killed");
    until("its log says so", || fleet.texts(instance).contains(&said)).await;
}

#[tokio::test]
async fn a_storm_of_refused_forks_ends_its_tree_and_a_few_of_them_do_not() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let info = fleet.start(forking(&fleet, "modest", 20)).await;
    if !counts_refused_forks(&info) {
        return;
    }
    until("it was refused some", || {
        fleet.path().join("modest/refused").exists()
    })
    .await;
    // That these end shows that the keeper has looked at all of them since.
    for number in 0..2 {
        let name = format!("bomb-{number}");
        fleet.start(forking(&fleet, &name, u64::MAX)).await;
        check_storm(&mut fleet, &name).await;
    }
    std::fs::write(fleet.path().join("modest/go"), "").unwrap();
    let exit = fleet.exited("modest").await;
    assert_eq!((exit.status, exit.over_limit), (ExitStatus::Code(0), None));
    until("nothing is left", || fleet.processes().is_empty()).await;
}

/// Stands between two keepers: takes what is told of counts of refused forks out of the state, which is then
/// that of a keeper that did not count them. The last argument is the number of the descriptor.
const OLDER: &str = r#"
for number; do :; done
state=/proc/self/fd/$number
grep -q '"forks":\[' $state || exit 1
older=$(sed 's/,"forks":\[[^]]*\]//g' $state) && printf %s "$older" >$state || exit 1
exec "$@""#;

#[tokio::test]
async fn after_an_upgrade_a_storm_of_refused_forks_ends_its_tree_too() {
    let keeper = env!("CARGO_BIN_EXE_alicia-keeper");
    let of_older = ["-c", OLDER, "sh", keeper].map(str::to_owned).to_vec();
    for (program, words) in [(keeper, Vec::new()), ("/bin/sh", of_older)] {
        let mut fleet = Fleet::new(Mode::Best).await;
        let mut spec = forking(&fleet, "bomb", u64::MAX);
        let probe = std::mem::replace(&mut spec.program, "/bin/sh".into());
        let arguments = std::mem::take(&mut spec.arguments).join(" ");
        let script =
            format!("until [ -e upgraded ]; do sleep 0.01; done; exec '{probe}' {arguments}");
        spec.arguments = vec!["-c".to_owned(), script];
        if !counts_refused_forks(&fleet.start(spec).await) {
            return;
        }
        let directory = ["--directory".to_owned(), text(&fleet.keeper_directory())];
        let words = [&words[..], &directory].concat();
        let program = Path::new(program);
        fleet.client.upgrade(program, &words).await.unwrap();
        fleet.reconnect().await;
        std::fs::write(fleet.path().join("bomb/upgraded"), "").unwrap();
        check_storm(&mut fleet, "bomb").await;
        until("nothing is left", || fleet.processes().is_empty()).await;
    }
}

#[tokio::test]
async fn the_processor_is_shared_out_or_it_is_said_why_not() {
    let fleet = Fleet::new(Mode::Best).await;
    let mut spec = fleet.shell("a", "while :; do :; done");
    spec.limits.cpu_percent_max = Some(10);
    let info = fleet.start(spec).await;
    let throttled = |path: PathBuf| {
        let stat = std::fs::read_to_string(path.join("cpu.stat")).unwrap_or_default();
        let count = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        count.is_some_and(|count| count != "0")
    };
    match held_by(&info, "cpu") {
        HeldBy::Cgroup2 => {
            let cgroup = info.cgroup.clone().unwrap();
            until("it is held back", || throttled(cgroup.clone())).await;
        }
        HeldBy::Cgroup1 => {
            let group = group_of(info.pid, "cpu").unwrap();
            until("it is held back", || throttled(group.clone())).await;
            fleet.client.stop(stop_within("a", 0)).await.unwrap();
            until("its group is removed", || !group.exists()).await;
        }
        by => assert_eq!((by, info.not_enforced.len()), (HeldBy::None, 1)),
    }
    let fleet = Fleet::new(Mode::Scan).await;
    let mut spec = fleet.shell("a", "sleep 100");
    spec.limits.cpu_percent_max = Some(10);
    let info = fleet.start(spec).await;
    assert_eq!(held_by(&info, "cpu"), HeldBy::None);
    assert!(info.not_enforced[0].starts_with("cpu: "), "{info:?}");
}

/// The directory of a process in a hierarchy of version 1, where it is mounted as everywhere.
fn group_of(pid: u32, controller: &str) -> Option<PathBuf> {
    let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let own = membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        (fields.next()? == controller).then(|| fields.next())?
    })?;
    let mount = Path::new("/sys/fs/cgroup").join(controller);
    Some(mount.join(own.trim_start_matches('/')))
}

#[tokio::test]
async fn limits_of_single_processes_are_named_too() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let script = "ulimit -n; ulimit -c; dd if=/dev/zero of=big bs=4096 count=100 2>/dev/null; exec 9>&1; \
                  i=10; while eval \"exec $i</dev/null\" 2>/dev/null && [ $i -lt 100 ]; do i=$((i+1)); done";
    let mut spec = fleet.shell("a", script);
    for (resource, value) in [("nofile", 32), ("core", 0), ("fsize", 40_960)] {
        spec.resource_limits.push(ResourceLimit {
            resource: resource.into(),
            soft: Some(value),
            hard: Some(value),
        });
    }
    let info = fleet.start(spec).await;
    for limit in ["open_files", "core", "file_size"] {
        assert_eq!(held_by(&info, limit), HeldBy::Rlimit);
    }
    fleet.exited("a").await;
    assert_eq!(fleet.texts("a")[..2], ["32", "0"]);
    assert_eq!(
        std::fs::metadata(fleet.path().join("big")).unwrap().len(),
        40_960
    );
}

#[tokio::test]
async fn limits_stay_in_force_over_an_upgrade() {
    for mode in [Mode::Best, Mode::Scan] {
        let mut fleet = Fleet::new(mode).await;
        let script = "until [ -e go ]; do sleep 0.01; done; exec \"$TEST_BINARY\" --exact probe::a_process \
                      --ignored --nocapture --test-threads=1";
        let mut spec = fleet.shell("a", script);
        let binary = text(&std::env::current_exe().unwrap());
        spec.environment.insert("TEST_BINARY".into(), binary);
        spec.environment.insert("PROBE".into(), "eat".into());
        spec.environment.insert("EAT".into(), "10000".into());
        spec.limits.memory_bytes_max = Some(64 * MIB);
        let by = held_by(&fleet.start(spec).await, "memory");
        let mut arguments = vec!["--directory".to_owned(), text(&fleet.keeper_directory())];
        if mode == Mode::Scan {
            arguments.push("--scan".into());
        }
        let program = Path::new(env!("CARGO_BIN_EXE_alicia-keeper"));
        fleet.client.upgrade(program, &arguments).await.unwrap();
        fleet.reconnect().await;
        std::fs::write(fleet.path().join("go"), "").unwrap();
        check_out_of_memory(&fleet.exited("a").await, by);
    }
}

#[tokio::test]
async fn a_flood_of_output_is_cut_and_counted() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut spec = fleet.shell(
        "a",
        "i=0; while [ $i -lt 50000 ]; do echo $i; i=$((i+1)); done",
    );
    spec.log.lines_per_s_max = Some(1_000);
    fleet.start(spec).await;
    let told = fleet
        .event(|event| match event {
            alicia_keeper::protocol::Event::Log(trouble) => Some(trouble.clone()),
            _ => None,
        })
        .await;
    assert!(
        told.flood && told.lines_dropped > 0 && told.error.is_none(),
        "{told:?}"
    );
    assert_eq!(told.instance, "a");
    let exit = fleet.exited("a").await;
    assert_eq!(exit.status, ExitStatus::Code(0));
    until("the log is complete", || {
        let lines = fleet.texts("a");
        let dropped = lines
            .iter()
            .filter_map(|line| line.strip_suffix(" lines dropped: more than 1000 a second"));
        let dropped: usize = dropped.map(|count| count.parse::<usize>().unwrap()).sum();
        let kept = lines
            .iter()
            .filter(|line| !line.contains("dropped"))
            .count();
        dropped > 0 && dropped + kept == 50_000
    })
    .await;
}

#[tokio::test]
async fn after_the_death_of_a_keeper_no_group_of_its_instances_is_left() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut spec = fleet.shell("a", "trap '' PIPE; while :; do sleep 0.01; done");
    spec.limits.memory_bytes_max = Some(64 * MIB);
    spec.limits.processes_max = Some(20);
    let info = fleet.start(spec).await;
    let groups = ["memory", "pids"].map(|controller| group_of(info.pid, controller));
    let is_limited = held_by(&info, "memory") == HeldBy::Cgroup1;
    let record = format!("records/{}.start", info.run);
    until("it is written down", || {
        fleet.keeper_directory().join(&record).exists()
    })
    .await;
    let old = fleet.keeper;
    fleet.kill_keeper();
    until("the keeper is dead", || !crate::fleet::is_alive(old)).await;
    fleet.reconnect().await;
    until("nothing is left", || fleet.processes().is_empty()).await;
    if is_limited {
        for group in groups.into_iter().flatten() {
            assert!(text(&group).contains("alicia-"), "{group:?}");
            until("its group is removed", || !group.exists()).await;
        }
    }
}
