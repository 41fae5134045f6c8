//! A host that lacks descriptors or time learns nothing about the services it asks. The limit is of the whole process, so
//! the tests here take turns.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use alicia_contract::fleet::Probe;
use alicia_probe::{Context, Outcome, Target, attempt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::support::PATIENCE;

#[path = "support/target.rs"]
mod support;

/// Held by the test whose turn it is.
static TURN: Mutex<()> = Mutex::const_new(());

async fn once(probe: Value, port: u16) -> Outcome {
    let probe: Probe = serde_json::from_value(probe).expect("a probe");
    let context = Context {
        port: Some(port),
        pid: Some(std::process::id()),
        directory: Path::new("/"),
        environment: &[],
    };
    let target = Target::resolve(&probe, &context).expect("it can be tried");
    attempt(&target, PATIENCE).await
}

fn at_most_open(soft: u64) {
    let limit = getrlimit(Resource::Nofile);
    let lower = Rlimit {
        current: Some(soft),
        ..limit
    };
    setrlimit(Resource::Nofile, lower)
        .expect("a soft limit may always be lowered and raised again");
}

#[tokio::test]
async fn a_try_without_a_descriptor_is_not_made() {
    let _turn = TURN.lock().await;
    let nobody = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = nobody.local_addr().expect("it is bound").port();
    let probes = [
        json!({"tcp": {}}),
        json!({"http": {}}),
        json!({"exec": {"command": ["/bin/true"]}}),
        json!({"process": {"memory_max": "1TiB"}}),
        json!({"dns": {"name": "localhost", "server": "127.0.0.1"}}),
    ];
    let before = getrlimit(Resource::Nofile).current.expect("a limit");
    for probe in probes {
        at_most_open(0);
        let outcome = once(probe.clone(), port).await;
        at_most_open(before);
        assert!(!outcome.ok && !outcome.made, "{probe}: {outcome:?}");
    }
    drop(nobody);
    let outcome = once(json!({"tcp": {}}), port).await;
    assert!(!outcome.ok && outcome.made, "refused: {outcome:?}");
    let outcome = once(json!({"exec": {"command": ["/bin/true"]}}), port).await;
    assert!(outcome.ok && outcome.made, "{outcome:?}");
}

/// On a runtime of one thread, so that this thread is all there is.
#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "a thread that stands still is what this is about"
)]
async fn a_deadline_that_passed_while_the_process_stood_still_is_no_evidence() {
    let _turn = TURN.lock().await;
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let probe: Probe = serde_json::from_value(json!({"http": {}})).expect("a probe");
    let context = Context {
        port: Some(port),
        pid: None,
        directory: Path::new("/"),
        environment: &[],
    };
    let target = Target::resolve(&probe, &context).expect("it can be tried");
    let short = Duration::from_millis(100);
    let outcome = attempt(&target, short).await;
    assert!(
        !outcome.ok && outcome.made,
        "it does not answer: {outcome:?}"
    );
    let stand_still = async {
        tokio::task::yield_now().await;
        std::thread::sleep(5 * short);
    };
    let (outcome, ()) = tokio::join!(attempt(&target, short), stand_still);
    assert!(!outcome.ok && !outcome.made, "{outcome:?}");
}
