//! The way of a message from its publisher to its subscribers, with each subscriber's budget.
//!
//! This replaces the part of the library that hands messages to sessions; all else of its shared
//! state is passed through.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::PublishProperties;
use rmqtt::context::ServerContext;
use rmqtt::session::Session;
use rmqtt::shared::{DefaultShared, Entry, RetainLoadCallback, Shared};
use rmqtt::types::{
    ForwardedCount, ForwardedRecipients, From, FromType, Id, IsAdmin, Message, MsgID, NodeId,
    OfflineSession, Publish, Reason, SessionStatus, SubRelation, SubRelations, SubRelationsMap,
    SubsSearchParams, SubsSearchResult, Subscribe, SubscribeReturn, TopicFilter, TopicName, Tx,
    Unsubscribe,
};

use super::core::{Core, count};
use super::vault::Deliveries;

/// Payloads up to this size are copied out of the network buffer that they arrived in, so that a
/// small message does not keep a large buffer alive.
const COPIED_BYTES_MAX: usize = 64 * 1024;

/// How often, and how long apart, a session that ends by itself is asked to end.
const KICK_ATTEMPTS: usize = 40;
const KICK_PAUSE: Duration = Duration::from_millis(25);

/// Undelivered messages as the library reports them.
type Undelivered = Vec<(Id, From, Publish, Reason)>;

/// The library's shared state, with budgets.
pub(crate) struct Delivery {
    inner: DefaultShared,
    scx: ServerContext,
    core: Arc<Core>,
}

/// Lets go of the network buffer that a message arrived in.
pub(crate) fn compact(publish: &mut Publish) {
    publish.topic = TopicName::from(publish.topic.to_string());
    if publish.payload.len() <= COPIED_BYTES_MAX {
        publish.payload = Bytes::copy_from_slice(&publish.payload);
    }
}

/// The message as one subscription asks for it.
fn shape(publish: &Publish, relation: &SubRelation) -> Publish {
    let (_, _, options, subscription_ids, _) = relation;
    let mut shaped = publish.clone();
    shaped.dup = false;
    shaped.packet_id = None;
    shaped.retain = publish.retain && options.retain_as_published() == Some(true);
    shaped.qos = publish.qos.less_value(options.qos());
    if let Some(ids) = subscription_ids {
        let properties = shaped
            .properties
            .get_or_insert_with(PublishProperties::default);
        properties.subscription_ids.clone_from(ids);
    }
    shaped
}

impl Delivery {
    pub(crate) fn new(scx: ServerContext, core: Arc<Core>) -> Self {
        Self {
            inner: DefaultShared::new(Some(scx.clone())),
            scx,
            core,
        }
    }

    /// Hands a message to one subscriber; false when it was dropped.
    fn deliver(
        &self,
        from: &From,
        publish: &Publish,
        relation: &SubRelation,
        deliveries: &mut Deliveries,
    ) -> bool {
        let Some((tx, _)) = self.inner.tx(&relation.1) else {
            return false;
        };
        let mut shaped = shape(publish, relation);
        self.core.hold(&relation.1, from, &mut shaped, deliveries)
            && tx
                .unbounded_send(Message::Forward(from.clone(), shaped))
                .is_ok()
    }

    /// A will was allowed when its client connected; its permission may be gone since.
    fn still_allowed(&self, from: &From, publish: &Publish) -> bool {
        if !matches!(from.typ(), FromType::LastWill) {
            return true;
        }
        let subject = self.core.clients.subject(&from.id.client_id);
        let topic = &publish.topic;
        subject.is_none_or(|subject| {
            let may_speak = subject.may_act().is_ok() || subject.is_farewell(topic);
            may_speak && subject.may_publish(topic, publish.retain).is_ok()
        })
    }
}

impl Core {
    /// Charges a message to its receiver, and remembers it when the receiver's session lasts. False
    /// when there is no room, and the message is dropped.
    fn hold(
        &self,
        client_id: &str,
        from: &From,
        publish: &mut Publish,
        deliveries: &mut Deliveries,
    ) -> bool {
        let account = self.accounts.open_or_get(client_id);
        let bytes_max = self.limits.queue_bytes_max;
        if !account.has_room(publish, bytes_max) {
            count(&self.counters.dropped_full);
            return false;
        }
        let lasts = account.lasting() && publish.qos != QoS::AtMostOnce;
        let vault = self.vault.get().filter(|_| lasts);
        let receiver = (client_id, account.online());
        let row = vault.map(|vault| vault.row(deliveries, receiver, from, publish));
        account.charge(publish, row);
        true
    }
}

