//! Logs that lie: how fast they are packed, how small they become, how quickly one line is found.
//!
//! ```text
//! cargo bench -p alicia-keeper --bench logs -- [million lines, default 1]
//! ```
//!
//! Lines are JSON as a web service writes them, each with a trace of its own. Peers in the same run: the plain file, and
//! `grep` over it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a measurement prints, looks at the clock and ends when something is wrong"
)]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use alicia_keeper::logs::packed::{Packed, pack};
use alicia_keeper::logs::{Filter, Level, read_last};

/// As the keeper puts files aside by default.
const FILE_BYTES: u64 = 10 * 1024 * 1024;
const LOOKUPS: u32 = 20;

/// A generator of numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn trace(number: u64) -> String {
    let mut numbers = Numbers(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    format!("{:016x}{:016x}", numbers.next(), numbers.next())
}

fn line(number: u64, numbers: &mut Numbers) -> String {
    let us = 1_700_000_000_000_000 + number * 1_000;
    let (seconds, rest) = (us / 1_000_000 % 86_400, us % 1_000_000);
    let stamp = format!(
        "2026-11-20T{:02}:{:02}:{:02}.{rest:06}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    );
    let draw = numbers.next();
    let path = [
        "/api/orders",
        "/api/items",
        "/api/users",
        "/health",
        "/api/carts",
    ][draw as usize % 5];
    let level = match draw % 200 {
        0 => "ERROR",
        1..=4 => "WARN",
        _ => "INFO",
    };
    let (id, ms, status) = (
        draw >> 40,
        draw >> 20 & 255,
        if draw.is_multiple_of(50) { 500 } else { 200 },
    );
    format!(
        "{stamp} stdout F {{\"timestamp\":\"{stamp}\",\"level\":\"{level}\",\"message\":\"request is done\",\"method\":\"GET\",\"path\":\"{path}/{id}\",\"status\":{status},\"ms\":{ms},\"trace_id\":\"{}\"}}\n",
        trace(number)
    )
}

/// The files of a slot, all put aside.
fn write(directory: &Path, lines: u64) -> (u64, Duration) {
    let mut numbers = Numbers(42);
    let (mut file, mut bytes, mut number, mut all) = (None, 0, 0, 0);
    let mut spent = Duration::ZERO;
    for at in 0..lines {
        let text = line(at, &mut numbers);
        let begun = Instant::now();
        if file.is_none() || bytes + text.len() as u64 > FILE_BYTES {
            number += 1;
            file = Some(BufWriter::new(
                File::create(directory.join(format!("1.log.{number}"))).unwrap(),
            ));
            bytes = 0;
        }
        file.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        spent += begun.elapsed();
        bytes += text.len() as u64;
        all += text.len() as u64;
    }
    (all, spent)
}

fn lookup(current: &Path, filter: &Filter, expected: usize) -> Duration {
    let begun = Instant::now();
    let found = read_last(current, 10, filter).unwrap();
    let spent = begun.elapsed();
    assert_eq!(found.len(), expected, "{filter:?}");
    spent
}

fn main() {
    let millions = std::env::args()
        .filter_map(|argument| argument.parse::<u64>().ok())
        .next()
        .unwrap_or(1);
    let lines = millions * 1_000_000;
    let build = if cfg!(debug_assertions) {
        "DEBUG BUILD: not for comparison"
    } else {
        "optimised build"
    };
    println!("{lines} lines, {build}");
    let directory = tempfile::tempdir().unwrap();
    let (bytes, spent) = write(directory.path(), lines);
    println!(
        "written plain: {} MB, {:.0} lines/s (copying alone)",
        bytes / 1_000_000,
        lines as f64 / spent.as_secs_f64()
    );
    let current = directory.path().join("1.log");
    let one = Filter {
        contains: Some(trace(lines / 3)),
        ..Filter::default()
    };
    let begun = Instant::now();
    let search = format!(
        "grep -rhF {} {}",
        trace(lines / 3),
        directory.path().display()
    );
    let mut grep = Command::new("sh");
    grep.args(["-c", &search]);
    let output = grep.output().unwrap();
    assert!(output.status.success());
    println!(
        "one trace, grep over the plain files: {:?}",
        begun.elapsed()
    );
    println!(
        "one trace, plain files, this reader: {:?}",
        lookup(&current, &one, 1)
    );
    let begun = Instant::now();
    let mut total = Packed::default();
    let mut files: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for path in files {
        let packed = pack(&path).unwrap();
        total.lines += packed.lines;
        total.plain_bytes += packed.plain_bytes;
        total.packed_bytes += packed.packed_bytes;
    }
    let spent = begun.elapsed().as_secs_f64();
    assert_eq!(total.lines, lines);
    println!(
        "packed: {:.0} lines/s, {:.0} MB/s on one core; {} MB, {:.1} to 1 (index included)",
        lines as f64 / spent,
        bytes as f64 / 1e6 / spent,
        total.packed_bytes / 1_000_000,
        total.plain_bytes as f64 / total.packed_bytes as f64
    );
    let mut spent: Vec<Duration> = (0..LOOKUPS)
        .map(|at| {
            let id = trace(u64::from(at) * lines / u64::from(LOOKUPS) + 7);
            let filter = Filter {
                trace: Some(id),
                ..Filter::default()
            };
            lookup(&current, &filter, 1)
        })
        .collect();
    spent.sort();
    println!(
        "one trace, packed: median {:?}, slowest {:?} of {LOOKUPS}",
        spent[spent.len() / 2],
        spent[spent.len() - 1]
    );
    let none = Filter {
        trace: Some("f".repeat(32)),
        ..Filter::default()
    };
    println!(
        "a trace that is not there: {:?}",
        lookup(&current, &none, 0)
    );
    println!(
        "a text that may be anywhere, packed: {:?}",
        lookup(&current, &one, 1)
    );
    let errors = Filter {
        level: Some(Level::Error),
        ..Filter::default()
    };
    println!("the last ten errors: {:?}", lookup(&current, &errors, 10));
}
