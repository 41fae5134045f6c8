//! Somebody who receives webhooks over real HTTP, answers as he is told, and remembers everything.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use alicia_testkit::until;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("a text"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }
}

/// An answer: a status, and headers.
pub(crate) type Reply = (u16, Vec<(&'static str, String)>);

#[derive(Default)]
struct Desk {
    received: Mutex<Vec<Received>>,
    replies: Mutex<VecDeque<Reply>>,
}

pub(crate) struct Receiver {
    pub(crate) port: u16,
    desk: Arc<Desk>,
}

impl Receiver {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no context to spawn in"
    )]
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let desk = Arc::new(Desk::default());
        let app = Router::new().fallback(take).with_state(Arc::clone(&desk));
        tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self { port, desk }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// What is answered next; afterwards 200. 0: nothing, ever.
    pub(crate) fn reply(&self, status: u16, headers: &[(&'static str, &str)]) {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let mut replies = self.desk.replies.lock().expect("not poisoned");
        replies.push_back((status, headers.collect()));
    }

    pub(crate) fn all(&self) -> Vec<Received> {
        self.desk.received.lock().expect("not poisoned").clone()
    }

    /// Waits until so many requests came.
    pub(crate) async fn has(&self, count: usize) -> Vec<Received> {
        until(&format!("{count} requests came"), async || {
            self.all().len() >= count
        })
        .await;
        self.all()
    }

    /// The requests, as `reason state group`, each notification once.
    pub(crate) fn told(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let all = self.all();
        let first = all
            .iter()
            .filter(|received| seen.insert(received.header("webhook-id").to_owned()));
        first
            .map(|received| {
                let body = received.json();
                let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                format!("{} {} {}", text("reason"), text("state"), text("group"))
            })
            .collect()
    }
}

async fn take(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = String::from_utf8(body.to_vec()).expect("UTF-8");
    let received = Received { headers, text };
    desk.received.lock().expect("not poisoned").push(received);
    let reply = desk.replies.lock().expect("not poisoned").pop_front();
    let (status, headers) = reply.unwrap_or((200, Vec::new()));
    if status == 0 {
        return std::future::pending().await;
    }
    let mut response = StatusCode::from_u16(status)
        .expect("a status")
        .into_response();
    for (name, value) in headers {
        let value = value.parse().expect("a header");
        response.headers_mut().insert(name, value);
    }
    response
}
