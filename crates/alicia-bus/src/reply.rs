//! Where answers go. One function decides it, and permissions on topics are written from its rule.
//!
//! | source | reply topic | its owner may subscribe |
//! |---|---|---|
//! | `system/registry` | `{p}/system/replies/registry/{client}` | everything |
//! | `key/tom` | `{p}/keys/tom/replies/{client}` | `{p}/keys/tom/replies/#` |
//! | `api` (a service) | `{p}/api/replies/{client}` | `{p}/api/replies/#` |
//!
//! `{client}` is the MQTT client id, so that two instances of one service do not hear each other's answers.

use alicia_contract::Prefix;
use alicia_contract::topic::TOPIC_BYTES_MAX;

/// The level that every reply topic has.
const REPLIES: &str = "replies";

/// The topic on which the client with this source and client id awaits its answers.
#[must_use]
pub fn reply_topic(prefix: &Prefix, source: &str, client_id: &str) -> String {
    let client = level(client_id);
    match source.split_once('/') {
        Some(("system", module)) => {
            format!("{prefix}/system/{REPLIES}/{}/{client}", level(module))
        }
        Some(("key", key)) => format!("{prefix}/keys/{}/{REPLIES}/{client}", level(key)),
        _ => format!("{prefix}/{}/{REPLIES}/{client}", level(source)),
    }
}

/// A text as one level of a topic.
fn level(text: &str) -> String {
    text.replace(['/', '+', '#', '\0'], "-")
}

/// Whether an answer to these senders may be sent there. Only to a topic with a level `replies`, and under the prefix
/// only to their own: otherwise anybody could have a module, which may publish nearly everywhere, say something on a
/// topic that they may not use, or answer in the place of somebody else. `senders` are what the broker and the envelope
/// say of the sender; where both say nothing, any reply topic will do.
pub(crate) fn may_answer(prefix: &Prefix, senders: &[&str], topic: &str) -> bool {
    let is_own = |sender: &&str| topic.starts_with(&reply_topic(prefix, sender, ""));
    topic.len() <= TOPIC_BYTES_MAX
        && topic.chars().all(is_mqtt)
        && !topic.contains(['+', '#'])
        && !topic.starts_with('$')
        && topic.split('/').any(|level| level == REPLIES)
        && (senders.is_empty() || prefix.strip(topic).is_none() || senders.iter().any(is_own))
}

/// Whether a broker takes the character: for others it may end the connection (MQTT 5 section 1.5.4).
fn is_mqtt(letter: char) -> bool {
    let is_noncharacter = u32::from(letter) & 0xfffe == 0xfffe;
    !letter.is_control() && !is_noncharacter && !('\u{fdd0}'..='\u{fdef}').contains(&letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_source_has_its_reply_topic() {
        let check = |source: &str, client: &str, expected: &str| {
            let topic = reply_topic(&Prefix::default(), source, client);
            assert_eq!(topic, expected);
            assert!(may_answer(&Prefix::default(), &[source], &topic));
        };
        check("system/registry", "r1", "alicia/system/replies/registry/r1");
        check("key/tom", "cli/7", "alicia/keys/tom/replies/cli-7");
        check("api", "api-1", "alicia/api/replies/api-1");
        check("a+b", "#", "alicia/a-b/replies/-");
    }

    #[test]
    fn answers_go_to_reply_topics_only() {
        for bad in [
            "alicia/api/command",
            "a/replies/#",
            "$SYS/replies",
            "",
            "a/repliesx",
            "a/replies/\u{1}",
            "a/replies/\0",
            "a/replies/\u{85}",
            "a/replies/\u{fdd0}",
            "a/replies/\u{1ffff}",
        ] {
            let answers = may_answer(&Prefix::default(), &[], bad);
            assert!(!answers, "{bad:?} was accepted");
        }
    }

    #[test]
    fn nobody_is_answered_on_the_reply_topic_of_another() {
        let check = |senders: &[&str], topic: &str, expected: bool| {
            let answers = may_answer(&Prefix::default(), senders, topic);
            assert_eq!(answers, expected, "{senders:?} on {topic}");
        };
        check(&["key/tom"], "alicia/keys/tom/replies/cli", true);
        check(&["key/tom"], "alicia/keys/ann/replies/cli", false);
        check(&["key/tom"], "alicia/keys/tom/replies", false);
        check(&["key/tom"], "alicia/system/replies/health/x", false);
        check(&["key/tom", "api"], "alicia/api/replies/1", true);
        check(&["api"], "alicia/api-2/replies/1", false);
        check(&["api"], "elsewhere/replies/1", true);
        check(&[], "alicia/keys/ann/replies/cli", true);
    }
}
