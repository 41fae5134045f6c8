//! Lines: all of them, in order, whole.

use std::process::Command;
use std::time::Duration;

use alicia_keeper::logs::{self, Filter, Follow, From, LineKind, Stream};
use alicia_keeper::protocol::{Event, ExitStatus, LogTrouble};

use crate::fleet::{Fleet, Mode, PATIENCE, stop, text, until};

#[tokio::test]
async fn a_flood_is_complete_and_in_order_over_many_files_and_starves_nobody() {
    const LINES: usize = 300_000;
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut flood = fleet.shell("flood", &format!("exec seq 1 {LINES}"));
    flood.log.bytes_max = 1_000_000;
    flood.log.files_max = 1_000;
    fleet.start(flood).await;
    // Others start and end meanwhile.
    for round in 0..10 {
        let name = format!("other-{round}");
        fleet.start(fleet.shell(&name, "echo hello")).await;
        fleet.exited(&name).await;
        assert_eq!(fleet.texts(&name), ["hello"]);
    }
    let stopped = fleet.client.stop(alicia_keeper::protocol::StopSpec {
        signal: Some(18),
        grace_ms: Some(30_000),
        ..stop("flood")
    });
    stopped.await.unwrap();
    let texts = fleet.texts("flood");
    assert_eq!(texts.len(), LINES);
    assert!(
        texts
            .iter()
            .enumerate()
            .all(|(at, line)| *line == (at + 1).to_string())
    );
    let files = std::fs::read_dir(fleet.path().join("logs"))
        .unwrap()
        .flatten();
    let sizes: Vec<u64> = files
        .filter(|file| file.file_name().to_str().unwrap().starts_with("flood"))
        .map(|file| file.metadata().unwrap().len())
        .collect();
    assert!(
        sizes.len() > 10 && sizes.iter().all(|size| *size <= 1_000_000),
        "{sizes:?}"
    );
}

#[tokio::test]
async fn old_files_go() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut spec = fleet.shell("a", "exec seq 1 20000");
    spec.log.bytes_max = 50_000;
    spec.log.files_max = 3;
    fleet.start(spec).await;
    fleet.exited("a").await;
    assert_eq!(
        std::fs::read_dir(fleet.path().join("logs"))
            .unwrap()
            .count(),
        3
    );
    assert_eq!(fleet.texts("a").last().unwrap(), "20000");
}

#[tokio::test]
async fn long_lines_come_in_pieces_and_a_last_line_needs_no_line_feed() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'the end'";
    fleet.start(fleet.shell("a", script)).await;
    fleet.exited("a").await;
    let lines = fleet.lines("a");
    let shape: Vec<_> = lines
        .iter()
        .map(|line| (line.kind, line.text.len()))
        .collect();
    let expect = [
        (LineKind::Partial, 16_384),
        (LineKind::Partial, 16_384),
        (LineKind::Full, 40_000 - 2 * 16_384),
        (LineKind::Full, 7),
    ];
    until("the last line is there", || fleet.lines("a").len() == 4).await;
    assert_eq!(shape, expect);
    assert_eq!(lines[3].text, "the end");
}

#[tokio::test]
async fn a_flood_limit_drops_and_says_how_much() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut spec = fleet.shell("a", "exec seq 1 5000");
    spec.log.lines_per_s_max = Some(100);
    fleet.start(spec).await;
    fleet.exited("a").await;
    until("the marker is there", || {
        fleet
            .lines("a")
            .iter()
            .any(|it| it.stream == Stream::Keeper)
    })
    .await;
    let (markers, passed): (Vec<_>, Vec<_>) = fleet
        .lines("a")
        .into_iter()
        .partition(|line| line.stream == Stream::Keeper);
    let dropped: usize = markers
        .iter()
        .map(|line| {
            line.text
                .split(' ')
                .next()
                .unwrap()
                .parse::<usize>()
                .unwrap()
        })
        .sum();
    assert!((100..1_000).contains(&passed.len()), "{}", passed.len());
    assert_eq!(passed.len() + dropped, 5_000);
    assert_eq!(
        fleet.client.stats().await.unwrap().lines_dropped,
        dropped as u64
    );
}

#[tokio::test]
async fn who_flooded_is_heard_again_afterwards() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let script = "seq 1 300000; sleep 1.5; echo after; seq 1 100000; sleep 1.5; echo the end";
    let mut spec = fleet.shell("a", script);
    spec.log.lines_per_s_max = Some(1_000);
    fleet.start(spec).await;
    assert_eq!(fleet.exited("a").await.status, ExitStatus::Code(0));
    until("the last line is there", || {
        fleet.texts("a").last().is_some_and(|it| it == "the end")
    })
    .await;
    assert!(fleet.texts("a").contains(&"after".to_owned()));
}

