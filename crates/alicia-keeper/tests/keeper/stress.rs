//! Stops while the machine is busy: nothing hostile outlives the answer.

use std::process::{Child, Command, Stdio};

use crate::fleet::{Fleet, Mode, stop_within, until};

/// Instances at once; each has three processes that ignore every signal that can be ignored.
const HOSTILE: usize = 20;
/// Programs that only compute, so many to each processor.
const LOAD: usize = 6;

/// Processes that take all the time there is, until they are dropped.
struct Load(Vec<Child>);

impl Load {
    fn begin() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let busy = || {
            Command::new("/bin/sh")
                .args(["-c", "while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
        };
        Self((0..LOAD * processors).map(|_| busy()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Forks now and then, wipes its marks, has a session of its own, and ignores what it can.
const SCRIPT: &str = "trap '' TERM HUP INT PIPE; \
    (setsid env -i sh -c 'trap \"\" TERM HUP INT PIPE; while :; do sleep 0.05; done' >/dev/null 2>&1 </dev/null &); \
    sh -c 'trap \"\" TERM HUP INT PIPE; while :; do sleep 0.05; done' & \
    touch ready-$ALICIA_INSTANCE; while :; do sleep 0.05; done";

async fn check(mode: Mode) {
    let fleet = Fleet::new(mode).await;
    for number in 0..HOSTILE {
        fleet
            .start(fleet.shell(&format!("h-{number}"), SCRIPT))
            .await;
    }
    let is_ready = |number| fleet.path().join(format!("ready-h-{number}")).exists();
    until("all are ready", || (0..HOSTILE).all(is_ready)).await;
    let load = Load::begin();
    let keeper_children = || children_of(fleet.keeper);
    assert!(keeper_children() >= HOSTILE);
    let stops = (0..HOSTILE).map(|number| {
        let client = fleet.client.clone();
        tokio::spawn(async move { client.stop(stop_within(&format!("h-{number}"), 100)).await })
    });
    for stop in stops.collect::<Vec<_>>() {
        stop.await.unwrap().unwrap();
    }
    // The answers have come: from now on nothing of any of them may be there, whatever the load.
    assert_eq!(fleet.processes(), Vec::<u32>::new(), "{mode:?}");
    // Whoever wiped its marks is still a child of the keeper, or has none at all.
    assert_eq!(keeper_children(), 0, "{mode:?}");
    drop(load);
}

/// Living children, whatever they call themselves.
fn children_of(pid: u32) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let fields = stats.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.to_owned()));
    fields
        .filter(|rest| {
            let mut fields = rest.split(' ');
            let is_alive = !matches!(fields.next(), Some("Z" | "X"));
            is_alive && fields.next() == Some(&pid.to_string())
        })
        .count()
}

#[tokio::test]
async fn a_stop_under_load_leaves_nothing_by_the_best_containment() {
    check(Mode::Best).await;
}

#[tokio::test]
async fn a_stop_under_load_leaves_nothing_by_the_scan() {
    check(Mode::Scan).await;
}
