//! A channel as it runs: what it speaks, how it is doing, and the delivery of one notification.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::Uri;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::egress::{Egress, Fault, Post};
use super::outbox::Waiting;
use super::{mail, message, webhook};
use crate::config::notify::{self as config, Email};

/// Longest URL or secret in a file, in bytes.
const FILE_BYTES_MAX: usize = 4_096;

/// How long a file may take to be read.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel.
pub(crate) struct Channel {
    pub(crate) name: String,
    pub(crate) speech: Speech,
    pub(crate) egress: Egress,
    /// Wakes its sender.
    pub(crate) wake: Notify,
    pub(crate) counts: Counts,
    pub(crate) pace: Mutex<Pace>,
    /// What went wrong with the last try; none: nothing.
    pub(crate) trouble: Mutex<Option<String>>,
}

/// How a channel is doing, since the start of the monitor.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) tries: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) waiting: AtomicU64,
}

/// A text of the file, or of a file of its own that is read when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Text(String),
    File(PathBuf),
}

/// What a channel speaks.
pub(crate) enum Speech {
    Webhook {
        url: Source,
        secret: Option<Source>,
    },
    Alertmanager {
        url: String,
        token: Option<Source>,
        refresh: Duration,
    },
    Ntfy {
        url: String,
        topic: String,
        token: Option<Source>,
    },
    Slack {
        url: Source,
    },
    Email {
        email: Email,
        password: Option<Source>,
    },
}

/// At most so many in a time.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: usize,
    within: Duration,
    recent: VecDeque<Instant>,
}

// === impl Channel ===

impl Channel {
    /// A channel of the file, which has been checked; relative paths start at `base`.
    pub(crate) fn new(name: String, config: &config::Channel, base: &Path) -> Option<Self> {
        let ca = config.ca_file.as_ref().map(|path| base.join(path));
        let egress = Egress::new(config.allow_private, config.timeout.duration(), ca);
        Some(Self {
            name,
            speech: Speech::of(config, base)?,
            egress,
            wake: Notify::new(),
            counts: Counts::default(),
            pace: Mutex::new(Pace {
                limit: config.rate_limit.notifications as usize,
                within: config.rate_limit.within.duration(),
                recent: VecDeque::new(),
            }),
            trouble: Mutex::new(None),
        })
    }

    /// Tries to deliver a notification.
    pub(crate) async fn deliver(&self, waiting: &Waiting, now: f64) -> Result<(), Fault> {
        let post = match &self.speech {
            Speech::Webhook { url, secret } => {
                let secret = match secret {
                    Some(secret) => Some(webhook::Key::read(&secret.read().await?)?),
                    None => None,
                };
                webhook::post(url.url("").await?, secret.as_ref(), waiting, now)?
            }
            Speech::Alertmanager {
                url,
                token,
                refresh,
            } => Post {
                url: place(url, "/api/v2/alerts")?,
                headers: bearer(token.as_ref()).await?,
                body: message::for_alertmanager(waiting, *refresh, now),
            },
            Speech::Ntfy { url, topic, token } => Post {
                url: place(url, "")?,
                headers: bearer(token.as_ref()).await?,
                body: message::for_ntfy(waiting, topic),
            },
            Speech::Slack { url } => Post {
                url: url.url("").await?,
                headers: Vec::new(),
                body: message::for_slack(waiting),
            },
            Speech::Email { email, password } => {
                let password = match password {
                    Some(password) => Some(password.read().await?),
                    None => None,
                };
                return mail::send(&self.egress, email, password.as_deref(), waiting, now).await;
            }
        };
        self.egress.post(post).await
    }
}

// === impl Speech ===

impl Speech {
    fn of(config: &config::Channel, base: &Path) -> Option<Self> {
        let file = |path: &Option<String>| path.as_ref().map(|path| Source::File(base.join(path)));
        let either = |text: &Option<String>, path: &Option<String>| {
            let text = text.as_ref().map(|text| Source::Text(text.clone()));
            file(path).or(text)
        };
        if let Some(hook) = &config.webhook {
            return Some(Self::Webhook {
                url: either(&hook.url, &hook.url_file)?,
                secret: file(&hook.secret_file),
            });
        }
        if let Some(peer) = &config.alertmanager {
            return Some(Self::Alertmanager {
                url: peer.url.clone(),
                token: file(&peer.token_file),
                refresh: peer.refresh.duration(),
            });
        }
        if let Some(ntfy) = &config.ntfy {
            return Some(Self::Ntfy {
                url: ntfy.url.clone(),
                topic: ntfy.topic.clone(),
                token: file(&ntfy.token_file),
            });
        }
        if let Some(slack) = &config.slack {
            let url = either(&slack.url, &slack.url_file)?;
            return Some(Self::Slack { url });
        }
        let email = config.email.clone()?;
        let password = file(&email.password_file);
        Some(Self::Email { email, password })
    }

