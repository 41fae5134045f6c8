//! What comes over the socket cannot hurt the keeper.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use alicia_keeper::protocol::{
    Event, FailureCode, FromHost, FromKeeper, Hello, PROTOCOL, Version, frame,
};
use alicia_keeper::{Client, Error};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Mode, PATIENCE};

fn dial(fleet: &Fleet) -> UnixStream {
    let stream = UnixStream::connect(fleet.keeper_directory().join("keeper.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn frame_of(message: &FromHost) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(message, &mut bytes).unwrap();
    bytes
}

fn hello(major: u32) -> Vec<u8> {
    let protocol = Version { major, minor: 9 };
    frame_of(&FromHost::Hello(Hello {
        protocol,
        program: "test".into(),
        pid: 1,
    }))
}

/// Every message until the keeper closes, or until `count` of them.
fn read(stream: &mut UnixStream, count: usize) -> Vec<FromKeeper> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let mut head = [0; 4];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
        let mut body = vec![0; u32::from_be_bytes(head) as usize];
        stream.read_exact(&mut body).unwrap();
        messages.push(serde_json::from_slice(&body).unwrap());
    }
    messages
}

fn goodbye(messages: &[FromKeeper]) -> Option<FailureCode> {
    messages.iter().find_map(|message| match message {
        FromKeeper::Goodbye(failure) => Some(failure.code),
        _ => None,
    })
}

#[tokio::test]
async fn what_is_no_message_closes_the_connection_with_the_reason() {
    let fleet = Fleet::new(Mode::Best).await;
    let request = frame_of(&FromHost::Request(1, json!("list")));
    let oversized = [&hello(PROTOCOL.major)[..], &u32::MAX.to_be_bytes()].concat();
    let no_json = [&hello(PROTOCOL.major)[..], &3_u32.to_be_bytes(), b"}{!"].concat();
    for (bytes, expect) in [
        (request, FailureCode::ProtocolViolation),
        (oversized, FailureCode::ProtocolViolation),
        (no_json, FailureCode::ProtocolViolation),
        (hello(PROTOCOL.major + 1), FailureCode::ProtocolMismatch),
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            FailureCode::ProtocolViolation,
        ),
    ] {
        let mut stream = dial(&fleet);
        stream.write_all(&bytes).unwrap();
        assert_eq!(goodbye(&read(&mut stream, usize::MAX)), Some(expect));
    }
    assert_eq!(fleet.client.stats().await.unwrap().clients, 1);
}

#[tokio::test]
async fn random_bytes_and_silent_connections_change_nothing() {
    let fleet = Fleet::new(Mode::Best).await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let silent: Vec<_> = (0..100).map(|_| dial(&fleet)).collect();
    for round in 0..200 {
        let mut bytes: Vec<u8> = (0..random() % 5_000).map(|_| random() as u8).collect();
        if round % 2 == 0 {
            // A plausible head, so that the body is looked at.
            bytes.splice(..0, [0, 0, 0, (random() % 200) as u8]);
        }
        let mut stream = dial(&fleet);
        // The keeper may close before all is written.
        drop(stream.write_all(&bytes));
    }
    drop(silent);
    let stats = fleet.client.stats().await.unwrap();
    assert!(stats.rss_bytes < 64 * 1024 * 1024, "{stats:?}");
    fleet.start(fleet.shell("a", "exit")).await;
}

#[tokio::test]
async fn a_request_that_is_not_known_is_answered_and_the_connection_stays() {
    let fleet = Fleet::new(Mode::Best).await;
    let mut stream = dial(&fleet);
    stream.write_all(&hello(PROTOCOL.major)).unwrap();
    stream
        .write_all(&frame_of(&FromHost::Request(7, json!({"dance": {}}))))
        .unwrap();
    stream
        .write_all(&frame_of(&FromHost::Request(
            8,
            json!({"start": {"instance": 5}}),
        )))
        .unwrap();
    stream
        .write_all(&frame_of(&FromHost::Request(9, json!("stats"))))
        .unwrap();
    let messages = read(&mut stream, 4);
    let [
        FromKeeper::Hello(_),
        FromKeeper::Failed(7, unknown),
        FromKeeper::Failed(8, invalid),
        FromKeeper::Reply(9, _),
    ] = messages.as_slice()
    else {
        panic!("{messages:?}")
    };
    assert_eq!(unknown.code, FailureCode::RequestUnknown);
    assert_eq!(invalid.code, FailureCode::InvalidRequest);
}

#[tokio::test]
async fn a_slow_reader_is_told_how_much_it_missed() {
    let mut fleet = Fleet::new(Mode::Best).await;
    let mut slow = dial(&fleet);
    slow.write_all(&hello(PROTOCOL.major)).unwrap();
    assert_eq!(read(&mut slow, 1).len(), 1);
    // Some 10 MiB of events, more than the keeper holds for one reader.
    for number in 0..100 {
        let mut spec = fleet.shell(&format!("a-{number}"), "exit");
        spec.labels = Value::String("x".repeat(100_000));
        fleet.start(spec).await;
        fleet.exited(&format!("a-{number}")).await;
    }
    let mut seen = 0;
    let missed = loop {
        let messages = read(&mut slow, 1);
        assert!(!messages.is_empty(), "the connection stays");
        let mut missed = 0;
        for message in messages {
            let FromKeeper::Event(value) = message else {
                panic!("{message:?}")
            };
            match Event::from_value(value) {
                Event::Lagged { missed: count } => missed = count,
                _ => seen += 1,
            }
        }
        if missed > 0 {
            break missed;
        }
    };
    assert!(
        seen > 0 && missed > 0 && seen + missed >= 200,
        "{seen} seen, {missed} missed"
    );
}

#[tokio::test]
async fn the_directory_can_be_passed_through_and_is_for_one_keeper() {
    let fleet = Fleet::new(Mode::Best).await;
    let mode = |name: &str| {
        let path = fleet.keeper_directory().join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode(""), mode("notify")), (0o711, 0o711));
    for name in ["keeper.sock", "keeper.log", "keeper.lock"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(mode("records"), 0o700);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_alicia-keeper"))
        .arg("--directory")
        .arg(fleet.keeper_directory())
        .output()
        .unwrap();
    assert_eq!(
        second.status.code(),
        Some(i32::from(alicia_keeper::EXIT_LOCKED))
    );
    assert!(String::from_utf8_lossy(&second.stderr).contains("another keeper runs there"));
}

#[tokio::test]
async fn two_hosts_that_start_at_once_get_one_keeper() {
    let directory = tempfile::tempdir().unwrap();
    // A path that is too long for a socket address, too.
    let keeper = directory.path().join("d".repeat(120));
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_alicia-keeper"));
    let arguments: Vec<String> = ["--daemonise", "--directory", keeper.to_str().unwrap()]
        .map(str::to_owned)
        .into();
    assert!(matches!(
        Client::connect(&keeper).await,
        Err(Error::NotRunning { .. })
    ));
    let connect = || Client::connect_or_start(&keeper, program, &arguments);
    let (first, second) = tokio::join!(connect(), connect());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.client.keeper().pid, second.client.keeper().pid);
    tokio::spawn(first.connection.run());
    first.client.shutdown(PATIENCE).await.unwrap();
    let missing = Client::connect_or_start(&keeper, "/no/such".as_ref(), &arguments).await;
    assert!(missing.is_err());
}
