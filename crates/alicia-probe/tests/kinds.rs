//! DNS, language models, processes, disks and graphics processors, each against the real thing or a real socket.

#[path = "support/target.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use alicia_contract::fleet::Probe;
use alicia_probe::{Context, Target, TargetError, attempt};
use serde_json::{Value, json};
use support::{PATIENCE, check, once, target};

/// The question of a message: after the head of 12 bytes, to the end of type and class.
fn question(message: &[u8]) -> &[u8] {
    let end = message[12..]
        .iter()
        .position(|byte| *byte == 0)
        .expect("the end of a name");
    &message[12..12 + end + 5]
}

/// An answer to a question, with this code, and an address if there is one.
fn answer(message: &[u8], flags: u16, address: Option<[u8; 4]>) -> Vec<u8> {
    let mut answer = message[..2].to_vec();
    answer.extend_from_slice(&(0x8180 | flags).to_be_bytes());
    answer.extend_from_slice(&[0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend_from_slice(question(message));
    if let Some(address) = address {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&address);
    }
    answer
}

#[tokio::test]
async fn a_name_server_is_asked() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let server = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let message = &buffer[..length];
            let name = String::from_utf8_lossy(question(message)).into_owned();
            let reply = match () {
                () if name.contains("known") => answer(message, 0, Some([192, 0, 2, 7])),
                () if name.contains("empty") => answer(message, 0, None),
                () if name.contains("large") => answer(message, 0x0200, None),
                () if name.contains("silent") => continue,
                () => answer(message, 3, None),
            };
            // Somebody guesses first: another id.
            let mut wrong = reply.clone();
            wrong[0] ^= 0xff;
            socket.send_to(&wrong, from).expect("sent");
            socket.send_to(&reply, from).expect("sent");
        }
    });
    // Where the large answer is.
    let over_tcp = TcpListener::bind(server).expect("the same port over TCP");
    thread::spawn(move || {
        let (mut stream, _) = over_tcp.accept().expect("a client");
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("a length");
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).expect("a question");
        let reply = answer(&message, 0, Some([192, 0, 2, 8]));
        let length = u16::try_from(reply.len()).expect("small");
        stream.write_all(&length.to_be_bytes()).expect("sent");
        stream.write_all(&reply).expect("sent");
    });
    let server = server.to_string();
    let ask = async |name: &str, expect: Value| {
        once(json!({ "dns": { "name": name, "server": server, "expect": expect } })).await
    };
    check(
        &ask("known.test", Value::Null).await,
        true,
        "known.test A is 192.0.2.7",
    );
    check(
        &ask("known.test", json!("192.0.2.7")).await,
        true,
        "is 192.0.2.7",
    );
    check(
        &ask("known.test", json!("192.0.2.9")).await,
        false,
        "expected 192.0.2.9",
    );
    check(
        &ask("empty.test", Value::Null).await,
        false,
        "empty.test has no record A",
    );
    check(
        &ask("absent.test", Value::Null).await,
        false,
        "there is no name absent.test",
    );
    check(&ask("large.test", Value::Null).await, true, "is 192.0.2.8");
    let silent = json!({ "dns": { "name": "silent.test", "server": server } });
    let seen = attempt(
        &target(silent, Path::new("/"), &[]),
        Duration::from_millis(200),
    )
    .await;
    check(&seen, false, "no answer of the name server");
}

/// Answers one request after the other; gives the port and each request.
fn serve(answers: Vec<String>) -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (sender, requests) = std::sync::mpsc::sync_channel(answers.len());
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            // The bodies here end with the request's last brace.
            while !(request.ends_with(b"}")
                || request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n"))
            {
                let read = stream.read(&mut chunk).expect("a request");
                request.extend_from_slice(&chunk[..read]);
            }
            sender
                .send(String::from_utf8(request).expect("text"))
                .expect("the test listens");
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    (port, requests)
}

