//! The connection task: one session after the other, with a pause between two that grows.

use std::collections::VecDeque;
use std::sync::Arc;

use alicia_contract::MessageType;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Login};
use tokio::sync::{mpsc, watch};

use crate::backoff::Backoff;
use crate::options::{BusAddress, PasswordSource};
use crate::session::{End, Session};
use crate::shared::{Body, Publication, Shared};
use crate::status::lock;
use crate::wire::{Hello, Wire, WireError};

/// Ends everything that depends on the connection when the task ends, also when it is dropped, and also
/// before it has run at all.
pub(crate) struct EndGuard(pub(crate) Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Keeps the client connected until it is closed.
pub(crate) async fn run(end: EndGuard, mut commands: mpsc::Receiver<Publication>) {
    let shared = &*end.0;
    let mut backoff = Backoff::new();
    let mut backlog = VecDeque::new();
    let mut address = shared.options.address.clone();
    loop {
        let closing = shared.closing.cancelled();
        let now_at = tokio::select! {
            () = closing => return,
            known = known(&mut address) => match known {
                Some(known) => known,
                None => return,
            },
        };
        let opened = tokio::select! {
            () = shared.closing.cancelled() => return,
            opened = open(shared, &now_at) => opened,
        };
        let (error, held_s) = match opened {
            Ok(wire) => {
                let since = connected(shared, &now_at, &mut backlog);
                let session = Session::new(shared, now_at, wire);
                let end = session.run(&mut backlog, &mut commands).await;
                lock(&shared.router).disconnected();
                match end {
                    End::Closed => return,
                    End::Lost(error) => (error, shared.now() - since),
                }
            }
            Err(error) => (error, 0.0),
        };
        disconnected(shared, &error);
        backoff.held(held_s);
        let pause = tokio::time::sleep(backoff.next(fastrand::f64()));
        tokio::select! {
            () = shared.closing.cancelled() => return,
            () = pause => {}
            // A broker that has moved is tried at once.
            Ok(()) = address.changed() => {}
        }
    }
}

/// Waits until it is known where the broker is; `None` when that will never be known.
async fn known(address: &mut watch::Receiver<Option<BusAddress>>) -> Option<BusAddress> {
    let known = address.wait_for(Option::is_some).await.ok()?;
    known.clone()
}

/// Connects and logs in.
async fn open(shared: &Shared, address: &BusAddress) -> Result<Wire, WireError> {
    let options = &shared.options;
    let login = password(&options.password)
        .await?
        .map(|password| Login::new(options.username.clone(), password));
    let hello = Hello {
        client_id: options.client_id.clone(),
        login,
        will: will(shared),
    };
    Wire::connect(address, hello).await
}

async fn password(source: &PasswordSource) -> Result<Option<String>, WireError> {
    match source {
        PasswordSource::None => Ok(None),
        PasswordSource::Fixed(password) => Ok(Some(password.clone())),
        PasswordSource::Live(password) => {
            let mut password = password.clone();
            // Who could give one is gone: then the login without one says what is wrong.
            match password.wait_for(Option::is_some).await {
                Ok(password) => Ok(password.clone()),
                Err(_) => Ok(None),
            }
        }
        PasswordSource::File(path) => match tokio::fs::read_to_string(path).await {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(source) => Err(WireError::Password {
                path: path.display().to_string(),
                source,
            }),
        },
    }
}

/// The will in an envelope of now.
fn will(shared: &Shared) -> Option<LastWill> {
    let will = shared.options.will.as_ref()?;
    let envelope = shared
        .envelope(MessageType::Event, &will.topic, &will.payload)
        .ok()?;
    let message = serde_json::to_vec(&envelope).ok()?;
    Some(LastWill::new(
        will.topic.as_str(),
        message,
        QoS::AtLeastOnce,
        false,
        None,
    ))
}

/// A connection is there: what must be subscribed and which states must be there is said anew.
fn connected(
    shared: &Shared,
    address: &BusAddress,
    backlog: &mut VecDeque<Publication>,
) -> alicia_contract::UnixSeconds {
    let now = shared.now();
    lock(&shared.router).connected();
    // Those that the last connection left are among all states.
    backlog.retain(|publication| publication.done.is_some());
    for topic in lock(&shared.states).topics().into_iter().rev() {
        backlog.push_front(Publication {
            body: Body::State(topic),
            done: None,
        });
    }
    shared.link.send_modify(|link| {
        link.connected = true;
        link.since = now;
        link.connections += 1;
    });
    tracing::info!(%address, client = shared.options.client_id, "connected to the bus");
    now
}

fn disconnected(shared: &Shared, error: &WireError) {
    let text = error.to_string();
    let now = shared.now();
    let mut is_news = false;
    shared.link.send_modify(|link| {
        is_news = link.connected || link.last_error.as_ref() != Some(&text);
        if link.connected {
            link.connected = false;
            link.since = now;
        }
        link.last_error = Some(text.clone());
    });
    if is_news {
        tracing::warn!(error = text, "not connected to the bus, trying again");
    }
}
