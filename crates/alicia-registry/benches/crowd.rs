//! The registry with 10,000 instances on a real broker and over HTTP: how long until a registration is seen, and
//! how long a question takes.
//!
//! ```text
//! cargo bench -p alicia-registry --bench crowd                 the figures of docs/benchmarks.md
//! cargo bench -p alicia-registry --bench crowd --profile dev   quicker to build, several times slower to run
//! ```
//!
//! It needs Mosquitto. What is measured, each from the moment before the request is sent:
//! - *told*: a registration over the bus until the event of it arrives at another client of the bus;
//! - *found*: the same until a question over HTTP finds it;
//! - *resolve*: a question over HTTP on a connection that is kept, from request to answer, read;
//! - *kept*: a registration as a call on the bus until its answer, that is until it is on disk.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alicia_bus::Bus;
use alicia_contract::discovery::{EVENTS, REGISTER, RegisteredInstance};
use alicia_contract::id::InstanceId;
use alicia_contract::platform::Scope;
use alicia_contract::topic::{CallTopic, EventTopic};
use alicia_identity::Identity;
use alicia_module::Module;
use alicia_registry::{Config, RegistryModule};
use alicia_testkit::Bench;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Instances that are there before anything is measured.
const CROWD: u64 = 10_000;
/// Services among which they are shared out.
const SERVICES: u64 = 100;
/// Capabilities besides the one that all have; each is that of so many services in turn.
const CAPABILITIES: u64 = 50;
/// Registrations that are measured.
const REGISTRATIONS: u64 = 1_000;
/// Questions of each kind that are measured.
const QUESTIONS: usize = 10_000;
/// Registrations under way at the same time while the crowd comes.
const AT_ONCE: usize = 64;

const DEADLINE: Duration = Duration::from_secs(30);

const RAW_REGISTER: EventTopic<Value> = EventTopic::new(REGISTER.template());
const CALL_REGISTER: CallTopic<Value, RegisteredInstance> = CallTopic::new(REGISTER.template());

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    // Without this Mosquitto holds small packets back for the 40 ms of a delayed acknowledgement.
    let Some(bench) = Bench::with_mosquitto_set("set_tcp_nodelay true\n").await else {
        return Ok(());
    };
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    registry.is_well().await;
    let address = serve(Arc::clone(&registry.module)).await?;
    let client = bench.client("system/bench").await;

    let begun = now();
    let mut kept = crowd(&client).await?;
    let took = begun.elapsed();
    report(&format!("kept, 64 at once, {took:.1?} for all"), &mut kept);

    let mut http = Http::connect(address).await?;
    let (mut told, mut found) = (Vec::new(), Vec::new());
    let listener = bench.client("system/listener").await;
    let mut events = listener.events(EVENTS).await?;
    // What the crowd left in the queues is not of interest.
    while tokio::time::timeout(Duration::from_millis(300), events.message())
        .await
        .is_ok()
    {}
    for n in 0..REGISTRATIONS {
        let number = CROWD + 1 + n;
        let mut body = registration(number);
        let probe = json!({ "name": format!("probe-{number}") });
        body["capabilities"]
            .as_array_mut()
            .expect("a list")
            .push(probe);
        let question = json!({ "capability": format!("probe-{number}"), "explain": 0 });
        let begun = now();
        let sent = client.publish(RAW_REGISTER, &[], &body);
        let heard = async {
            loop {
                let Some(message) = events.message().await else {
                    return;
                };
                if message.payload.instance == id(number) {
                    return;
                }
            }
        };
        let asked = async {
            loop {
                let answer = http.post("/resolve", &question).await?;
                if answer["instances"][0]["instance"] == json!(id(number)) {
                    return Ok::<_, Box<dyn Error>>(begun.elapsed());
                }
            }
        };
        let heard = async {
            heard.await;
            begun.elapsed()
        };
        let (sent, heard, asked) = tokio::join!(sent, heard, asked);
        sent?;
        told.push(heard);
        found.push(asked?);
    }
    report("told: registration to event on the bus", &mut told);
    report("found: registration to resolve over HTTP", &mut found);

    let of_some = |n: usize| json!({ "capability": format!("skill-{}", n as u64 % CAPABILITIES), "version": "^1" });
    ask(&mut http, "resolve, of 200 candidates", of_some).await?;
    let of_all = |_| json!({ "capability": "common", "version": "^1", "tags": ["all"], "input": { "n": 1 } });
    ask(&mut http, "resolve, of 10,000 candidates", of_all).await?;
    let explained = |_| json!({ "capability": "common", "explain": 0, "limit": 1 });
    ask(&mut http, "resolve, of 10,000, nothing listed", explained).await?;
    let unfit = |_| json!({ "capability": "common", "version": "^9" });
    ask(&mut http, "resolve, of 10,000 that do not fit", unfit).await?;
    registry.stop().await;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn id(n: u64) -> InstanceId {
    InstanceId::from_parts(n, 7)
}

