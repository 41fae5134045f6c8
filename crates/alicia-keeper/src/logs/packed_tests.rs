//! Packed files: nothing is lost, what cannot be there is passed over, damage is survived.

use std::process::Command;

use super::*;
use crate::clock;
use crate::logs::{Level, LineKind, Stream, format, read_last};

const LINES: u64 = 20_000;

fn text(number: u64) -> String {
    let level = ["DEBUG", "INFO", "INFO", "WARN"][number as usize % 4];
    let level = if number % 5_000 == 4_999 {
        "ERROR"
    } else {
        level
    };
    format!(
        r#"{{"timestamp":"x","level":"{level}","message":"request {number} of many","trace_id":"{:032x}"}}"#,
        u128::from(number + 1) * 0x1234_5678_9abc_def0_1234
    )
}

/// A second between lines, so that blocks cover different times.
fn plain(directory: &Path) -> (PathBuf, Vec<u8>) {
    let mut bytes = Vec::new();
    for number in 0..LINES {
        let stamp = clock::stamp(number * 1_000_000);
        format(
            &mut bytes,
            &stamp,
            (Stream::Stdout, LineKind::Full),
            text(number).as_bytes(),
        );
    }
    let path = directory.join("1.log.7");
    fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

fn packed(directory: &Path) -> (PathBuf, Vec<u8>) {
    let (path, bytes) = plain(directory);
    let packed = pack(&path).unwrap();
    assert_eq!(
        (packed.lines, packed.plain_bytes),
        (LINES, bytes.len() as u64)
    );
    let target = directory.join("1.log.7.zst");
    assert_eq!(packed.packed_bytes, fs::metadata(&target).unwrap().len());
    assert!(!path.exists());
    (target, bytes)
}

fn numbers(lines: &[Line]) -> Vec<u64> {
    lines.iter().map(|line| line.unix_us / 1_000_000).collect()
}

fn all(path: &Path, filter: &Filter) -> Vec<u64> {
    let mut found = Vec::new();
    let goes_on = PackedFile::open(path).unwrap().forwards(filter, |lines| {
        found.extend(lines);
        Ok(true)
    });
    assert!(goes_on.unwrap());
    numbers(&found)
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test asks whether it may skip what is not installed"
)]
fn every_line_is_there_and_other_programs_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes) = packed(directory.path());
    assert_eq!(
        all(&path, &Filter::default()),
        (0..LINES).collect::<Vec<_>>()
    );
    let mut decoder = zstd::stream::read::Decoder::new(File::open(&path).unwrap()).unwrap();
    let mut whole = Vec::new();
    decoder.read_to_end(&mut whole).unwrap();
    assert!(whole == bytes);
    match Command::new("zstdcat").arg(&path).output() {
        Ok(output) => assert!(output.status.success() && output.stdout == bytes),
        Err(_) => assert_ne!(
            std::env::var("ALICIA_REQUIRE_ALL").as_deref(),
            Ok("1"),
            "zstdcat is missing (Debian: zstd)"
        ),
    }
}

#[test]
fn packing_keeps_the_age_and_is_for_the_owner_only() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = plain(directory.path());
    let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    pack(&path).unwrap();
    let metadata = fs::metadata(directory.path().join("1.log.7.zst")).unwrap();
    assert_eq!(
        (metadata.modified().unwrap(), metadata.mode() & 0o777),
        (modified, 0o600)
    );
}

#[test]
fn only_blocks_that_may_have_a_line_are_unpacked() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = packed(directory.path());
    let file = PackedFile::open(&path).unwrap();
    let index = file.index.as_ref().unwrap();
    assert!(index.len() > 10, "{}", index.len());
    let check = |filter: Filter, expected: &[u64], blocks_max: usize| {
        let wanted = Wanted::new(filter.trace.as_deref().unwrap_or_default());
        let blocks = index
            .iter()
            .filter(|block| block.may_have(&filter, &wanted))
            .count();
        assert!(blocks <= blocks_max, "{blocks} blocks for {filter:?}");
        assert_eq!(all(&path, &filter), expected, "{filter:?}");
    };
    let trace = |number: u64| text(number).split('"').nth_back(1).map(str::to_owned);
    check(
        Filter {
            trace: trace(12_345),
            ..Filter::default()
        },
        &[12_345],
        2,
    );
    check(
        Filter {
            trace: Some("ffffffffffffffffffffffffffffffff".into()),
            ..Filter::default()
        },
        &[],
        2,
    );
    // Not a word of its own.
    check(
        Filter {
            trace: trace(12_345).map(|id| id[1..].to_owned()),
            ..Filter::default()
        },
        &[],
        2,
    );
    let between = Filter {
        since_unix_us: Some(500 * 1_000_000),
        until_unix_us: Some(502 * 1_000_000),
        ..Filter::default()
    };
    check(between, &[500, 501, 502], 1);
    check(
        Filter {
            level: Some(Level::Error),
            ..Filter::default()
        },
        &[4_999, 9_999, 14_999, 19_999],
        4,
    );
    check(
        Filter {
            level: Some(Level::Fatal),
            ..Filter::default()
        },
        &[],
        0,
    );
    check(
        Filter {
            contains: Some("request 777 of".into()),
            ..Filter::default()
        },
        &[777],
        index.len(),
    );
}

