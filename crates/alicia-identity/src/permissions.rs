//! Which bus topics an identity may use. Computed from the identity and the fleet, never written by
//! hand; what is not granted is denied.
//!
//! | who | publishes | subscribes |
//! |---|---|---|
//! | module | everything under the prefix | everything under the prefix |
//! | service `x` | its heartbeat, metrics, register and unregister, resolve and call, replies, `allow.publish`, the command topics of `allow.command` | `x/command`, `x/+/command`, `x/replies/#`, discovery, health checks, commands to all, `allow.subscribe` |
//! | key, scope read | nothing | everything under the prefix |
//! | key, scope operate | requests to the orchestrator, commands to services, health checks | everything under the prefix |
//! | key, scope admin | everything | everything |
//! | key of limited scope | the topics where its verbs are asked for | its answers, and what a module says for `module:read` |
//! | agent that joined | as a service without `allow`, and what its scopes add | the same |

use alicia_contract::fleet::Allow;
use alicia_contract::id::ServiceName;
use alicia_contract::orchestrator::Verb;
use alicia_contract::platform::Scope;
use alicia_contract::topic::{Prefix, TOPIC_BYTES_MAX, filter_covers, filter_matches};
use alicia_contract::{discovery, health, identity, orchestrator};

use crate::grants::{self, Grants};

/// The grants of one identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    publish: Vec<Grant>,
    subscribe: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    filter: String,
    retain: Retain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retain {
    Allowed,
    /// A retained message stays after its sender; only who owns a topic may leave one there.
    Refused,
}

impl Permissions {
    /// Of a module of the host.
    #[must_use]
    pub fn of_module(prefix: &Prefix) -> Self {
        let all = format!("{prefix}/#");
        Self {
            publish: vec![grant(all.clone(), Retain::Allowed)],
            subscribe: vec![all],
        }
    }

    /// Of a service.
    #[must_use]
    pub fn of_service(prefix: &Prefix, service: &ServiceName, allow: &Allow) -> Self {
        let name = service.as_str();
        let own = [
            health::HEARTBEAT.at(prefix, &[name]),
            format!("{prefix}/system/metrics/{name}"),
            discovery::REGISTER.at(prefix, &[]),
            discovery::UNREGISTER.at(prefix, &[]),
            discovery::RESOLVE.at(prefix, &[]),
            // The registry calls for a service only what it may command.
            discovery::CALL.at(prefix, &[]),
        ];
        let commands = allow.command.iter().flat_map(|to| {
            [
                orchestrator::SERVICE_COMMAND.at(prefix, &[to.as_str()]),
                discovery::INSTANCE_COMMAND.at(prefix, &[to.as_str(), "+"]),
            ]
        });
        let mut publish: Vec<Grant> = own
            .into_iter()
            .chain(replies(prefix))
            .chain(commands)
            .map(|filter| grant(filter, Retain::Refused))
            .collect();
        publish.extend(
            allow
                .publish
                .iter()
                .map(|filter| grant(absolute(prefix, filter), Retain::Allowed)),
        );
        let mut subscribe = vec![
            orchestrator::SERVICE_COMMAND.at(prefix, &[name]),
            discovery::INSTANCE_COMMAND.at(prefix, &[name, "+"]),
            format!("{prefix}/{name}/replies/#"),
            format!("{prefix}/system/discovery/+"),
            health::CHECK.at(prefix, &[]),
            identity::KEYS.at(prefix, &[]),
            orchestrator::BROADCAST_COMMANDS.at(prefix, &[]),
        ];
        subscribe.extend(
            allow
                .subscribe
                .iter()
                .map(|filter| absolute(prefix, filter)),
        );
        Self { publish, subscribe }
    }

