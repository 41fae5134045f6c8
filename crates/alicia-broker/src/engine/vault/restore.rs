//! Brings back, before the doors open, what an earlier process remembered.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use alicia_store::{Error, Store};
use rmqtt::codec::types::{MQTT_LEVEL_5, QoS};
use rmqtt::codec::{v3, v5};
use rmqtt::context::ServerContext;
use rmqtt::inflight::{MomentStatus, OutInflightMessage};
use rmqtt::session::{Session, SessionState};
use rmqtt::types::{
    ClientId, ConnectInfo, DisconnectInfo, Id, ListenerConfig, Retain, SessionSubMap, SessionSubs,
    TopicFilter,
};

use super::rows::{self, Remembered, Stage, StoredDelivery, StoredSession};
use super::{Row, Vault, convert, set_row_id};
use crate::engine::accounts::Account;
use crate::engine::core::Core;

/// Reads everything and hands it to the library. What cannot be brought back is logged and left out.
pub(crate) async fn restore(
    store: Store,
    scx: &ServerContext,
    core: &Core,
    settings: &ListenerConfig,
) -> Result<Arc<Vault>, Error> {
    let (retained, sessions, last_id) = store
        .read(|connection| {
            Ok::<_, Error>((
                rows::all_retained(connection)?,
                rows::all_sessions(connection)?,
                rows::last_delivery(connection)?,
            ))
        })
        .await?;
    let vault = Arc::new(Vault::new(store, last_id));
    tracing::info!(
        retained = retained.len(),
        sessions = sessions.len(),
        "remembered"
    );
    for (message, payload, expires_ms) in retained {
        let topic = message.topic.clone();
        let (from, publish) = convert::restored(message, payload);
        core.retained.set(
            &topic,
            Retain {
                msg_id: None,
                from,
                publish,
            },
            expires_ms,
        );
    }
    let now_ms = rmqtt::utils::timestamp_millis();
    for remembered in sessions {
        let client_id = remembered.session.client_id.clone();
        vault.note_known(&client_id, true);
        match time_left(&remembered.session, now_ms) {
            None => vault.session_ended(&client_id).await,
            Some(left) => {
                if let Err(fault) = revive(scx, core, settings, &vault, remembered, left).await {
                    tracing::error!(client_id, "failed to bring back a session: {fault}");
                }
            }
        }
    }
    Ok(vault)
}

/// What is left of a session's life. Those who were connected when the process ended left just now.
fn time_left(session: &StoredSession, now_ms: i64) -> Option<Duration> {
    let since = session.disconnected_ms.unwrap_or(now_ms);
    let ends_ms = since.saturating_add(i64::from(session.expiry_s) * 1000);
    let left_ms = u64::try_from(ends_ms.saturating_sub(now_ms)).ok()?;
    (left_ms > 0).then(|| Duration::from_millis(left_ms))
}

async fn revive(
    scx: &ServerContext,
    core: &Core,
    settings: &ListenerConfig,
    vault: &Arc<Vault>,
    remembered: Remembered,
    left: Duration,
) -> rmqtt::Result<()> {
    let stored = &remembered.session;
    let client_id = ClientId::from(stored.client_id.as_str());
    let id = Id::new(scx.node.id(), 0, None, None, client_id, None);
    let connect = Arc::new(connect_info(&id, stored));
    let fitter = scx.extends.fitter_mgr().await.create(
        Arc::clone(&connect),
        id.clone(),
        Arc::clone(settings),
    );
    let mut subscriptions = SessionSubMap::default();
    for (filter, options) in remembered.subscriptions {
        subscriptions.insert(
            TopicFilter::from(filter),
            convert::restored_options(options),
        );
    }
    let disconnected_ms = stored
        .disconnected_ms
        .unwrap_or_else(rmqtt::utils::timestamp_millis);
    let session = Session::new(
        id.clone(),
        scx.clone(),
        fitter.max_mqueue_len(),
        Arc::clone(settings),
        Arc::clone(&fitter),
        None,
        fitter.max_inflight(),
        stored.created_ms,
        connect,
        false,
        false,
        false,
        disconnected_ms,
        SessionSubs::from(subscriptions.clone()),
        Some(DisconnectInfo::new(disconnected_ms)),
        None,
    )
    .await?;
    core.clients
        .session_began(&id, &stored.owner.as_str().into());
    let account = core.accounts.open_or_get(&stored.client_id);
    account.set_lasting(true);
    for delivery in remembered.deliveries {
        hold(&session, vault, &account, delivery).await;
    }
    let tx = SessionState::offline_restart(session.clone(), left).await?;
    scx.extends
        .shared()
        .await
        .entry(id.clone())
        .set(session, tx)
        .await?;
    for (filter, options) in subscriptions {
        scx.extends
            .router()
            .await
            .add(&filter, id.clone(), options)
            .await?;
    }
    Ok(())
}

/// Puts a message back where it was: among those sent and unacknowledged, or those that wait.
async fn hold(
    session: &Session,
    vault: &Arc<Vault>,
    account: &Arc<Account>,
    delivery: StoredDelivery,
) {
    let row = Row {
        id: delivery.id,
        vault: Arc::clone(vault),
    };
    let (from, mut publish) = convert::restored(delivery.message, delivery.payload);
    set_row_id(&mut publish, delivery.id);
    account.charge(&mut publish, Some(row));
    let packet_id = delivery.packet_id.and_then(NonZeroU16::new);
    let status = match (delivery.stage, publish.qos) {
        (Stage::Received, _) => MomentStatus::UnComplete,
        (Stage::Sent, QoS::ExactlyOnce) => MomentStatus::UnReceived,
        (Stage::Sent, _) => MomentStatus::UnAck,
        (Stage::Waiting, _) => {
            if session.deliver_queue().push((from, publish)).is_err() {
                tracing::warn!("a remembered message found no room in its queue");
            }
            return;
        }
    };
    publish.packet_id = packet_id;
    publish.dup = true;
    let inflight = OutInflightMessage::new(status, from, publish);
    session.out_inflight().write().await.push_back(inflight);
}

fn connect_info(id: &Id, stored: &StoredSession) -> ConnectInfo {
    let client_id = id.client_id.clone();
    if stored.protocol_level < MQTT_LEVEL_5 {
        let connect = v3::Connect {
            client_id,
            clean_session: false,
            ..v3::Connect::default()
        };
        return ConnectInfo::V3(id.clone(), Box::new(connect));
    }
    let connect = v5::Connect {
        client_id,
        clean_start: false,
        session_expiry_interval_secs: stored.expiry_s,
        max_packet_size: NonZeroU32::new(u32::MAX),
        ..v5::Connect::default()
    };
    ConnectInfo::V5(id.clone(), Box::new(connect))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lives_for_its_time_after_the_client_left() {
        let session = |disconnected_ms| StoredSession {
            client_id: "x".into(),
            owner: "ann".into(),
            protocol_level: 5,
            expiry_s: 10,
            created_ms: 0,
            disconnected_ms,
        };
        assert_eq!(
            time_left(&session(Some(1_000)), 2_000),
            Some(Duration::from_secs(9))
        );
        assert_eq!(time_left(&session(Some(1_000)), 11_000), None);
        assert_eq!(time_left(&session(Some(1_000)), 99_000), None);
        assert_eq!(
            time_left(&session(None), 99_000),
            Some(Duration::from_secs(10))
        );
    }
}
