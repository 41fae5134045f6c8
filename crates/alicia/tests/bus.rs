//! The bus as outsiders meet it, with Debian's mosquitto clients: who may say and hear what, and that nobody speaks for
//! another.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::{House, is_installed};
use alicia_testkit::until;
use serde_json::{Value, json};

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const STATUS: &str = "alicia/system/orchestrator/status";

/// `talker` sends heartbeats with what every service finds in its environment, and nothing else.
const FILE: &str = r#"
services:
  talker:
    command:
      - sh
      - -c
      - |
        port=${ALICIA_MQTT_URL##*:}
        while :; do
          mosquitto_pub -p "$port" -u "$ALICIA_MQTT_USERNAME" -P "$(cat "$ALICIA_TOKEN_FILE")" \
            -t "$ALICIA_TOPIC_PREFIX/system/health/talker" -m '{"service": "talker", "status": "healthy"}'
          sleep 0.2
        done
  one: {command: [sleep, '1000'], allow: {publish: [rooms/+/light]}}
  two: {command: [sleep, '1000']}
"#;

/// Who speaks to the bus: a user name and a password.
struct Who {
    port: String,
    name: String,
    password: String,
}

/// The house, when the mosquitto clients are there.
async fn house() -> Option<House> {
    if !is_installed("mosquitto_sub", "mosquitto-clients") {
        return None;
    }
    let house = House::start(ALICIA, FILE).await;
    house.all_running().await;
    Some(house)
}

fn who(house: &House, name: &str, password: &str) -> Who {
    let bus = house.host_file().expect("it runs").bus.expect("a bus");
    let (_, port) = bus.rsplit_once(':').expect("a port");
    Who {
        port: port.to_owned(),
        name: name.to_owned(),
        password: password.to_owned(),
    }
}

fn admin(house: &House) -> Who {
    who(house, "admin", &house.key())
}

/// Somebody with a new key of this scope.
fn key(house: &House, name: &str, scope: &str) -> Who {
    let made = house.says(&["key", "create", name, "--scope", scope]);
    who(house, name, made.exits(0).stdout.trim())
}

/// A service as which the test speaks, with the very token of its instance.
async fn service(house: &House, name: &str) -> Who {
    let row = house
        .reaches(&format!("{name}-1"), InstanceState::Running)
        .await;
    let environment = fs::read(format!("/proc/{}/environ", row.pid.expect("it runs")));
    let environment = String::from_utf8(environment.expect("it is ours")).expect("text");
    let file = environment
        .split('\0')
        .find_map(|variable| variable.strip_prefix("ALICIA_TOKEN_FILE="));
    let token = fs::read_to_string(file.expect("it is told")).expect("a token");
    who(house, name, token.trim())
}

impl Who {
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(["-V", "mqttv5", "-p", &self.port]);
        if !self.name.is_empty() {
            command.args(["-u", &self.name, "-P", &self.password]);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Publishes at quality 1 and gives what the client complained about.
    fn publish(&self, topic: &str, payload: &str, more: &[&str]) -> String {
        let arguments = ["-q", "1", "-t", topic, "-m", payload];
        let output = self
            .command("mosquitto_pub", &arguments)
            .args(more)
            .output();
        complaint(&output.expect("mosquitto_pub runs"))
    }

    /// Subscribes, ends when that is acknowledged, and gives what the client complained about.
    fn subscribe(&self, filter: &str) -> String {
        let output = self
            .command("mosquitto_sub", &["-E", "-t", filter])
            .output();
        complaint(&output.expect("mosquitto_sub runs"))
    }
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[tokio::test]
async fn mosquitto_sub_hears_the_fleet_talk_and_what_is_retained() {
    let Some(house) = house().await else { return };
    let admin = admin(&house);
    let mut missing = BTreeSet::from([
        "alicia/system/health/talker",
        STATUS,
        "alicia/system/health/monitor/status",
        "alicia/system/discovery/talker",
    ]);
    let mut listener = admin
        .command("mosquitto_sub", &["-t", "alicia/#", "-W", "60", "-F", "%t"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let heard = BufReader::new(listener.stdout.take().expect("it is piped"));
    for line in heard.lines() {
        missing.remove(line.expect("text").as_str());
        if missing.is_empty() {
            break;
        }
    }
    listener.kill().expect("it is ours");
    listener.wait().expect("it ends");
    assert!(missing.is_empty(), "not heard in a minute: {missing:?}");

    let arguments = ["-t", STATUS, "-C", "1", "-W", "60", "-F", "%r %p"];
    let late = admin.command("mosquitto_sub", &arguments).output();
    let late = String::from_utf8(late.expect("it runs").stdout).expect("text");
    let status: Value = serde_json::from_str(late.strip_prefix("1 ").expect("it is retained"))
        .expect("the state is JSON");
    let services = status["payload"]["services"].as_array().expect("services");
    assert_eq!(services.len(), 3);

    // The heartbeats of plain MQTT and bare JSON count.
    until("health heard talker", || async {
        let row = house.row("talker-1").await.and_then(|row| row.health);
        row == Some(alicia_contract::health::HealthState::Healthy)
    })
    .await;
}

#[tokio::test]
async fn who_is_not_known_does_not_get_in() {
    let Some(house) = house().await else { return };
    let token = service(&house, "one").await.password;
    for (name, password) in [
        ("", ""),
        ("admin", "wrong"),
        ("admin", &token),
        ("two", &token),
        ("one", &house.key()),
        ("nobody", "alk_x"),
    ] {
        let complaint = who(&house, name, password).subscribe("alicia/#");
        assert!(
            complaint.contains("Not authorized") || complaint.contains("Bad User Name"),
            "{name}: {complaint:?}"
        );
    }
}

#[tokio::test]
async fn a_service_says_only_what_is_its_own() {
    let Some(house) = house().await else { return };
    let one = service(&house, "one").await;
    let hearing = house.listen("alicia/#").await;
    let envelope = |source: &str| {
        let payload = json!({ "forged": true });
        json!({ "message_id": "m1", "timestamp": 1.0, "source": source, "message_type": "event", "payload": payload })
            .to_string()
    };
    let own = r#"{"service": "one", "status": "healthy"}"#;
    let of_two = r#"{"service": "two", "status": "unhealthy", "forged": true}"#;
    let forged = envelope("two");
    for (topic, payload, more) in [
        ("alicia/system/health/two", of_two, &[][..]),
        ("alicia/system/health/one", own, &["-r"]),
        ("alicia/system/discovery/register", of_two, &[]),
        ("alicia/system/discovery/unregister", of_two, &[]),
        ("alicia/system/discovery/two", of_two, &[]),
        (
            "alicia/system/orchestrator/restart",
            r#"{"services": ["two"]}"#,
            &[],
        ),
        (STATUS, "{}", &["-r"]),
        ("alicia/two/command", of_two, &[]),
        ("alicia/rooms/hall/door", of_two, &[]),
        ("alicia/rooms/hall/light", &forged, &[]),
        ("elsewhere", of_two, &[]),
        ("$SYS/broker/version", of_two, &[]),
    ] {
        let complaint = one.publish(topic, payload, more);
        assert!(
            complaint.contains("Not authorized") || complaint.contains("failed"),
            "{topic} {more:?}: {complaint:?}"
        );
        // MQTT 3.1.1 cannot say no: the message is taken and thrown away.
        one.publish(topic, payload, &[more, &["-V", "mqttv311"]].concat());
    }
    for (topic, payload) in [
        ("alicia/system/health/one", own),
        ("alicia/rooms/hall/light", &envelope("one")),
        ("alicia/rooms/hall/light", "the last one"),
    ] {
        assert_eq!(one.publish(topic, payload, &[]), "", "{topic}");
    }
    hearing
        .hears("the last one", |line| line["payload"] == "the last one")
        .await;
    for line in hearing.heard() {
        let is_forged = line["payload"]["forged"] == true
            || line["payload"]["source"] == "two"
            || line["topic"] == "alicia/two/command";
        assert!(!is_forged, "{line}");
    }
    // On its own topic it may say what it likes, but not about another.
    assert_eq!(one.publish("alicia/system/health/one", of_two, &[]), "");
    until("the bad heartbeat is counted for its sender", || async {
        let (_, health) = house.get("/api/health/services").await;
        let services = health["services"].as_array().cloned().unwrap_or_default();
        let bad = |name: &str| {
            let of = services.iter().find(|service| service["service"] == name);
            of.map(|service| service["bad_heartbeats"].clone())
        };
        bad("one") == Some(json!(1)) && bad("two") == Some(json!(0))
    })
    .await;
    let two = house.reaches("two-1", InstanceState::Running).await;
    assert_eq!(two.restarts, 0);
}

#[tokio::test]
async fn a_service_hears_only_what_is_for_it() {
    let Some(house) = house().await else { return };
    let one = service(&house, "one").await;
    for filter in [
        "alicia/two/command",
        "alicia/+/command",
        "alicia/two/replies/#",
        "alicia/keys/admin/replies/x",
        "alicia/#",
        "#",
        "$share/group/alicia/two/command",
        "$SYS/#",
    ] {
        let complaint = one.subscribe(filter);
        assert!(complaint.contains("denied"), "{filter}: {complaint:?}");
    }
    for filter in ["alicia/one/command", "alicia/system/health/check"] {
        assert_eq!(one.subscribe(filter), "", "{filter}");
    }
}

/// A client that stays; it ends when this is dropped.
struct Stays(Child);

impl Drop for Stays {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn nobody_takes_over_the_client_id_of_another() {
    let Some(house) = house().await else { return };
    let output = house.path().join("first.txt");
    let file = fs::File::create(&output).expect("a file");
    let heard = || fs::read_to_string(&output).unwrap_or_default();
    let arguments = ["-i", "me", "-t", STATUS, "-t", "alicia/probe", "-F", "%t"];
    let mut first = admin(&house).command("mosquitto_sub", &arguments);
    let mut first = Stays(first.stdout(file).spawn().expect("it runs"));
    until("the first one hears", || async { heard().contains(STATUS) }).await;

    let one = service(&house, "one").await;
    let reader = key(&house, "reader", "read");
    for other in [&one, &reader] {
        let arguments = ["-i", "me", "-t", "alicia/system/health/check", "-E"];
        let refused = other.command("mosquitto_sub", &arguments).output();
        let complaint = complaint(&refused.expect("it runs"));
        assert!(
            complaint.contains("Not authorized") || complaint.contains("Client Identifier"),
            "{}: {complaint:?}",
            other.name
        );
    }
    house
        .says(&["bus", "pub", "alicia/probe", "still there?"])
        .exits(0);
    until("the first one still hears", || async {
        heard().contains("alicia/probe")
    })
    .await;
    assert!(first.0.try_wait().expect("it is ours").is_none());
}

#[tokio::test]
async fn who_may_operate_asks_by_message_and_who_may_read_may_not() {
    let Some(house) = house().await else { return };
    let before = house.reaches("two-1", InstanceState::Running).await;
    let request = r#"{"services": ["two"], "reason": "a test"}"#;
    let topic = "alicia/system/orchestrator/restart";

    let reader = key(&house, "reader", "read");
    let complaint = reader.publish(topic, request, &[]);
    assert!(complaint.contains("Not authorized"), "{complaint:?}");
    assert_eq!(reader.subscribe("alicia/#"), "");
    house
        .says(&["--key", &reader.password, "bus", "pub", topic, request])
        .exits(1);
    house
        .says(&["--key", &reader.password, "restart", "two"])
        .exits(1)
        .tells(&["host.forbidden"]);
    assert_eq!(house.row("two-1").await.and_then(|row| row.pid), before.pid);

    let operator = key(&house, "operator", "operate");
    let replies = "alicia/keys/operator/replies/rr";
    let arguments = ["-t", topic, "-e", replies, "-m", request, "-W", "60"];
    let answer = operator.command("mosquitto_rr", &arguments).output();
    let answer = answer.expect("mosquitto_rr runs");
    let answer: Value = serde_json::from_slice(&answer.stdout)
        .unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert_eq!(answer["payload"]["accepted"], true, "{answer}");
    assert_eq!(answer["payload"]["services"], json!(["two"]));
    until("it is restarted", || async {
        let row = house.row("two-1").await;
        row.is_some_and(|row| row.state == InstanceState::Running && row.pid != before.pid)
    })
    .await;

    // What cannot be done is answered, not dropped.
    let arguments = [
        "-t",
        topic,
        "-e",
        replies,
        "-m",
        r#"{"services": ["tow"]}"#,
        "-W",
        "60",
    ];
    let answer = operator.command("mosquitto_rr", &arguments).output();
    let answer: Value = serde_json::from_slice(&answer.expect("it runs").stdout).expect("JSON");
    assert_eq!(answer["message_type"], "error", "{answer}");
    assert_eq!(answer["payload"]["code"], "orchestrator.unknown_service");
}

#[tokio::test]
async fn the_command_line_speaks_and_listens() {
    let house = House::start(ALICIA, "services: {a: {command: [sleep, '1000']}}\n").await;
    let hearing = house.listen("alicia/test/#").await;

    house
        .says(&["bus", "pub", "alicia/test/json", r#"{"n": 1}"#])
        .exits(0);
    house
        .says(&["bus", "pub", "alicia/test/text", "plain words"])
        .exits(0);
    house
        .says(&["bus", "pub", "--bare", "-q", "0", "alicia/test/bare", "[1]"])
        .exits(0);
    house
        .says(&["bus", "pub", "-r", "-q", "2", "alicia/test/kept", "7"])
        .exits(0);
    let on = |topic: &'static str| move |line: &Value| line["topic"] == topic;
    let heard = hearing.hears("JSON", on("alicia/test/json")).await;
    assert_eq!(heard["payload"]["payload"], json!({ "n": 1 }));
    assert_eq!(heard["payload"]["source"], "key/admin");
    let heard = hearing.hears("text", on("alicia/test/text")).await;
    assert_eq!(heard["payload"]["payload"], "plain words");
    let heard = hearing.hears("the bare one", on("alicia/test/bare")).await;
    assert_eq!(
        (&heard["payload"], &heard["retained"]),
        (&json!([1]), &json!(false))
    );
    hearing.hears("the kept one", on("alicia/test/kept")).await;

    house
        .says(&["bus", "sub", "--retained", "alicia/test/#"])
        .exits(0)
        .tells(&["alicia/test/kept", "(retained)"]);
    let none = house.says(&[
        "bus",
        "sub",
        "--no-retained",
        "--wait",
        "500ms",
        "alicia/test/#",
    ]);
    assert_eq!(none.exits(0).stdout, "");
    let one = house.says(&["bus", "sub", "--count", "1", "--json", "alicia/test/kept"]);
    assert_eq!(one.exits(0).json()["payload"]["payload"], 7);
    house
        .says(&["bus", "sub", "--retained", "--no-retained", "alicia/#"])
        .exits(2);

    let mut piped = house.command(&["bus", "pub", "alicia/test/piped", "-"]);
    let mut piped = piped.stdin(Stdio::piped()).spawn().expect("it runs");
    let mut input = piped.stdin.take().expect("piped");
    input
        .write_all(b"{\"from\": \"a pipe\"}")
        .expect("it is written");
    drop(input);
    assert!(piped.wait().expect("it ends").success());
    let heard = hearing
        .hears("the piped one", on("alicia/test/piped"))
        .await;
    assert_eq!(heard["payload"]["payload"], json!({ "from": "a pipe" }));

    let schema = house.says(&["bus", "schema"]).exits(0).json();
    assert!(schema["asyncapi"].is_string(), "{schema}");
    let channels = schema["channels"].to_string();
    assert!(channels.contains("system/health/{service}"), "{channels}");
    house.says(&["bus", "pub", "alicia/+/x", "1"]).exits(1);
}
