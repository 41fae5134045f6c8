//! Fifty secrets are planted in every place that takes one; the house is used, misused and killed; then everything that it
//! wrote, said or shows is searched for them, plain, in base64 and in hexadecimal. A value that is no secret is planted the
//! same way, to prove that the search finds.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::House;
use alicia_testkit::until;
use serde_json::json;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const IN_DESCRIPTORS: usize = 12;
const IN_VARIABLES: usize = 12;
const IN_FILES: usize = 6;
const IN_CHANNELS: usize = 5;
const API_KEYS: usize = 13;
const ROTATED: usize = 2;

/// What is planted where it may be seen.
const VISIBLE: &str = "visible-canary-f00dfeed";

fn value(name: &str) -> String {
    format!(
        "canary-{name}-{:016x}{:016x}",
        fastrand::u64(..),
        fastrand::u64(..)
    )
}

/// What is looked for, by the name of the secret.
struct Wanted(BTreeMap<String, Vec<Vec<u8>>>);

impl Wanted {
    /// The value as it is, in hexadecimal, and in base64 at each of the three places where it may begin.
    fn new(values: &BTreeMap<String, String>) -> Self {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let forms = |value: &String| {
            let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
            let shifted = (0..3).map(|shift| {
                let text = STANDARD.encode([vec![0; shift], value.clone().into_bytes()].concat());
                // The first and last characters depend on what stands beside.
                text.as_bytes()[4..text.len() - 4].to_vec()
            });
            [value.clone().into_bytes(), hex.into_bytes()]
                .into_iter()
                .chain(shifted)
                .collect()
        };
        Self(
            values
                .iter()
                .map(|(name, value)| (name.clone(), forms(value)))
                .collect(),
        )
    }

    fn found_in<'w>(&'w self, bytes: &[u8]) -> Vec<&'w str> {
        let has = |form: &Vec<u8>| memchr::memmem::find(bytes, form).is_some();
        let found = self.0.iter().filter(|(_, forms)| forms.iter().any(has));
        found.map(|(name, _)| name.as_str()).collect()
    }
}

/// Everything that was seen, with where.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    fn files(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() => self.files(&path),
                Ok(metadata) if metadata.is_file() => {
                    let bytes = fs::read(&path).unwrap_or_default();
                    if path.extension().is_some_and(|extension| extension == "zst") {
                        let plain = std::process::Command::new("zstdcat").arg(&path).output();
                        self.add(
                            format!("{} unpacked", path.display()),
                            plain.map(|it| it.stdout).unwrap_or_default(),
                        );
                    }
                    self.add(path.display().to_string(), bytes);
                }
                _ => {}
            }
        }
    }

    fn says(&mut self, house: &House, line: &[&str]) {
        let said = house.says(line);
        self.add(format!("alicia {}", line.join(" ")), said.text());
    }
}

