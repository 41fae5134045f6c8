//! What looks like a secret does not get into the audit log: a keyed hash stands in its place, so that two rows about the
//! same secret can still be told to be about the same.
//!
//! Looks like a secret: a value under a name such as `password`, `token` or `authorization`; what follows such a name in a
//! text; the password in a URL; a private key; the known forms of keys (ours, those of providers, JSON Web Tokens); and
//! long random text.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

/// Beginnings by which keys of well-known makers are known.
const PREFIXES: [&str; 16] = [
    "alk_",
    "als_",
    "alt_",
    "sk-",
    "pk-",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "AIza",
    "eyJ",
    "AGE-SECRET-KEY-",
];

/// A shorter word is a word, whatever it begins with.
const KEY_CHARS_MIN: usize = 12;

/// Random text of upper case, lower case and digits is taken for a key from this length on; ids of ours have no mix.
const RANDOM_CHARS_MIN: usize = 32;

/// Names whose values are secret.
const NAMES: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "authorization",
    "private_key",
];

/// Endings of names that only point to a secret.
const POINTERS: [&str; 6] = ["_file", "_id", "_name", "_path", "_env", "s"];

/// Deeper values are cut: nothing of ours nests so deep.
const DEPTH_MAX: usize = 16;

/// Bytes of the hash that are shown.
const SHOWN_BYTES: usize = 8;

thread_local! {
    static KEY: RefCell<Option<Key>> = const { RefCell::new(None) };
}

/// The key of the hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

// === impl Key ===

impl Key {
    /// A key from 32 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What is hashed on this thread from now on is hashed with this key.
    pub(crate) fn use_on_this_thread(self) {
        KEY.set(Some(self));
    }
}

/// Whether a text holds what looks like a secret.
#[must_use]
pub fn looks_secret(input: &str) -> bool {
    matches!(text(input), Cow::Owned(_))
}

/// A text without secrets.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if text.contains("PRIVATE KEY-----") {
        return Cow::Owned(stand_in(text));
    }
    let mut clean = String::new();
    let mut kept_to = 0;
    let mut named = false;
    for (start, word) in words(text) {
        let end = start + word.len();
        let secret = if named && !is_scheme(word) {
            named = false;
            Some((start, end))
        } else {
            secret_part(word).map(|(from, to)| (start + from, start + to))
        };
        named = named || announces(text, start, end, word);
        if let Some((from, to)) = secret {
            clean.push_str(&text[kept_to..from]);
            clean.push_str(&stand_in(&text[from..to]));
            kept_to = to;
        }
    }
    if kept_to == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(&text[kept_to..]);
    Cow::Owned(clean)
}

/// A value without secrets.
pub(super) fn value(value: &Value) -> Cow<'_, Value> {
    match clean(value, false, 0) {
        Some(clean) => Cow::Owned(clean),
        None => Cow::Borrowed(value),
    }
}

/// The value without secrets; `None` when there are none.
fn clean(value: &Value, is_secret: bool, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return Some(Value::from("(nested too deep)"));
    }
    match value {
        Value::String(secret) if is_secret && !secret.is_empty() => Some(stand_in(secret).into()),
        Value::String(word) => match text(word) {
            Cow::Owned(clean) => Some(clean.into()),
            Cow::Borrowed(_) => None,
        },
        Value::Array(values) => {
            let cleaned: Vec<_> = values
                .iter()
                .map(|value| clean(value, is_secret, depth + 1))
                .collect();
            cleaned.iter().any(Option::is_some).then(|| {
                let pairs = cleaned.into_iter().zip(values);
                pairs
                    .map(|(clean, value)| clean.unwrap_or_else(|| value.clone()))
                    .collect()
            })
        }
        Value::Object(fields) => {
            let cleaned: HashMap<&str, Value> = fields
                .iter()
                .filter_map(|(name, value)| {
                    Some((
                        name.as_str(),
                        clean(value, is_secret || is_secret_name(name), depth + 1)?,
                    ))
                })
                .collect();
            (!cleaned.is_empty()).then(|| {
                let fields = fields.iter().map(|(name, value)| {
                    let clean = cleaned.get(name.as_str()).unwrap_or(value);
                    (name.clone(), clean.clone())
                });
                Value::Object(fields.collect::<Map<_, _>>())
            })
        }
        Value::Number(number) if is_secret => Some(stand_in(&number.to_string()).into()),
        _ => None,
    }
}

/// Runs of characters that can stand in a key, with their places.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_in_word =
        |c: char| c.is_ascii_alphanumeric() || "_-.+/=~@:".contains(c) || !c.is_ascii();
    text.split(move |c: char| !is_in_word(c))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// `Bearer`, `Basic`: the secret is the word behind it.
fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "digest"]
        .iter()
        .any(|scheme| word.eq_ignore_ascii_case(scheme))
}

/// Whether the next word is a secret: `password: x`, `Authorization: Bearer x`, `token x` is not one.
fn announces(text: &str, start: usize, end: usize, word: &str) -> bool {
    if is_scheme(word) {
        return true;
    }
    let name = word.trim_end_matches([':', '=']);
    if !is_secret_name(name) {
        return false;
    }
    let before = text[..start].chars().next_back();
    let after = text[end..].trim_start_matches(['"', '\'']);
    name.len() < word.len() || after.starts_with([':', '=']) || before == Some('-')
}

