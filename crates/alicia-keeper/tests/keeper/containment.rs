//! Nothing is left of an instance that was stopped, however hostile it is.

use alicia_keeper::protocol::{Containment, ExitStatus};

use crate::fleet::{Fleet, Mode, stop_within, text, until};

const HOSTILE: usize = 100;

/// A service with a child in its session and a double-forked one in a session of its own; both ignore
/// SIGTERM. Every third one also wipes its marks: environment, output and parent.
fn script(fleet: &Fleet, number: usize) -> String {
    let fifo = text(&fleet.path().join("fifo"));
    let ready = text(&fleet.path().join(format!("ready-{number}-")));
    let hide = if number.is_multiple_of(3) {
        "env -i"
    } else {
        ""
    };
    let stay = format!("trap '' TERM HUP INT; touch {ready}\\$0; read line < {fifo}");
    format!(
        "sh -c \"{stay}\" 1 & \
         (setsid {hide} sh -c \"{stay}\" 2 > /dev/null 2>&1 < /dev/null &) ; \
         while :; do sleep 1; done"
    )
}

async fn check(mode: Mode, expect: Option<Containment>) {
    let fleet = Fleet::new(mode).await;
    let fifo = fleet.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut leaders = Vec::new();
    for number in 0..HOSTILE {
        let info = fleet
            .start(fleet.shell(&format!("h-{number}"), &script(&fleet, number)))
            .await;
        assert!(
            expect.is_none_or(|expect| info.containment == expect),
            "{info:?}"
        );
        leaders.push(info.pid);
    }
    let ready = |number: usize| {
        (1..=2).all(|which| {
            fleet
                .path()
                .join(format!("ready-{number}-{which}"))
                .exists()
        })
    };
    until("all are ready", || (0..HOSTILE).all(ready)).await;
    assert!(fleet.processes().len() >= 3 * HOSTILE);
    let stops = (0..HOSTILE).map(|number| {
        let client = fleet.client.clone();
        tokio::spawn(async move { client.stop(stop_within(&format!("h-{number}"), 50)).await })
    });
    let mut killed = 0;
    for stop in stops.collect::<Vec<_>>() {
        let stopped = stop.await.unwrap().unwrap();
        assert!(
            matches!(stopped.exit.status, ExitStatus::Signal { .. }),
            "{stopped:?}"
        );
        killed += stopped.killed as usize;
    }
    assert_eq!(fleet.processes(), Vec::<u32>::new(), "{mode:?}");
    assert!(killed >= 2 * HOSTILE, "{killed}");
    let listing = fleet.client.list().await.unwrap();
    for info in &listing.instances {
        assert!(info.empty && info.cgroup.is_none());
    }
}

#[tokio::test]
async fn a_hundred_hostile_trees_end_by_the_best_containment() {
    check(Mode::Best, None).await;
}

#[tokio::test]
async fn a_hundred_hostile_trees_end_by_the_scan() {
    check(Mode::Scan, Some(Containment::Scan)).await;
}

#[tokio::test]
async fn cgroups_are_removed_after_use() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let info = fleet.start(fleet.shell("a", "exit")).await;
    let Some(cgroup) = info.cgroup else {
        // No cgroup here: then the keeper must say why.
        assert!(
            fleet
                .client
                .stats()
                .await
                .unwrap()
                .containment_reason
                .is_some()
        );
        return;
    };
    fleet.exited("a").await;
    until("the cgroup is gone", || !cgroup.exists()).await;
    let keeper = fleet.keeper;
    fleet
        .client
        .shutdown(std::time::Duration::ZERO)
        .await
        .unwrap();
    until("the keeper is gone", || !crate::fleet::is_alive(keeper)).await;
    assert!(!cgroup.parent().unwrap().exists());
}
