//! Identities in a whole house: keys by descriptor, credentials, fences between copies, agents that join, signatures
//! over the real broker, keys of limited scope, rates, rotation.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use alicia_bus::{Bus, BusAddress, CallError, Keys, Options, PasswordSource, Qos, Retain, Signing};
use alicia_contract::Prefix;
use alicia_contract::identity::{IdentityFile, SignaturePolicy};
use alicia_contract::orchestrator::InstanceState;
use alicia_signature::{KnownKey, Signed, Signer, SigningKey};
use alicia_testkit::house::{House, signal};
use alicia_testkit::{PATIENCE, until};
use rustix::process::Signal;
use serde_json::{Value, json};

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const RESTART: &str = "alicia/system/orchestrator/restart";

/// A process that ends with the test.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn refused(house: &House, reason: &str) -> u64 {
    let (_, stats) = house.get("/api/broker/stats").await;
    stats["refused"][reason].as_u64().unwrap_or_default()
}

async fn clients(house: &House) -> Vec<Value> {
    let (_, clients) = house.get("/api/broker/clients").await;
    clients.as_array().cloned().unwrap_or_default()
}

async fn client_id_of(house: &House, identity: &str) -> Option<String> {
    let clients = clients(house).await;
    let client = clients
        .iter()
        .find(|client| client["identity"] == identity)?;
    client["client_id"].as_str().map(str::to_owned)
}

async fn client_ids(house: &House) -> Vec<String> {
    let clients = clients(house).await;
    let connected = clients.iter().filter(|client| client["connected"] == true);
    let ids = connected.filter_map(|client| client["client_id"].as_str());
    ids.map(str::to_owned).collect()
}

/// Every file below a directory that holds the text.
fn holders(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(holders(&path, text)),
            Ok(kind) if kind.is_file() => {
                let bytes = fs::read(&path).unwrap_or_default();
                if bytes
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
                {
                    found.push(path.display().to_string());
                }
            }
            _ => {}
        }
    }
    found
}

#[tokio::test]
async fn a_run_has_a_key_of_its_own_and_nobody_else_finds_it() {
    let file = "
identity: {token_file: false}
services:
  clock: {command: alicia example clock, allow: {publish: [home/clock]}}
";
    let house = House::start(ALICIA, file).await;
    let row = house.reaches("clock-1", InstanceState::Running).await;
    let pid = row.pid.expect("it runs");
    let environ = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let descriptor = environ
        .split('\0')
        .find_map(|pair| pair.strip_prefix("ALICIA_FD_IDENTITY="));
    let descriptor = descriptor.expect("it is told the number");
    let identity = fs::read(format!("/proc/{pid}/fd/{descriptor}")).expect("is open");
    let identity: IdentityFile = serde_json::from_slice(&identity).expect("an identity");
    assert_eq!(identity.id, "spiffe://alicia.local/agent/clock");
    // It has logged in without any token: with a credential, under its own client id.
    let own = format!("clock-{}", identity.instance);
    until("it is on the bus", async || {
        client_ids(&house).await.contains(&own)
    })
    .await;
    let hearing = house.listen("alicia/home/clock").await;
    hearing
        .hears("the time", |said| said["topic"] == "alicia/home/clock")
        .await;
    assert!(!environ.contains(&identity.key), "not in the environment");
    assert!(!environ.contains("ALICIA_TOKEN_FILE"), "nor a token");
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("its arguments");
    assert!(!line.contains(&identity.key), "not in the arguments");
    assert_eq!(holders(house.path(), &identity.key), [""; 0], "on no disk");
}

