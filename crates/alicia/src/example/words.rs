//! What people mean with a sentence: the small grammar of `commands`. Pure.
//!
//! ```text
//! sentence = "notify" text | "remind me" text | words
//! words    = any words, of which the first known one counts: "what is the load"
//! ```

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Intent {
    /// The value of a sensor, by its name.
    Sensor(&'static str),
    /// The time of day.
    Time,
    /// How the services are.
    Status,
    /// The last notifications.
    Notifications,
    /// Tell people this.
    Notify(String),
    /// What can be said.
    Help,
}

/// What is said when nothing was understood, or when one asks for it.
pub(super) const HELP: &str = "say: what is the load, processor, memory, disk or temperature; what time is it; \
                               how is the fleet; what is new; notify TEXT";

/// The longest sentence, in characters: longer ones are no command, and would fill the log.
pub(super) const SENTENCE_CHARS_MAX: usize = 500;

const NOTIFY: [&str; 3] = ["notify", "remind me", "tell everybody"];

const KNOWN: &[(&[&str], Intent)] = &[
    (&["load", "busy"], Intent::Sensor("load")),
    (&["processor", "cpu"], Intent::Sensor("processor")),
    (&["memory", "ram"], Intent::Sensor("memory")),
    (&["disk", "space", "storage"], Intent::Sensor("disk")),
    (
        &["temperature", "hot", "warm", "cold"],
        Intent::Sensor("temperature"),
    ),
    (&["time", "clock", "date", "day", "late"], Intent::Time),
    (
        &["status", "fleet", "services", "well", "ok", "health"],
        Intent::Status,
    ),
    (
        &["new", "news", "notifications", "happened"],
        Intent::Notifications,
    ),
];

/// Finds out what is meant.
pub(super) fn understand(sentence: &str) -> Intent {
    let sentence = sentence.trim();
    if let Some(text) = NOTIFY.iter().find_map(|words| after(sentence, words)) {
        return Intent::Notify(text.to_owned());
    }
    let lower = sentence.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    let meaning = |word: &str| KNOWN.iter().find(|(names, _)| names.contains(&word));
    words
        .filter_map(meaning)
        .map(|(_, intent)| intent.clone())
        .next()
        .unwrap_or(Intent::Help)
}

/// What follows these words, when the sentence starts with them and something follows.
fn after<'s>(sentence: &'s str, words: &str) -> Option<&'s str> {
    let start = sentence.get(..words.len())?;
    let rest = &sentence[words.len()..];
    let is_whole = rest.starts_with([' ', ':', ',', '\t']);
    let rest = rest.trim_start_matches([' ', ':', ',', '\t']);
    (start.eq_ignore_ascii_case(words) && is_whole && !rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_understood() {
        let check = |sentence: &str, expected: Intent| {
            assert_eq!(understand(sentence), expected, "{sentence}");
        };
        check("what is the load", Intent::Sensor("load"));
        check("  How much RAM is left?", Intent::Sensor("memory"));
        check("DISK!", Intent::Sensor("disk"));
        check("what time is it", Intent::Time);
        check("how is the fleet", Intent::Status);
        check("what's new?", Intent::Notifications);
        check(
            "notify the tea is ready",
            Intent::Notify("the tea is ready".to_owned()),
        );
        check(
            "Remind me: load the van",
            Intent::Notify("load the van".to_owned()),
        );
    }

    #[test]
    fn what_is_not_understood_is_answered_with_help() {
        for sentence in [
            "",
            "   ",
            "notify",
            "notify ",
            "notifying",
            "überladen",
            "payload",
            "🫖",
        ] {
            assert_eq!(understand(sentence), Intent::Help, "{sentence:?}");
        }
    }
}
