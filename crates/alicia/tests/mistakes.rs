//! What a newcomer does wrong. Each mistake gets a message that says where it is and what to do, and an exit code that
//! scripts can tell apart: 1 it failed, 2 the command line or the file is wrong, 3 no fleet runs.

use std::net::TcpListener;

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::House;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

/// A file that is refused, by `check` and by `up`, with all of these words.
#[track_caller]
fn refused(file: &str, words: &[&str]) {
    let house = House::new(ALICIA, file);
    house.says(&["check"]).exits(2).tells(words);
    house.says(&["up", "-d"]).exits(2).tells(words);
    assert!(!house.data().join("host.json").exists(), "nothing was done");
}

#[test]
fn mistakes_in_the_file_name_their_place_and_the_remedy() {
    let service = |rest: &str| format!("services:\n  api:\n    command: sleep 1\n{rest}");
    refused(
        "services:\n  api:\n    comand: sleep 1\n",
        &[
            "alicia.yaml:3:5",
            "unknown key `comand`",
            "did you mean `command`?",
        ],
    );
    refused(
        &service("    stop_grace: 5s\n"),
        &[
            "alicia.yaml:4:5",
            "unknown key `stop_grace`",
            "did you mean `stop.grace`? write `stop: {grace: …}`",
        ],
    );
    refused(
        "http_listen: 127.0.0.1:1\n",
        &["alicia.yaml:1:1", "did you mean `http.listen`?"],
    );
    refused(
        &service("    depends_on: [dp]\n  db:\n    command: sleep 1\n"),
        &[
            "alicia.yaml:4:18",
            "there is no service `dp`",
            "did you mean `db`?",
        ],
    );
    refused(
        &service("    depends_on: [b]\n  b:\n    command: sleep 1\n    depends_on: [api]\n"),
        &[
            "alicia.yaml:4:18",
            "wait for each other",
            "api → b → api",
            "remove one",
        ],
    );
    refused(
        &service("    start_timeout: soon\n"),
        &["alicia.yaml:4:20", "`soon`", "a period such as `30s`"],
    );
    refused(
        &service("    log: {max_size: 10 potatoes}\n"),
        &["alicia.yaml:4:21", "a size such as `64KiB`"],
    );
    refused(
        &service("    command: sleep 2\n"),
        &[
            "alicia.yaml:4:5",
            "second time",
            "line 3, column 5",
            "remove one",
        ],
    );
    refused(
        "services:\n\tapi:\n\t\tcommand: sleep 1\n",
        &["alicia.yaml:2:1", "tab", "indent with spaces"],
    );
    refused(
        &service("    instances: many\n"),
        &[
            "alicia.yaml:4:16",
            "`many`",
            "a whole number from 0 to 1000",
        ],
    );
    refused(
        &service("    restart: sometimes\n"),
        &["alicia.yaml:4:14", "`always`, `on-failure` or `never`"],
    );
    refused(
        "services:\n  db:\n    image: postgres:16\n",
        &[
            "alicia.yaml:3:5",
            "unknown key `image`",
            "container: {image: …}",
        ],
    );
    refused(
        "services:\n  db:\n    container: {}\n",
        &["has no `image`", "for example `postgres:16`)"],
    );
    refused(
        "modules:\n  helth: {enabled: false}\n",
        &[
            "alicia.yaml:2:3",
            "unknown key `helth`",
            "did you mean `health`?",
        ],
    );
}

#[test]
fn all_faults_are_told_at_once() {
    let file = "\
services:
  api:
    comand: sleep 1
    instances: -1
  db:
    command: sleep 1
    depends_on: [cache]
log: 5
";
    let house = House::new(ALICIA, file);
    house.says(&["check"]).exits(2).tells(&[
        "alicia.yaml:3:5",
        "alicia.yaml:4:16",
        "alicia.yaml:8:6",
        "faults in the file; nothing was done",
    ]);
    let faults = house.says(&["check", "--json"]).exits(2).json();
    let places: Vec<_> = faults.as_array().expect("a list").iter().collect();
    assert!(places.len() >= 3, "{faults}");
    assert!(
        places.iter().all(|fault| fault["line"].is_u64()),
        "{faults}"
    );
}