#[tokio::test]
async fn a_copy_of_an_older_epoch_that_wakes_up_may_do_nothing() {
    // A service that leaks all that it has.
    let file = "
services:
  clock:
    command:
      - sh
      - -c
      - cat /proc/self/fd/$ALICIA_FD_IDENTITY > leaked.new; cat $ALICIA_TOKEN_FILE > token;
        mv leaked.new leaked; exec sleep 1000
    allow: {publish: [home/clock]}
";
    let house = House::start(ALICIA, file).await;
    let first = house.reaches("clock-1", InstanceState::Running).await;
    let (leaked, token) = (house.path().join("leaked"), house.path().join("token"));
    until("it has leaked", async || leaked.exists()).await;
    let stolen = house.path().join("stolen");
    fs::rename(&leaked, &stolen).expect("moved");
    let stolen_token = house.path().join("stolen-token");
    fs::copy(&token, &stolen_token).expect("copied");
    let identity: IdentityFile =
        serde_json::from_slice(&fs::read(&stolen).expect("there")).expect("an identity");
    // The copy is a real program on the client library, outside of the instance's tree.
    let bus = house.host_file().expect("it runs").bus.expect("a bus");
    let copy = Command::new(ALICIA)
        .args(["example", "clock"])
        .env("ALICIA_MQTT_URL", bus)
        .env("ALICIA_IDENTITY_FILE", &stolen)
        .env("ALICIA_TOKEN_FILE", &stolen_token)
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let copy = Owned(copy);
    let own = format!("clock-{}", identity.instance);
    until("the copy is on the bus while its epoch is on", async || {
        client_ids(&house).await.contains(&own)
    })
    .await;
    let hearing = house.listen("alicia/home/clock").await;
    let is_time = |said: &Value| said["topic"] == "alicia/home/clock";
    hearing.hears("the copy speaks", is_time).await;
    until(
        "its renewal was refused: it is not of the tree",
        async || house.host_log().contains("a credential was refused"),
    )
    .await;
    signal(copy.0.id(), Signal::STOP);
    house.says(&["restart", "clock"]).exits(0);
    let second = house.reaches("clock-1", InstanceState::Running).await;
    assert_ne!(first.pid, second.pid);
    until("the copy was cut off", async || {
        !client_ids(&house).await.contains(&own)
    })
    .await;
    let (heard, refusals) = (
        hearing.heard().iter().filter(|said| is_time(said)).count(),
        refused(&house, "stale_epoch").await,
    );
    signal(copy.0.id(), Signal::CONT);
    until("the copy has tried, and tried again", async || {
        refused(&house, "stale_epoch").await >= refusals + 2
    })
    .await;
    assert!(!client_ids(&house).await.contains(&own));
    let since = hearing.heard().iter().filter(|said| is_time(said)).count();
    assert_eq!(since, heard, "nothing of it is accepted");
    // Nor over REST.
    let token = fs::read_to_string(&stolen_token).expect("there");
    let me = reqwest::Client::new().get(format!("{}/api/keys/me", house.api()));
    let answer = me.bearer_auth(token.trim()).send().await.expect("answers");
    assert_eq!(answer.status().as_u16(), 401);
    let (_, keys) = house.get("/api/identity/keys").await;
    let keys = keys["keys"].as_array().cloned().unwrap_or_default();
    let epochs: Vec<_> = keys.iter().filter(|key| key["source"] == "clock").collect();
    assert_eq!(
        epochs.len(),
        1,
        "its key is not listed any more: {epochs:?}"
    );
    assert_ne!(epochs[0]["instance"], identity.instance.as_str());
}

struct NoKeys;

impl Keys for NoKeys {
    fn known_key(&self, _: &str) -> Option<KnownKey> {
        None
    }

    fn policy(&self) -> SignaturePolicy {
        SignaturePolicy::default()
    }
}

/// An agent that has joined, as its identity file says.
struct Agent {
    file: IdentityFile,
    credential: String,
}

impl Agent {
    fn join(house: &House, scopes: &str, out: &str) -> Self {
        let create = ["join-token", "create", "robot", "--scope", scopes, "--json"];
        let token = house.says(&create).exits(0).json();
        let token = token["token"].as_str().expect("a token").to_owned();
        house
            .says(&["join", &token, "--out", out])
            .exits(0)
            .tells(&["joined as"]);
        let path = house.path().join(out);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let file = serde_json::from_slice(&fs::read(&path).expect("there"));
        let credential = house.says(&["identity", "credential", "--identity", out]);
        let credential = credential.exits(0).stdout.trim().to_owned();
        // The token is used up.
        house
            .says(&["join", &token, "--out", "again.json"])
            .exits(1);
        assert!(!house.path().join("again.json").exists());
        Self {
            file: file.expect("an identity"),
            credential,
        }
    }

