//! Services that run only while somebody is connected: woken by the first connection, sent to sleep when no
//! connection has been open for a while.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use alicia_contract::ServiceName;
use alicia_keeper::Client;
use alicia_module::Context;
use tokio::time::{Instant, sleep};

use super::{Engine, Handle, Input, sockets};
use crate::core::event::Event;

/// How often open connections are looked for: an idle time is kept to within a quarter, or this.
const LOOK_MIN: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(5);

/// The state of an open connection in `/proc/net/tcp` (`TCP_ESTABLISHED` of the kernel's `tcp_states.h`).
const ESTABLISHED: &str = "01";

/// A service that is awake and may go to sleep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Awake {
    pub(crate) service: ServiceName,
    pub(crate) ports: Vec<u16>,
    pub(crate) idle_after: Duration,
}

impl Engine {
    /// The keeper tells when somebody connects to a socket of a service that sleeps.
    pub(super) fn watch_sleepers(&mut self, client: &Client) {
        let asleep: Vec<(ServiceName, Vec<sockets::Socket>)> = self
            .core
            .sleepers()
            .map(|(service, spec)| (service.clone(), sockets::of(service, spec)))
            .collect();
        self.watched
            .retain(|service, _| asleep.iter().any(|(name, _)| name == service));
        for (service, sockets) in asleep {
            if self.watched.contains_key(&service) {
                continue;
            }
            let names = sockets.iter().map(|socket| socket.name.clone()).collect();
            self.watched.insert(service.clone(), names);
            let client = client.clone();
            let inputs = self.inputs_in.clone();
            self.cx.spawn("watch a socket", async move {
                let watched = async {
                    sockets::bind(&client, &sockets).await.map_err(|fault| format!("{fault:?}"))?;
                    for socket in &sockets {
                        let watching = client.watch_listener(&socket.name).await;
                        watching.map_err(|error| error.to_string())?;
                    }
                    Ok::<(), String>(())
                };
                if let Err(why) = watched.await {
                    tracing::warn!(%service, why, "the socket of a service on demand is not watched");
                    sleep(LOOK_MAX).await;
                    // It is tried again with the next look at the sockets.
                    drop(inputs.send(Input::Unwatched(service)).await);
                }
            });
        }
    }

    /// Somebody connects: the service to which the socket belongs is wanted.
    pub(super) fn heard_connection(&mut self, socket: &str) {
        let mut watched = self.watched.iter();
        let found = watched.find(|(_, names)| names.iter().any(|name| name == socket));
        if let Some(service) = found.map(|(service, _)| service.clone()) {
            self.watched.remove(&service);
            self.tell(Event::Called(service));
        }
    }

    pub(super) fn awake(&self) -> Vec<Awake> {
        let awake = self.core.awake().filter_map(|(service, spec)| {
            let held = sockets::of(service, spec);
            let ports = self.held.values().filter_map(|run| {
                let slot = run.slot.as_ref()?;
                (slot.service == *service).then_some(&run.ports)
            });
            let numbers = ports.flat_map(|ports| {
                let of_socket = |socket: &sockets::Socket| ports.get(&socket.port).copied();
                held.iter().filter_map(of_socket).collect::<Vec<u16>>()
            });
            Some(Awake {
                service: service.clone(),
                ports: numbers.collect(),
                idle_after: spec.on_demand.as_ref()?.idle_after.duration(),
            })
        });
        awake.collect()
    }
}

/// Sends services to sleep to which nobody has been connected for their idle time.
pub(crate) async fn watch_idle(cx: Context, handle: Handle) {
    let mut busy: BTreeMap<ServiceName, Instant> = BTreeMap::new();
    let mut published = handle.published.clone();
    loop {
        let Ok(awake) = handle.ask(Input::Awake).await else {
            return;
        };
        if awake.is_empty() {
            busy.clear();
            if published.changed().await.is_err() {
                return;
            }
            continue;
        }
        busy.retain(|service, _| awake.iter().any(|awake| awake.service == *service));
        let open = tokio::task::spawn_blocking(open_ports)
            .await
            .unwrap_or_default();
        let now = cx.clock.now();
        for one in &awake {
            let since = *busy.entry(one.service.clone()).or_insert(now);
            let is_busy = one.ports.is_empty() || one.ports.iter().any(|port| open.contains(port));
            if is_busy {
                busy.insert(one.service.clone(), now);
            } else if now - since >= one.idle_after {
                busy.remove(&one.service);
                if handle.send(Input::Idle(one.service.clone())).await.is_err() {
                    return;
                }
            }
        }
        let shortest = awake.iter().map(|awake| awake.idle_after / 4).min();
        sleep(shortest.unwrap_or(LOOK_MAX).clamp(LOOK_MIN, LOOK_MAX)).await;
    }
}

/// The local ports that have an open connection.
fn open_ports() -> Vec<u16> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(Path::new);
    let texts = tables
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok());
    texts.flat_map(|text| established(&text)).collect()
}

/// The local ports of open connections in a table of the kernel (proc(5), `/proc/net/tcp`).
fn established(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let (_, port) = local.rsplit_once(':')?;
        (state == ESTABLISHED).then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_connections_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
                        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n\
                        1: 0100007F:1F91 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0\n\
                        2: 0100007F:C001 0100007F:1F91 06 00000000:00000000 00:00000000 00000000     0\n";
        assert_eq!(established(table), [0x1f91]);
    }
}
