//! The client on a real broker: Debian's Mosquitto, started for each test on a port of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use alicia_bus::conformance::{self, Mosquitto, PATIENCE};
use alicia_bus::{Bus, BusStatus, CallError, Error, Hostility, Incoming, Options, PasswordSource};
use alicia_contract::envelope::MESSAGE_BYTES_MAX;
use alicia_contract::{CallTopic, EventTopic, Prefix, StateTopic};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

const TICK: EventTopic<u64> = EventTopic::new("tick/{n}");
const COUNT: StateTopic<u64> = StateTopic::new("count/{n}");
const DOUBLE: CallTopic<u64, u64> = CallTopic::new("double");

/// A broker, or the end of the test where Mosquitto is not installed.
macro_rules! mosquitto {
    ($conf:expr) => {
        match Mosquitto::start($conf).await {
            Some(broker) => broker,
            None => return,
        }
    };
}

fn start(options: Options) -> (Bus, JoinSet<()>) {
    let (bus, connection) = Bus::start(options);
    let mut task = JoinSet::new();
    task.spawn(connection);
    (bus, task)
}

async fn connect(options: Options) -> (Bus, JoinSet<()>) {
    let (bus, task) = start(options);
    bus.connected(PATIENCE).await.expect("connects");
    (bus, task)
}

async fn becomes(bus: &Bus, wanted: impl Fn(&BusStatus) -> bool) {
    let becomes = async {
        while !wanted(&bus.status()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let became = timeout(PATIENCE, becomes).await;
    assert!(became.is_ok(), "the status stays {:?}", bus.status());
}

/// Runs `mosquitto_pub` as a stranger would.
fn mosquitto_pub(broker: &Mosquitto, topic: &str, arguments: &[&str]) {
    let port = broker.address().port.to_string();
    let output = Command::new("mosquitto_pub")
        .args(["-p", &port, "-q", "1", "-t", topic])
        .args(arguments)
        .output()
        .expect("mosquitto_pub can be run");
    assert!(output.status.success(), "mosquitto_pub said {output:?}");
}

#[tokio::test]
async fn mosquitto_does_everything_that_a_broker_must() {
    let broker = mosquitto!("");
    conformance::everything(&|source: &str| broker.options(source)).await;
    conformance::nobody_listens_is_told_at_once(&|source: &str| broker.options(source)).await;
}

#[tokio::test]
async fn a_restart_of_the_broker_loses_no_state() {
    let broker = mosquitto!("");
    conformance::a_restart_loses_no_state(
        &|source: &str| broker.options(source),
        async || broker.kill(),
        async || broker.restart().await,
    )
    .await;
}

#[tokio::test]
async fn messages_of_mosquitto_pub_are_heard() {
    let broker = mosquitto!("");
    let (bus, _task) = connect(broker.options("system/test")).await;
    let mut ticks = bus.events(TICK).await.expect("subscribes");
    // MQTT 3.1.1 and 5, by one who has never heard of envelopes.
    mosquitto_pub(&broker, "alicia/tick/a", &["-m", "7"]);
    mosquitto_pub(&broker, "alicia/tick/b", &["-V", "5", "-m", "8"]);
    for expected in [("a", 7), ("b", 8)] {
        let message = timeout(PATIENCE, ticks.message()).await.expect("in time");
        let message = message.expect("is open");
        assert_eq!((message.values[0].as_str(), message.payload), expected);
        assert_eq!(message.source, None, "mosquitto does not say who it was");
    }
    let source = [
        "-V",
        "5",
        "-m",
        "9",
        "-D",
        "publish",
        "user-property",
        "alicia-source",
        "tom",
    ];
    mosquitto_pub(&broker, "alicia/tick/c", &source);
    let message = ticks.message().await.expect("is open");
    assert_eq!(message.source.as_deref(), Some("tom"));
}

#[tokio::test]
async fn a_message_over_the_limit_is_dropped_and_one_at_the_limit_is_not() {
    let broker = mosquitto!("");
    let (bus, _task) = connect(broker.options("system/test")).await;
    let mut ticks = bus.events(TICK).await.expect("subscribes");
    let file = broker.directory().join("message");
    for (bytes, number) in [(MESSAGE_BYTES_MAX + 1, "1"), (MESSAGE_BYTES_MAX, "2")] {
        let message = format!("{}{number}", " ".repeat(bytes - 1));
        std::fs::write(&file, message).expect("writes");
        let path = file.to_str().expect("is UTF-8");
        mosquitto_pub(&broker, "alicia/tick/large", &["-f", path]);
    }
    let message = timeout(PATIENCE, ticks.message()).await.expect("in time");
    assert_eq!(message.expect("is open").payload, 2);
    assert_eq!(bus.status().dropped, BTreeMap::from([("too-large", 1)]));

    // Ours are refused before they are sent, and the connection does not suffer.
    let text = "x".repeat(MESSAGE_BYTES_MAX);
    let refused = bus.publish_at("alicia/large", &text).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(bus.status().connections, 1);
}

#[tokio::test]
async fn a_packet_over_the_limit_of_the_broker_is_refused_here() {
    let broker = mosquitto!("max_packet_size 10000");
    let (bus, _task) = connect(broker.options("system/test")).await;
    let refused = bus.publish_at("alicia/large", &"x".repeat(10_000)).await;
    match refused {
        Err(Error::TooLarge { bytes_max, .. }) => assert_eq!(bytes_max, 10_000),
        other => panic!("expected a refusal, got {other:?}"),
    }
    bus.publish_at("alicia/small", &1).await.expect("publishes");
    assert_eq!(bus.status().connections, 1);
}

#[tokio::test]
async fn what_the_broker_does_not_allow_is_an_error() {
    let acl = tempfile::NamedTempFile::new().expect("is made");
    std::fs::write(acl.path(), "topic readwrite alicia/open/#\n").expect("writes");
    let broker = mosquitto!(&format!("acl_file {}", acl.path().display()));
    let options = broker.options("system/test");
    conformance::a_forbidden_publish_is_an_error(options.clone(), "alicia/closed").await;
    let (bus, _task) = connect(options).await;
    bus.publish_at("alicia/open/x", &1)
        .await
        .expect("publishes");
}

#[tokio::test]
async fn a_retained_request_is_refused() {
    let broker = mosquitto!("");
    mosquitto_pub(&broker, "alicia/double", &["-r", "-m", "4"]);
    let (bus, _task) = connect(broker.options("system/test")).await;
    let mut requests = bus.serve(DOUBLE).await.expect("subscribes");
    let call = bus.call(DOUBLE, &[], &5, PATIENCE);
    let answering = async {
        let request = requests.next().await.expect("is asked");
        assert_eq!(request.query, 5, "the retained one was handed out");
        let sum = request.query * 2;
        request.respond(Ok(sum)).await.expect("answers");
    };
    let (answer, ()) = tokio::join!(call, answering);
    assert_eq!(answer.expect("is answered"), 10);
}

#[tokio::test]
async fn the_password_file_is_read_again_for_each_attempt() {
    let directory = tempfile::tempdir().expect("is made");
    let passwords = directory.path().join("passwords");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&passwords)
        .args(["system/test", "right"])
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: mosquitto_passwd is not installed");
        return;
    }
    let conf = format!(
        "allow_anonymous false\npassword_file {}",
        passwords.display()
    );
    let broker = mosquitto!(&conf);
    let token: PathBuf = directory.path().join("token");
    std::fs::write(&token, "wrong\n").expect("writes");
    let mut options = broker.options("system/test");
    options.password = PasswordSource::File(token.clone());
    let (bus, _task) = start(options);
    becomes(&bus, |status| {
        let error = status.last_error.as_deref();
        error.is_some_and(|error| error.contains("log in"))
    })
    .await;
    std::fs::write(&token, "right\n").expect("writes");
    bus.connected(PATIENCE).await.expect("connects");
}

