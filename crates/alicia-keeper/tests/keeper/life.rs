//! Starts, ends and stops, with real processes.

use crate::fleet::{Fleet, Mode, is_alive, signal, stop, stop_within, until};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use alicia_keeper::protocol::{
    Event, ExitStatus, FailureCode, InstanceState, ResourceLimit, StartSpec, Target,
};

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
        // Two runs share a log until the first is empty, and a scan takes a moment to see it.
        while !fleet.client.list().await.unwrap().instances[0].empty {
            tokio::task::yield_now().await;
        }
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
    assert!(fleet.texts("a").contains(&"bye".to_owned()));
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
        let child = r"trap '' TERM; echo \$\$; touch ready; while :; do sleep 1; done";
        let wait = "until [ -e ready ]; do sleep 0.01; done";
        let script = format!("setsid sh -c \"{child}\" & {wait}; exit 4");
        fleet.start(fleet.shell("a", &script)).await;
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

#[tokio::test]
async fn a_child_has_nothing_of_the_keeper_but_what_was_asked_for() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let script =
        "umask; nice; ulimit -Sn; ls /proc/$$/fd; echo $ALICIA_INSTANCE; pwd; echo in; cat; exit";
    let mut spec = fleet.shell("a", script);
    spec.umask = Some(0o027);
    spec.resource_limits = vec![ResourceLimit {
        resource: "nofile".into(),
        soft: Some(77),
        hard: Some(88),
    }];
    fleet.start(spec).await;
    fleet.exited("a").await;
    let directory = fleet.path().canonicalize().unwrap();
    let expect = [
        "0027",
        "0",
        "77",
        "0",
        "1",
        "2",
        "a",
        directory.to_str().unwrap(),
        "in",
    ];
    assert_eq!(fleet.texts("a"), expect);
}

#[tokio::test]
async fn another_user_is_taken_where_the_keeper_may() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut spec = fleet.shell("a", "id -u; id -g; id -G");
    spec.directory = "/".into();
    spec.user = Some("12345".into());
    match fleet.client.start(spec).await {
        Ok(_) if is_root => {
            fleet.exited("a").await;
            assert_eq!(fleet.texts("a"), ["12345", "12345", "12345"]);
        }
        Err(error) if !is_root => {
            assert_eq!(error.failure().unwrap().code, FailureCode::NotPermitted);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_with_the_reason() {
    let fleet = Fleet::new(Mode::Best).await;
    let file = |name: &str, text: &str, mode: u32| {
        let path = fleet.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let no_format = file("no-format", "\0\0\0\0", 0o755);
    let no_interpreter = file("no-interpreter", "#!/nonexistent/shell\n", 0o755);
    let not_executable = file("not-executable", "x", 0o644);
    let check = async |change: &dyn Fn(&mut StartSpec), code: FailureCode, text: &str| {
        let mut spec = fleet.shell("a", "exit");
        change(&mut spec);
        let error = fleet.client.start(spec).await.unwrap_err();
        let failure = error.failure().unwrap();
        assert_eq!(failure.code, code, "{failure}");
        assert!(failure.message.contains(text), "{failure}");
    };
    use FailureCode as Code;
    check(
        &|it| it.program = "no-such".into(),
        Code::ProgramNotFound,
        "PATH=/usr/bin:/bin",
    )
    .await;
    check(
        &|it| it.program = "/no/such".into(),
        Code::ProgramNotFound,
        "/no/such",
    )
    .await;
    check(
        &|it| it.program = not_executable.clone(),
        Code::ProgramNotExecutable,
        "may not be",
    )
    .await;
    check(
        &|it| it.program = no_format.clone(),
        Code::ProgramNotExecutable,
        "no program",
    )
    .await;
    check(
        &|it| it.program = no_interpreter.clone(),
        Code::ProgramNotExecutable,
        "interpreter",
    )
    .await;
    check(
        &|it| it.directory = "/no/such".into(),
        Code::DirectoryNotFound,
        "/no/such",
    )
    .await;
    check(
        &|it| it.user = Some("nobody-here".into()),
        Code::UserUnknown,
        "nobody-here",
    )
    .await;
    check(
        &|it| it.group = Some("nobody-here".into()),
        Code::GroupUnknown,
        "nobody-here",
    )
    .await;
    check(
        &|it| it.listeners = vec!["web".into()],
        Code::ListenerUnknown,
        "web",
    )
    .await;
    check(
        &|it| it.log.directory = "/proc/no".into(),
        Code::LogNotAvailable,
        "/proc/no",
    )
    .await;
    check(
        &|it| it.arguments = vec!["x".repeat(200_000)],
        Code::ArgumentsTooLong,
        "execute",
    )
    .await;
    check(
        &|it| it.instance = "A".into(),
        Code::InvalidRequest,
        "\"A\"",
    )
    .await;
    // None of these left anything behind.
    assert!(fleet.client.list().await.unwrap().instances.is_empty());
    // A child that could not execute its program is held until a scan has seen that it is gone.
    while fleet.client.stats().await.unwrap().instances > 0 {
        tokio::task::yield_now().await;
    }
    fleet.start(fleet.shell("a", "exit")).await;
}

#[tokio::test]
async fn a_shutdown_ends_all_and_records_stay_for_the_next_keeper() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    fleet.start(fleet.shell("a", script)).await;
    fleet
        .start(fleet.shell(
            "b",
            "trap '' TERM; echo ready; while :; do sleep 0.01; done",
        ))
        .await;
    until("both are ready", || {
        fleet.texts("a").len() + fleet.texts("b").len() == 2
    })
    .await;
    let old = fleet.keeper;
    assert_eq!(
        fleet
            .client
            .shutdown(Duration::from_millis(300))
            .await
            .unwrap(),
        2
    );
    let refused = fleet
        .client
        .start(fleet.shell("c", "exit"))
        .await
        .unwrap_err();
    assert_eq!(refused.failure().unwrap().code, FailureCode::ShuttingDown);
    until("the keeper is gone", || !is_alive(old)).await;
    assert_eq!(fleet.processes(), Vec::<u32>::new());
    fleet.reconnect().await;
    let listing = fleet.client.list().await.unwrap();
    let statuses: Vec<_> = listing
        .instances
        .iter()
        .map(|it| {
            (
                it.instance.as_str(),
                it.exit.as_ref().unwrap().status,
                it.empty,
            )
        })
        .collect();
    assert_eq!(
        statuses,
        [("a", ExitStatus::Code(9), true), ("b", signal(9), true)]
    );
}

#[tokio::test]
async fn an_idle_keeper_sleeps() {
    for mode in [Mode::Best, Mode::Scan] {
        let fleet = Fleet::new(mode).await;
        for number in 0..5 {
            fleet
                .start(fleet.shell(&format!("a-{number}"), "exec sleep 1000"))
                .await;
        }
        // A hundred looks in a row at which it had not run since the first of them.
        let (mut switches, mut looks) = (String::new(), 0);
        until("it sleeps", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.keeper)).unwrap();
            let now: Vec<_> = status
                .lines()
                .filter(|line| line.contains("ctxt_switches"))
                .collect();
            let (now, is_asleep) = (now.concat(), status.contains("State:\tS"));
            looks = if is_asleep && now == switches {
                looks + 1
            } else {
                0
            };
            switches = now;
            looks == 100
        })
        .await;
    }
}

