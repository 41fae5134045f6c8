//! Starts, ends and stops, with real processes.

use crate::fleet::{Fleet, Mode, is_alive, signal, stop, stop_within, until};
use alicia_keeper::protocol::{Event, ExitStatus, FailureCode, InstanceState, Target};

#[tokio::test]
async fn exit_codes_and_signals_are_reported_with_the_output_before_them() {
    let mut fleet = Fleet::new(Mode::Best).await;
    for (script, status) in [
        ("echo out; echo err >&2; exit 0", ExitStatus::Code(0)),
        ("echo out; echo err >&2; exit 37", ExitStatus::Code(37)),
        ("echo out; echo err >&2; kill -KILL $$", signal(9)),
        ("echo out; echo err >&2; kill -TERM $$", signal(15)),
    ] {
        let info = fleet.start(fleet.shell("a", script)).await;
        let exit = fleet.exited("a").await;
        assert_eq!(exit.status, status, "{script}");
        assert!(
            !exit.requested && !exit.out_of_memory && exit.usage.rss_bytes_max > 0,
            "{exit:?}"
        );
        let mut texts = fleet.texts("a");
        texts.sort_unstable();
        assert_eq!(texts, ["err", "out"], "{script}");
        std::fs::remove_file(info.log).unwrap();
        fleet.client.forget("a", info.run).await.unwrap();
    }
}

#[tokio::test]
async fn a_stop_asks_first_and_reports_the_end() {
    let fleet = Fleet::new(Mode::Best).await;
    fleet
        .start(fleet.shell(
            "a",
            "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done",
        ))
        .await;
    until("it is ready", || fleet.texts("a") == ["ready"]).await;
    let stopped = fleet.client.stop(stop("a")).await.unwrap();
    assert_eq!(stopped.exit.status, ExitStatus::Code(3));
    assert!(stopped.exit.requested);
    // The shell may say in between that its `sleep` was terminated too.
    let texts = fleet.texts("a");
    assert_eq!(
        (texts[0].as_str(), texts.last().unwrap().as_str()),
        ("ready", "bye")
    );
    let listing = fleet.client.list().await.unwrap();
    assert_eq!(listing.instances[0].state, InstanceState::Exited);
    assert!(listing.instances[0].empty);
}

#[tokio::test]
async fn what_ignores_the_signal_is_killed_when_the_grace_is_over() {
    for mode in [Mode::Best, Mode::Scan] {
        let fleet = Fleet::new(mode).await;
        let script = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
        let info = fleet.start(fleet.shell("a", script)).await;
        until("it is ready", || fleet.texts("a") == ["ready"]).await;
        let stopped = fleet.client.stop(stop_within("a", 100)).await.unwrap();
        assert_eq!(stopped.exit.status, signal(9));
        assert!(stopped.killed >= 1);
        assert!(!is_alive(info.pid));
        // Asked again, the answer is the same.
        assert_eq!(fleet.client.stop(stop("a")).await.unwrap(), stopped);
    }
}

#[tokio::test]
async fn a_record_stays_until_it_is_acknowledged() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let first = fleet.start(fleet.shell("a", "exit 5")).await;
    fleet.exited("a").await;
    let refused = fleet
        .client
        .start(fleet.shell("a", "exit 6"))
        .await
        .unwrap_err();
    assert_eq!(refused.failure().unwrap().code, FailureCode::InstanceExists);
    fleet.reconnect().await;
    let listing = fleet.client.list().await.unwrap();
    assert_eq!(
        listing.instances[0].exit.as_ref().unwrap().status,
        ExitStatus::Code(5)
    );
    let mut next = fleet.shell("a", "exit 6");
    next.replaces = Some(first.run);
    let second = fleet.start(next).await;
    assert!(second.run > first.run);
    assert_eq!(fleet.exited("a").await.status, ExitStatus::Code(6));
    assert!(fleet.client.forget("a", first.run).await.is_err());
    fleet.client.forget("a", second.run).await.unwrap();
    assert!(fleet.client.list().await.unwrap().instances.is_empty());
}

#[tokio::test]
async fn a_signal_goes_to_the_leader_or_to_all() {
    let fleet = Fleet::new(Mode::Best).await;
    let wait = "while :; do sleep 0.01; done";
    let child = format!("trap 'echo child' USR1; echo ready; {wait}");
    let script = format!("trap 'echo leader' USR1; sh -c \"{child}\" & {wait}");
    fleet.start(fleet.shell("a", &script)).await;
    let count = |wanted: &str| {
        fleet
            .texts("a")
            .iter()
            .filter(|text| *text == wanted)
            .count()
    };
    until("it is ready", || count("ready") == 1).await;
    fleet.client.signal("a", 10, Target::Leader).await.unwrap();
    until("the leader heard", || count("leader") == 1).await;
    assert_eq!(count("child"), 0);
    fleet.client.signal("a", 10, Target::Tree).await.unwrap();
    until("both heard", || count("leader") == 2 && count("child") == 1).await;
    let none = fleet
        .client
        .signal("b", 10, Target::Tree)
        .await
        .unwrap_err();
    assert_eq!(none.failure().unwrap().code, FailureCode::InstanceUnknown);
}

#[tokio::test]
async fn leftovers_of_a_leader_that_ends_by_itself_are_killed() {
    for mode in [Mode::Best, Mode::Scan] {
        let mut fleet = Fleet::new(mode).await;
        let script =
            "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & sleep 0.1; exit 4";
        fleet.start(fleet.shell("a", script)).await;
        let exit = fleet.exited("a").await;
        assert_eq!(exit.status, ExitStatus::Code(4));
        let killed = fleet
            .event(|event| match event {
                Event::Emptied {
                    instance, killed, ..
                } if instance == "a" => Some(*killed),
                _ => None,
            })
            .await;
        assert!(killed >= 1, "{mode:?}");
        let left: u32 = fleet.texts("a")[0].parse().unwrap();
        assert!(!is_alive(left), "{mode:?}");
    }
}