fn http(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_language_model_is_asked_for_one_token() {
    let good = r#"{"choices": [{"message": {"role": "assistant", "content": "yes"}}], "usage": {"total_tokens": 12}}"#;
    let (port, requests) = serve(vec![
        http("200 OK", good),
        http("401 Unauthorized", r#"{"error": {"message": "wrong key"}}"#),
        http("200 OK", r#"{"choices": []}"#),
        http("404 Not Found", "nothing here"),
    ]);
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("key"), "secret-1\n").expect("written");
    let environment = [("KEY".to_owned(), "secret-2".to_owned())];
    let ask = async |key: (&str, &str)| {
        let probe = json!({ "llm": { "port": port, "model": "small", (key.0): key.1 } });
        attempt(&target(probe, directory.path(), &environment), PATIENCE).await
    };
    check(
        &ask(("key_file", "key")).await,
        true,
        "small answered, 12 tokens",
    );
    let request = requests.recv().expect("a request");
    assert!(
        request.starts_with("POST /v1/chat/completions HTTP/1.1"),
        "{request}"
    );
    assert!(
        request.contains("authorization: Bearer secret-1"),
        "{request}"
    );
    assert!(request.contains(r#""max_tokens":1"#), "{request}");
    check(
        &ask(("key_variable", "KEY")).await,
        false,
        "HTTP 401: wrong key",
    );
    let request = requests.recv().expect("a request");
    assert!(
        request.contains("authorization: Bearer secret-2"),
        "{request}"
    );
    check(
        &ask(("key_variable", "KEY")).await,
        false,
        "has no completion",
    );
    check(&ask(("key_variable", "KEY")).await, false, "HTTP 404");
    check(
        &ask(("key_file", "none")).await,
        false,
        "failed to read the secret",
    );
    // Files that never end: a device, and a pipe that nobody writes to.
    check(
        &ask(("key_file", "/dev/zero")).await,
        false,
        "/dev/zero is larger than 1MiB",
    );
    let pipe = directory.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).expect("a pipe");
    let probe = json!({ "llm": { "port": port, "model": "small", "key_file": pipe } });
    let shortly = std::time::Duration::from_millis(200);
    let outcome = attempt(&target(probe, directory.path(), &[]), shortly).await;
    check(&outcome, false, "no end of the file");
    // The thread that waits for a writer would outlive the test.
    drop(std::fs::OpenOptions::new().write(true).open(&pipe));
}

#[tokio::test]
async fn headers_bodies_and_latencies_are_judged() {
    let body = r#"{"status": "ok", "queue": 3}"#;
    let (port, requests) = serve((0..4).map(|_| http("200 OK", body)).collect());
    let ask = async |more: Value| {
        let mut probe = json!({ "port": port });
        for (field, value) in more.as_object().expect("an object") {
            probe[field] = value.clone();
        }
        once(json!({ "http": probe })).await
    };
    let seen =
        ask(json!({ "headers": { "X-Who": "probe" }, "json": { "/queue": { "max": 3 } } })).await;
    check(&seen, true, "HTTP 200, /queue is 3");
    assert!(requests.recv().expect("a request").contains("x-who: probe"));
    let seen = ask(json!({ "answer_headers": { "content-type": "html" } })).await;
    check(
        &seen,
        false,
        "content-type is \"application/json\", expected \"html\" in it",
    );
    let seen = ask(json!({ "answer_headers": { "x-none": "" } })).await;
    check(&seen, false, "the answer has no header x-none");
    let seen = ask(json!({ "body_matches": "\"queue\": [0-2]" })).await;
    check(&seen, false, "does not match");
}

#[tokio::test]
async fn a_good_answer_that_comes_late_is_bad() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).expect("a request");
        assert!(read > 0);
        // The client waits longer than its limit, and far less than its deadline.
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a pause");
        assert!(stream.read(&mut chunk).is_err());
        stream.write_all(http("200 OK", "{}").as_bytes()).ok();
    });
    let seen = once(json!({ "http": { "port": port, "latency_max": "20ms" } })).await;
    check(&seen, false, "HTTP 200, but it took");
}