#[async_trait]
impl Shared for Delivery {
    fn entry(&self, id: Id) -> Box<dyn Entry> {
        Box::new(BudgetedEntry {
            inner: self.inner.entry(id),
            core: Arc::clone(&self.core),
        })
    }

    fn exist(&self, client_id: &str) -> bool {
        self.inner.exist(client_id)
    }

    async fn forwards(
        &self,
        _msg_id: Option<MsgID>,
        from: From,
        mut publish: Publish,
    ) -> Result<ForwardedCount, (ForwardedCount, Undelivered)> {
        if !self.still_allowed(&from, &publish) {
            return Ok(0);
        }
        let matched = self
            .scx
            .extends
            .router()
            .await
            .matches(from.id.clone(), &publish.topic)
            .await;
        let mut relations = match matched {
            Ok(relations) => relations,
            Err(fault) => {
                tracing::warn!(
                    topic = &*publish.topic,
                    "failed to route a message: {fault}"
                );
                return Ok(0);
            }
        };
        let Some(relations) = relations.remove(&self.scx.node.id()) else {
            return Ok(0);
        };
        compact(&mut publish);
        let mut deliveries = Deliveries::default();
        let delivered = relations
            .iter()
            .filter(|relation| self.deliver(&from, &publish, relation, &mut deliveries))
            .count();
        if let Some(vault) = self.core.vault.get() {
            vault.deliver(deliveries, publish.take_payload()).await;
        }
        Ok(delivered)
    }

    async fn forwards_and_get_shareds(
        &self,
        from: From,
        publish: Publish,
    ) -> Result<(SubRelationsMap, ForwardedRecipients), (ForwardedRecipients, Undelivered)> {
        self.inner.forwards_and_get_shareds(from, publish).await
    }

    async fn forwards_to(
        &self,
        from: From,
        publish: &Publish,
        relations: SubRelations,
        msg_id: Option<MsgID>,
    ) -> Result<ForwardedRecipients, (ForwardedRecipients, Undelivered)> {
        self.inner
            .forwards_to(from, publish, relations, msg_id)
            .await
    }

    fn iter(&self) -> Box<dyn Iterator<Item = Box<dyn Entry>> + Sync + Send + '_> {
        self.inner.iter()
    }

    fn random_session(&self) -> Option<Session> {
        self.inner.random_session()
    }

    async fn session_status(&self, client_id: &str) -> Option<SessionStatus> {
        self.inner.session_status(client_id).await
    }

    async fn client_states_count(&self) -> usize {
        self.inner.client_states_count().await
    }

    fn sessions_count(&self) -> usize {
        self.inner.sessions_count()
    }

    async fn query_subscriptions(&self, q: &SubsSearchParams) -> Vec<SubsSearchResult> {
        self.inner.query_subscriptions(q).await
    }

    async fn subscriptions_count(&self) -> usize {
        self.inner.subscriptions_count().await
    }

    /// Marks each message with the filter that asked for it: see `BudgetedEntry::publish`.
    async fn retain_load_with(
        &self,
        topic_filter: &TopicFilter,
        callback: Arc<dyn RetainLoadCallback>,
    ) -> rmqtt::Result<Vec<(NodeId, MsgID)>> {
        let now_ms = rmqtt::utils::timestamp_millis();
        let mut retained = self.core.retained.matching(topic_filter, now_ms);
        for (_, retain) in &mut retained {
            retain.publish.target_clientid = Some(topic_filter.clone());
        }
        callback.on_retains(retained).await
    }
}

/// The library's handle to one session, with the session's budget.
struct BudgetedEntry {
    inner: Box<dyn Entry>,
    core: Arc<Core>,
}

