//! `commands`: understands short sentences and answers in words, from what it heard and by asking the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alicia_sdk::contract::health::{Heartbeat, Severity};
use alicia_sdk::{Capability, Context, Error, JsonSchema, Kind, Message, Service};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::words::{HELP, Intent, SENTENCE_CHARS_MAX, understand};
use super::{ClockTime, Notice, Notification, Reading, VERSION};
use crate::show;

/// The others are on this machine and answer from memory.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Of how many sensors it remembers the last value.
const READINGS_MAX: usize = 100;

/// How many notifications it reads out.
const NOTIFICATIONS_TOLD: usize = 5;

/// Whom it asks how they are.
const OTHERS: [&str; 4] = ["sensors", "clock", "rules", "notifier"];

#[derive(Deserialize, JsonSchema)]
struct Say {
    /// `what is the load`, `how is the fleet`, `notify the tea is ready`.
    #[schemars(length(min = 1, max = 500))]
    text: String,
}

#[derive(Serialize, JsonSchema)]
struct Said {
    /// The answer.
    text: String,
}

pub(crate) async fn run() -> Result<(), Error> {
    let heard = Memory::default();
    let (asked, readings, clock) = (heard.clone(), heard.clone(), heard.clone());
    Service::from_env("commands")?
        .version(VERSION)
        .kind(Kind::Agent)
        .capability(
            Capability::new("say")
                .describes("answers a short sentence in words")
                .tag("words"),
            move |cx, say: Say| {
                let heard = asked.clone();
                async move {
                    let text = answer(&cx, &heard, &say.text).await?;
                    Ok(Said { text })
                }
            },
        )
        .on("home/say", move |cx, said: Message<String>| {
            let heard = heard.clone();
            async move {
                let text = answer(&cx, &heard, &said.payload).await?;
                cx.publish("home/said", &text).await
            }
        })
        .on("home/sensors/+", move |_cx, message: Message<Reading>| {
            readings.remember(message.payload);
            async { Ok(()) }
        })
        .on("home/clock", move |_cx, message: Message<ClockTime>| {
            clock.lock().clock = Some(message.payload);
            async { Ok(()) }
        })
        .run()
        .await
}

/// The last that was heard of everything.
#[derive(Debug, Default)]
struct Heard {
    readings: BTreeMap<String, Reading>,
    clock: Option<ClockTime>,
}

#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Heard>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, reading: Reading) {
        let mut heard = self.lock();
        if heard.readings.len() < READINGS_MAX || heard.readings.contains_key(&reading.name) {
            heard.readings.insert(reading.name.clone(), reading);
        }
    }
}

impl Heard {
    fn sensor(&self, name: &str) -> String {
        match self.readings.get(name) {
            Some(reading) => format!("{name}: {}", reading.text),
            None => format!("nobody has told me the {name}"),
        }
    }

    fn time(&self) -> String {
        match &self.clock {
            Some(now) => format!(
                "it is {} on {}, {}, in the {}",
                now.time, now.weekday, now.date, now.part_of_day
            ),
            None => "nobody has told me the time".to_owned(),
        }
    }
}

async fn answer(cx: &Context, heard: &Memory, sentence: &str) -> Result<String, Error> {
    if sentence.chars().count() > SENTENCE_CHARS_MAX {
        return Err(Error::refused(
            422,
            format!("a sentence has at most {SENTENCE_CHARS_MAX} characters"),
        ));
    }
    match understand(sentence) {
        Intent::Sensor(name) => Ok(heard.lock().sensor(name)),
        Intent::Time => Ok(heard.lock().time()),
        Intent::Help => Ok(HELP.to_owned()),
        Intent::Status => Ok(join_all(OTHERS.map(|name| how_is(cx, name)))
            .await
            .join("; ")),
        Intent::Notify(text) => {
            let notice = Notice {
                text,
                severity: Severity::Info,
            };
            let _: Notification = cx
                .call("notifier", "notify", &notice, ANSWER_DEADLINE)
                .await?;
            Ok("everybody is told".to_owned())
        }
        Intent::Notifications => {
            let wanted = json!({ "limit": NOTIFICATIONS_TOLD });
            let news: Vec<Notification> = cx
                .call("notifier", "list", &wanted, ANSWER_DEADLINE)
                .await?;
            Ok(in_words(&news))
        }
    }
}

async fn how_is(cx: &Context, service: &str) -> String {
    match cx
        .call::<Heartbeat>(service, "status", &(), ANSWER_DEADLINE)
        .await
    {
        Ok(status) => {
            let word = format!("{:?}", status.status).to_lowercase();
            format!("{service} is {word}, for {}", show::span(status.uptime_s))
        }
        Err(error) => format!("{service} does not answer ({error})"),
    }
}

fn in_words(news: &[Notification]) -> String {
    if news.is_empty() {
        return "nothing is new".to_owned();
    }
    let lines: Vec<String> = news
        .iter()
        .map(|note| format!("{} {}", note.at, note.text))
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Reading {
        Reading {
            name: "load".into(),
            value: 0.3,
            unit: "per core".into(),
            text: "0.30 per core".into(),
        }
    }

    #[test]
    fn the_last_value_is_told_and_memory_is_bounded() {
        let memory = Memory::default();
        assert_eq!(memory.lock().sensor("load"), "nobody has told me the load");
        memory.remember(load());
        for n in 0..READINGS_MAX * 2 {
            memory.remember(Reading {
                name: n.to_string(),
                ..load()
            });
        }
        memory.remember(Reading {
            text: "0.90 per core".into(),
            ..load()
        });
        assert_eq!(memory.lock().sensor("load"), "load: 0.90 per core");
        assert_eq!(memory.lock().readings.len(), READINGS_MAX);
    }
}
