//! What a signed command costs: its key, its signature, its check. Medians of batches, on one core.
//!
//! `cargo bench -p alicia-signature`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program for people who measure"
)]

use std::hint::black_box;
use std::time::Instant;

use alicia_signature::{KnownKey, Signed, Signer, SigningKey, Verifier, jws};

const NOW: u64 = 1_800_000_000_000;
const TOPIC: &str = "alicia/lamp/command";
/// A batch is long enough for the clock, and short enough for its median to be undisturbed.
const BATCH: usize = 100;
const BATCHES: usize = 101;
/// Bytes of a command as the client libraries send it.
const PAYLOAD_BYTES: usize = 400;

fn main() {
    let payload = vec![b'x'; PAYLOAD_BYTES];
    let message = Signed {
        topic: TOPIC,
        payload: &payload,
    };
    measure("a key pair", || SigningKey::generate().expect("random"));
    let signer = Signer::new(SigningKey::from_seed([1; 32]), "api");
    let sign = || signer.sign(message, NOW).expect("random");
    measure("the signature of a command", sign);

    // Each is good once: as many as are checked are made before.
    let signatures: Vec<String> = (0..BATCH * BATCHES).map(|_| sign()).collect();
    let known = |kid: &str| {
        (kid == signer.kid()).then(|| KnownKey {
            public: signer.key().public(),
            source: "api".to_owned(),
            instance: "run".to_owned(),
            epoch: 1,
        })
    };
    let verifier = Verifier::new(NOW);
    let mut next = signatures.iter();
    measure("the check of a command", || {
        let signature = next.next().expect("there are enough");
        verifier
            .verify(message, signature, known, NOW)
            .expect("is good")
    });
    let mut forged = signatures[0].clone();
    forged.replace_range(forged.len() - 6..forged.len() - 3, "AAA");
    let fresh = Verifier::new(NOW);
    measure("the refusal of a forged command", || {
        fresh
            .verify(message, &forged, known, NOW)
            .expect_err("is forged")
    });

    let key = SigningKey::from_seed([2; 32]);
    let claims = vec![b'x'; 300];
    let credential = jws::sign_compact(&key, "credential", &claims);
    measure("a credential", || {
        jws::sign_compact(&key, "credential", &claims)
    });
    let keys = [key.public()];
    measure("the check of a credential", || {
        jws::open_compact(&credential, "credential", &keys).expect("is good")
    });
}

fn measure<T>(what: &str, mut run: impl FnMut() -> T) {
    let mut times: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..BATCH {
                black_box(run());
            }
            begun.elapsed().as_secs_f64() * 1e6 / BATCH as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (median, last) = (times[BATCHES / 2], times[BATCHES - 1]);
    println!("{what:<36} {median:>8.1} µs   (slowest batch {last:.1})");
}