impl BudgetedEntry {
    /// Ends the older session of the client id. One that ends by itself at this very moment gives no
    /// answer; a moment later it is gone.
    async fn kick_patiently(
        &mut self,
        clean_start: bool,
        clear_subscriptions: bool,
        is_admin: IsAdmin,
    ) -> rmqtt::Result<OfflineSession> {
        for _ in 1..KICK_ATTEMPTS {
            match self
                .inner
                .kick(clean_start, clear_subscriptions, is_admin)
                .await
            {
                Ok(offline) => return Ok(offline),
                Err(fault) => tracing::debug!("older session is just ending: {fault}"),
            }
            tokio::time::sleep(KICK_PAUSE).await;
        }
        self.inner
            .kick(clean_start, clear_subscriptions, is_admin)
            .await
    }

    /// Gives a retained message the identifier of the subscription that asked for it. None when
    /// that subscription gets no retained messages: it is a shared one (MQTT 5, 4.8.2), or gone.
    async fn address(&self, publish: &mut Publish) -> Option<()> {
        let Some(filter) = publish.target_clientid.take() else {
            return Some(());
        };
        let subscriptions = self.inner.session()?.subscriptions().await.ok()?;
        let subscriptions = subscriptions.read().await;
        let options = subscriptions.get(&filter)?;
        if options.has_shared_group() {
            return None;
        }
        if let Some(id) = options.subscription_identifier() {
            let properties = publish
                .properties
                .get_or_insert_with(PublishProperties::default);
            properties.subscription_ids = vec![id];
        }
        Some(())
    }
}

#[async_trait]
impl Entry for BudgetedEntry {
    async fn try_lock(&self) -> rmqtt::Result<Box<dyn Entry>> {
        let inner = self.inner.try_lock().await?;
        Ok(Box::new(Self {
            inner,
            core: Arc::clone(&self.core),
        }))
    }

    fn id(&self) -> Id {
        self.inner.id()
    }

    fn id_same(&self) -> Option<bool> {
        self.inner.id_same()
    }

    async fn set(&mut self, session: Session, tx: Tx) -> rmqtt::Result<()> {
        self.inner.set(session, tx).await
    }

    async fn remove(&mut self) -> rmqtt::Result<Option<(Session, Tx)>> {
        self.inner.remove().await
    }

    async fn remove_with(&mut self, id: &Id) -> rmqtt::Result<Option<(Session, Tx)>> {
        self.inner.remove_with(id).await
    }

    async fn kick(
        &mut self,
        clean_start: bool,
        clear_subscriptions: bool,
        is_admin: IsAdmin,
    ) -> rmqtt::Result<OfflineSession> {
        let mut offline = self
            .kick_patiently(clean_start, clear_subscriptions, is_admin)
            .await?;
        if let OfflineSession::Exist(Some(info)) = &mut offline {
            // The library sends them again from the last to the first (MQTT 5, 4.6: in order).
            info.inflight_messages.reverse();
        }
        Ok(offline)
    }

    async fn online(&self) -> bool {
        self.inner.online().await
    }

    async fn is_connected(&self) -> bool {
        self.inner.is_connected().await
    }

    fn session(&self) -> Option<Session> {
        self.inner.session()
    }

    fn exist(&self) -> bool {
        self.inner.exist()
    }

    fn tx(&self) -> Option<Tx> {
        self.inner.tx()
    }

    async fn subscribe(&self, subscribe: &Subscribe) -> rmqtt::Result<SubscribeReturn> {
        self.inner.subscribe(subscribe).await
    }

    async fn unsubscribe(&self, unsubscribe: &Unsubscribe) -> rmqtt::Result<bool> {
        self.inner.unsubscribe(unsubscribe).await
    }

    /// Retained messages come this way, one by one.
    async fn publish(
        &self,
        from: From,
        mut publish: Publish,
    ) -> Result<(), (From, Publish, Reason)> {
        if self.address(&mut publish).await.is_none() {
            return Ok(());
        }
        let mut deliveries = Deliveries::default();
        let payload = publish.payload.clone();
        if !self.core.hold(
            &self.inner.id().client_id,
            &from,
            &mut publish,
            &mut deliveries,
        ) {
            return Ok(());
        }
        if let Some(vault) = self.core.vault.get() {
            vault.deliver(deliveries, payload).await;
        }
        self.inner.publish(from, publish).await
    }

    async fn subscriptions(&self) -> Option<Vec<SubsSearchResult>> {
        self.inner.subscriptions().await
    }
}