#[test]
fn a_file_that_is_not_there_is_said() {
    let house = House::new(ALICIA, "");
    let words = ["there is no file nosuch.yaml", "alicia init"];
    house
        .says(&["--file", "nosuch.yaml", "up"])
        .exits(2)
        .tells(&words);
}

#[tokio::test]
async fn a_missing_program_and_a_missing_directory_fail_at_once_and_say_what_to_do() {
    let file = "\
services:
  no-program: {command: [nosuchprogram, x]}
  no-directory: {command: [sleep, '9'], directory: ./gone}
";
    let house = House::new(ALICIA, file);
    let words = ["nosuchprogram", "install it", "gone", "make the directory"];
    house.says(&["check", "--here"]).exits(2).tells(&[
        "alicia.yaml:2:",
        "nosuchprogram",
        "alicia.yaml:3:",
        "gone",
    ]);
    house.says(&["up", "-d"]).exits(1).tells(&words);
    for instance in ["no-program-1", "no-directory-1"] {
        let row = house.reaches(instance, InstanceState::Failed).await;
        assert_eq!(row.restarts, 0, "what cannot run is not tried again");
    }
    for command in ["logs", "explain", "restart"] {
        let told = house.says(&[command, "no-progam"]).exits(1);
        told.tells(&["there is `no-program`", "orchestrator.unknown_service"]);
    }
    house.says(&["down"]).exits(0);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_who_has_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it is bound").port();
    let named = port.to_string();
    let own = std::process::id().to_string();

    let file = format!(
        "services:\n  api:\n    command: [sleep, '1000']\n    ports: {{http: {port}}}\n    \
         back_off: {{initial: 50ms, max: 100ms}}\n    start_limit: {{starts: 3, within: 60s}}\n"
    );
    let house = House::new(ALICIA, &file);
    house
        .says(&["check", "--here"])
        .exits(2)
        .tells(&["alicia.yaml:4:", &named, &own, "`auto`"]);
    house
        .says(&["up", "-d"])
        .exits(1)
        .tells(&[&named, &own, "is taken", "`auto`"]);
    // Once the port is free, `start` is all that is needed.
    drop(taken);
    house.says(&["start", "api"]).exits(0);
    house.reaches("api-1", InstanceState::Running).await;
    house.says(&["down"]).exits(0);
}

#[test]
fn a_port_of_the_host_that_is_taken_names_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let file = "services: {a: {command: sleep 9}}\n";
    for setting in ["http.listen", "broker.listen"] {
        let house = House::new(ALICIA, file);
        let set = format!("{setting}={address}");
        for up in [&["up", "--no-table"][..], &["up", "-d"]] {
            let arguments = [&["--set", &set][..], up].concat();
            house
                .says(&arguments)
                .exits(1)
                .tells(&[&address, setting, "in use"]);
        }
        let left: Vec<_> = house.processes();
        assert_eq!(left, [], "nothing is left behind");
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_is_said() {
    let house = House::new(ALICIA, "services: {a: {command: sleep 9}}\n");
    for up in [&["up", "--no-table"][..], &["up", "-d"]] {
        let mut command = std::process::Command::new(ALICIA);
        let output = command
            .args(["--data", "/proc/nosuch"])
            .args(up)
            .current_dir(house.path())
            .env("HOME", house.path())
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("/proc/nosuch") && text.contains("--data DIR"),
            "{text}"
        );
    }
}

#[test]
fn without_a_host_every_command_that_needs_one_says_so() {
    let house = House::new(ALICIA, "services: {a: {command: sleep 9}}\n");
    for command in [
        &["ps"][..],
        &["status"],
        &["logs", "a"],
        &["start", "a"],
        &["stop"],
        &["restart", "a"],
        &["scale", "a", "2"],
        &["alerts"],
        &["reload"],
        &["down"],
        &["bus", "pub", "alicia/x", "1"],
        &["bus", "sub", "alicia/#"],
        &["key", "list"],
        &["open"],
    ] {
        house.says(command).exits(3).tells(&["alicia up"]);
    }
    house
        .says(&["--api", "http://127.0.0.1:9", "ps"])
        .exits(3)
        .tells(&["http://127.0.0.1:9"]);
}

