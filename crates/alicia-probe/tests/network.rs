//! HTTP and TCP against real listeners, most of them badly behaved.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use alicia_contract::fleet::Probe;
use alicia_probe::{Context, Outcome, Target, attempt};
use serde_json::{Value, json};

/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A deadline that is meant to pass.
const SHORT: Duration = Duration::from_millis(300);

/// How often a slow server says something.
const TRICKLE: Duration = Duration::from_millis(10);

/// Serves one connection, and sends the head of the request.
fn serve(
    listener: TcpListener,
    answer: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (u16, Receiver<String>) {
    let port = listener.local_addr().expect("it is bound").port();
    let (sender, heads) = sync_channel(1);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            head.push(byte[0]);
        }
        sender
            .send(String::from_utf8_lossy(&head).into_owned())
            .ok();
        answer(&mut stream);
    });
    (port, heads)
}

fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("loopback has a free port")
}

fn target(probe: Value, port: u16) -> Target {
    let probe: Probe = serde_json::from_value(probe).expect("a probe");
    let context = Context {
        port: Some(port),
        pid: None,
        directory: Path::new("/"),
        environment: &[],
    };
    Target::resolve(&probe, &context).expect("it can be tried")
}

/// Tries against a server that gives this answer and closes.
async fn against(answer: &'static [u8], probe: Value) -> Outcome {
    let (port, _) = serve(loopback(), move |stream| {
        // A client that has seen enough may be gone.
        stream.write_all(answer).ok();
    });
    attempt(&target(probe, port), PATIENCE).await
}

/// Tries against a server that repeats a text, at once or slowly, until the client is gone.
async fn against_endless(
    head: &'static str,
    text: &'static str,
    probe: Value,
    timeout: Duration,
) -> Outcome {
    let (port, _) = serve(loopback(), move |stream| {
        stream.write_all(head.as_bytes()).ok();
        let pause = (text.len() < 100).then_some(TRICKLE);
        stream.set_read_timeout(pause).expect("a pause is not zero");
        while stream.write_all(text.as_bytes()).is_ok() {
            if pause.is_some() && stream.read(&mut [0]).is_ok() {
                return;
            }
        }
    });
    attempt(&target(probe, port), timeout).await
}

fn check(outcome: &Outcome, ok: bool, detail: &str) {
    assert_eq!((outcome.ok, outcome.detail.as_str()), (ok, detail));
    assert!(outcome.latency < PATIENCE, "it waited for its deadline");
}

#[tokio::test]
async fn a_status_is_judged() {
    let ok = b"HTTP/1.1 204 No Content\r\n\r\n";
    let moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let down = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\ndown";
    check(&against(ok, json!({"http": {}})).await, true, "HTTP 204");
    check(&against(moved, json!({"http": {}})).await, true, "HTTP 302");
    check(
        &against(down, json!({"http": {}})).await,
        false,
        "HTTP 503, expected 200 to 399",
    );
    check(
        &against(down, json!({"http": {"status": [503]}})).await,
        true,
        "HTTP 503",
    );
    let some = json!({"http": {"status": [200, 204]}});
    check(
        &against(down, some).await,
        false,
        "HTTP 503, expected 200 or 204",
    );
    let old = b"HTTP/1.0 200 OK\r\n\r\nhello";
    check(&against(old, json!({"http": {}})).await, true, "HTTP 200");
}

#[tokio::test]
async fn the_request_is_plain_and_names_the_host() {
    let (port, heads) = serve(loopback(), |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok();
    });
    let probe = json!({"http": {"path": "/health?deep=1"}});
    check(
        &attempt(&target(probe, port), PATIENCE).await,
        true,
        "HTTP 200",
    );
    let head = heads
        .recv()
        .expect("the server saw a request")
        .to_lowercase();
    assert!(
        head.starts_with("get /health?deep=1 http/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")),
        "{head}"
    );
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert!(head.contains("\r\nuser-agent: alicia-probe/"), "{head}");
}

#[tokio::test]
async fn ipv6_is_written_in_brackets() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        eprintln!("this machine has no IPv6");
        return;
    };
    let (port, heads) = serve(listener, |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok();
    });
    let probe = json!({"http": {"host": "[::1]"}});
    check(
        &attempt(&target(probe, port), PATIENCE).await,
        true,
        "HTTP 200",
    );
    let head = heads.recv().expect("the server saw a request");
    assert!(head.contains(&format!("host: [::1]:{port}\r\n")), "{head}");
}