#[tokio::test]
async fn sockets_are_held_and_inherited() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let web = fleet.client.listen("web", "127.0.0.1:0").await.unwrap();
    let admin = fleet.client.listen("admin", "127.0.0.1:0").await.unwrap();
    assert_eq!(
        fleet.client.listen("web", "127.0.0.1:0").await.unwrap(),
        web
    );
    let script = "echo $LISTEN_FDS $LISTEN_FDNAMES; [ $LISTEN_PID = $$ ] && echo own; \
                  readlink /proc/$$/fd/3 /proc/$$/fd/4; ls /proc/$$/fd";
    let mut spec = fleet.shell("a", script);
    spec.listeners = vec!["web".into(), "admin".into()];
    fleet.start(spec).await;
    fleet.exited("a").await;
    let texts = fleet.texts("a");
    let inode = |address: &str| {
        let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table
            .lines()
            .find(|line| line.contains(&format!(":{port:04X} 00000000:0000 0A")));
        format!(
            "socket:[{}]",
            line.unwrap().split_whitespace().nth(9).unwrap()
        )
    };
    let expect = [
        "2 web:admin",
        "own",
        &inode(&web.address),
        &inode(&admin.address),
        "0",
        "1",
        "2",
        "3",
        "4",
    ];
    assert_eq!(texts, expect);
    // Nobody accepts, nobody is refused.
    drop(std::net::TcpStream::connect(&web.address).unwrap());
    let taken = fleet
        .client
        .listen("other", &web.address)
        .await
        .unwrap_err();
    assert_eq!(taken.failure().unwrap().code, FailureCode::AddressInUse);
    let moved = fleet.client.listen("web", "127.0.0.1:1").await.unwrap_err();
    assert_eq!(moved.failure().unwrap().code, FailureCode::ListenerExists);
    fleet.client.unlisten("web").await.unwrap();
    assert!(std::net::TcpStream::connect(&web.address).is_err());
    assert_eq!(fleet.client.list().await.unwrap().listeners, [admin]);
}
