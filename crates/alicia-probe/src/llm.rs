//! Ask a language model for a tiny completion, in the wire format that most servers speak (OpenAI's chat completions).

use std::path::PathBuf;
use std::time::Duration;

use alicia_contract::fleet::LlmCheck;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::attempt::{Deadline, Seen};
use crate::connect::Place;
use crate::http::{exchange, headers, path, read};
use crate::secret;
use crate::target::{Context, TargetError, limit};

/// A model and how it is asked.
#[derive(Debug, Clone)]
pub struct LlmTarget {
    place: Place,
    path: PathAndQuery,
    headers: HeaderMap,
    key: Key,
    model: String,
    body: String,
    pub(crate) latency_max: Option<Duration>,
}

/// Where the key comes from.
#[derive(Clone)]
enum Key {
    None,
    Here(String),
    File(PathBuf),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Here(_) => f.write_str("Here(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

// === impl LlmTarget ===

impl LlmTarget {
    pub(crate) fn new(check: &LlmCheck, context: &Context<'_>) -> Result<Self, TargetError> {
        let body = json!({
            "model": check.model,
            "messages": [{ "role": "user", "content": check.prompt }],
            "max_tokens": check.max_tokens,
            "stream": false,
        });
        let key = match (&check.key_file, &check.key_variable) {
            (Some(file), _) => Key::File(context.directory.join(file)),
            (None, Some(name)) => {
                let value = context.variable(name);
                Key::Here(
                    value
                        .ok_or_else(|| TargetError::Variable(name.clone()))?
                        .to_owned(),
                )
            }
            (None, None) => Key::None,
        };
        let base = check.path.trim_end_matches('/');
        Ok(Self {
            place: context.place(&check.host, check.port, check.tls.as_ref())?,
            path: path(&format!("{base}/chat/completions"))?,
            headers: headers(&check.headers)?,
            key,
            model: check.model.clone(),
            body: body.to_string(),
            latency_max: limit(check.latency_max),
        })
    }

    pub(crate) async fn attempt(&self, deadline: &Deadline) -> Seen {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone().into();
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let key = match &self.key {
            Key::None => None,
            Key::Here(key) => Some(key.clone()),
            Key::File(path) => Some(secret::read(path, deadline).await?),
        };
        if let Some(key) = key {
            let value = HeaderValue::try_from(format!("Bearer {key}"));
            let mut value = value.map_err(|_| "the key cannot be sent in a header".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let connected = self.place.connect(&[], deadline).await?;
        let judge = async |answer: http::Response<hyper::body::Incoming>| {
            let status = answer.status();
            let body = deadline
                .within("no whole answer", read(answer.into_body()))
                .await??;
            self.judge(status, &body)
        };
        exchange(connected, &self.place, request, deadline, judge).await
    }

    fn judge(&self, status: StatusCode, body: &[u8]) -> Seen {
        let model = &self.model;
        let answer: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        if status != StatusCode::OK {
            let error = &answer["error"];
            let why = error["message"].as_str().or(error.as_str());
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            return Err(format!("HTTP {}{why}", status.as_u16()));
        }
        let choice = &answer["choices"][0];
        if choice["message"].is_null() && choice["text"].is_null() {
            return Err(format!("the answer of {model} has no completion in it"));
        }
        let tokens = answer["usage"]["total_tokens"].as_u64();
        let tokens = tokens.map_or_else(String::new, |tokens| format!(", {tokens} tokens"));
        Ok(format!("{model} answered{tokens}"))
    }
}
