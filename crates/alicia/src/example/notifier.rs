//! `notifier`: prints what people should know - from people, rules and the health monitor - and keeps the last of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alicia_sdk::contract::health::{Alert, AlertState, Severity};
use alicia_sdk::{Capability, Context, Error, Message, Service};
use serde::Deserialize;

use super::{Notice, Notification, VERSION};
use crate::show;

/// How many notifications are kept.
const KEPT_MAX: usize = 100;

/// The longest text, in characters: what is longer is cut.
const TEXT_CHARS_MAX: usize = 500;

#[derive(Deserialize)]
struct Wanted {
    /// At most so many, the newest.
    limit: Option<usize>,
}

pub(crate) async fn run() -> Result<(), Error> {
    let journal = Shared::default();
    let (told, listed) = (journal.clone(), journal.clone());
    Service::from_env("notifier")?
        .version(VERSION)
        .capability(
            Capability::new("notify").describes("tells people something"),
            move |cx, notice: Notice| {
                let journal = told.clone();
                async move {
                    let from = cx.caller().unwrap_or("somebody").to_owned();
                    journal.tell(&cx, from, notice).await
                }
            },
        )
        .command("list", move |_cx, wanted: Wanted| {
            let newest = listed.lock().newest(wanted.limit.unwrap_or(KEPT_MAX));
            async move { Ok(newest) }
        })
        .on(
            "system/health/monitor/alerts",
            move |cx, alert: Message<Alert>| {
                let journal = journal.clone();
                async move {
                    let Some(notice) = journal.lock().notice_of(&alert.payload) else {
                        return Ok(());
                    };
                    journal
                        .tell(&cx, "health".to_owned(), notice)
                        .await
                        .map(drop)
                }
            },
        )
        .run()
        .await
}

/// What was told, the newest last.
#[derive(Debug, Default)]
struct Journal {
    notes: VecDeque<Notification>,
    /// Alerts that were told, by id and state: each is published again when its content changes.
    alerts: VecDeque<(String, AlertState)>,
}

impl Journal {
    fn keep(&mut self, note: Notification) {
        self.notes.push_back(note);
        if self.notes.len() > KEPT_MAX {
            self.notes.pop_front();
        }
    }

    /// At most so many, the newest first.
    fn newest(&self, limit: usize) -> Vec<Notification> {
        self.notes.iter().rev().take(limit).cloned().collect()
    }

    /// What to tell of an alert; nothing when it was told already.
    fn notice_of(&mut self, alert: &Alert) -> Option<Notice> {
        let key = (alert.id.clone(), alert.state);
        if self.alerts.contains(&key) {
            return None;
        }
        self.alerts.push_back(key);
        if self.alerts.len() > KEPT_MAX {
            self.alerts.pop_front();
        }
        Some(match alert.state {
            AlertState::Firing => Notice {
                text: alert.summary.clone(),
                severity: alert.severity,
            },
            AlertState::Resolved => Notice {
                text: format!("over: {}", alert.summary),
                severity: Severity::Info,
            },
        })
    }
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Journal>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(
        &self,
        cx: &Context,
        from: String,
        notice: Notice,
    ) -> Result<Notification, Error> {
        let note = Notification {
            at: show::time(show::now()),
            from,
            severity: notice.severity,
            text: one_line(&notice.text),
        };
        println!(
            "{:<8} {}: {}",
            severity_name(note.severity),
            note.from,
            note.text
        );
        self.lock().keep(note.clone());
        cx.count("notifications");
        cx.publish("home/notifications", &note).await?;
        Ok(note)
    }
}

/// A notification is one line of the log, whatever was sent.
fn one_line(text: &str) -> String {
    text.chars()
        .take(TEXT_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn alert(id: &str, state: &str) -> Alert {
        serde_json::from_value(json!({
            "id": id, "rule": "service_down", "severity": "critical", "state": state, "service": "api",
            "instance": null, "summary": "api is down", "detail": "", "started": 0.0, "ended": null, "count": 1,
        }))
        .expect("is an alert")
    }

    #[test]
    fn an_alert_is_told_when_it_fires_and_when_it_is_over() {
        let mut journal = Journal::default();
        let fired = journal.notice_of(&alert("1", "firing")).expect("is new");
        assert_eq!(
            (fired.text.as_str(), fired.severity),
            ("api is down", Severity::Critical)
        );
        assert_eq!(journal.notice_of(&alert("1", "firing")), None);
        let over = journal.notice_of(&alert("1", "resolved")).expect("is new");
        assert_eq!(
            (over.text.as_str(), over.severity),
            ("over: api is down", Severity::Info)
        );
        assert!(journal.notice_of(&alert("2", "firing")).is_some());
    }

    #[test]
    fn the_newest_come_first_and_the_oldest_are_let_go() {
        let mut journal = Journal::default();
        for n in 0..KEPT_MAX * 2 {
            let (from, text) = ("test".to_owned(), n.to_string());
            journal.keep(Notification {
                at: String::new(),
                from,
                severity: Severity::Info,
                text,
            });
        }
        let texts: Vec<String> = journal
            .newest(2)
            .into_iter()
            .map(|note| note.text)
            .collect();
        assert_eq!(texts, ["199", "198"]);
        assert_eq!(journal.newest(1_000).len(), KEPT_MAX);
    }

    #[test]
    fn a_text_cannot_forge_lines_of_the_log() {
        assert_eq!(one_line("tea\nERROR fake\u{1b}[31m"), "tea ERROR fake [31m");
        assert_eq!(one_line(&"x".repeat(9_999)).len(), TEXT_CHARS_MAX);
    }
}