    /// Of the holder of a key.
    #[must_use]
    pub fn of_key(prefix: &Prefix, scope: Scope) -> Self {
        let everything = vec!["#".to_owned(), "$SYS/#".to_owned()];
        let fleet = vec![format!("{prefix}/#")];
        match scope {
            Scope::Read => Self {
                publish: Vec::new(),
                subscribe: fleet,
            },
            Scope::Operate => Self {
                publish: operate(prefix),
                subscribe: fleet,
            },
            Scope::Admin => Self {
                publish: vec![grant("#".to_owned(), Retain::Allowed)],
                subscribe: everything,
            },
        }
    }

    /// Of the holder of a key of limited scope, who hears the answers to its own requests.
    #[must_use]
    pub fn of_limited_key(prefix: &Prefix, name: &str, grants: &Grants) -> Self {
        let own = Self {
            publish: Vec::new(),
            subscribe: vec![format!("{prefix}/keys/{name}/replies/#")],
        };
        own.with_grants(prefix, grants)
    }

    /// Of an agent that joined: what every service may, and what its scopes add.
    #[must_use]
    pub fn of_agent(prefix: &Prefix, name: &ServiceName, grants: &Grants) -> Self {
        Self::of_service(prefix, name, &Allow::default()).with_grants(prefix, grants)
    }

    /// Adds what scopes grant: all of a step of the ladder; for a verb of a module the topic where it is asked for,
    /// and for `read` what the module says.
    fn with_grants(mut self, prefix: &Prefix, grants: &Grants) -> Self {
        for one in grants.iter() {
            let Some((module, verb)) = one.parts() else {
                if let Some(scope) = grants::ladder(one) {
                    let step = Self::of_key(prefix, scope);
                    self.publish.extend(step.publish);
                    self.subscribe.extend(step.subscribe);
                }
                continue;
            };
            let of_module = format!("{prefix}/system/{module}/");
            if matches!(verb, grants::READ | "*") {
                self.subscribe.push(format!("{of_module}#"));
            }
            let asked = operate(prefix)
                .into_iter()
                .filter(|grant| grant.filter.starts_with(&of_module))
                .filter_map(|grant| narrowed(&grant.filter, verb));
            self.publish
                .extend(asked.map(|filter| self::grant(filter, Retain::Refused)));
        }
        self
    }

    /// Whether it may publish to the topic, and leave a retained message there.
    #[must_use]
    pub fn may_publish(&self, topic: &str, retain: bool) -> bool {
        is_plain_topic(topic)
            && self.publish.iter().any(|grant| {
                filter_matches(&grant.filter, topic) && (!retain || grant.retain == Retain::Allowed)
            })
    }

    /// Whether it may subscribe to the filter; of a shared subscription the inner filter counts.
    #[must_use]
    pub fn may_subscribe(&self, filter: &str) -> bool {
        let Some(filter) = inner_filter(filter) else {
            return false;
        };
        is_filter(filter)
            && self
                .subscribe
                .iter()
                .any(|granted| filter_covers(granted, filter))
    }
}

fn grant(filter: String, retain: Retain) -> Grant {
    Grant { filter, retain }
}

/// Whoever is asked must be able to answer; a reply topic is subscribed by its owner only.
fn replies(prefix: &Prefix) -> [String; 3] {
    ["+/replies/#", "keys/+/replies/#", "system/replies/#"]
        .map(|filter| format!("{prefix}/{filter}"))
}

fn operate(prefix: &Prefix) -> Vec<Grant> {
    let mut topics: Vec<String> = Verb::ALL
        .into_iter()
        .map(|verb| orchestrator::REQUESTS.at(prefix, &[verb.as_str()]))
        .collect();
    // What runs again has run before; a new version needs the scope `admin`.
    topics.push(orchestrator::REQUESTS.at(prefix, &["rollback"]));
    topics.push(orchestrator::REQUESTS.at(prefix, &["signal"]));
    topics.push(orchestrator::SERVICE_COMMAND.filter(prefix));
    topics.push(orchestrator::EXPLAIN.at(prefix, &[]));
    topics.push(orchestrator::PLAN.at(prefix, &[]));
    topics.push(discovery::INSTANCE_COMMAND.filter(prefix));
    topics.push(discovery::RESOLVE.at(prefix, &[]));
    topics.push(discovery::CALL.at(prefix, &[]));
    topics.push(health::CHECK.at(prefix, &[]));
    topics.push(health::ALERT_REQUESTS.filter(prefix));
    topics
        .into_iter()
        .map(|filter| grant(filter, Retain::Refused))
        .collect()
}