fn registration(n: u64) -> Value {
    let service = n % SERVICES;
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } } });
    json!({
        "service": format!("service-{service}"), "instance": id(n), "version": "1.2.3", "lease_s": 3600.0,
        "labels": { "room": "hall" }, "metadata": { "commands": ["ping", "status"] },
        "endpoints": { "mqtt": format!("alicia/service-{service}/{}/command", id(n)) },
        "capabilities": [
            { "name": format!("skill-{}", service % CAPABILITIES), "version": "1.1.0", "tags": ["some"], "cost_usd": 0.1 },
            { "name": "common", "version": "1.0.0", "tags": ["all"], "input_schema": schema, "output_schema": schema },
        ],
    })
}

async fn crowd(client: &Bus) -> Outcome<Vec<Duration>> {
    let mut waiting = FuturesUnordered::new();
    let mut took = Vec::new();
    for n in 1..=CROWD {
        if waiting.len() >= AT_ONCE {
            took.push(waiting.next().await.expect("one waits")?);
        }
        waiting.push(async move {
            let body = registration(n);
            let begun = now();
            let answer = client.call(CALL_REGISTER, &[], &body, DEADLINE).await;
            answer.map(|_| begun.elapsed())
        });
    }
    while let Some(one) = waiting.next().await {
        took.push(one?);
    }
    Ok(took)
}

async fn ask(http: &mut Http, what: &str, question: impl Fn(usize) -> Value) -> Outcome {
    let mut took = Vec::with_capacity(QUESTIONS);
    for n in 0..QUESTIONS {
        let question = question(n);
        let begun = now();
        let answer = http.post("/resolve", &question).await?;
        took.push(begun.elapsed());
        assert!(answer["candidates"].is_array(), "{answer}");
    }
    report(what, &mut took);
    Ok(())
}

/// Nearest rank, over every value: nothing is binned.
#[expect(
    clippy::print_stdout,
    reason = "a benchmark reports on standard output"
)]
fn report(what: &str, took: &mut [Duration]) {
    took.sort_unstable();
    let at = |part: f64| {
        let rank = (part * took.len() as f64).ceil() as usize;
        took[rank.clamp(1, took.len()) - 1].as_secs_f64() * 1e3
    };
    let mut line: HashMap<&str, f64> = HashMap::new();
    for (name, part) in [
        ("p50", 0.5),
        ("p90", 0.9),
        ("p99", 0.99),
        ("p99.9", 0.999),
        ("max", 1.0),
    ] {
        line.insert(name, at(part));
    }
    println!(
        "{what:<45} n {:>6}  p50 {:>8.3}  p90 {:>8.3}  p99 {:>8.3}  p99.9 {:>8.3}  max {:>8.3} ms",
        took.len(),
        line["p50"],
        line["p90"],
        line["p99"],
        line["p99.9"],
        line["max"],
    );
}

/// The routes of the module on a real socket, as an admin.
async fn serve(module: Arc<RegistryModule>) -> Outcome<SocketAddr> {
    let admin = Identity::Key {
        name: "admin".to_owned(),
        scope: Scope::Admin,
    };
    let router = RegistryModule::routes().into_router(module).layer(from_fn(
        move |mut request: Request, next: Next| {
            request.extensions_mut().insert(admin.clone());
            next.run(request)
        },
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "a benchmark has no context to spawn in"
    )]
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// HTTP/1.1 on one connection that is kept: as little of a client as there can be, so that it costs little.
struct Http {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Http {
    async fn connect(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    async fn post(&mut self, path: &str, body: &Value) -> Outcome<Value> {
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.read.clear();
        let mut expected = None;
        loop {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err("the connection was closed".into());
            }
            if expected.is_none()
                && let Some(head) = self.read.windows(4).position(|four| four == b"\r\n\r\n")
            {
                let text = std::str::from_utf8(&self.read[..head])?.to_ascii_lowercase();
                let length = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .ok_or("an answer without length")?;
                expected = Some((head + 4, head + 4 + length.trim().parse::<usize>()?));
            }
            if let Some((start, end)) = expected
                && self.read.len() >= end
            {
                return Ok(serde_json::from_slice(&self.read[start..end])?);
            }
        }
    }
}
