//! The vault as a file: what is in it, who may read it, what happens to it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use alicia_secrets::{Error, SECRETS_MAX, Secret, VALUE_BYTES_MAX, Vault};

fn open(directory: &Path) -> Vault {
    Vault::open(&directory.join("secrets"), None).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn secrets_are_set_changed_listed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let vault = open(directory.path());
    assert_eq!(vault.list().unwrap(), []);
    assert!(matches!(vault.reveal("db"), Err(Error::NoSuchSecret(_))));
    vault.set("db", "one".into(), 1.0).unwrap();
    vault
        .set("api-key", Secret::new(vec![0, 255, 10]), 2.0)
        .unwrap();
    let changed = vault.set("db", "two".into(), 3.0).unwrap();
    assert_eq!(
        (changed.version, changed.created, changed.changed),
        (2, 1.0, 3.0)
    );
    // Another process sees the same.
    let vault = open(directory.path());
    assert_eq!(vault.reveal("db").unwrap().expose(), b"two");
    assert_eq!(vault.reveal("api-key").unwrap().expose(), [0, 255, 10]);
    let names: Vec<_> = vault
        .list()
        .unwrap()
        .into_iter()
        .map(|secret| secret.name)
        .collect();
    assert_eq!(names, ["api-key", "db"]);
    vault.remove("db").unwrap();
    assert!(matches!(vault.reveal("db"), Err(Error::NoSuchSecret(_))));
    assert!(matches!(vault.remove("db"), Err(Error::NoSuchSecret(_))));
}

#[test]
fn values_are_sealed_and_files_are_for_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let vault = open(directory.path());
    let value = "correct horse battery staple";
    vault.set("db", value.into(), 1.0).unwrap();
    let place = directory.path().join("secrets");
    assert_eq!(mode(&place), 0o700);
    assert_eq!(mode(&place.join("vault.key")), 0o400);
    for name in ["vault.json", "vault.lock"] {
        assert_eq!(mode(&place.join(name)), 0o600, "{name}");
    }
    let text = fs::read_to_string(place.join("vault.json")).unwrap();
    assert!(
        !text.contains(value) && !text.contains("Y29ycmVjdCBob3JzZ"),
        "{text}"
    );
}

#[test]
fn bad_names_and_values_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let vault = open(directory.path());
    for name in ["", "Db", "a b", "../a", "ä", &"a".repeat(64)] {
        assert!(
            matches!(vault.set(name, "x".into(), 0.0), Err(Error::BadName(_))),
            "{name}"
        );
    }
    for length in [0, VALUE_BYTES_MAX + 1] {
        let refused = vault.set("a", Secret::new(vec![1; length]), 0.0);
        assert!(matches!(refused, Err(Error::BadValue { found, .. }) if found == length));
    }
    vault
        .set("a", Secret::new(vec![1; VALUE_BYTES_MAX]), 0.0)
        .unwrap();
    assert_eq!(vault.reveal("a").unwrap().len(), VALUE_BYTES_MAX);
}

#[test]
fn there_is_a_limit_to_their_number() {
    let directory = tempfile::tempdir().unwrap();
    let vault = open(directory.path());
    vault.set("s0", "x".into(), 0.0).unwrap();
    // Entries that were not sealed by the vault: only their number matters here.
    let path = directory.path().join("secrets/vault.json");
    let mut contents: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let entry = contents["secrets"]["s0"].clone();
    for number in 1..SECRETS_MAX {
        contents["secrets"][format!("s{number}")] = entry.clone();
    }
    fs::write(&path, contents.to_string()).unwrap();
    assert!(matches!(
        vault.set("one-more", "x".into(), 0.0),
        Err(Error::TooMany(_))
    ));
    vault.set("s0", "y".into(), 0.0).unwrap();
}

#[test]
fn entries_cannot_be_exchanged_changed_or_set_back() {
    let directory = tempfile::tempdir().unwrap();
    let vault = open(directory.path());
    vault.set("a", "of a".into(), 0.0).unwrap();
    vault.set("b", "of b".into(), 0.0).unwrap();
    let path = directory.path().join("secrets/vault.json");
    let good: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let check = |what: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut contents = good.clone();
        change(&mut contents);
        fs::write(&path, contents.to_string()).unwrap();
        assert!(
            matches!(vault.reveal("a"), Err(Error::Damaged { .. })),
            "{what}"
        );
    };
    check("exchanged", &|it| {
        it["secrets"]["a"] = it["secrets"]["b"].clone()
    });
    check("value exchanged", &|it| {
        it["secrets"]["a"]["value"] = it["secrets"]["b"]["value"].clone()
    });
    check("another version", &|it| {
        it["secrets"]["a"]["version"] = 2.into()
    });
    check("no base64", &|it| it["secrets"]["a"]["key"] = "?".into());
    check("a newer format", &|it| it["format"] = 2.into());
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let mut text = good["secrets"]["a"]["value"]
            .as_str()
            .unwrap()
            .to_owned()
            .into_bytes();
        let at = random.usize(..text.len() - 2);
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(text).unwrap();
        check(&text.clone(), &|it| {
            it["secrets"]["a"]["value"] = text.clone().into()
        });
    }
    fs::write(&path, "{").unwrap();
    assert!(matches!(vault.list(), Err(Error::Damaged { .. })));
    fs::write(&path, good.to_string()).unwrap();
    assert_eq!(vault.reveal("a").unwrap().expose(), b"of a");
}

#[test]
fn a_key_that_is_gone_wrong_or_open_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let vault = open(directory.path());
    vault.set("a", "x".into(), 0.0).unwrap();
    let key = directory.path().join("secrets/vault.key");
    let text = fs::read(&key).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        vault.reveal("a"),
        Err(Error::OpenKey { mode: 0o644, .. })
    ));
    fs::remove_file(&key).unwrap();
    assert!(matches!(vault.reveal("a"), Err(Error::KeyGone { .. })));
    assert!(matches!(
        vault.set("b", "x".into(), 0.0),
        Err(Error::KeyGone { .. })
    ));
    let put = |text: &[u8]| {
        fs::remove_file(&key).ok();
        fs::write(&key, text).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();
    };
    put(b"abc");
    assert!(matches!(vault.reveal("a"), Err(Error::BadKey { .. })));
    put(&[b'0'; 64]);
    assert!(matches!(vault.reveal("a"), Err(Error::OtherKey { .. })));
    assert!(matches!(
        vault.set("b", "x".into(), 0.0),
        Err(Error::OtherKey { .. })
    ));
    put(&text);
    assert_eq!(vault.reveal("a").unwrap().expose(), b"x");
}

#[test]
fn the_key_may_lie_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("credential");
    let vault = Vault::open(&directory.path().join("secrets"), Some(&key)).unwrap();
    vault.set("a", "x".into(), 0.0).unwrap();
    assert!(key.exists() && !directory.path().join("secrets/vault.key").exists());
    assert_eq!(vault.reveal("a").unwrap().expose(), b"x");
}

#[test]
fn changes_from_everywhere_at_once_are_all_kept() {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let vault = open(directory.path());
            scope.spawn(move || {
                for number in 0..10 {
                    vault
                        .set(&format!("s{writer}-{number}"), "x".into(), 0.0)
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(open(directory.path()).list().unwrap().len(), 40);
}