fn set(house: &House, name: &str, value: &str, verb: &str) {
    let mut command = house.command(&["secret", verb, name]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(value.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The file of the house, and the values by name.
fn plant(place: &Path) -> (String, BTreeMap<String, String>) {
    let mut values = BTreeMap::new();
    let mut secrets = serde_json::Map::new();
    let mut plant = |name: String| values.insert(name.clone(), value(&name));
    for number in 0..IN_DESCRIPTORS {
        plant(format!("d{number}"));
        secrets.insert(format!("d{number}"), json!({}));
    }
    for number in 0..IN_VARIABLES {
        plant(format!("v{number}"));
        secrets.insert(format!("v{number}"), json!({"as": "environment"}));
    }
    for number in 0..IN_FILES {
        plant(format!("f{number}"));
        let form = if number % 2 == 0 {
            "descriptor"
        } else {
            "environment"
        };
        secrets.insert(
            format!("f{number}"),
            json!({"file": format!("planted/f{number}"), "as": form}),
        );
    }
    for number in 0..IN_CHANNELS {
        plant(format!("c{number}"));
    }
    fs::create_dir(place).unwrap();
    for (name, value) in &values {
        let text = match name.as_str() {
            "c0" | "c3" => format!("https://hooks.example.invalid/{value}"),
            _ => value.clone(),
        };
        if name.starts_with(['f', 'c']) {
            fs::write(place.join(name), text).unwrap();
        }
    }
    let receiver = "
        read -r first < /proc/self/fd/$ALICIA_FD_D0
        [ ${#first} -gt 40 ] && [ ${#V0} -gt 40 ] && echo received
        echo \"plain $PLAIN\"; echo \"plain $PLAIN\" >&2
        exec sleep 1000";
    let file = json!({
        "log": {"level": "debug"},
        "services": {
            "receiver": {"command": ["sh", "-c", receiver], "secrets": secrets, "environment": {"PLAIN": VISIBLE}},
            "crasher": {
                "command": ["sh", "-c", "echo crashing; exit 7"],
                "secrets": ["d1"],
                "start_limit": {"starts": 2, "within": "60s"},
            },
            "wanting": {"command": ["sleep", "1000"], "secrets": ["not-there"]},
        },
        "health": {"channels": {
            "hook": {"webhook": {"url_file": "planted/c0", "secret_file": "planted/c1"}, "timeout": "1s"},
            "phone": {"ntfy": {"url": "https://ntfy.example.invalid", "topic": "ops", "token_file": "planted/c2"}, "timeout": "1s"},
            "chat": {"slack": {"url_file": "planted/c3"}, "timeout": "1s"},
            "am": {"alertmanager": {"url": "https://am.example.invalid", "token_file": "planted/c4"}, "timeout": "1s"},
        }},
    });
    (file.to_string(), values)
}

#[tokio::test]
async fn fifty_secrets_are_found_nowhere() {
    // JSON is YAML; the place of the planted files is beside it.
    let mut house = House::new(ALICIA, "");
    let (file, mut values) = plant(&house.path().join("planted"));
    fs::write(house.path().join("alicia.yaml"), file).unwrap();
    let stored = |name: &&String| name.starts_with(['d', 'v']);
    for name in values.keys().filter(stored) {
        set(&house, name, &values[name], "set");
    }
    house.start_host().await;
    house.reaches("receiver-1", InstanceState::Running).await;
    until("the receiver has them", || async {
        house
            .says(&["logs", "receiver"])
            .stdout
            .contains("received")
    })
    .await;
    for number in 0..API_KEYS {
        let (status, created) = house
            .post(
                "/api/keys",
                &json!({"name": format!("k{number}"), "scope": "read"}),
            )
            .await;
        assert_eq!(status, 201);
        values.insert(
            format!("k{number}"),
            created["key"].as_str().unwrap().to_owned(),
        );
    }
    for number in 0..ROTATED {
        let (old, new) = (format!("d{number}"), value("rotated"));
        set(&house, &old, &new, "rotate");
        values.insert(format!("r{number}"), new);
    }
    assert_eq!(values.len(), 50);
    let mut seen = Seen::default();
    use_it(&house, &values, &mut seen).await;
    house.kill_host();
    house.start_host().await;
    house.reaches("receiver-1", InstanceState::Running).await;
    seen.says(&house, &["ps", "--json"]);
    look_at_processes(&house, &mut seen);
    seen.says(&house, &["down"]);
    assert!(house.host_ended().await.success());
    seen.files(&house.data());
    seen.add("what the host said", house.host_log());
    judge(&values, &seen, &house.path().join("planted"));
}

/// Commands, mistakes, pages and documents.
async fn use_it(house: &House, values: &BTreeMap<String, String>, seen: &mut Seen) {
    for line in [
        &["ps", "--json"][..],
        &["status", "--json"],
        &["check"],
        &["plan", "--json"],
        &["deploy"],
        &["alerts", "--all", "--json"],
        &["secret", "list", "--json"],
        &["key", "list", "--json"],
        &["audit", "tail", "-n", "1000", "--json"],
        &["audit", "verify", "--json"],
        &["doctor", "--json"],
        &["explain", "receiver"],
        &["logs", "-n", "10000", "--json"],
        &["logs", "--host", "-n", "10000", "--json"],
        &["restart", "receiver"],
        &["signal", "receiver", "HUP"],
        &["secret", "set", "BAD NAME"],
        &["secret", "remove", "nobody"],
        &["bus", "sub", "--retained", "--wait", "1s", "--json"],
    ] {
        seen.says(house, line);
    }
    for path in [
        "/",
        "/health",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/api/keys",
        "/api/secrets",
        "/api/audit?limit=1000",
        "/api/orchestrator/status",
        "/api/orchestrator/services/receiver",
        "/api/orchestrator/services/crasher",
        "/api/orchestrator/services/wanting",
        "/api/health/alerts",
        "/api/registry/instances",
        "/api/secrets/d0",
    ] {
        let (status, body) = house.get(path).await;
        seen.add(format!("GET {path} {status}"), body.to_string());
    }
    // Mistakes with a secret in them: the refusal does not repeat it, and nobody writes it down.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mistakes = [
        (
            "/api/secrets/d2",
            json!({"value": values["d2"], "base64": values["d2"]}),
        ),
        ("/api/secrets/d2", json!({"base64": values["d2"]})),
        ("/api/secrets/d2", json!({"value": [values["d2"]]})),
        ("/api/secrets/Bad%20Name", json!({"value": values["d2"]})),
        ("/api/secrets/nobody/rotate", json!({"value": values["d2"]})),
        ("/api/keys", json!({"name": "again", "scope": values["k0"]})),
    ];
    for (path, body) in mistakes {
        let (status, answer) = house.post(path, &body).await;
        assert!((400..500).contains(&status), "{path}: {answer}");
        if path != "/api/keys" {
            seen.add(format!("POST {path}"), answer.to_string());
        }
    }
    for credential in [values["k1"].clone(), format!("{}x", values["k1"])] {
        let request = http
            .post(format!("{}/api/keys", house.api()))
            .bearer_auth(credential);
        let answer = request.json(&json!({})).send().await.unwrap();
        seen.add("POST /api/keys by a reader", answer.text().await.unwrap());
    }
    until("crashes have been told or tried to be", || async {
        let row = house.row("crasher-1").await;
        row.is_some_and(|row| row.state == InstanceState::Failed)
    })
    .await;
    let (_, alerts) = house.get("/api/health/alerts").await;
    seen.add("alerts", alerts.to_string());
}

/// Command lines and environments of all processes. Of the receiver the environment is the right place.
fn look_at_processes(house: &House, seen: &mut Seen) {
    let processes = house.processes();
    assert!(processes.iter().any(|process| process.service.is_none()));
    for process in processes {
        let read =
            |what: &str| fs::read(format!("/proc/{}/{what}", process.pid)).unwrap_or_default();
        seen.add(format!("cmdline of {process:?}"), read("cmdline"));
        if process.service.as_deref() != Some("receiver") {
            seen.add(format!("environment of {process:?}"), read("environ"));
        }
    }
}

fn judge(values: &BTreeMap<String, String>, seen: &Seen, planted: &Path) {
    let control = Wanted::new(&BTreeMap::from([(
        "visible".to_owned(),
        VISIBLE.to_owned(),
    )]));
    let visible: Vec<&str> = seen
        .0
        .iter()
        .filter(|(_, bytes)| !control.found_in(bytes).is_empty())
        .map(|(place, _)| place.as_str())
        .collect();
    let in_log = |place: &&str| place.contains("logs/receiver");
    assert!(
        visible.iter().any(in_log),
        "the search does not find: {visible:?}"
    );
    let bases: Vec<(String, Vec<u8>)> = fs::read_dir(planted)
        .unwrap()
        .map(|entry| {
            (
                entry.as_ref().unwrap().path().display().to_string(),
                fs::read(entry.unwrap().path()).unwrap(),
            )
        })
        .collect();
    let wanted = Wanted::new(values);
    assert_eq!(
        bases
            .iter()
            .filter(|(_, bytes)| !wanted.found_in(bytes).is_empty())
            .count(),
        IN_FILES + IN_CHANNELS
    );
    let mut leaks = Vec::new();
    for (place, bytes) in &seen.0 {
        for name in wanted.found_in(bytes) {
            leaks.push(format!("{name} in {place}"));
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert!(seen.0.len() > 60, "{}", seen.0.len());
}