    fn signer(&self) -> Arc<Signer> {
        let key = SigningKey::from_text(&self.file.key).expect("a seed");
        Arc::new(Signer::new(key, "robot"))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no context to spawn in"
    )]
    async fn bus(&self, house: &House, suffix: &str, signer: Option<Arc<Signer>>) -> Bus {
        let bus = house.host_file().expect("it runs").bus.expect("a bus");
        let address: BusAddress = bus.parse().expect("an address");
        let mut options = Options::at(address, "robot", Prefix::default());
        options.client_id = format!("robot-{}{suffix}", self.file.instance);
        options.password = PasswordSource::Fixed(self.credential.clone());
        let now = (options.clock)();
        options.signing = signer.map(|signer| Signing::new(Some(signer), Arc::new(NoKeys), now));
        let (bus, connection) = Bus::start(options);
        tokio::spawn(connection);
        bus.connected(PATIENCE).await.expect("it may log in");
        bus
    }
}

async fn restart(bus: &Bus) -> Result<Value, CallError> {
    let request = json!({"services": ["idle"]});
    bus.call_at(RESTART, &request, PATIENCE).await
}

fn now_ms() -> u64 {
    let now = alicia_bus::system_clock()() * 1_000.0;
    now as u64
}

/// What would restart the service, were it accepted, in a form that must not be.
fn forgery(n: usize, good: &[u8], agent: &Agent, own: &Signer) -> Vec<u8> {
    let payload = format!("{{\"services\":[\"idle\"],\"reason\":\"forgery {n}\"}}").into_bytes();
    let message = Signed {
        topic: RESTART,
        payload: &payload,
    };
    let attach = |signer: &Signer, message: Signed<'_>, now_ms: u64| {
        signer.attach(message, now_ms).expect("random")
    };
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = serde_json::from_slice(&attach(own, message, now_ms())).expect("JSON");
        change(&mut value);
        value.to_string().into_bytes()
    };
    match n % 10 {
        0 => good.to_vec(),
        1 => payload,
        2 => attach(own, message, now_ms() - 120_000),
        3 => attach(own, message, now_ms() + 120_000),
        4 => {
            let topic = "alicia/system/orchestrator/stop";
            attach(own, Signed { topic, ..message }, now_ms())
        }
        5 => {
            let stranger = SigningKey::generate().expect("random");
            attach(&Signer::new(stranger, "robot"), message, now_ms())
        }
        6 => {
            let key = SigningKey::from_text(&agent.file.key).expect("a seed");
            attach(&Signer::new(key, "system/health"), message, now_ms())
        }
        7 => changed(&|value| value["payload"] = json!("eyJzZXJ2aWNlcyI6WyJpZGxlIl19")),
        8 => changed(&|value| {
            // {"alg":"none"}
            value["protected"] = json!("eyJhbGciOiJub25lIn0");
            value["signature"] = json!("");
        }),
        _ => changed(&|value| value["signature"] = value["protected"].clone()),
    }
}

#[tokio::test]
async fn where_signatures_are_required_forged_commands_do_nothing_and_true_ones_work() {
    let file = "
identity: {signatures: {platform: required}}
services:
  idle: {command: [sleep, '1000']}
";
    let house = House::start(ALICIA, file).await;
    let before = house.reaches("idle-1", InstanceState::Running).await;
    let agent = Agent::join(&house, "orchestrator:restart", "robot.json");
    let own = agent.signer();
    let bus = agent.bus(&house, "", Some(own.clone())).await;
    let plain = agent.bus(&house, "-plain", None).await;

    restart(&bus).await.expect("a signed one is carried out");
    let after = house.reaches("idle-1", InstanceState::Running).await;
    assert_ne!(before.pid, after.pid);
    let unsigned = restart(&plain).await.expect_err("an unsigned one is not");
    let CallError::Refused { problem, .. } = unsigned else {
        panic!("{unsigned}");
    };
    assert_eq!(problem.code, "bus.signature_required");

    // A good one in the attached form, which is what the replays repeat.
    let payload = br#"{"services":["idle"]}"#;
    let message = Signed {
        topic: RESTART,
        payload,
    };
    let good = own.attach(message, now_ms()).expect("random");
    plain
        .raw_publish(RESTART, good.clone(), Qos::AtLeastOnce, Retain::No)
        .await
        .expect("taken");
    until("the attached form is carried out", async || {
        house
            .row("idle-1")
            .await
            .is_some_and(|row| row.pid.is_some() && row.pid != after.pid)
    })
    .await;
    let settled = house.reaches("idle-1", InstanceState::Running).await;
    for n in 0..1_000 {
        let bytes = forgery(n, &good, &agent, &own);
        let sent = plain.raw_publish(RESTART, bytes, Qos::AtLeastOnce, Retain::No);
        sent.await.expect("the broker takes it");
    }
    // Requests are looked at in order: when this one is answered, all before it have been.
    restart(&bus).await.expect("a signed one is carried out");
    let last = house.reaches("idle-1", InstanceState::Running).await;
    let (code, rows) = house.get("/api/orchestrator/audit").await;
    let rows = rows.as_array().cloned().unwrap_or_default();
    let by_robot = rows.iter().filter(|row| row["actor"] == "robot").count();
    assert_eq!(
        (code, by_robot),
        (200, 3),
        "the good ones and no others: {rows:?}"
    );
    assert_ne!(last.pid, settled.pid);
}