    /// The name of what it speaks, as in the file.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Ntfy { .. } => "ntfy",
            Self::Slack { .. } => "slack",
            Self::Email { .. } => "email",
        }
    }

    /// Whether its receiver forgets what it is not told again.
    pub(crate) const fn is_mirror(&self) -> bool {
        matches!(self, Self::Alertmanager { .. })
    }

    /// Where it leads, without what may be secret in it.
    pub(crate) fn place(&self) -> String {
        let host = |url: &str| {
            let uri: Option<Uri> = url.parse().ok();
            let host = uri.as_ref().and_then(Uri::authority);
            host.map_or("?".to_owned(), |host| host.host().to_owned())
        };
        match self {
            Self::Webhook { url, .. } | Self::Slack { url } => match url {
                Source::Text(url) => host(url),
                Source::File(path) => format!("as {} says", path.display()),
            },
            Self::Alertmanager { url, .. } => host(url),
            Self::Ntfy { url, topic, .. } => format!("{}, topic {topic}", host(url)),
            Self::Email { email, .. } => format!("{} by {}", email.to.join(", "), email.server),
        }
    }
}

// === impl Source ===

impl Source {
    async fn read(&self) -> Result<String, Fault> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => {
                let text = bounded(path).await.map_err(|error| {
                    Fault::passing(format!("failed to read {}: {error}", path.display()))
                })?;
                let text = text.trim();
                if text.is_empty() || text.len() > FILE_BYTES_MAX {
                    return Err(Fault::passing(format!(
                        "{} has {} bytes, expected 1 to {FILE_BYTES_MAX}",
                        path.display(),
                        text.len()
                    )));
                }
                Ok(text.to_owned())
            }
        }
    }

    async fn url(&self, path: &str) -> Result<Uri, Fault> {
        place(&self.read().await?, path)
    }
}

/// A text file, as far as it may be long, in bounded time: the path may lead to a pipe or a device.
async fn bounded(path: &Path) -> io::Result<String> {
    let read = async {
        let mut text = String::new();
        let file = tokio::fs::File::open(path).await?;
        file.take(FILE_BYTES_MAX as u64 + 1)
            .read_to_string(&mut text)
            .await?;
        Ok(text)
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "it has no end");
    let read = tokio::time::timeout(FILE_TIMEOUT, read).await;
    read.unwrap_or_else(|_| Err(late()))
}

/// A URL with a path behind it. What is wrong with it is not said with the URL, which may be secret.
fn place(url: &str, path: &str) -> Result<Uri, Fault> {
    format!("{}{path}", url.trim_end_matches('/'))
        .parse()
        .map_err(|_| Fault::last("the URL cannot be used; expected https://host/path"))
}

async fn bearer(
    token: Option<&Source>,
) -> Result<Vec<(axum::http::HeaderName, HeaderValue)>, Fault> {
    let Some(token) = token else {
        return Ok(Vec::new());
    };
    let value = format!("Bearer {}", token.read().await?);
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| Fault::passing("the token has letters that no header may have"))?;
    value.set_sensitive(true);
    Ok(vec![(AUTHORIZATION, value)])
}

// === impl Pace ===

impl Pace {
    /// Takes a turn, or says how long until there is one.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<Duration> {
        let within = self.within;
        while self
            .recent
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) >= within)
        {
            self.recent.pop_front();
        }
        match self.recent.front() {
            Some(first) if self.recent.len() >= self.limit => {
                Some(within.saturating_sub(now.saturating_duration_since(*first)))
            }
            _ => {
                self.recent.push_back(now);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pace_lets_so_many_pass_in_a_time() {
        let mut pace = Pace {
            limit: 2,
            within: Duration::from_secs(60),
            recent: VecDeque::new(),
        };
        let start = alicia_module::Clock::system().now();
        let at = |s: u64| start + Duration::from_secs(s);
        assert_eq!(pace.turn(at(0)), None);
        assert_eq!(pace.turn(at(10)), None);
        assert_eq!(pace.turn(at(20)), Some(Duration::from_secs(40)));
        assert_eq!(pace.turn(at(60)), None);
        assert_eq!(pace.turn(at(61)), Some(Duration::from_secs(9)));
    }

    #[tokio::test]
    async fn a_secret_comes_from_its_file_and_what_is_wrong_with_it_does_not_show_it() {
        let directory = std::env::temp_dir().join(format!("alicia-secret-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("url");
        std::fs::write(&path, " https://hooks.example.org/T0/secret\n").expect("written");
        let source = Source::File(path.clone());
        let url = source.url("").await.expect("a URL");
        assert_eq!(url.path(), "/T0/secret");
        let speech = Speech::Slack {
            url: Source::Text("https://hooks.example.org/T0/secret".to_owned()),
        };
        assert_eq!(speech.place(), "hooks.example.org");
        std::fs::write(&path, "no url with a secret in it").expect("written");
        let fault = source.url("").await.expect_err("no URL");
        assert!(!fault.text.contains("secret in"), "{}", fault.text);
        // What never ends is no secret.
        let endless = Source::File("/dev/zero".into());
        let fault = endless.url("").await.expect_err("no end");
        assert!(
            fault.text.contains("/dev/zero has 4097 bytes"),
            "{}",
            fault.text
        );
        std::fs::remove_file(&path).expect("removed");
        assert!(
            source
                .url("")
                .await
                .expect_err("gone")
                .text
                .contains("failed to read")
        );
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
