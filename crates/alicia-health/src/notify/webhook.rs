//! Webhooks, as Standard Webhooks (standardwebhooks.com, 1.0.0) wants them: an id that stays the same at each try,
//! the time of the try, and a signature over both and the body.

use axum::http::Uri;
use axum::http::header::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use alicia_contract::health::{Alert, Notification};

use super::egress::{Fault, Post};
use super::outbox::Waiting;

/// A shorter secret can be guessed.
const KEY_BYTES_MIN: usize = 16;

/// The version of the body.
const VERSION: u32 = 1;

/// The key that signs. It is not printed.
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// Reads a secret: `whsec_` and base64, or any other text as it is.
    pub(crate) fn read(text: &str) -> Result<Self, Fault> {
        let bytes = match text.strip_prefix("whsec_") {
            Some(encoded) => STANDARD
                .decode(encoded)
                .map_err(|_| Fault::passing("the secret begins with whsec_ and is no base64"))?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.len() < KEY_BYTES_MIN {
            let found = bytes.len();
            return Err(Fault::passing(format!(
                "the secret has {found} bytes, expected {KEY_BYTES_MIN} or more"
            )));
        }
        Ok(Self(bytes))
    }

    /// The signature over an id, a time and a body.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The body.
#[derive(Serialize)]
struct Body<'a> {
    version: u32,
    #[serde(flatten)]
    notification: Shown<'a>,
    alerts: &'a [Alert],
}

/// What a receiver is told of a notification: what it is, not how its delivery goes.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    channel: &'a str,
    group: &'a str,
    state: alicia_contract::health::AlertState,
    severity: alicia_contract::health::Severity,
    reason: &'a str,
    summary: &'a str,
    firing: u32,
    resolved: u32,
    created: f64,
}

/// What is posted now. The time is that of this try: a receiver refuses an old one, and a recording of it is old.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is to go")]
pub(crate) fn post(
    url: Uri,
    key: Option<&Key>,
    waiting: &Waiting,
    now: f64,
) -> Result<Post, Fault> {
    let Notification {
        id,
        channel,
        group,
        state,
        severity,
        reason,
        summary,
        firing,
        resolved,
        created,
        ..
    } = &waiting.notification;
    let body = Body {
        version: VERSION,
        notification: Shown {
            id,
            channel,
            group,
            state: *state,
            severity: *severity,
            reason,
            summary,
            firing: *firing,
            resolved: *resolved,
            created: *created,
        },
        alerts: &waiting.alerts,
    };
    let body = serde_json::to_string(&body)
        .map_err(|error| Fault::last(format!("the alerts cannot be written: {error}")))?;
    let timestamp = now as i64;
    let mut headers = vec![
        header("webhook-id", id)?,
        header("webhook-timestamp", &timestamp.to_string())?,
        header("idempotency-key", id)?,
    ];
    if let Some(key) = key {
        headers.push(header(
            "webhook-signature",
            &key.sign(id, timestamp, &body),
        )?);
    }
    Ok(Post { url, headers, body })
}

fn header(name: &'static str, value: &str) -> Result<(HeaderName, HeaderValue), Fault> {
    let value = HeaderValue::from_str(value)
        .map_err(|_| Fault::last(format!("{name} has letters that no header may have")))?;
    Ok((HeaderName::from_static(name), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let key = Key::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
        let body = "{\"test\": 2432232314}";
        let signed = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_is_none_is_refused_without_being_shown() {
        for bad in ["short", "whsec_!!", "whsec_c2hvcnQ="] {
            let fault = Key::read(bad).err().expect(bad);
            assert!(!fault.text.contains("short"), "{}", fault.text);
        }
        assert!(Key::read("a plain secret of its own").is_ok());
    }
}