#[tokio::test]
async fn a_name_is_tried_at_each_of_its_addresses() {
    // `localhost` may be ::1 first, where nobody listens.
    let listener = loopback();
    let port = listener.local_addr().expect("it is bound").port();
    let outcome = attempt(
        &target(json!({"tcp": {"host": "localhost"}}), port),
        PATIENCE,
    )
    .await;
    check(&outcome, true, &format!("connected to 127.0.0.1:{port}"));
    let missing = target(json!({"tcp": {"host": "no-such-host.invalid"}}), port);
    let outcome = attempt(&missing, PATIENCE).await;
    assert!(
        !outcome.ok && outcome.detail.contains("no-such-host.invalid"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_body_is_searched() {
    let hello = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world";
    let probe = |text: &str| json!({"http": {"body_contains": text}});
    let found = "HTTP 200, the body contains \"lo wo\"";
    check(&against(hello, probe("lo wo")).await, true, found);
    let missing = "the body does not contain \"moon\"";
    check(&against(hello, probe("moon")).await, false, missing);
    // The text lies across two chunks.
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhel \r\n0005\r\nlo wo\r\n0\r\n\r\n";
    let across = "HTTP 200, the body contains \"el lo\"";
    check(&against(chunks, probe("el lo")).await, true, across);
    let torn = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello";
    assert!(!against(torn, probe("moon")).await.ok);
    let bad_status = b"HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nhello";
    check(
        &against(bad_status, probe("hello")).await,
        false,
        "HTTP 500, expected 200 to 399",
    );
}

#[tokio::test]
async fn an_endless_body_is_read_to_the_limit() {
    const BLOCK: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    let probe = json!({"http": {"body_contains": "moon"}});
    let outcome = against_endless(head, BLOCK, probe, PATIENCE).await;
    check(
        &outcome,
        false,
        "the first 1MiB of the body do not contain \"moon\"",
    );
    // Without a text to look for, the body is not read at all.
    let outcome = against_endless(head, BLOCK, json!({"http": {}}), PATIENCE).await;
    check(&outcome, true, "HTTP 200");
}

#[tokio::test]
async fn a_server_that_trickles_is_cut_off() {
    let probe = json!({"http": {"body_contains": "moon"}});
    let outcome = against_endless("HTTP/1.1 200 OK\r\nX-A: ", "b", probe.clone(), SHORT).await;
    check(&outcome, false, "no answer within 300ms");
    assert!(outcome.latency >= SHORT, "{:?}", outcome.latency);
    let outcome = against_endless("HTTP/1.1 200 OK\r\n\r\n", "m", probe, SHORT).await;
    check(
        &outcome,
        false,
        "HTTP 200, but no \"moon\" in the body within 300ms",
    );
}

#[tokio::test]
async fn a_server_that_never_accepts_is_given_up() {
    let listener = loopback();
    let port = listener.local_addr().expect("it is bound").port();
    let outcome = attempt(&target(json!({"http": {}}), port), SHORT).await;
    check(&outcome, false, "no answer within 300ms");
}

#[tokio::test]
async fn a_closed_port_is_named() {
    let listener = loopback();
    let port = listener.local_addr().expect("it is bound").port();
    drop(listener);
    let refused = format!("connection refused by 127.0.0.1:{port}");
    for probe in [json!({"http": {}}), json!({"tcp": {}})] {
        check(
            &attempt(&target(probe, port), PATIENCE).await,
            false,
            &refused,
        );
    }
}

#[tokio::test]
async fn what_is_not_http_is_said() {
    let probe = || json!({"http": {}});
    check(
        &against(b"SSH-2.0-OpenSSH_9.2\r\n", probe()).await,
        false,
        "the answer is not HTTP",
    );
    let closed = "the connection was closed before the answer was complete";
    check(&against(b"", probe()).await, false, closed);
    check(
        &against(b"HTTP/1.1 200 OK\r\nA: b", probe()).await,
        false,
        closed,
    );
}

#[tokio::test]
async fn an_endless_head_is_cut_off() {
    const LINE: &str = "X-Filler: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n";
    let outcome = against_endless("HTTP/1.1 200 OK\r\n", LINE, json!({"http": {}}), PATIENCE).await;
    assert!(!outcome.ok && outcome.latency < PATIENCE, "{outcome:?}");
}

#[tokio::test]
async fn dropping_a_try_closes_its_connection() {
    let (gone, closed) = sync_channel(1);
    let (port, heads) = serve(loopback(), move |stream| {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a pause is not zero");
        gone.send(stream.read(&mut [0]).is_ok_and(|length| length == 0))
            .ok();
    });
    let target = target(json!({"http": {}}), port);
    let trying = tokio::time::timeout(SHORT, attempt(&target, PATIENCE));
    assert!(trying.await.is_err(), "nobody answers");
    heads.recv().expect("the server saw a request");
    assert!(
        closed.recv().expect("the server lives"),
        "the connection was not closed"
    );
}
