//! Services of another user in a data directory that is closed to others: they get their token, renew, keep state and
//! speak to the supervisor, and come to nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt;

use alicia_contract::orchestrator::InstanceState;
use alicia_keeper::Kernel;
use alicia_testkit::house::{House, has};
use alicia_testkit::until;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

/// What it can do is said line by line; `DATA` becomes the data directory.
const TRIES: &str = r#"
test -s "$ALICIA_TOKEN_FILE" && cat "$ALICIA_TOKEN_FILE" > /dev/null && echo has-token
echo kept > "$ALICIA_STATE_DIR/kept" && echo has-state
for way in DATA /proc/self/fd/$ALICIA_FD_CREDENTIALS/.. /proc/self/fd/$ALICIA_FD_STATE/../../..; do
  cat $way/admin.key > /dev/null 2>&1 && echo OPEN $way
  cat $way/identity/root.key > /dev/null 2>&1 && echo OPEN $way
  ls $way > /dev/null 2>&1 && echo LISTED $way
done
ls /proc/self/fd/$ALICIA_FD_CREDENTIALS/ > /dev/null 2>&1 && echo LISTED credentials
touch /proc/self/fd/$ALICIA_FD_CREDENTIALS/mine 2> /dev/null && echo WRITTEN
echo has-tried
exec sleep 1000
"#;

fn can_change_users() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let is_there = fs::read_to_string("/etc/passwd").is_ok_and(|all| all.contains("\nnobody:"));
    has(
        is_root && is_there,
        "only root can start services of the user nobody",
    )
}

#[tokio::test]
async fn it_logs_in_with_a_credential_and_is_ready_when_it_says_so() {
    if !can_change_users() {
        return;
    }
    let file = "
identity: {token_file: false}
services:
  clock: {command: alicia example clock, user: nobody, directory: /, allow: {publish: [home/clock]}}
";
    let house = House::start(ALICIA, file).await;
    let row = house.reaches("clock-1", InstanceState::Running).await;
    let pid = row.pid.expect("it runs");
    let owner = fs::metadata(format!("/proc/{pid}")).expect("it runs").uid();
    assert_ne!(owner, 0, "it is not root");
    let mode = fs::metadata(house.data()).expect("it is there").mode() & 0o777;
    assert_eq!(mode, 0o700, "the data directory stays closed");
    let hearing = house.listen("alicia/home/clock").await;
    hearing
        .hears("the time", |said| said["topic"] == "alicia/home/clock")
        .await;
    let log = house.host_log();
    assert!(!log.contains("a credential was refused"), "{log}");
}

#[tokio::test]
async fn it_comes_to_its_own_and_to_nothing_else() {
    if !can_change_users() {
        return;
    }
    let can_confine = Kernel::ask().lacks().is_empty();
    let sandboxes = match has(can_confine, "this kernel cannot enforce a sandbox") {
        true => vec![
            ("plain", ""),
            ("shut", "    sandbox: {read_only: []}\n"),
            ("hidden", "    sandbox: {hidden: [./data]}\n"),
        ],
        false => vec![("plain", "")],
    };
    let mut house = House::new(ALICIA, "services: {}");
    let tries = TRIES.replace("DATA", &house.data().display().to_string());
    let tries = tries.replace('\n', "\n        ");
    let mut file = "services:\n".to_owned();
    for (name, sandbox) in &sandboxes {
        file += &format!(
            "  {name}:\n    user: nobody\n    directory: /\n    session: {{}}\n{sandbox}    command:\n      - sh\n      - -c\n      - |{tries}\n"
        );
    }
    fs::write(house.path().join("alicia.yaml"), file).expect("is ours");
    house.start_host().await;
    for (name, _) in sandboxes {
        let slot = format!("{name}-1");
        house.reaches(&slot, InstanceState::Running).await;
        let said = async || house.says(&["logs", name]).text();
        until("it has tried", async || said().await.contains("has-tried")).await;
        let said = said().await;
        assert!(said.contains("has-token"), "{name}: {said}");
        assert!(said.contains("has-state"), "{name}: {said}");
        let kept = house.data().join("state").join(name).join("1/kept");
        assert_eq!(fs::read_to_string(kept).expect("it is there"), "kept\n");
        for hole in ["OPEN", "LISTED", "WRITTEN"] {
            assert!(!said.contains(hole), "{name}: {said}");
        }
    }
}