#[tokio::test]
async fn a_disk_that_is_full_costs_lines_of_one_log_and_nothing_else() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut counter = fleet.counter("a", 1_000_000);
    counter.log.bytes_max = 100_000_000;
    let info = fleet.start(counter).await;
    fleet
        .start(fleet.shell("quiet", "while :; do echo quiet; sleep 0.05; done"))
        .await;
    // No file of the keeper may grow beyond 64 KiB: to a log that is a disk without room.
    limit_file_size(fleet.keeper, "65536");
    let trouble = async |fleet: &mut Fleet| -> LogTrouble {
        fleet
            .event(|event| match event {
                Event::Log(trouble) => Some(trouble.clone()),
                _ => None,
            })
            .await
    };
    let begun = trouble(&mut fleet).await;
    assert_eq!(begun.instance, "a");
    assert!(begun.error.unwrap().contains("File too large"));
    // Everybody goes on.
    let before = fleet.texts("quiet").len();
    until("the other log grows", || {
        fleet.texts("quiet").len() > before + 2
    })
    .await;
    assert_eq!(
        fleet.client.list().await.unwrap().instances[0].pid,
        info.pid
    );
    limit_file_size(fleet.keeper, "unlimited");
    let ended = trouble(&mut fleet).await;
    assert!(ended.error.is_none() && ended.lines_dropped > 0);
    fleet.client.stop(stop("a")).await.unwrap();
    let lines = fleet.lines("a");
    let markers: Vec<_> = lines
        .iter()
        .filter(|line| line.stream == Stream::Keeper)
        .collect();
    let [marker] = markers.as_slice() else {
        panic!("{markers:?}")
    };
    assert_eq!(
        marker.text,
        format!(
            "{} lines lost: File too large (os error 27)",
            ended.lines_dropped
        )
    );
    // What is there is whole and in order, and nothing is missing but what was counted.
    let numbers: Vec<u64> = lines
        .iter()
        .filter_map(|line| line.text.parse().ok())
        .collect();
    assert!(numbers.is_sorted());
    let missing = numbers.last().unwrap() + 1 - numbers.len() as u64;
    assert_eq!(missing, ended.lines_dropped);
}

fn limit_file_size(pid: u32, bytes: &str) {
    let soft = format!("--fsize={bytes}:");
    let done = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &soft])
        .status()
        .unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn following_sees_every_line_once_over_many_files() {
    let fleet = Fleet::new(Mode::Best).await;
    let path = fleet.path().join("logs/a.log");
    let mut follow = Follow::open(&path, From::Now, Filter::default()).unwrap();
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "end") {
            let lines = tokio::time::timeout(PATIENCE, follow.next())
                .await
                .unwrap()
                .unwrap();
            seen.extend(lines.into_iter().map(|line| line.text));
        }
        seen
    });
    fleet.start(fleet.counter("a", 10_000)).await;
    let seen = follower.await.unwrap();
    assert_eq!(seen.len(), 10_001);
    assert!(
        seen[..10_000]
            .iter()
            .enumerate()
            .all(|(at, line)| *line == at.to_string())
    );
    assert_eq!(fleet.check_counter("a"), 10_000);
    let last = Follow::open(&path, From::Last(2), Filter::default())
        .unwrap()
        .next()
        .await
        .unwrap();
    assert_eq!(
        last.iter()
            .map(|line| line.text.as_str())
            .collect::<Vec<_>>(),
        ["9999", "end"]
    );
    assert_eq!(logs::read_last(&path, 2, &Filter::default()).unwrap(), last);
}

#[tokio::test]
async fn a_torn_end_is_cut_off() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let path = fleet.path().join("logs/a.log");
    let whole = "2026-11-20T17:34:26.123456Z stdout F whole\n";
    std::fs::write(&path, format!("{whole}2026-11-20T17:34:26.1")).unwrap();
    fleet.start(fleet.shell("a", "echo next")).await;
    fleet.exited("a").await;
    assert_eq!(fleet.texts("a"), ["whole", "next"], "{}", text(&path));
    let bytes = std::fs::read_to_string(&path).unwrap();
    assert!(bytes.starts_with(whole) && bytes.lines().count() == 2);
    tokio::time::timeout(Duration::from_secs(1), fleet.client.stats())
        .await
        .unwrap()
        .unwrap();
}
