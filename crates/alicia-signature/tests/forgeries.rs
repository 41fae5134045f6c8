//! Ten thousand messages that must not be accepted, of every kind that we could think of, and good ones between
//! them that must.

use std::collections::BTreeMap;

use alicia_signature::message::{COMMAND, VALIDITY_MS, detach};
use alicia_signature::{Fault, KnownKey, Signed, Signer, SigningKey, Verifier};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const NOW: u64 = 1_800_000_000_000;
const TOPIC: &str = "alicia/lamp/command";
const FORGERIES: usize = 10_000;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One who knows the format and has a key, and may change everything.
struct Forger {
    key: SigningKey,
    seq: u64,
}

impl Forger {
    fn header(&mut self) -> Value {
        self.seq += 1;
        json!({
            "alg": "EdDSA", "v": 1, "kid": self.key.public().thumbprint(), "iss": "api", "topic": TOPIC,
            "typ": COMMAND, "iat": NOW, "exp": NOW + VALIDITY_MS, "seq": self.seq, "nonce": encode([7_u8; 12]),
        })
    }

    fn sign(&self, header: &str, payload: &[u8]) -> String {
        let protected = encode(header);
        let signed = format!("{protected}.{}", encode(payload));
        let signature = encode(self.key.sign(signed.as_bytes()));
        json!({"protected": protected, "signature": signature}).to_string()
    }
}

struct World {
    /// The run that may act.
    api: SigningKey,
    /// The run before it, whose epoch is over.
    old: SigningKey,
    /// Another service, which may act too.
    other: SigningKey,
}

impl World {
    fn known(&self, kid: &str) -> Option<KnownKey> {
        let among = [(&self.api, "api", 2), (&self.other, "other", 9)];
        among.into_iter().find_map(|(key, source, epoch)| {
            (key.public().thumbprint() == kid).then(|| KnownKey {
                public: key.public(),
                source: source.to_owned(),
                instance: format!("{source}-run"),
                epoch,
            })
        })
    }
}

fn seed(n: u8) -> SigningKey {
    SigningKey::from_seed([n; 32])
}

