//! What instances say of themselves reaches the host; what others say does not.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use alicia_keeper::protocol::{Event, ExitStatus, FailureCode, Sandbox, StartSpec, StopSpec};

use crate::fleet::{Fleet, Mode, signal, stop, stop_within, until};
use crate::probe;

fn saying(fleet: &Fleet, instance: &str, messages: &str) -> StartSpec {
    let mut spec = probe::spec(fleet, instance, "say");
    spec.notify = true;
    spec.environment.insert("SAY".into(), messages.into());
    spec
}

fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

async fn notified(fleet: &mut Fleet, wanted: &str) -> (u32, BTreeMap<String, String>) {
    fleet
        .event(|event| match event {
            Event::Notified {
                instance,
                pid,
                fields,
                ..
            } if instance == wanted => Some((*pid, fields.clone())),
            _ => None,
        })
        .await
}

async fn dropped(fleet: &Fleet) -> u64 {
    fleet.client.stats().await.unwrap().notifications_dropped
}

/// The environment that a process was started with.
fn environment(pid: u32) -> BTreeMap<String, String> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let pairs = String::from_utf8(bytes).unwrap();
    let pairs = pairs.split('\0').filter_map(|it| it.split_once('='));
    pairs
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

#[tokio::test]
async fn what_an_instance_says_is_told_and_kept() {
    for mode in [Mode::Best, Mode::Scan] {
        let mut fleet = Fleet::new(mode).await;
        let messages = "READY=1|STATUS=warm|X_ALICIA_STEPS=3;STATUS=working|SECRET=no";
        let info = fleet.start(saying(&fleet, "a", messages)).await;
        let expect = fields(&[("READY", "1"), ("STATUS", "warm"), ("X_ALICIA_STEPS", "3")]);
        assert_eq!(notified(&mut fleet, "a").await, (info.pid, expect));
        let expect = fields(&[("STATUS", "working")]);
        assert_eq!(notified(&mut fleet, "a").await, (info.pid, expect));
        fleet.reconnect().await;
        let listing = fleet.client.list().await.unwrap();
        let kept = fields(&[
            ("READY", "1"),
            ("STATUS", "working"),
            ("X_ALICIA_STEPS", "3"),
        ]);
        assert_eq!(listing.instances[0].notified, kept);
        let socket = environment(info.pid)["NOTIFY_SOCKET"].clone();
        assert!(Path::new(&socket).exists());
        fleet.client.stop(stop_within("a", 0)).await.unwrap();
        assert!(!Path::new(&socket).exists(), "{mode:?}");
        assert_eq!(dropped(&fleet).await, 0);
    }
}

#[tokio::test]
async fn a_child_is_heard_and_a_stranger_is_not() {
    for mode in [Mode::Best, Mode::Scan] {
        let mut fleet = Fleet::new(mode).await;
        let mut spec = saying(&fleet, "a", "MAINPID=$PID;MAINPID=1|STATUS=x");
        spec.environment
            .insert("PROBE".into(), "say-from-a-child".into());
        let info = fleet.start(spec).await;
        let (pid, said) = notified(&mut fleet, "a").await;
        assert_ne!(pid, info.pid);
        assert_eq!(said, fields(&[("MAINPID", &pid.to_string())]));
        // A main process outside of the instance is not taken over.
        assert_eq!(
            notified(&mut fleet, "a").await,
            (pid, fields(&[("STATUS", "x")]))
        );
        assert_eq!(dropped(&fleet).await, 1);
        let socket = environment(info.pid)["NOTIFY_SOCKET"].clone();
        let stranger = UnixDatagram::unbound().unwrap();
        for message in ["READY=1", "STATUS=stranger", ""] {
            stranger.send_to(message.as_bytes(), &socket).unwrap();
        }
        loop {
            if dropped(&fleet).await == 4 {
                break;
            }
            tokio::task::yield_now().await;
        }
        let listing = fleet.client.list().await.unwrap();
        assert_eq!(listing.instances[0].notified["STATUS"], "x", "{mode:?}");
    }
}

/// SIGCONT: it asks, and ends nobody who does not listen.
const UNHEARD: i32 = 18;

