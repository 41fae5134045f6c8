//! The list of all topics: what the AsyncAPI document is written from, and what tells topics apart whose
//! templates overlap.

use schemars::{Schema, SchemaGenerator};

use crate::topic::{CallTopic, EventTopic, StateTopic};
use crate::{audit, deployment, discovery, health, identity, orchestrator};

/// Writes the schema of a message.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// How a topic is used, with the messages on it.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// See [`EventTopic`].
    Event(SchemaOf),
    /// See [`StateTopic`].
    State(SchemaOf),
    /// See [`CallTopic`]: the request and the answer.
    Call(SchemaOf, SchemaOf),
}

/// One topic.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The template, without the prefix.
    pub template: &'static str,
    /// How it is used.
    pub kind: Kind,
    /// The constant in this crate, for example `health::HEARTBEAT`.
    pub name: &'static str,
    /// Who publishes there.
    pub publisher: &'static str,
    /// What it is for, in one line.
    pub summary: &'static str,
    /// What `{verb}` of the template may be; empty where there is none.
    pub verbs: &'static [&'static str],
}

impl Entry {
    const fn with_verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }
}

const fn event<T: schemars::JsonSchema>(
    topic: EventTopic<T>,
    name: &'static str,
    publisher: &'static str,
    summary: &'static str,
) -> Entry {
    Entry {
        template: topic.template(),
        kind: Kind::Event(SchemaGenerator::subschema_for::<T>),
        name,
        publisher,
        summary,
        verbs: &[],
    }
}

const fn state<T: schemars::JsonSchema>(
    topic: StateTopic<T>,
    name: &'static str,
    publisher: &'static str,
    summary: &'static str,
) -> Entry {
    Entry {
        template: topic.template(),
        kind: Kind::State(SchemaGenerator::subschema_for::<T>),
        name,
        publisher,
        summary,
        verbs: &[],
    }
}

const fn call<Q: schemars::JsonSchema, A: schemars::JsonSchema>(
    topic: CallTopic<Q, A>,
    name: &'static str,
    publisher: &'static str,
    summary: &'static str,
) -> Entry {
    Entry {
        template: topic.template(),
        kind: Kind::Call(
            SchemaGenerator::subschema_for::<Q>,
            SchemaGenerator::subschema_for::<A>,
        ),
        name,
        publisher,
        summary,
        verbs: &[],
    }
}

/// Every topic of this build.
pub const TOPICS: &[Entry] = &[
    event(
        discovery::REGISTER,
        "discovery::REGISTER",
        "any service or agent",
        "announces itself, or renews",
    ),
    event(
        discovery::UNREGISTER,
        "discovery::UNREGISTER",
        "any service or agent",
        "leaves",
    ),
    event(
        discovery::EVENTS,
        "discovery::EVENTS",
        "registry",
        "instances as they come, fall silent and go",
    ),
    state(
        discovery::INSTANCES,
        "discovery::INSTANCES",
        "registry",
        "the current instances of a service",
    ),
    call(
        discovery::RESOLVE,
        "discovery::RESOLVE",
        "any service or agent",
        "asks for the best instances for a capability",
    ),
    call(
        discovery::CALL,
        "discovery::CALL",
        "any service or agent",
        "has a capability carried out by exactly one instance",
    ),
    call(
        discovery::INSTANCE_COMMAND,
        "discovery::INSTANCE_COMMAND",
        "registry, anyone allowed",
        "a request to one instance of a service",
    ),
    state(
        audit::CHECKPOINT,
        "audit::CHECKPOINT",
        "the host",
        "the last signed checkpoint of the audit log",
    ),
    event(
        health::HEARTBEAT,
        "health::HEARTBEAT",
        "any service",
        "a sign of life",
    ),
    event(
        health::CHECK,
        "health::CHECK",
        "health, anyone allowed",
        "every service answers with a heartbeat",
    ),
    state(
        health::STATUS,
        "health::STATUS",
        "health",
        "the health of every service",
    ),
    event(
        health::ALERTS,
        "health::ALERTS",
        "health",
        "alerts as they fire and clear",
    ),
    call(
        health::ALERT_REQUESTS,
        "health::ALERT_REQUESTS",
        "anyone allowed",
        "acknowledge, silence, maintenance by message",
    )
    .with_verbs(&health::AlertVerb::NAMES),
    state(
        identity::KEYS,
        "identity::KEYS",
        "host",
        "the public keys of all who may act, signed",
    ),
    call(
        orchestrator::REQUESTS,
        "orchestrator::REQUESTS",
        "anyone allowed",
        "start, stop, restart, scale, pause, resume, signal, deploy, rollback, update by message",
    )
    .with_verbs(&orchestrator::REQUEST_VERBS),
    call(
        orchestrator::PLAN,
        "orchestrator::PLAN",
        "anyone allowed",
        "what a version of the file would change",
    ),
    state(
        orchestrator::STATUS,
        "orchestrator::STATUS",
        "orchestrator",
        "the state of the fleet",
    ),
    event(
        orchestrator::TRANSITIONS,
        "orchestrator::TRANSITIONS",
        "orchestrator",
        "every change of an instance",
    ),
    event(
        deployment::DEPLOYMENTS,
        "deployment::DEPLOYMENTS",
        "orchestrator",
        "each step of a deployment",
    ),
    state(
        deployment::NEWEST,
        "deployment::NEWEST",
        "orchestrator",
        "the newest deployment as it is now",
    ),
    call(
        orchestrator::EXPLAIN,
        "orchestrator::EXPLAIN",
        "anyone allowed",
        "why an instance is where it is",
    ),
    event(
        orchestrator::SPENT,
        "orchestrator::SPENT",
        "the gateway, or who else meters",
        "what was spent on behalf of a service",
    ),
    event(
        orchestrator::BROADCAST_COMMANDS,
        "orchestrator::BROADCAST_COMMANDS",
        "orchestrator",
        "commands to all services",
    ),
    call(
        orchestrator::SERVICE_COMMAND,
        "orchestrator::SERVICE_COMMAND",
        "orchestrator, anyone allowed",
        "a request to one service",
    ),
];