#[tokio::test]
async fn an_address_that_is_not_known_yet_is_waited_for_and_a_move_is_followed() {
    let first = mosquitto!("");
    let second = mosquitto!("");
    let (moved, address) = watch::channel(None);
    let mut options = Options::new(address, "system/test", Prefix::default());
    options.deadline = Duration::from_millis(50);
    let (bus, _task) = start(options);
    let mut ticks = bus
        .events(TICK)
        .await
        .expect("is noted without a connection");
    let early = bus.set(COUNT, &["x"], &1).await;
    assert!(matches!(early, Err(Error::TimedOut { .. })), "{early:?}");
    moved.send_replace(Some(first.address()));
    assert_eq!(heard(&mut ticks).await, Incoming::Reconnected);
    moved.send_replace(Some(second.address()));
    assert_eq!(heard(&mut ticks).await, Incoming::Reconnected);
    assert_eq!(bus.status().connections, 2);
    // The state has moved along.
    let (other, _other_task) = connect(second.options("system/other")).await;
    let mut counts = other.states(COUNT).await.expect("subscribes");
    let count = timeout(PATIENCE, counts.message()).await.expect("in time");
    assert_eq!(count.expect("is open").payload, 1);
}

async fn heard(ticks: &mut alicia_bus::Subscription<u64>) -> Incoming<u64> {
    let next = timeout(PATIENCE, ticks.next()).await.expect("in time");
    next.expect("is open")
}

