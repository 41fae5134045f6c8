//! Clients that nobody here wrote.

use std::process::{Command, Output};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS, Transport};

use crate::house::{House, PATIENCE};

/// Debian's Python, for which Debian packages paho (`python3-paho-mqtt`); the first on the `PATH` may be another.
const PYTHON: &str = "/usr/bin/python3";

/// Whether the program can be run here. With `ALICIA_REQUIRE_ALL=1` it has to be.
#[expect(
    clippy::disallowed_methods,
    reason = "the switch is set by whoever runs the tests"
)]
fn have(program: &str, arguments: &[&str]) -> bool {
    let found = Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|o| o.status.success() || program.starts_with("mosquitto"));
    let required = std::env::var("ALICIA_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(found || !required, "{program} {arguments:?} does not run");
    if !found {
        println!("skipped: {program} is missing");
    }
    found
}

async fn run(program: &'static str, arguments: Vec<String>) -> Output {
    let run = move || Command::new(program).args(arguments).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn mosquitto(house: &House, version: &str, rest: &[&str]) -> Vec<String> {
    let port = house.address().port().to_string();
    let login = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-V",
        version,
        "-u",
        "ann",
        "-P",
        "secret",
    ];
    login
        .iter()
        .chain(rest)
        .map(|argument| (*argument).to_owned())
        .collect()
}

#[tokio::test]
async fn mosquitto_clients_publish_and_subscribe_in_both_protocols() {
    if !have("mosquitto_pub", &["--help"]) || !have("mosquitto_sub", &["--help"]) {
        return;
    }
    let house = House::open().await;
    for version in ["311", "5"] {
        let publish = ["-t", "open/state", "-m", version, "-r", "-q", "1"];
        let published = run("mosquitto_pub", mosquitto(&house, version, &publish)).await;
        assert!(published.status.success(), "{published:?}");
        let subscribe = ["-t", "open/#", "-C", "1", "-W", "10", "-v"];
        let heard = run("mosquitto_sub", mosquitto(&house, version, &subscribe)).await;
        assert_eq!(
            String::from_utf8_lossy(&heard.stdout),
            format!("open/state {version}\n")
        );
    }
    let forbidden = ["-t", "bob/#", "-C", "1", "-W", "10"];
    let refused = run("mosquitto_sub", mosquitto(&house, "5", &forbidden)).await;
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("denied"),
        "{refused:?}"
    );
}

const PAHO: &str = r#"
import sys, threading
import paho.mqtt.client as mqtt

port, version = int(sys.argv[1]), int(sys.argv[2])
old = not hasattr(mqtt, "CallbackAPIVersion")
protocol = {4: mqtt.MQTTv311, 5: mqtt.MQTTv5}[version]
# paho 1.6 reads a PUBREL of two bytes only, and the library writes four in MQTT 5: a known gap.
levels = (0, 1) if old and version == 5 else (0, 1, 2)
arguments = {"client_id": "paho", "protocol": protocol}
client = mqtt.Client(**arguments) if old else mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **arguments)
client.username_pw_set("ann", "secret")
heard, done = [], threading.Event()
def on_message(client, data, message):
    heard.append((message.topic, message.payload.decode(), message.qos))
    if len(heard) == len(levels):
        done.set()
def on_subscribe(client, *rest):
    for qos in levels:
        client.publish("open/paho", f"qos {qos}", qos)
client.on_message, client.on_subscribe = on_message, on_subscribe
client.on_connect = lambda client, *rest: client.subscribe("open/+", 2)
client.connect("127.0.0.1", port)
client.loop_start()
assert done.wait(10), heard
client.disconnect()
client.loop_stop()
assert sorted(heard) == [("open/paho", f"qos {qos}", qos) for qos in levels], heard
print("heard all")
"#;

#[tokio::test]
async fn paho_publishes_and_subscribes_in_both_protocols() {
    if !have(PYTHON, &["-c", "import paho.mqtt.client"]) {
        return;
    }
    let house = House::open().await;
    for version in ["4", "5"] {
        let port = house.address().port().to_string();
        let arguments = ["-c", PAHO, &port, version].map(str::to_owned).to_vec();
        let ran = run(PYTHON, arguments).await;
        let said = String::from_utf8_lossy(&ran.stdout);
        assert_eq!(said.trim(), "heard all", "{ran:?}");
    }
}

async fn echo(options: MqttOptions) {
    let (client, mut events) = AsyncClient::new(options, 10);
    client
        .subscribe("open/echo", QoS::AtLeastOnce)
        .await
        .unwrap();
    let heard = async {
        loop {
            match events.poll().await.unwrap() {
                Event::Incoming(Packet::SubAck(_)) => {
                    let payload = vec![7; 100_000];
                    client
                        .publish("open/echo", QoS::AtLeastOnce, false, payload)
                        .await
                        .unwrap();
                }
                Event::Incoming(Packet::Publish(publish)) => return publish.payload,
                _ => {}
            }
        }
    };
    let payload = tokio::time::timeout(PATIENCE, heard).await.unwrap();
    assert_eq!(payload.len(), 100_000);
}

fn rumqttc(host: impl Into<String>, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new("rumqttc", host, port);
    options
        .set_credentials("ann", "secret")
        .set_keep_alive(Duration::from_secs(5));
    options.set_max_packet_size(1024 * 1024, 1024 * 1024);
    options
}

#[tokio::test]
async fn rumqttc_talks_over_tcp_and_websocket() {
    let house = House::open().await;
    echo(rumqttc("127.0.0.1", house.address().port())).await;
    let address = house.engine.websocket_address().unwrap();
    let mut options = rumqttc(format!("ws://{address}/mqtt"), address.port());
    options.set_transport(Transport::Ws);
    echo(options).await;
}
