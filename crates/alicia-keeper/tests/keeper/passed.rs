//! Files that only the instance gets.

use alicia_keeper::protocol::{FailureCode, PassedFile};

use crate::fleet::{Fleet, Mode, text, until};

/// base64 of `canary-4711`, and it.
const CONTENT: &str = "Y2FuYXJ5LTQ3MTE=";
const CANARY: &str = "canary-4711";

fn file(name: &str) -> PassedFile {
    PassedFile {
        name: name.into(),
        content: CONTENT.into(),
    }
}

/// Whether any file below a directory holds a text.
fn holds(directory: &std::path::Path, wanted: &str) -> bool {
    std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .any(|entry| {
            let kind = entry.file_type().unwrap();
            let is_in = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(wanted);
            (kind.is_dir() && holds(&entry.path(), wanted))
                || (kind.is_file() && std::fs::read(entry.path()).is_ok_and(is_in))
        })
}

#[tokio::test]
async fn a_passed_file_is_read_by_its_instance_and_found_nowhere_else() {
    let fleet = Fleet::new(Mode::Best).await;
    let address = fleet.client.listen("http", "127.0.0.1:0").await.unwrap();
    assert!(!address.address.is_empty());
    let script = "[ \"$LISTEN_FDS $ALICIA_FD_IDENTITY $ALICIA_FD_SECOND_ONE\" = '1 4 5' ] || exit 3; \
                  [ \"$(cat <&4)\" = \"$(cat <&5)\" ] || exit 4; echo x >&4 2>/dev/null && exit 5; \
                  touch read; sleep 100";
    let mut spec = fleet.shell("a", script);
    spec.listeners = vec!["http".into()];
    spec.passed = vec![file("identity"), file("second-one")];
    spec.environment
        .insert("ALICIA_FD_FORGED".into(), "7".into());
    let info = fleet.start(spec).await;
    until("it has read them", || fleet.path().join("read").exists()).await;
    let environment = std::fs::read(format!("/proc/{}/environ", info.pid)).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    assert!(!environment.contains("FORGED") && !environment.contains(CANARY));
    let record = fleet
        .keeper_directory()
        .join(format!("records/{}.start", info.run));
    until("the record is written", || record.exists()).await;
    // What goes over at an upgrade is written to memory, and the keeper holds no descriptor of it.
    let held = std::fs::read_dir(format!("/proc/{}/fd", fleet.keeper))
        .unwrap()
        .flatten();
    let names = held.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    assert_eq!(
        names
            .filter(|it| text(it).contains("alicia-passed"))
            .count(),
        0
    );
    let listed = format!("{:?}{info:?}", fleet.client.list().await.unwrap());
    for wanted in [CANARY, CONTENT] {
        assert!(!holds(fleet.path(), wanted) && !listed.contains(wanted));
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_passed_is_refused() {
    let fleet = Fleet::new(Mode::Best).await;
    let mut spec = fleet.shell("a", "true");
    spec.passed = vec![PassedFile {
        name: "identity".into(),
        content: "not base64, and secret".into(),
    }];
    let error = fleet.client.start(spec).await.unwrap_err();
    assert_eq!(error.failure().unwrap().code, FailureCode::InvalidRequest);
    assert!(!error.to_string().contains("secret"), "{error}");
}