#[tokio::test]
async fn an_event_whose_deadline_has_passed_is_not_sent_later() {
    let broker = mosquitto!("");
    let (hearer, _hearer_task) = connect(broker.options("system/hearer")).await;
    let mut ticks = hearer.events(TICK).await.expect("subscribes");
    let (moved, address) = watch::channel(None);
    let mut options = Options::new(address, "system/late", Prefix::default());
    options.deadline = Duration::from_millis(50);
    let (bus, _task) = start(options);
    let late = bus.publish(TICK, &["late"], &1).await;
    assert!(matches!(late, Err(Error::TimedOut { .. })), "{late:?}");
    moved.send_replace(Some(broker.address()));
    bus.connected(PATIENCE).await.expect("connects");
    bus.publish(TICK, &["now"], &2).await.expect("publishes");
    let message = timeout(PATIENCE, ticks.message()).await.expect("in time");
    assert_eq!(message.expect("is open").values, ["now"]);
}

#[tokio::test]
async fn a_closed_bus_says_so_everywhere() {
    let broker = mosquitto!("");
    let (bus, mut task) = connect(broker.options("system/test")).await;
    let mut ticks = bus.events(TICK).await.expect("subscribes");
    let mut requests = bus.serve(DOUBLE).await.expect("subscribes");
    let call = bus.call(DOUBLE, &[], &1, PATIENCE);
    let closing = async {
        let _unanswered = requests.next().await.expect("is asked");
        bus.close().await;
    };
    let (called, ()) = tokio::join!(call, closing);
    assert!(
        matches!(called, Err(CallError::Bus(Error::Closed))),
        "{called:?}"
    );
    assert_eq!(ticks.next().await, None);
    assert!(matches!(
        bus.publish(TICK, &["x"], &1).await,
        Err(Error::Closed)
    ));
    assert!(matches!(bus.events(TICK).await, Err(Error::Closed)));
    task.join_next()
        .await
        .expect("is there")
        .expect("ends well");
}

#[tokio::test]
async fn the_task_ends_with_the_last_handle() {
    let broker = mosquitto!("");
    let (bus, mut task) = connect(broker.options("system/test")).await;
    let ticks = bus.events(TICK).await.expect("subscribes");
    drop(bus);
    drop(ticks);
    let ended = timeout(PATIENCE, task.join_next()).await.expect("in time");
    ended.expect("is there").expect("ends well");
}

#[tokio::test]
async fn a_filter_is_given_up_with_its_last_subscription() {
    let broker = mosquitto!("");
    let (bus, _task) = connect(broker.options("system/test")).await;
    let one = bus.events(TICK).await.expect("subscribes");
    let mut two = bus.events(TICK).await.expect("subscribes");
    drop(one);
    bus.publish(TICK, &["x"], &1).await.expect("publishes");
    assert!(timeout(PATIENCE, two.message()).await.is_ok());
    drop(two);
    let forgotten = async {
        let deadline = Duration::from_millis(100);
        loop {
            let call = bus.call_at::<_, u64>("alicia/tick/x", &2, deadline).await;
            if matches!(call, Err(CallError::NobodyListens { .. })) {
                return;
            }
        }
    };
    let forgotten = timeout(PATIENCE, forgotten).await;
    assert!(forgotten.is_ok(), "the broker still delivers to it");
}

#[tokio::test]
async fn a_hostile_bus_repeats_delays_and_loses_events_but_no_state() {
    let broker = mosquitto!("");
    let mut options = broker.options("system/victim");
    options.hostility = Some(Hostility::new(7));
    let (victim, _victim_task) = connect(options).await;
    let (bus, _task) = connect(broker.options("system/test")).await;
    let mut ticks = victim.events(TICK).await.expect("subscribes");
    let mut counts = victim.states(COUNT).await.expect("subscribes");
    for n in 0..300 {
        bus.publish(TICK, &["x"], &n).await.expect("publishes");
        bus.set(COUNT, &["x"], &n).await.expect("sets");
    }
    let mut states = Vec::new();
    while states.last() != Some(&299) {
        let message = timeout(PATIENCE, counts.message()).await.expect("in time");
        states.push(message.expect("is open").payload);
    }
    assert!(states.is_sorted(), "states came out of order");
    assert!(states.len() > 300, "nothing was repeated");
    states.dedup();
    assert_eq!(states.len(), 300, "a state was lost");
    // The end marker may be lost like any event, so it is said until it is heard.
    let mut events = Vec::new();
    while events.last() != Some(&u64::MAX) {
        bus.publish(TICK, &["end"], &u64::MAX)
            .await
            .expect("publishes");
        while let Ok(Some(message)) = timeout(Duration::from_millis(100), ticks.message()).await {
            events.push(message.payload);
        }
    }
    events.dedup();
    assert!(events.len() < 301, "no event was lost");
}
