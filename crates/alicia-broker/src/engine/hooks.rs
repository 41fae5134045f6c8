//! The library's questions and reports, answered with the authority's permissions and the limits.

use std::sync::Arc;
use std::time::Duration;

use alicia_contract::envelope::SOURCE_PROPERTY;
use async_trait::async_trait;
use rmqtt::codec::v5::{PublishAckReason, PublishProperties, SubscribeAckReason, ToReasonCode};
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::session::Session;
use rmqtt::types::{
    AuthResult, ConnectInfo, Disconnect, Id, Publish, PublishAclResult, PublishResult,
    Reason as SessionReason, Subscribe, SubscribeAclResult,
};

use super::clients::Client;
use super::core::{Core, count};
use super::packet;
use super::topic;
use super::vault::{Lasting, Vault};
use crate::authority::{Attempt, Reason, Refusal};

const HANDLED: [Type; 11] = [
    Type::ClientAuthenticate,
    Type::ClientConnected,
    Type::ClientDisconnected,
    Type::SessionTerminated,
    Type::SessionSubscribed,
    Type::SessionUnsubscribed,
    Type::ClientSubscribeCheckAcl,
    Type::MessagePublish,
    Type::MessagePublishCheckAcl,
    Type::MessageExpiryCheck,
    Type::MessageDropped,
];

/// Registers all hooks.
pub(crate) async fn register(scx: &ServerContext, core: &Arc<Core>) {
    let register = scx.extends.hook_mgr().register();
    for kind in HANDLED {
        register
            .add(
                kind,
                Box::new(Hooks {
                    core: Arc::clone(core),
                }),
            )
            .await;
    }
    register.start().await;
}

struct Hooks {
    core: Arc<Core>,
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "the library's trait is declared like this"
)]
#[async_trait]
impl Handler for Hooks {
    async fn hook(&self, parameter: &Parameter, earlier: Option<HookResult>) -> ReturnType {
        let result = match parameter {
            Parameter::ClientAuthenticate(connect) => {
                Some(HookResult::AuthResult(self.authenticate(connect)))
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => Some(
                HookResult::SubscribeAclResult(self.subscribe(session, subscribe).await),
            ),
            Parameter::MessagePublish(_, from, publish) => {
                self.stamped(&from.id, publish).map(HookResult::Publish)
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                Some(HookResult::PublishAclResult(self.publish(session, publish)))
            }
            Parameter::MessageExpiryCheck(session, _, publish) => self
                .check_size(session, publish)
                .await
                .then_some(HookResult::MessageExpiry),
            Parameter::ClientConnected(session) => {
                self.connected(session).await;
                None
            }
            Parameter::ClientDisconnected(session, reason) => {
                self.disconnected(session, reason).await;
                None
            }
            Parameter::SessionTerminated(session, _) => {
                self.terminated(session).await;
                None
            }
            Parameter::SessionSubscribed(session, subscribe) => {
                if let Some(vault) = self.vault_of(session) {
                    let (filter, options) = (&subscribe.topic_filter, &subscribe.opts);
                    vault
                        .subscribed(&session.id.client_id, filter, options)
                        .await;
                }
                None
            }
            Parameter::SessionUnsubscribed(session, unsubscribe) => {
                if let Some(vault) = self.vault_of(session) {
                    vault
                        .unsubscribed(&session.id.client_id, &unsubscribe.topic_filter)
                        .await;
                }
                None
            }
            Parameter::MessageDropped(_, _, _, reason) => {
                self.dropped(reason);
                None
            }
            _ => None,
        };
        match result {
            Some(result) => (false, Some(result)),
            None => (true, earlier),
        }
    }
}

impl Hooks {
    /// The door has identified whoever comes from a known port; everybody else is a stranger.
    fn authenticate(&self, connect: &ConnectInfo) -> AuthResult {
        match self.core.clients.of(connect.id()) {
            Some(client) => {
                client.name_client_id(connect.client_id());
                AuthResult::Allow(false, None)
            }
            None => AuthResult::NotAuthorized,
        }
    }

