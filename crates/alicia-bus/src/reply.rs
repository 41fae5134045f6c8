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

/// Whether an answer may be sent there. Only to a topic with a level `replies`: otherwise anybody could
/// have a module, which may publish nearly everywhere, say something on a topic that they may not use.
pub(crate) fn may_answer(topic: &str) -> bool {
    topic.len() <= TOPIC_BYTES_MAX
        && !topic.contains(['+', '#', '\0'])
        && !topic.starts_with('$')
        && topic.split('/').any(|level| level == REPLIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_source_has_its_reply_topic() {
        let check = |source: &str, client: &str, expected: &str| {
            let topic = reply_topic(&Prefix::default(), source, client);
            assert_eq!(topic, expected);
            assert!(may_answer(&topic));
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
        ] {
            assert!(!may_answer(bad), "{bad:?} was accepted");
        }
    }
}