#[tokio::test]
async fn a_process_is_looked_at_with_its_children() {
    let script = "sleep 1000 & sleep 1000 & while :; do :; done";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .spawn()
        .expect("a shell");
    let resolve = |check: Value| {
        let probe: Probe = serde_json::from_value(json!({ "process": check })).expect("a probe");
        let context = Context {
            port: None,
            pid: Some(child.id()),
            directory: Path::new("/"),
            environment: &[],
        };
        Target::resolve(&probe, &context).expect("it can be tried")
    };
    let until = async |check: Value, ok: bool, part: &str| {
        let target = resolve(check);
        let waiting = async {
            loop {
                let seen = attempt(&target, PATIENCE).await;
                if seen.ok == ok && seen.detail.contains(part) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect(part);
    };
    until(json!({}), true, "3 processes").await;
    until(
        json!({ "processes_max": 2 }),
        false,
        "3 processes, expected at most 2",
    )
    .await;
    until(
        json!({ "cpu_max": 0.01 }),
        false,
        "cores, expected at most 0.01",
    )
    .await;
    until(
        json!({ "memory_max": "1KiB" }),
        false,
        "of memory, expected at most 1KiB",
    )
    .await;
    until(
        json!({ "descriptors_max": 1 }),
        false,
        "open descriptors, expected at most 1",
    )
    .await;
    until(
        json!({ "memory_max": "10GiB", "descriptors_max": 10_000 }),
        true,
        "processes",
    )
    .await;
    let target = resolve(json!({}));
    for pid in children(child.id()) {
        let killed = Command::new("kill").args(["-9", &pid]).status();
        assert!(killed.expect("kill runs").success());
    }
    child.kill().expect("it runs");
    child.wait().expect("it ended");
    check(&attempt(&target, PATIENCE).await, false, "is gone");
}

fn children(pid: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.expect("the kernel lists children");
    list.split_ascii_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_disk_has_room_or_not() {
    check(
        &once(json!({ "disk": { "path": "/", "free_min": "1B" } })).await,
        true,
        "free (",
    );
    let full = once(json!({ "disk": { "path": "/", "free_min": "1000TiB" } })).await;
    check(&full, false, "expected 1000TiB or more");
    let absent = once(json!({ "disk": { "path": "/nowhere" } })).await;
    check(&absent, false, "failed to look at /nowhere");
}

#[tokio::test]
async fn a_machine_without_a_graphics_processor_says_none() {
    if Path::new("/dev/nvidiactl").exists() {
        let seen = once(json!({ "gpu": { "required": true } })).await;
        return check(&seen, true, "gpu 0: ");
    }
    check(&once(json!({ "gpu": {} })).await, true, "none");
    let required = once(json!({ "gpu": { "required": true } })).await;
    check(&required, false, "no graphics processor");
}

#[test]
fn a_probe_of_the_house_bus_needs_a_bus() {
    let probe: Probe = serde_json::from_value(json!({ "mqtt": {} })).expect("a probe");
    let variables = |url: &str| {
        vec![
            ("ALICIA_MQTT_URL".to_owned(), url.to_owned()),
            ("ALICIA_SERVICE".to_owned(), "api".to_owned()),
        ]
    };
    let resolve = |environment: &[(String, String)]| {
        let context = Context {
            port: None,
            pid: None,
            directory: Path::new("/"),
            environment,
        };
        Target::resolve(&probe, &context).map(drop)
    };
    assert_eq!(resolve(&variables("mqtt://127.0.0.1:1883")), Ok(()));
    assert_eq!(resolve(&variables("127.0.0.1")), Err(TargetError::Bus));
    assert_eq!(resolve(&[]), Err(TargetError::Bus));
}