/// The templates of other topics that a template also matches: `system/discovery/{service}` matches
/// `system/discovery/register`, which is not the state of a service called `register`.
pub fn within(template: &str) -> impl Iterator<Item = &'static str> {
    TOPICS
        .iter()
        .map(|entry| entry.template)
        .filter(move |other| *other != template && covers(template, other))
}

/// Whether a template matches a topic that has no varying level.
fn covers(template: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    let fits = template.split('/').all(|expected| {
        levels
            .next()
            .is_some_and(|level| !level.starts_with('{') && fits(expected, level))
    });
    fits && levels.next().is_none()
}

fn fits(expected: &str, level: &str) -> bool {
    expected.starts_with('{') || expected == level
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn topics_that_lie_within_a_template_are_told_apart() {
        let found: Vec<_> = within(discovery::INSTANCES.template()).collect();
        assert_eq!(
            found,
            [
                discovery::REGISTER.template(),
                discovery::UNREGISTER.template(),
                discovery::EVENTS.template(),
                discovery::RESOLVE.template()
            ]
        );
        let found: Vec<_> = within(orchestrator::REQUESTS.template()).collect();
        assert_eq!(
            found,
            [
                "system/orchestrator/plan",
                "system/orchestrator/status",
                "system/orchestrator/events",
                "system/orchestrator/deployments",
                "system/orchestrator/deployment",
                "system/orchestrator/explain",
                "system/orchestrator/commands"
            ]
        );
        assert_eq!(within(health::CHECK.template()).count(), 0);
    }

    #[test]
    fn a_template_with_a_verb_says_which_verbs_there_are() {
        for entry in TOPICS {
            let has_verb = entry.template.contains("{verb}");
            assert_eq!(has_verb, !entry.verbs.is_empty(), "{}", entry.name);
            let verbs: HashSet<_> = entry.verbs.iter().collect();
            assert_eq!(verbs.len(), entry.verbs.len(), "{}", entry.name);
        }
        for verb in orchestrator::Verb::ALL {
            assert!(orchestrator::REQUEST_VERBS.contains(&verb.as_str()));
        }
        assert_eq!(
            health::AlertVerb::NAMES,
            health::AlertVerb::ALL.map(health::AlertVerb::as_str)
        );
    }

    #[test]
    fn no_topic_is_listed_twice() {
        let templates: HashSet<_> = TOPICS.iter().map(|entry| entry.template).collect();
        assert_eq!(templates.len(), TOPICS.len());
    }
}