type Forgery = (&'static str, Vec<u8>, String);

/// Something that must not be accepted. `good` is a signature that was accepted already.
fn forgery(
    kind: usize,
    rng: &mut fastrand::Rng,
    world: &World,
    good: &(Vec<u8>, String),
) -> Forgery {
    let payload = format!("{{\"command\":\"on\",\"n\":{}}}", rng.u32(..)).into_bytes();
    let mut forger = Forger {
        key: SigningKey::from_seed(rng.u128(..).to_le_bytes().repeat(2).try_into().expect("32")),
        seq: rng.u64(1_000_000..2_000_000),
    };
    let mut own = Forger {
        key: world.api.clone_for_test(),
        seq: rng.u64(1_000_000..2_000_000),
    };
    match kind {
        0 => ("replayed", good.0.clone(), good.1.clone()),
        1 => {
            let header = forger.header().to_string();
            (
                "unknown key",
                payload.clone(),
                forger.sign(&header, &payload),
            )
        }
        2 => {
            let mut header = forger.header();
            header["kid"] = json!(world.api.public().thumbprint());
            let text = forger.sign(&header.to_string(), &payload);
            ("wrong key under a known id", payload, text)
        }
        3 => {
            let mut header = own.header();
            header["topic"] = json!(format!("alicia/{}/command", rng.u16(..)));
            let text = own.sign(&header.to_string(), &payload);
            ("other topic", payload, text)
        }
        4 => {
            let mut header = own.header();
            let past = NOW - VALIDITY_MS - 1 - rng.u64(0..10_000_000);
            header["iat"] = json!(past);
            header["exp"] = json!(past + VALIDITY_MS);
            (
                "expired",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        5 => {
            let mut header = own.header();
            header["iat"] = json!(NOW - rng.u64(1..VALIDITY_MS));
            header["exp"] = json!(NOW + 10 * VALIDITY_MS);
            (
                "too long a life",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        6 => {
            let mut header = own.header();
            let future = NOW + VALIDITY_MS + 1 + rng.u64(0..10_000_000);
            header["iat"] = json!(future);
            header["exp"] = json!(future + VALIDITY_MS);
            (
                "from the future",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        7 => {
            let mut older = Forger {
                key: world.old.clone_for_test(),
                seq: forger.seq,
            };
            let header = older.header().to_string();
            ("old epoch", payload.clone(), older.sign(&header, &payload))
        }
        8 => {
            let mut foreign = Forger {
                key: world.other.clone_for_test(),
                seq: forger.seq,
            };
            let header = foreign.header().to_string();
            (
                "another's source",
                payload.clone(),
                foreign.sign(&header, &payload),
            )
        }
        9 => {
            let text = own.header().to_string();
            let signature = own.sign(&text, &payload);
            let mut changed = payload;
            let at = rng.usize(..changed.len());
            changed[at] ^= 1 << rng.u8(..8);
            ("altered bytes", changed, signature)
        }
        10 => {
            let text = own.header().to_string();
            let signature = own.sign(&text, &payload);
            let mut bytes = signature.into_bytes();
            // Somewhere within the base64 of header or signature.
            let at = loop {
                let at = rng.usize(20..bytes.len() - 3);
                if bytes[at].is_ascii_alphanumeric() {
                    break at;
                }
            };
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            (
                "altered signature",
                payload,
                String::from_utf8(bytes).expect("ASCII"),
            )
        }
        11 => {
            let mut header = own.header();
            header["alg"] =
                json!(["none", "None", "HS256", "ES256", "RS256", "", "Ed25519"][rng.usize(..7)]);
            let protected = encode(header.to_string());
            // As an attacker would: an empty signature, or a MAC with the public key as its secret.
            let mac = Sha256::digest(format!("{}{protected}", world.api.public()));
            let signature = if rng.bool() {
                String::new()
            } else {
                encode(mac)
            };
            let text = json!({"protected": protected, "signature": signature}).to_string();
            ("wrong algorithm, forged", payload, text)
        }
        12 => {
            let mut header = own.header();
            header["alg"] = json!(["none", "HS256", "EdDSA\u{0}", "eddsa"][rng.usize(..4)]);
            (
                "wrong algorithm, truly signed",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        13 => {
            let header = own.header().to_string();
            let member = ["topic", "kid", "iss", "alg", "seq", "iat"][rng.usize(..6)];
            let twice = format!("{{\"{member}\":\"x\",{}", &header[1..]);
            (
                "repeated header member",
                payload.clone(),
                own.sign(&twice, &payload),
            )
        }
        14 => {
            let header = own.header().to_string();
            let good = own.sign(&header, &payload);
            let twice = format!("{{\"protected\":\"e30\",{}", &good[1..]);
            ("repeated outer member", payload, twice)
        }
        15 => {
            let mut header = own.header();
            let member = ["crit", "b64", "jku", "jwk", "x5u", "zip"][rng.usize(..6)];
            header[member] = json!("x");
            (
                "unknown header member",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        16 => {
            let mut header = own.header();
            let members = [
                "alg", "v", "kid", "iss", "topic", "typ", "iat", "seq", "nonce",
            ];
            header
                .as_object_mut()
                .expect("an object")
                .remove(members[rng.usize(..members.len())]);
            (
                "missing header member",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        17 => {
            let mut header = own.header();
            header["typ"] = json!(["alicia-credential", "JWT", "alicia-event", ""][rng.usize(..4)]);
            (
                "other type",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        18 => {
            let mut header = own.header();
            header["v"] = json!(rng.u32(2..));
            (
                "other version",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        19 => {
            let text: String = (0..rng.usize(..300)).map(|_| rng.char(..)).collect();
            ("noise", payload, text)
        }
        20 => {
            let header = own.header().to_string();
            let signed = own.sign(&header, &payload);
            let mut value: Value = serde_json::from_str(&signed).expect("JSON");
            value["header"] = json!({"alg": "EdDSA"});
            ("unprotected header", payload, value.to_string())
        }
        21 => {
            let mut header = own.header();
            header["seq"] = json!(0);
            (
                "sequence number 0",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        22 => {
            let mut header = own.header();
            header["iat"] = json!(NOW - 1 - rng.u64(0..VALIDITY_MS / 2));
            header["exp"] = json!(NOW + 1);
            (
                "before the receiver's start",
                payload.clone(),
                own.sign(&header.to_string(), &payload),
            )
        }
        _ => {
            let header = own.header().to_string();
            let signed = own.sign(&header, &payload);
            let padded = signed.replacen("\",\"signature", "=\",\"signature", 1);
            ("padded base64", payload, padded)
        }
    }
}

trait CloneForTest {
    fn clone_for_test(&self) -> Self;
}

impl CloneForTest for SigningKey {
    fn clone_for_test(&self) -> Self {
        SigningKey::from_text(&self.reveal()).expect("a seed")
    }
}

#[test]
fn of_ten_thousand_forgeries_none_is_accepted_and_of_the_good_ones_all() {
    let world = World {
        api: seed(1),
        old: seed(2),
        other: seed(3),
    };
    let verifier = Verifier::new(NOW);
    let api = Signer::new(world.api.clone_for_test(), "api");
    let mut rng = fastrand::Rng::with_seed(8_037);
    let mut accepted = 0;
    let mut refused: BTreeMap<(&str, Fault), usize> = BTreeMap::new();
    let mut last = None;
    for n in 0..FORGERIES {
        if n % 10 == 0 {
            let payload = format!("{{\"good\":{n}}}").into_bytes();
            let message = Signed {
                topic: TOPIC,
                payload: &payload,
            };
            let signature = api.sign(message, NOW).expect("random");
            let answer = verifier.verify(message, &signature, |kid| world.known(kid), NOW + 1);
            assert_eq!(answer.expect("a good one").instance, "api-run");
            accepted += 1;
            last = Some((payload, signature));
        }
        let good = last.as_ref().expect("the first is good");
        let (kind, payload, signature) = forgery(n % 24, &mut rng, &world, good);
        let message = Signed {
            topic: TOPIC,
            payload: &payload,
        };
        match verifier.verify(message, &signature, |kid| world.known(kid), NOW + 1) {
            Ok(verified) => panic!("accepted: {kind}: {signature} as {verified:?}"),
            Err(fault) => *refused.entry((kind, fault)).or_default() += 1,
        }
    }
    let kinds: std::collections::BTreeSet<_> = refused.keys().map(|(kind, _)| kind).collect();
    assert_eq!((accepted, kinds.len()), (FORGERIES / 10, 24), "{refused:?}");
    assert_eq!(refused.values().sum::<usize>(), FORGERIES);
}

/// The attached form is the same signature in another coat: it must not be a way around.
#[test]
fn an_attached_forgery_is_refused_as_a_detached_one_is() {
    let world = World {
        api: seed(1),
        old: seed(2),
        other: seed(3),
    };
    let verifier = Verifier::new(NOW);
    let api = Signer::new(world.api.clone_for_test(), "api");
    let message = Signed {
        topic: TOPIC,
        payload: b"{}",
    };
    let bytes = api.attach(message, NOW).expect("random");
    let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
    value["payload"] = json!(encode("{\"command\":\"off\"}"));
    let (payload, signature) = detach(value.to_string().as_bytes()).expect("is attached");
    let message = Signed {
        topic: TOPIC,
        payload: &payload,
    };
    let answer = verifier.verify(message, &signature, |kid| world.known(kid), NOW);
    assert_eq!(answer, Err(Fault::BadSignature));
    let twice =
        String::from_utf8(bytes.clone())
            .expect("text")
            .replacen('{', "{\"payload\":\"e30\",", 1);
    assert_eq!(
        detach(twice.as_bytes()),
        None,
        "a repeated member is no signature at all"
    );
}