#[test]
fn a_log_is_read_across_plain_and_packed_files() {
    let directory = tempfile::tempdir().unwrap();
    packed(directory.path());
    let current = directory.path().join("1.log");
    let mut bytes = Vec::new();
    for number in LINES..LINES + 10 {
        let stamp = clock::stamp(number * 1_000_000);
        format(
            &mut bytes,
            &stamp,
            (Stream::Stdout, LineKind::Full),
            text(number).as_bytes(),
        );
    }
    fs::write(&current, bytes).unwrap();
    for count in [5, 10, 11, 4_000, 20_010, 30_000] {
        let lines = read_last(&current, count, &Filter::default()).unwrap();
        let first = (LINES + 10).saturating_sub(count as u64);
        assert_eq!(numbers(&lines), (first..LINES + 10).collect::<Vec<_>>());
    }
    let mut seen = Vec::new();
    crate::logs::read_all(&current, &Filter::default(), |line| {
        seen.push(line);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(numbers(&seen), (0..LINES + 10).collect::<Vec<_>>());
}

#[test]
fn a_damaged_index_costs_time_and_no_lines() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = packed(directory.path());
    let good = fs::read(&path).unwrap();
    let index_starts = good.len() - 200;
    for at in [index_starts, good.len() - 1, good.len() - 6] {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(&path, &bad).unwrap();
        assert!(PackedFile::open(&path).unwrap().index.is_none(), "{at}");
        let found = all(
            &path,
            &Filter {
                contains: Some("request 19999 of".into()),
                ..Filter::default()
            },
        );
        assert_eq!(found, [19_999], "{at}");
    }
    // Cut off: the lines before the cut are still there.
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(all(&path, &Filter::default()).len() > 1_000);
    fs::write(&path, b"").unwrap();
    assert!(all(&path, &Filter::default()).is_empty());
}

#[test]
fn a_file_without_lines_and_one_with_a_torn_end_are_packed() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in [("a.log.1", &b""[..]), ("b.log.1", b"no line at all\ntorn")] {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        assert_eq!(pack(&path).unwrap().plain_bytes, content.len() as u64);
        let packed = path.with_extension("1.zst");
        assert!(all(&packed, &Filter::default()).is_empty());
        let read = PackedFile::open(&packed).unwrap().read_whole().unwrap();
        assert_eq!(read, content);
    }
}

/// A follower that is behind finds each line once, whatever was put aside, packed or removed meanwhile.
#[tokio::test]
async fn a_follower_goes_on_through_packed_files() {
    use crate::logs::{Follow, From, numbered};
    let directory = tempfile::tempdir().unwrap();
    let current = directory.path().join("1.log");
    let append = |from: u64, to: u64| {
        let mut bytes = fs::read(&current).unwrap_or_default();
        for number in from..to {
            let stamp = clock::stamp(number * 1_000_000);
            format(
                &mut bytes,
                &stamp,
                (Stream::Stdout, LineKind::Full),
                text(number).as_bytes(),
            );
        }
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .write(true)
            .truncate(false)
            .open(&current)
            .unwrap();
        file.write_all_at(&bytes, 0).unwrap();
    };
    let put_aside = |number: u64| fs::rename(&current, numbered(&current, number)).unwrap();
    append(0, 10);
    let mut follow = Follow::open(&current, From::Last(2), Filter::default()).unwrap();
    append(10, 20);
    for number in 1..=3 {
        put_aside(number);
        append((number + 1) * 10, (number + 2) * 10);
    }
    for number in [1, 2] {
        pack(&numbered(&current, number)).unwrap();
    }
    let mut found = Vec::new();
    while found.len() < 42 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), follow.next());
        found.extend(next.await.expect("more lines come").unwrap());
    }
    assert_eq!(numbers(&found), (8..50).collect::<Vec<_>>());
    put_aside(4);
    append(50, 51);
    assert_eq!(numbers(&follow.next().await.unwrap()), [50]);
}