#[tokio::test]
async fn an_agent_is_cut_off_when_it_joins_again_and_when_it_is_revoked() {
    let house = House::start(ALICIA, "services: {idle: {command: [sleep, '1000']}}").await;
    let older = Agent::join(&house, "orchestrator:restart", "one.json");
    let old_bus = older.bus(&house, "", Some(older.signer())).await;
    let newer = Agent::join(&house, "orchestrator:restart", "two.json");
    assert!(newer.file.epoch > older.file.epoch);
    until("the older copy is cut off", async || {
        !old_bus.status().connected
    })
    .await;
    house
        .says(&["identity", "credential", "--identity", "one.json"])
        .exits(1);
    let bus = newer.bus(&house, "", Some(newer.signer())).await;
    restart(&bus).await.expect("the newer one works");
    house
        .says(&["identity", "list"])
        .exits(0)
        .tells(&["robot", "orchestrator:restart"]);
    house
        .says(&["identity", "revoke", "robot"])
        .exits(0)
        .tells(&["revoked"]);
    until("it is cut off", async || !bus.status().connected).await;
    house
        .says(&["identity", "credential", "--identity", "two.json"])
        .exits(1);
    house.says(&["identity", "revoke", "robot"]).exits(1);
}

async fn status(
    house: &House,
    method: reqwest::Method,
    path: &str,
    key: &str,
) -> (u16, Option<u64>) {
    let request = reqwest::Client::new().request(method, format!("{}{path}", house.api()));
    let answer = request
        .bearer_auth(key)
        .json(&json!({}))
        .send()
        .await
        .expect("answers");
    let wait = answer.headers().get("retry-after");
    let wait = wait.and_then(|value| value.to_str().ok()?.parse().ok());
    (answer.status().as_u16(), wait)
}

#[tokio::test]
async fn a_key_does_what_its_scopes_name_and_nothing_else() {
    let house = House::start(ALICIA, "services: {idle: {command: [sleep, '1000']}}").await;
    house.reaches("idle-1", InstanceState::Running).await;
    let create = ["key", "create", "ci", "--scope", "orchestrator:restart"];
    let key = house.says(&create).exits(0).stdout.trim().to_owned();
    let post = |path: &'static str| status(&house, reqwest::Method::POST, path, &key);
    assert_eq!(post("/api/orchestrator/services/idle/restart").await.0, 200);
    for path in [
        "/api/orchestrator/services/idle/stop",
        "/api/host/reload",
        "/api/keys",
    ] {
        assert_eq!(post(path).await.0, 403, "{path}");
    }
    let (read, _) = status(
        &house,
        reqwest::Method::GET,
        "/api/orchestrator/status",
        &key,
    )
    .await;
    assert_eq!(read, 403, "it may not even look");
    house
        .says(&["key", "list"])
        .exits(0)
        .tells(&["ci", "orchestrator:restart", "LAST USED"]);
    house
        .says(&["key", "create", "x", "--scope", "nonsense"])
        .exits(2);
    house
        .says(&["key", "create", "x", "--scope", "admin,read"])
        .exits(2);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let file = "
identity: {requests: {per_second: 1, burst: 200}}
services: {}
";
    let house = House::start(ALICIA, file).await;
    let key = house
        .says(&["key", "create", "busy"])
        .exits(0)
        .stdout
        .trim()
        .to_owned();
    let mut waits = Vec::new();
    for _ in 0..260 {
        let (code, wait) = status(&house, reqwest::Method::GET, "/api/keys/me", &key).await;
        match code {
            200 => {}
            429 => waits.push(wait.expect("Retry-After")),
            other => panic!("answered {other}"),
        }
    }
    assert!(
        !waits.is_empty() && waits.iter().all(|wait| *wait >= 1),
        "{waits:?}"
    );
    let admin = house.get("/api/keys/me").await;
    assert_eq!(admin.0, 200, "another caller is not concerned");
}