/// What is left of a filter for one verb, which is its last level; `None` when the filter is for another.
fn narrowed(filter: &str, verb: &str) -> Option<String> {
    let (before, last) = filter.rsplit_once('/')?;
    match last {
        _ if verb == "*" => Some(filter.to_owned()),
        "+" => Some(format!("{before}/{verb}")),
        last => (last == verb).then(|| filter.to_owned()),
    }
}

/// A filter of the file is under the prefix, unless it starts with `/`.
fn absolute(prefix: &Prefix, filter: &str) -> String {
    match filter.strip_prefix('/') {
        Some(from_root) => from_root.to_owned(),
        None => format!("{prefix}/{filter}"),
    }
}

/// The filter behind `$share/<group>/`; `None` when the shared subscription is malformed.
fn inner_filter(filter: &str) -> Option<&str> {
    let Some(shared) = filter.strip_prefix("$share/") else {
        return Some(filter);
    };
    let (group, inner) = shared.split_once('/')?;
    let group_is_plain = !group.is_empty() && !group.contains(['#', '+']);
    group_is_plain.then_some(inner)
}

fn is_plain_topic(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= TOPIC_BYTES_MAX && !topic.contains(['#', '+', '\0'])
}

/// Wildcards stand alone in their level, and `#` is last (MQTT 5 section 4.7.1).
fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > TOPIC_BYTES_MAX || filter.contains('\0') {
        return false;
    }
    let last = filter.split('/').count() - 1;
    filter
        .split('/')
        .enumerate()
        .all(|(at, level)| match level {
            "#" => at == last,
            "+" => true,
            level => !level.contains(['#', '+']),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn api() -> Permissions {
        let allow = Allow {
            publish: vec!["rooms/+/light".into(), "/other/x".into()],
            subscribe: vec!["rooms/#".into()],
            command: vec![ServiceName::new("lamp").expect("id")],
        };
        Permissions::of_service(
            &Prefix::default(),
            &ServiceName::new("api").expect("id"),
            &allow,
        )
    }

    #[test]
    fn a_service_publishes_its_own_and_what_it_is_allowed() {
        let check = |topic: &str, expected: bool| {
            assert_eq!(api().may_publish(topic, false), expected, "{topic}");
        };
        check("alicia/system/health/api", true);
        check("alicia/system/health/db", false);
        check("alicia/system/health/api/x", false);
        check("alicia/system/health/+", false);
        check("alicia/system/discovery/register", true);
        check("alicia/system/discovery/api", false);
        check("alicia/system/orchestrator/stop", false);
        check("alicia/lamp/command", true);
        check("alicia/lamp/01hinstance/command", true);
        check("alicia/db/command", false);
        check("alicia/db/01hinstance/command", false);
        check("alicia/system/discovery/resolve", true);
        check("alicia/system/registry/call", true);
        check("alicia/db/replies/1", true);
        check("alicia/rooms/kitchen/light", true);
        check("alicia/rooms/kitchen/heat", false);
        check("other/x", true);
        check("other/y", false);
        check("$SYS/x", false);
        check("", false);
    }

    #[test]
    fn only_the_owner_of_a_topic_leaves_retained_messages() {
        assert!(!api().may_publish("alicia/system/discovery/register", true));
        assert!(!api().may_publish("alicia/lamp/command", true));
        assert!(api().may_publish("alicia/rooms/kitchen/light", true));
    }

    #[test]
    fn a_service_subscribes_to_its_own_and_what_it_is_allowed() {
        let check = |filter: &str, expected: bool| {
            assert_eq!(api().may_subscribe(filter), expected, "{filter}");
        };
        check("alicia/api/command", true);
        check("$share/api/alicia/api/command", true);
        check("alicia/api/01hinstance/command", true);
        check("alicia/db/01hinstance/command", false);
        check("alicia/+/+/command", false);
        check("alicia/system/registry/call", false);
        check("alicia/+/command", false);
        check("alicia/db/command", false);
        check("alicia/api/replies/1", true);
        check("alicia/db/replies/#", false);
        check("alicia/rooms/#", true);
        check("alicia/rooms/+/light", true);
        check("alicia/#", false);
        check("#", false);
        check("+/+/+", false);
        check("$share/group/alicia/rooms/#", true);
        check("$share/group/alicia/#", false);
        check("$share//alicia/rooms/#", false);
        check("$share/+/alicia/rooms/#", false);
        check("$share/group", false);
        check("alicia/rooms/#/x", false);
        check("alicia/rooms/a+", false);
        check("", false);
    }

    #[test]
    fn keys_may_what_their_scope_says() {
        let prefix = Prefix::default();
        let read = Permissions::of_key(&prefix, Scope::Read);
        let operate = Permissions::of_key(&prefix, Scope::Operate);
        let admin = Permissions::of_key(&prefix, Scope::Admin);
        for key in [&read, &operate, &admin] {
            assert!(key.may_subscribe("alicia/#"));
        }
        assert!(!read.may_subscribe("#") && !operate.may_subscribe("#"));
        assert!(admin.may_subscribe("#") && admin.may_subscribe("$SYS/#"));
        assert!(!read.may_publish("alicia/api/command", false));
        assert!(operate.may_publish("alicia/api/command", false));
        assert!(operate.may_publish("alicia/system/orchestrator/restart", false));
        assert!(operate.may_publish("alicia/system/orchestrator/signal", false));
        assert!(!operate.may_publish("alicia/system/orchestrator/deploy", false));
        assert!(!operate.may_publish("alicia/system/orchestrator/status", false));
        assert!(admin.may_publish("alicia/system/orchestrator/status", true));
    }

    #[test]
    fn limited_keys_ask_for_what_they_are_granted_and_hear_their_answers() {
        let grants = ["orchestrator:restart", "health:read"]
            .map(|text| text.parse().expect("a scope"))
            .to_vec();
        let key = Permissions::of_limited_key(&Prefix::default(), "ci", &Grants::new(grants));
        assert!(key.may_publish("alicia/system/orchestrator/restart", false));
        assert!(!key.may_publish("alicia/system/orchestrator/stop", false));
        assert!(!key.may_publish("alicia/system/orchestrator/restart", true));
        assert!(!key.may_publish("alicia/system/orchestrator/status", false));
        assert!(!key.may_publish("alicia/api/command", false));
        assert!(key.may_subscribe("alicia/keys/ci/replies/1"));
        assert!(!key.may_subscribe("alicia/keys/other/replies/1"));
        assert!(key.may_subscribe("alicia/system/health/monitor/status"));
        assert!(!key.may_subscribe("alicia/system/orchestrator/status"));
    }

    #[test]
    fn an_agent_is_as_a_service_with_what_its_scopes_add() {
        let name = ServiceName::new("robot").expect("id");
        let grants = Grants::new(vec!["orchestrator:*".parse().expect("a scope")]);
        let agent = Permissions::of_agent(&Prefix::default(), &name, &grants);
        assert!(agent.may_publish("alicia/system/health/robot", false));
        assert!(agent.may_publish("alicia/system/orchestrator/stop", false));
        assert!(!agent.may_publish("alicia/system/orchestrator/status", true));
        assert!(!agent.may_publish("alicia/lamp/command", false));
        assert!(agent.may_subscribe("alicia/robot/command"));
    }

    #[test]
    fn nothing_granted_is_nothing_allowed() {
        assert!(!Permissions::default().may_publish("a", false));
        assert!(!Permissions::default().may_subscribe("a"));
    }

    /// A matcher so plain that it is right: by recursion, level by level (MQTT 5 section 4.7).
    fn naive(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            ([], []) | (["#"], _) => true,
            ([], _) | (_, []) => false,
            ([level, filter @ ..], [found, topic @ ..]) => {
                (*level == "+" || level == found) && naive(filter, topic)
            }
        }
    }

    fn levels(text: &str) -> Vec<&str> {
        text.split('/').collect()
    }

    proptest! {
        /// The computed permissions say of every topic what a naive reading of the same grants says.
        #[test]
        fn publishing_is_what_a_naive_matcher_says(
            filters in prop::collection::vec("(a|b|\\+)(/(a|b|c|\\+)){0,3}(/#)?", 0..4),
            topic in "(alicia|other)(/(a|b|c|system|health|replies)){0,4}",
        ) {
            let allow = Allow { publish: filters.clone(), ..Allow::default() };
            let name = ServiceName::new("x").expect("id");
            let found = Permissions::of_service(&Prefix::default(), &name, &allow);
            let own = ["system/health/x", "system/metrics/x", "system/discovery/register",
                "system/discovery/unregister", "+/replies/#", "keys/+/replies/#", "system/replies/#"];
            let expected = own.iter().copied().chain(filters.iter().map(String::as_str))
                .any(|filter| naive(&levels(&format!("alicia/{filter}")), &levels(&topic)));
            // Others add to what every service may publish: what is granted here must be, and nothing of `allow` more.
            if expected {
                prop_assert!(found.may_publish(&topic, false), "{}", topic);
            } else {
                let plain = Permissions::of_service(&Prefix::default(), &name, &Allow::default());
                prop_assert_eq!(found.may_publish(&topic, false), plain.may_publish(&topic, false));
            }
        }

        /// A granted subscription never reaches a topic that a naive reading of the grants keeps back.
        #[test]
        fn subscribing_never_reaches_what_a_naive_matcher_keeps_back(
            grants in prop::collection::vec("(a|b|\\+)(/(a|b|\\+)){0,2}(/#)?", 0..4),
            filter in "(alicia|\\+)(/(a|b|c|\\+)){0,3}(/#)?",
            topic in "alicia(/(a|b|c)){0,4}",
        ) {
            let allow = Allow { subscribe: grants.clone(), ..Allow::default() };
            let name = ServiceName::new("x").expect("id");
            let found = Permissions::of_service(&Prefix::default(), &name, &allow);
            let plain = Permissions::of_service(&Prefix::default(), &name, &Allow::default());
            if found.may_subscribe(&filter) && !plain.may_subscribe(&filter)
                && naive(&levels(&filter), &levels(&topic))
            {
                let granted = grants.iter()
                    .any(|grant| naive(&levels(&format!("alicia/{grant}")), &levels(&topic)));
                prop_assert!(granted, "{} by {}", topic, filter);
            }
        }

        /// Whatever a service may subscribe to, it sees nothing of another service's commands.
        #[test]
        fn no_filter_reaches_another_services_commands(
            filter in "(\\$share/g/)?(alicia|\\+)(/(api|db|\\+|command|system)){0,3}(/#)?"
        ) {
            let plain = Permissions::of_service(
                &Prefix::default(), &ServiceName::new("api").expect("id"), &Allow::default(),
            );
            if plain.may_subscribe(&filter) {
                let inner = filter.strip_prefix("$share/g/").unwrap_or(&filter);
                prop_assert!(!filter_matches(inner, "alicia/db/command"), "{}", filter);
                prop_assert!(!filter_matches(inner, "alicia/db/api/command"), "{}", filter);
            }
        }
    }
}