#[tokio::test]
async fn one_that_is_ending_gets_the_time_that_it_asks_for_unless_it_is_killed() {
    for mode in [Mode::Best, Mode::Scan] {
        let fleet = Fleet::new(mode).await;
        for (name, ends_well) in [("a", true), ("b", false)] {
            let mut spec = probe::spec(&fleet, name, "ask for time");
            spec.notify = true;
            spec.stop_signal = UNHEARD;
            fleet.start(spec).await;
            let patient = fleet.client.stop(stop_within(name, 1_500));
            let stopped = match ends_well {
                true => patient.await.unwrap(),
                false => {
                    let kill = StopSpec {
                        signal: Some(9),
                        ..stop_within(name, 0)
                    };
                    let (first, second) = tokio::join!(patient, fleet.client.stop(kill));
                    assert_eq!(first.unwrap(), second.as_ref().unwrap().clone());
                    second.unwrap()
                }
            };
            let expected = if ends_well {
                ExitStatus::Code(0)
            } else {
                signal(9)
            };
            assert_eq!(stopped.exit.status, expected, "{mode:?} {name}");
        }
    }
}

#[tokio::test]
async fn one_that_names_another_main_process_is_told_that_it_stays_what_it_is() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut spec = saying(&fleet, "a", "MAINPID=$PID;MAINPID=$PID");
    spec.environment
        .insert("PROBE".into(), "say-from-a-child".into());
    fleet.start(spec).await;
    notified(&mut fleet, "a").await;
    notified(&mut fleet, "a").await;
    until("it is told once", || {
        let texts = fleet.texts("a");
        let told = texts.iter().filter(|text| text.contains("MAINPID"));
        told.count() == 1
    })
    .await;
}

#[tokio::test]
async fn last_words_come_before_the_end() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut spec = saying(
        &fleet,
        "a",
        "X_ALICIA_CAUSE=provider-limit|X_ALICIA_RESUME_AT=17;STOPPING=1",
    );
    spec.environment.insert("END".into(), "1".into());
    fleet.start(spec).await;
    let mut heard = Vec::new();
    let order = fleet
        .event(|event| match event {
            Event::Notified { fields, .. } => {
                heard.extend(fields.keys().cloned());
                None
            }
            Event::Exited { .. } => Some(heard.clone()),
            _ => None,
        })
        .await;
    assert_eq!(order, ["X_ALICIA_CAUSE", "X_ALICIA_RESUME_AT", "STOPPING"]);
}

