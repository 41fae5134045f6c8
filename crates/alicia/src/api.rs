//! Talking to a running host over REST.

use std::time::Duration;

use alicia_contract::Problem;
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::Global;
use crate::failure::{Failure, Outcome};
use crate::{place, show};

/// An answer that takes longer than this will not come; waiting operations have their own limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A host that can be asked.
#[derive(Debug, Clone)]
pub(crate) struct ApiClient {
    base: String,
    key: Option<String>,
    http: reqwest::Client,
    /// Answers are printed as JSON, where nothing in a text commands a terminal: they stay to the letter.
    is_exact: bool,
}

impl ApiClient {
    /// The host of `--api`, or the one that runs on the data directory, with `--key` or the admin key that lies there.
    pub(crate) fn find(global: &Global) -> Outcome<Self> {
        let paths = place::paths(global)?;
        let key = global.key.clone().or_else(|| {
            let text = std::fs::read_to_string(paths.admin_key()).ok()?;
            Some(text.trim().to_owned())
        });
        let base = match &global.api {
            Some(api) if api.contains("://") => api.trim_end_matches('/').to_owned(),
            Some(api) => format!("http://{}", api.trim_end_matches('/')),
            None => {
                let host = place::running_host(&paths).ok_or_else(|| {
                    Failure::NoHost(format!(
                        "no fleet runs on {}; start one with `alicia up`, or name another with --data or --api",
                        paths.data().display()
                    ))
                })?;
                host.api
            }
        };
        Ok(Self {
            is_exact: global.json,
            ..Self::new(base, key)
        })
    }

    /// A host at an address.
    pub(crate) fn new(base: String, key: Option<String>) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .expect("a client without TLS has nothing to fail on");
        Self {
            base,
            key,
            http,
            is_exact: false,
        }
    }

    /// The address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The key, when there is one.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        let answer = self
            .send(self.request(Method::GET, path).timeout(ANSWER_TIMEOUT))
            .await?;
        self.read(answer).await
    }

    /// As [`Self::get`], also where the status says that it is not well: the document is the same.
    pub(crate) async fn get_any<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        let answer = self
            .ask(self.request(Method::GET, path).timeout(ANSWER_TIMEOUT))
            .await?;
        self.read(answer).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Outcome<T> {
        let request = self
            .request(Method::POST, path)
            .json(body)
            .timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// As [`Self::post`], for what may take so long by itself.
    pub(crate) async fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        takes: Duration,
    ) -> Outcome<T> {
        let request = self
            .request(Method::POST, path)
            .json(body)
            .timeout(takes.saturating_add(ANSWER_TIMEOUT));
        self.read(self.send(request).await?).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Outcome<T> {
        let request = self.request(Method::DELETE, path).timeout(ANSWER_TIMEOUT);
        self.read(self.send(request).await?).await
    }

    /// What an answer says. Services, and whoever is not let in, have written some of its texts.
    async fn read<T: DeserializeOwned>(&self, answer: Response) -> Outcome<T> {
        if self.is_exact {
            return Ok(answer.json().await?);
        }
        let mut value: Value = answer.json().await?;
        tame(&mut value);
        Ok(serde_json::from_value(value)?)
    }

    /// An answer that may go on without end.
    pub(crate) async fn stream(&self, path: &str, accept: &str) -> Outcome<Response> {
        self.send(self.request(Method::GET, path).header("accept", accept))
            .await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn ask(&self, request: RequestBuilder) -> Outcome<Response> {
        request.send().await.map_err(|error| {
            if error.is_connect() {
                Failure::NoHost(format!(
                    "no host answers at {}; is it running? `alicia up`",
                    self.base
                ))
            } else {
                Failure::Other(anyhow::Error::new(error).context(format!("ask {}", self.base)))
            }
        })
    }

    async fn send(&self, request: RequestBuilder) -> Outcome<Response> {
        let answer = self.ask(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        match self.read::<Problem>(answer).await {
            Ok(problem) => Err(Failure::Refused(Box::new(problem))),
            Err(_) => Err(Failure::Other(anyhow::anyhow!(
                "use the answer of {}: HTTP {status}",
                self.base
            ))),
        }
    }
}

/// Takes what a terminal would obey out of every text.
fn tame(value: &mut Value) {
    match value {
        Value::String(text) => *text = show::harmless(text),
        Value::Array(values) => values.iter_mut().for_each(tame),
        Value::Object(members) => members.values_mut().for_each(tame),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text as a part of a path or query.
pub(crate) fn quoted(text: &str) -> String {
    text.bytes().fold(String::new(), |mut quoted, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("%{byte:02X}"));
        }
        quoted
    })
}