#[test]
fn addresses_of_other_machines_are_refused_by_check() {
    // Not in a house: that has ports of its own, over the file.
    let check = |file: &str, words: &[&str]| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("alicia.yaml");
        std::fs::write(&path, file).expect("the file is ours");
        let output = std::process::Command::new(ALICIA)
            .arg("--file")
            .arg(&path)
            .arg("check")
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    };
    for (section, at) in [("http", "1:16"), ("broker", "1:18")] {
        let file = format!("{section}: {{listen: '0.0.0.0:4000'}}\n");
        check(&file, &[at, "0.0.0.0:4000", "127.0.0.0/8", "no TLS"]);
    }
}

#[test]
fn settings_on_the_command_line_are_named_as_they_were_typed() {
    let house = House::new(ALICIA, "services: {a: {command: sleep 9}}\n");
    house
        .says(&["--set", "http.listn=127.0.0.1:0", "check"])
        .exits(2)
        .tells(&["--set http.listn=127.0.0.1:0", "did you mean `listen`?"]);
    // One that does not fit hides nothing of what the file says elsewhere.
    let faulty = "services: {a: {command: sleep 9, depends_on: [b]}}\nhealth: {hold_back: 2h}\n";
    let found = House::new(ALICIA, faulty)
        .says(&["--set", "bus=5", "check"])
        .exits(2);
    found.tells(&[
        "--set bus=5",
        "expected a map of keys",
        "there is no service `b`",
        "3 faults in the file",
    ]);
    house
        .says(&["--set", "http.listen", "check"])
        .exits(2)
        .tells(&["`http.listen`", "a name, `=` and a value"]);
}

#[tokio::test]
async fn the_file_of_another_directory_is_not_taken_for_that_of_the_running_fleet() {
    let house = House::start(ALICIA, "services: {web: {command: [sleep, '1000']}}\n").await;
    house.all_running().await;
    let elsewhere = House::new(ALICIA, "services: {other: {command: [sleep, '1000']}}\n");
    let output = std::process::Command::new(ALICIA)
        .arg("--data")
        .arg(house.data())
        .args(["up", "-d"])
        .current_dir(elsewhere.path())
        .env("HOME", elsewhere.path())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for said in [
        &*house.path().to_string_lossy(),
        "alicia down",
        "--data DIR",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // In its own directory it goes on as ever.
    house.says(&["up", "-d"]).exits(0).tells(&["runs already"]);
}

#[tokio::test]
async fn mistakes_beside_a_running_fleet() {
    let file = "services: {web: {command: [sleep, '1000']}, job: {command: [sleep, '1000']}}\n";
    let house = House::start(ALICIA, file).await;
    let before = house.all_running().await;

    // A second host would be two masters of one fleet.
    let pid = house.host_pid().expect("it runs").to_string();
    house
        .says(&["up", "--background"])
        .exits(1)
        .tells(&["another host", &pid, "alicia down"]);
    house.says(&["up", "-d"]).exits(0).tells(&["runs already"]);

    for command in [
        &["start", "wep"][..],
        &["stop", "wep"],
        &["restart", "job", "wep"],
        &["scale", "wep", "2"],
    ] {
        house.says(command).exits(1).tells(&["`wep`", "`web`"]);
    }
    house
        .says(&["logs", "wep"])
        .exits(1)
        .tells(&["`wep`", "`web`"]);
    for command in [
        &["scale", "web", "many"][..],
        &["scale", "web", "1001"],
        &["stpo"],
    ] {
        house.says(command).exits(2);
    }

    house
        .says(&["run", "helth"])
        .exits(2)
        .tells(&["\"helth\"", "health", "orchestrator"]);
    for wrong in ["alk_wrong", "nonsense"] {
        house
            .says(&["--key", wrong, "ps"])
            .exits(1)
            .tells(&["unknown, revoked or expired", "host.unauthenticated"]);
    }

    // None of all that touched what runs.
    let pids = |rows: Vec<alicia_contract::orchestrator::ProcessRow>| {
        rows.into_iter().map(|row| row.pid).collect::<Vec<_>>()
    };
    assert_eq!(pids(house.rows().await), pids(before));
}