/// The part of a word that is a secret.
fn secret_part(word: &str) -> Option<(usize, usize)> {
    // `name=value` and `name:value` in one word.
    if let Some(at) = word.find(['=', ':'])
        && at + 1 < word.len()
        && is_secret_name(&word[..at])
    {
        return Some((at + 1, word.len()));
    }
    // `scheme://user:password@host`
    if let Some(scheme) = word.find("://")
        && let Some(at) = word[scheme + 3..].find('@')
    {
        let user = &word[scheme + 3..scheme + 3 + at];
        return user
            .find(':')
            .map(|colon| (scheme + 3 + colon + 1, scheme + 3 + at))
            .filter(|(from, to)| from < to);
    }
    let is_edge = |c: char| matches!(c, '=' | ':' | '/' | '@' | '.');
    let known = PREFIXES.iter().find_map(|prefix| {
        let at = word.find(prefix)?;
        let is_at_start = at == 0 || word[..at].ends_with(is_edge);
        let is_token = word[at..]
            .bytes()
            .any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        (is_at_start && is_token && word.len() - at >= KEY_CHARS_MIN).then_some((at, word.len()))
    });
    known.or_else(|| random_part(word))
}

fn random_part(word: &str) -> Option<(usize, usize)> {
    let mut start = 0;
    for part in word.split(['/', '.', ':', '=', '@', '-']) {
        let has = |is: fn(&u8) -> bool| part.bytes().filter(is).count() >= 3;
        let is_mixed =
            has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
        if part.len() >= RANDOM_CHARS_MIN && is_mixed {
            return Some((start, start + part.len()));
        }
        start += part.len() + 1;
    }
    None
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    NAMES.iter().any(|secret| {
        name.ends_with(secret)
            || name.contains(secret) && !POINTERS.iter().any(|end| name.ends_with(end))
    })
}

/// What stands where the secret stood.
fn stand_in(secret: &str) -> String {
    let of_this_process = || {
        static RANDOM: OnceLock<[u8; 32]> = OnceLock::new();
        *RANDOM.get_or_init(random)
    };
    let key = KEY
        .with_borrow(|key| key.as_ref().map(|key| key.0))
        .unwrap_or_else(of_this_process);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
    mac.update(secret.as_bytes());
    let sum = mac.finalize().into_bytes();
    let hex: String = sum[..SHOWN_BYTES]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("(secret {hex})")
}

/// Random enough for a key that is never stored: the hasher's own seeds come from the system.
fn random() -> [u8; 32] {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0; 32];
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&RandomState::new().hash_one(0_u8).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_in_texts_are_replaced_and_all_else_stays() {
        let check = |input: &str, secret: Option<&str>| {
            let clean = text(input);
            match secret {
                Some(secret) => {
                    assert!(!clean.contains(secret), "{input} → {clean}");
                    assert!(clean.contains("(secret "), "{input} → {clean}");
                    assert_eq!(clean.replace(&stand_in(secret), secret), input);
                }
                None => assert_eq!(clean, input),
            }
        };
        check("restart api-1: deploy of release 12", None);
        check("the token is gone", None);
        check("service:api,worker-2", None);
        check("019a2b3c-7d8e-7f90-a1b2-c3d4e5f60718", None);
        check("4bf92f3577b34da6a3ce929d0e0e4736", None);
        check("/home/someone/projects/alicia/target/debug/alicia", None);
        check("eyJ", None);
        check("basic", None);
        check("password: hunter2", Some("hunter2"));
        check("PASSWORD=hunter2 go", Some("hunter2"));
        check("curl -H 'Authorization: Bearer abc.def'", Some("abc.def"));
        check("postgres://app:pa55@db/x", Some("pa55"));
        check(
            "alk_7h2k_0123456789abcdef_1a2b",
            Some("alk_7h2k_0123456789abcdef_1a2b"),
        );
        check("key sk-live0123456789ab!", Some("sk-live0123456789ab"));
        check("x AKIAIOSFODNN7EXAMPLE y", Some("AKIAIOSFODNN7EXAMPLE"));
        check(
            "see aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF for it",
            Some("aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF"),
        );
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END PRIVATE KEY-----";
        check(pem, Some(pem));
    }

    #[test]
    fn secrets_in_values_are_replaced_by_name_and_by_looks() {
        let given = json!({
            "reason": "use alk_7h2k_0123456789abcdef_1a2b",
            "settings": {"db_password": "hunter2", "token_file": "/run/x", "tokens": 12, "pin_secret": 4711},
            "list": ["a", {"api-key": "k"}],
        });
        let clean = value(&given).into_owned();
        let text = clean.to_string();
        for secret in ["hunter2", "alk_7h2k", "4711", "\"k\""] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(clean["settings"]["token_file"], "/run/x");
        assert_eq!(clean["settings"]["tokens"], 12);
        assert_eq!(clean["list"][0], "a");
        let harmless = json!({"services": ["api"], "instances": 3});
        assert!(matches!(value(&harmless), Cow::Borrowed(_)));
    }

    #[test]
    fn equal_secrets_look_equal_and_the_key_matters() {
        let first = stand_in("hunter2");
        assert_eq!(first, stand_in("hunter2"));
        assert_ne!(first, stand_in("hunter3"));
        std::thread::spawn(move || {
            Key::new([7; 32]).use_on_this_thread();
            assert_ne!(stand_in("hunter2"), first);
        })
        .join()
        .unwrap();
    }
}