#[tokio::test]
async fn after_a_rotation_of_the_root_key_everybody_goes_on() {
    let file = "
services:
  clock: {command: alicia example clock, allow: {publish: [home/clock]}}
";
    let house = House::start(ALICIA, file).await;
    let before = house.reaches("clock-1", InstanceState::Running).await;
    until("the clock has logged in", || async {
        client_id_of(&house, "clock").await.is_some()
    })
    .await;
    let said = house
        .says(&["key", "rotate-root", "--json"])
        .exits(0)
        .json();
    assert_ne!(said["kid"], said["previous"]);
    let (_, keys) = house.get("/api/identity/keys").await;
    assert_eq!(keys["roots"].as_array().map(Vec::len), Some(2));
    // A credential of the older key is good for a new connection.
    let id = client_id_of(&house, "clock").await;
    let path = format!("/api/broker/clients/{}", id.expect("it is connected"));
    let admin = house.key();
    let ended = status(&house, reqwest::Method::DELETE, &path, &admin).await;
    assert_eq!(ended.0, 200);
    let hearing = house.listen("alicia/home/clock").await;
    let is_new = |said: &Value| said["topic"] == "alicia/home/clock" && said["retained"] != true;
    hearing.hears("the time, said anew", is_new).await;
    let after = house.reaches("clock-1", InstanceState::Running).await;
    assert_eq!(before.pid, after.pid, "it was not started again");
}

/// Debian's Python with its paho, and nothing else: the library does its own Ed25519 there.
fn has_paho() -> bool {
    let paho = Command::new("/usr/bin/python3")
        .args(["-c", "import paho.mqtt.client"])
        .output();
    alicia_testkit::house::has(
        paho.is_ok_and(|output| output.status.success()),
        "paho is not installed (Debian: python3-paho-mqtt)",
    )
}

const LAMP: &str = "
from alicia_sdk import Service

service = Service('lamp')

@service.command('on')
def on() -> dict:
    service.publish('home/lamp', {'on': True})
    return {'on': True}

service.run()
";

const HAND: &str = "
from alicia_sdk import Service

service = Service('hand')

@service.every(0.5)
def press() -> None:
    service.publish('home/hand', service.call('lamp', 'on'))

service.run()
";

#[tokio::test]
async fn python_services_without_tokens_command_each_other_where_signatures_are_required() {
    if !has_paho() {
        return;
    }
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/python/src");
    let file = format!(
        "
identity: {{token_file: false, signatures: {{services: required}}}}
services:
  lamp:
    command: [/usr/bin/python3, lamp.py]
    environment: {{PYTHONPATH: '{library}', PYTHONDONTWRITEBYTECODE: '1'}}
    allow: {{publish: [home/lamp]}}
  hand:
    command: [/usr/bin/python3, hand.py]
    environment: {{PYTHONPATH: '{library}', PYTHONDONTWRITEBYTECODE: '1'}}
    allow: {{publish: [home/hand], command: [lamp]}}
"
    );
    let mut house = House::new(ALICIA, &file);
    fs::write(house.path().join("lamp.py"), LAMP).expect("written");
    fs::write(house.path().join("hand.py"), HAND).expect("written");
    house.start_host().await;
    let hearing = house.listen("alicia/home/#").await;
    let answered = |said: &Value| said["topic"] == "alicia/home/hand";
    hearing.hears("the lamp's answer", answered).await;
    // An administrator may publish there, and has no key to sign with: the lamp says so.
    let token = house.key();
    let bus = house.host_file().expect("it runs").bus.expect("a bus");
    let mut options = Options::at(
        bus.parse().expect("an address"),
        "key/admin",
        Prefix::default(),
    );
    options.username = "admin".to_owned();
    options.password = PasswordSource::Fixed(token);
    let admin = start(options).await;
    let command = json!({"command": "on", "arguments": {}});
    let unsigned: Result<Value, CallError> = admin
        .call_at("alicia/lamp/command", &command, PATIENCE)
        .await;
    let Err(CallError::Refused { problem, .. }) = unsigned else {
        panic!("{unsigned:?}");
    };
    assert_eq!(problem.code, "bus.signature_required");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no context to spawn in"
)]
async fn start(options: Options) -> Bus {
    let (bus, connection) = Bus::start(options);
    tokio::spawn(connection);
    bus.connected(PATIENCE).await.expect("it may log in");
    bus
}
