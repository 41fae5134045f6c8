//! Limits and sandboxes of the file, in force in real processes and told in the status.

use alicia_contract::orchestrator::InstanceState::Failed;
use alicia_contract::orchestrator::{ExitCause, InstanceStatus};
use alicia_keeper::Kernel;
use serde_json::json;

use crate::support::{House, shell};

fn held_by<'a>(instance: &'a InstanceStatus, limit: &str) -> &'a str {
    let state = instance.limits.iter().find(|it| it.limit == limit);
    &state
        .unwrap_or_else(|| panic!("{limit} in {instance:?}"))
        .held_by
}

#[tokio::test]
async fn limits_are_in_force_and_told() {
    let script = "ulimit -n > files; ulimit -c > core; exec sleep 1000";
    let limits = json!({
        "memory": "64MiB", "cpu": 0.5, "processes": 20, "open_files": 100, "core": "0B",
    });
    let house = House::new(json!({
        "a": { "command": shell(script), "limits": limits },
        "plain": { "command": shell("exec sleep 1000") },
    }))
    .await;
    let instance = house.until_running("a", 1).await;
    for limit in ["memory", "processes"] {
        assert!(["cgroup2", "cgroup1", "polled"].contains(&held_by(&instance, limit)));
    }
    assert!(["cgroup2", "cgroup1", "none"].contains(&held_by(&instance, "cpu")));
    assert_eq!(held_by(&instance, "open_files"), "rlimit");
    assert!(house.until_running("plain", 1).await.limits.is_empty());
    let read = |name: &str| std::fs::read_to_string(house.home().path().join(name));
    crate::support::eventually("it has told", async || {
        read("core").is_ok_and(|it| !it.is_empty())
    })
    .await;
    assert_eq!(read("files").expect("is there").trim(), "100");
    house.finish().await;
}

#[tokio::test]
async fn over_its_memory_the_cause_is_known() {
    // Doubles a text until it is ended; 2 GiB is the end of it in any case.
    let script =
        "t=xxxxxxxxxxxxxxxx; i=0; while [ $i -lt 27 ]; do t=$t$t; i=$((i+1)); done; sleep 1000";
    let house = House::new(json!({ "a": {
        "command": shell(script), "limits": {"memory": "32MiB"}, "restart": "never",
    }}))
    .await;
    let ended = house.until("a", 1, |it| it.exit.is_some()).await;
    let exit = ended.exit.expect("it ended");
    assert_eq!(exit.class, ExitCause::OutOfMemory, "{exit:?}");
    assert!(exit.cause.starts_with("out of memory"), "{exit:?}");
    house.finish().await;
}

#[tokio::test]
async fn a_fork_bomb_is_ended_and_is_a_crash_loop_with_its_cause() {
    // Its children only wait; without a limit it ends by itself at 200 of them.
    let bomb = "$n = 0; while ($n < 200) { $pid = fork; next unless defined $pid; $n++; \
                if (!$pid) { sleep 1000; exit } }";
    let house = House::new(json!({
        "a": {
            "command": ["perl", "-e", bomb], "limits": {"processes": 20},
            "start_limit": {"starts": 2, "within": "10m"},
        },
        "good": { "command": shell("exec sleep 1000"), "limits": {"processes": 20} },
    }))
    .await;
    let good = house.until_running("good", 1).await;
    let by = held_by(&good, "processes");
    if !["cgroup2", "cgroup1"].contains(&by) {
        assert!(
            std::env::var_os("ALICIA_REQUIRE_ALL").is_none(),
            "no controller of processes can be used: {good:?}"
        );
        eprintln!("no controller of processes can be used: it is not tested");
        return house.finish().await;
    }
    let failed = house.until("a", 1, |it| it.state == Failed).await;
    let exit = failed.exit.expect("it ended");
    let why = exit.cause.strip_prefix("over its limit of processes: ");
    let why = why.unwrap_or_else(|| panic!("{exit:?}"));
    let rest = why.trim_start_matches(|letter: char| letter.is_ascii_digit());
    assert_eq!(
        rest,
        " forks were refused within a second, with 20 processes and threads allowed; killed by SIGKILL"
    );
    assert_eq!(exit.class, ExitCause::Crash, "{exit:?}");
    house.finish().await;
}

#[tokio::test]
async fn a_sandbox_is_in_force_and_one_that_cannot_be_is_a_refusal() {
    if !Kernel::ask().lacks().is_empty() {
        assert!(
            std::env::var_os("ALICIA_REQUIRE_ALL").is_none(),
            "this kernel cannot enforce a sandbox: {:?}",
            Kernel::ask().lacks()
        );
        eprintln!("this kernel cannot enforce a sandbox: it is not tested");
        return;
    }
    let script = "cat admin.txt 2> refused; echo x > state/mine && cat \"$ALICIA_TOKEN_FILE\" > state/token; \
                  unshare -U true 2> state/unshare; touch state/done; exec sleep 1000";
    let open = "cat admin.txt > read; exec sleep 1000";
    let home = crate::support::Home::new();
    std::fs::write(home.path().join("admin.txt"), "secret").expect("writes");
    std::fs::create_dir(home.path().join("state")).expect("is made");
    std::fs::create_dir(home.path().join("program")).expect("is made");
    let services = json!({
        "shut": {
            "command": shell(&script.replace("admin.txt", "../admin.txt").replace("state/", "../state/")
                .replace("2> refused", "> ../state/read 2> /dev/null")),
            "directory": "program",
            "sandbox": {"read_only": [], "writable": ["state"], "network": {"connect": [443]}},
        },
        "open": { "command": shell(open) },
        "wrong": {
            "command": shell("exec sleep 1000"),
            "sandbox": {"writable": ["nowhere"]},
        },
    });
    let house = House::open(
        home.clone(),
        services,
        alicia_orchestrator::Config::default(),
    )
    .await;
    let instance = house.until_running("shut", 1).await;
    for part in ["sandbox.files", "sandbox.network", "sandbox.scope"] {
        assert_eq!(held_by(&instance, part), "landlock");
    }
    assert_eq!(held_by(&instance, "sandbox.system_calls"), "seccomp");
    let read = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap_or_default();
    let is_done = async || home.path().join("state/done").exists();
    crate::support::eventually("it has tried", is_done).await;
    assert_eq!(read("state/read"), "", "the file outside was not read");
    assert_eq!(read("state/mine"), "x\n");
    assert!(!read("state/token").is_empty(), "its own token it may read");
    crate::support::eventually("the other reads it", async || read("read") == "secret").await;
    let wrong = house.until("wrong", 1, |it| it.state == Failed).await;
    assert!(wrong.reason.contains("nowhere"), "{wrong:?}");
    house.finish().await;
}
