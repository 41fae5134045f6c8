//! What identities cost a house: the begin of a run, the directory of keys of a thousand, the check of who logs in.
//!
//! `cargo bench -p alicia-identity`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program for people who measure"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use alicia_contract::fleet::{Fleet, ServiceSpec};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::topic::Prefix;
use alicia_identity::{Authority, Beginning, Identity};

const NOW: f64 = 1_800_000_000.0;
const SERVICES: u64 = 1_000;
const ROUNDS: usize = 21;

fn name(n: u64) -> ServiceName {
    ServiceName::new(format!("service-{n}")).expect("a name")
}

fn begin(authority: &Authority, n: u64, epoch: u64) -> Identity {
    let (service, instance) = (name(n), InstanceId::from_parts(n, u128::from(epoch)));
    let run = Beginning {
        service: &service,
        slot: 1,
        instance: &instance,
        epoch: Epoch(epoch),
        socket: Path::new("/run/alicia/renew.sock"),
        logs_in: true,
    };
    authority.begin_run(run, NOW).expect("begins");
    Identity::Service {
        service,
        instance,
        epoch: Epoch(epoch),
    }
}

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::open(directory.path(), Prefix::default()).expect("opens");
    let service = |n| (name(n), ServiceSpec::new(vec!["true".into()]).into());
    authority.set_fleet(&Fleet {
        services: (0..SERVICES).map(service).collect(),
        ..Fleet::default()
    });
    let mut begins: Vec<Duration> = Vec::new();
    for n in 0..SERVICES {
        let begun = Instant::now();
        begin(&authority, n, 1);
        begins.push(begun.elapsed());
    }
    tell("a run begins: key pair, list of runs", begins);
    let size = |authority: &Authority| {
        let (signed, _) = authority.signed_directory(NOW);
        serde_json::to_vec(&signed).expect("text").len()
    };
    let bytes = size(&authority);
    println!(
        "the directory of {SERVICES} runs is {bytes} bytes, {} a run",
        bytes as u64 / SERVICES
    );
    tell(
        "it is made and signed",
        times(|| {
            std::hint::black_box(size(&authority));
        }),
    );
    let token = authority.issue_token(&begin(&authority, 7, 2));
    tell(
        "a token is checked",
        times(|| drop(authority.authenticate(&token, NOW).expect("is good"))),
    );
}

fn times(mut run: impl FnMut()) -> Vec<Duration> {
    let mut time = || {
        let begun = Instant::now();
        run();
        begun.elapsed()
    };
    (0..ROUNDS).map(|_| time()).collect()
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let us = |at: usize| times[at].as_secs_f64() * 1e6;
    let (median, last) = (us(times.len() / 2), us(times.len() - 1));
    println!("{what:<40} {median:>10.1} µs   (slowest {last:.1})");
}