    async fn connected(&self, session: &Session) {
        let (core, id) = (&self.core, &session.id);
        let (Some(client), Some(peer)) = (core.clients.of(id), id.remote_addr) else {
            return;
        };
        core.clients.session_began(id, &client.identity.name);
        core.accounts.connected(&id.client_id, peer.port());
        let Ok(connect) = session.connect_info().await else {
            return;
        };
        let expiry = expiry(session, &connect, None);
        core.accounts
            .open_or_get(&id.client_id)
            .set_lasting(!expiry.is_zero());
        if let Some(vault) = core.vault.get() {
            vault
                .session_began(Lasting {
                    client_id: id.client_id.to_string(),
                    owner: client.identity.name.to_string(),
                    protocol_level: connect.proto_ver(),
                    expiry,
                    created_ms: session.created_at().await.unwrap_or(client.connected_ms),
                    clean_start: connect.clean_start(),
                })
                .await;
        }
    }

    async fn disconnected(&self, session: &Session, reason: &SessionReason) {
        let id = &session.id;
        if let Some(client) = self.core.clients.of(id) {
            client.note_reason(reason.to_reason_code().into());
        }
        let served = id.remote_addr.map(|peer| peer.port());
        let left = served.is_some_and(|port| self.core.accounts.disconnected(&id.client_id, port));
        if let Some(vault) = self.vault_of(session).filter(|_| left) {
            remember_absence(vault, session).await;
        }
    }

    async fn terminated(&self, session: &Session) {
        let id = &session.id;
        if self.core.clients.session_ended(id) {
            self.core.accounts.close(&id.client_id);
            if let Some(vault) = self.core.vault.get() {
                vault.session_ended(&id.client_id).await;
            }
        }
    }

    /// The vault, when it has to know about this session.
    fn vault_of(&self, session: &Session) -> Option<&Arc<Vault>> {
        let lasts = self.core.accounts.get(&session.id.client_id)?.lasting();
        self.core.vault.get().filter(|_| lasts)
    }

    async fn subscribe(&self, session: &Session, subscribe: &Subscribe) -> SubscribeAclResult {
        let Some(client) = self.core.clients.of(&session.id) else {
            return SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized);
        };
        match self.check_subscribe(&client, session, subscribe).await {
            Ok(()) => SubscribeAclResult::new_success(subscribe.opts.qos(), None),
            Err(refusal) => {
                let filter = &subscribe.topic_filter;
                self.core
                    .refuse(&client, Attempt::Subscribe, Some(filter), &refusal);
                SubscribeAclResult::new_failure(match refusal.reason {
                    Reason::BadTopic => SubscribeAckReason::TopicFilterInvalid,
                    Reason::TooManySubscriptions => SubscribeAckReason::QuotaExceeded,
                    Reason::Undisclosed => SubscribeAckReason::UnspecifiedError,
                    _ => SubscribeAckReason::NotAuthorized,
                })
            }
        }
    }

    async fn check_subscribe(
        &self,
        client: &Client,
        session: &Session,
        subscribe: &Subscribe,
    ) -> Result<(), Refusal> {
        let filter = &subscribe.topic_filter;
        topic::check_filter(filter, &self.core.limits)?;
        client.subject.may_act()?;
        client.subject.may_subscribe(filter)?;
        let Ok(subscriptions) = session.subscriptions().await else {
            return Ok(());
        };
        let subscriptions = subscriptions.read().await;
        let limit = self.core.limits.subscriptions_per_client_max;
        if subscriptions.len() >= limit && !subscriptions.contains_key(filter) {
            let detail = format!("{} subscriptions, the limit", subscriptions.len());
            return Err(Refusal::new(Reason::TooManySubscriptions, detail));
        }
        Ok(())
    }