#[tokio::test]
async fn a_flood_of_messages_waits_and_starves_nobody() {
    let mut fleet = Fleet::new(Mode::Best).await;
    for number in 0..3 {
        let mut spec = probe::spec(&fleet, &format!("flood-{number}"), "flood");
        spec.notify = true;
        fleet.start(spec).await;
    }
    let heard = |listing: &alicia_keeper::Listing| {
        listing
            .instances
            .iter()
            .filter(|it| !it.notified.is_empty())
            .count()
    };
    while heard(&fleet.client.list().await.unwrap()) < 3 {
        tokio::task::yield_now().await;
    }
    let spec = saying(&fleet, "quiet", "READY=1");
    fleet.start(spec).await;
    assert_eq!(
        notified(&mut fleet, "quiet").await.1,
        fields(&[("READY", "1")])
    );
    for number in 0..3 {
        fleet
            .client
            .stop(stop_within(&format!("flood-{number}"), 0))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_watchdog_that_is_fed_lives_and_one_that_is_not_ends() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut fed = probe::spec(&fleet, "fed", "feed");
    (fed.notify, fed.watchdog_ms) = (true, Some(5_000));
    let info = fleet.start(fed).await;
    let told = environment(info.pid);
    assert_eq!(told["WATCHDOG_USEC"], "5000000");
    assert_eq!(told["WATCHDOG_PID"], info.pid.to_string());
    let mut hungry = saying(&fleet, "hungry", "READY=1");
    hungry.watchdog_ms = Some(50);
    fleet.start(hungry).await;
    let exit = fleet.exited("hungry").await;
    assert!(
        exit.watchdog && !exit.requested && !exit.oom_killed,
        "{exit:?}"
    );
    assert!(matches!(
        exit.status,
        alicia_keeper::protocol::ExitStatus::Signal { signal: 6, .. }
    ));
    until("its log says why", || {
        fleet
            .texts("hungry")
            .iter()
            .any(|it| it.contains("WATCHDOG=1"))
    })
    .await;
    let mut trigger = saying(&fleet, "trigger", "WATCHDOG=trigger");
    trigger.watchdog_ms = Some(600_000);
    fleet.start(trigger).await;
    assert!(fleet.exited("trigger").await.watchdog);
    let exit = fleet.client.stop(stop("fed")).await.unwrap().exit;
    assert_eq!((exit.status, exit.watchdog), (signal(15), false));
}

#[tokio::test]
async fn a_watchdog_and_a_socket_outlive_host_and_upgrade() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let script = "until [ -e go ]; do sleep 0.01; done; exec \"$TEST_BINARY\" --exact probe::a_process --ignored --nocapture";
    let mut spec = fleet.shell("a", script);
    spec.notify = true;
    spec.environment.insert(
        "TEST_BINARY".into(),
        crate::fleet::text(&std::env::current_exe().unwrap()),
    );
    spec.environment.insert("PROBE".into(), "say".into());
    spec.environment.insert("SAY".into(), "READY=1".into());
    let info = fleet.start(spec).await;
    let mut hungry = saying(&fleet, "hungry", "READY=1");
    hungry.watchdog_ms = Some(3_000);
    fleet.start(hungry).await;
    notified(&mut fleet, "hungry").await;
    let arguments = [
        "--directory".to_owned(),
        crate::fleet::text(&fleet.keeper_directory()),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_alicia-keeper"));
    fleet.client.upgrade(program, &arguments).await.unwrap();
    fleet.reconnect().await;
    std::fs::write(fleet.path().join("go"), "").unwrap();
    assert_eq!(
        notified(&mut fleet, "a").await,
        (info.pid, fields(&[("READY", "1")]))
    );
    assert!(fleet.exited("hungry").await.watchdog);
}

#[tokio::test]
async fn a_watched_listener_says_once_that_somebody_comes() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let address = fleet
        .client
        .listen("http", "127.0.0.1:0")
        .await
        .unwrap()
        .address;
    let failure = fleet.client.watch_listener("none").await.unwrap_err();
    assert!(
        failure.to_string().contains("no listener \"none\""),
        "{failure}"
    );
    fleet.client.watch_listener("http").await.unwrap();
    assert!(fleet.client.list().await.unwrap().listeners[0].is_watched);
    // It outlives the host and the program.
    let arguments = [
        "--directory".to_owned(),
        crate::fleet::text(&fleet.keeper_directory()),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_alicia-keeper"));
    fleet.client.upgrade(program, &arguments).await.unwrap();
    fleet.reconnect().await;
    let mut caller = TcpStream::connect(&address).unwrap();
    caller.write_all(b"x").unwrap();
    let ready = |event: &Event| match event {
        Event::ListenerReady { name } => Some(name.clone()),
        _ => None,
    };
    assert_eq!(fleet.event(ready).await, "http");
    assert!(!fleet.client.list().await.unwrap().listeners[0].is_watched);
    // Nobody accepted: whoever asks again is told again.
    fleet.client.watch_listener("http").await.unwrap();
    assert_eq!(fleet.event(ready).await, "http");
    // One that is served says nothing until its last instance ends, and starting one takes the watch back.
    let mut spec = fleet.shell("a", "until [ -e go ]; do sleep 0.01; done");
    spec.listeners = vec!["http".into()];
    fleet.start(spec).await;
    fleet.client.watch_listener("http").await.unwrap();
    std::fs::write(fleet.path().join("go"), "").unwrap();
    let mut order = Vec::new();
    let order = fleet
        .event(|event| {
            match event {
                Event::Exited { .. } => order.push("exited"),
                Event::ListenerReady { .. } => order.push("ready"),
                _ => {}
            }
            (order.len() == 2).then(|| order.clone())
        })
        .await;
    assert_eq!(order, ["exited", "ready"]);
    fleet.client.watch_listener("http").await.unwrap();
    fleet.client.unlisten("http").await.unwrap();
}

#[tokio::test]
async fn a_service_of_another_user_is_heard_wherever_the_directory_is() {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("ALICIA_REQUIRE_ALL").is_none(),
            "this test needs root"
        );
        println!("skipped: only root can start a service of another user");
        return;
    }
    let mut fleet = Fleet::new(Mode::Best).await;
    for mode in [0o700, 0o711] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(fleet.path(), permissions).unwrap();
        let name = format!("a-{mode}");
        let mut spec = saying(&fleet, &name, "READY=1");
        spec.user = Some("65534".into());
        spec.directory = "/".into();
        let info = fleet.start(spec.clone()).await;
        let expect = (info.pid, fields(&[("READY", "1")]));
        assert_eq!(notified(&mut fleet, &name).await, expect);
        let address = environment(info.pid)["NOTIFY_SOCKET"].clone();
        assert_eq!(address.starts_with('@'), mode == 0o700, "{address}");
        if mode == 0o700 {
            // Within a sandbox it could not be heard: better no start than a silent one.
            spec.instance = "shut".into();
            spec.sandbox = Some(Sandbox {
                best_effort: true,
                ..Sandbox::default()
            });
            let error = fleet.client.start(spec).await.unwrap_err();
            assert_eq!(error.failure().unwrap().code, FailureCode::NotPermitted);
            assert!(error.to_string().contains("chmod o+x"), "{error}");
        }
    }
}