    /// The message with the name of its authenticated sender, and no other; `None` when it goes as it came.
    fn stamped(&self, id: &Id, publish: &Publish) -> Option<Publish> {
        let clients = &self.core.clients;
        let subject = clients
            .of(id)
            .map(|client| Arc::clone(&client.subject))
            .or_else(|| clients.subject(&id.client_id))?;
        let name = subject.stamp(&publish.topic)?;
        let mut publish = publish.clone();
        let properties = publish
            .properties
            .get_or_insert_with(PublishProperties::default);
        let users = &mut properties.user_properties;
        users.retain(|(property, _)| &**property != SOURCE_PROPERTY);
        users.push((SOURCE_PROPERTY.into(), name.into()));
        Some(publish)
    }

    fn publish(&self, session: &Session, publish: &Publish) -> PublishAclResult {
        let Some(client) = self.core.clients.of(&session.id) else {
            return PublishAclResult::rejected(true, None);
        };
        count(&self.core.counters.published);
        match self.check_publish(&client, publish) {
            Ok(()) => PublishAclResult::allow(),
            Err(refusal) => {
                self.core
                    .refuse(&client, Attempt::Publish, Some(&publish.topic), &refusal);
                let code = match refusal.reason {
                    Reason::BadTopic => PublishAckReason::TopicNameInvalid,
                    Reason::BadPayload => PublishAckReason::PayloadFormatInvalid,
                    Reason::RetainedQuota => PublishAckReason::QuotaExceeded,
                    Reason::Undisclosed => PublishAckReason::UnspecifiedError,
                    _ => PublishAckReason::NotAuthorized,
                };
                PublishAclResult(PublishResult::reason_code(code, None, false))
            }
        }
    }

    fn check_publish(&self, client: &Client, publish: &Publish) -> Result<(), Refusal> {
        let (core, subject) = (&self.core, &client.subject);
        topic::check_name(&publish.topic, &core.limits)?;
        subject.may_act()?;
        subject.may_publish(&publish.topic, publish.retain)?;
        subject.check_payload(&publish.topic, &publish.payload)?;
        let bytes = packet::body_bytes(publish);
        let keeps = publish.retain && !publish.payload.is_empty();
        if keeps && !core.retained.has_room(&publish.topic, bytes, &core.limits) {
            return Err(Refusal::new(
                Reason::RetainedQuota,
                "no room for another retained message",
            ));
        }
        Ok(())
    }

    /// Whether a message is larger than its receiver takes. It is dropped then; left to the
    /// library, it would cost the client its connection.
    async fn check_size(&self, session: &Session, publish: &Publish) -> bool {
        let connect = session.connect_info().await;
        let packet_max = connect.ok().and_then(|connect| connect.max_packet_size());
        let too_large = packet_max
            .is_some_and(|bytes_max| packet::packet_bytes_v5(publish) > bytes_max.get() as usize);
        count(if too_large {
            &self.core.counters.dropped_oversized
        } else {
            &self.core.counters.delivered
        });
        too_large
    }

    fn dropped(&self, reason: &SessionReason) {
        let counters = &self.core.counters;
        match reason {
            SessionReason::MessageQueueFull => count(&counters.dropped_full),
            SessionReason::MessageExpiration => count(&counters.dropped_expired),
            // Refused by `publish` and counted there.
            SessionReason::PublishResult(_) => {}
            _ => count(&counters.dropped_other),
        }
    }
}

/// How long a session outlives its connection.
fn expiry(session: &Session, connect: &ConnectInfo, disconnect: Option<&Disconnect>) -> Duration {
    match connect {
        ConnectInfo::V3(_, connect) if connect.clean_session => Duration::ZERO,
        _ => session.fitter.session_expiry_interval(disconnect),
    }
}

/// Notes that the client of a lasting session is gone, and how far its messages have come.
pub(crate) async fn remember_absence(vault: &Vault, session: &Session) {
    let Ok(connect) = session.connect_info().await else {
        return;
    };
    let disconnect = session.disconnect().await.ok().flatten();
    let inflight = session
        .out_inflight()
        .write()
        .await
        .clone_inflight_messages();
    let expiry = expiry(session, &connect, disconnect.as_ref());
    vault
        .client_left(&session.id.client_id, expiry, &inflight)
        .await;
}
