//! The ports of instances: which are given out, which are free.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Port, ServiceSpec};
use alicia_file::machine::{Here, Machine};

use crate::core::event::SlotId;

/// How often the kernel is asked for a free port before that counts as a failure: each time another
/// instance holds the one that it names, which needs most ports to be taken.
const TRIES_MAX: u32 = 64;

/// The ports that instances hold, and those that slots had before, to have them again.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    by_slot: BTreeMap<SlotId, BTreeMap<ServiceName, u16>>,
}

impl Ports {
    /// Takes over the ports of an instance that runs.
    pub(crate) fn adopt(&mut self, slot: &SlotId, ports: &BTreeMap<ServiceName, u16>) {
        if !ports.is_empty() {
            self.by_slot.insert(slot.clone(), ports.clone());
        }
    }

    /// Forgets slots that are no longer there.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&SlotId) -> bool) {
        self.by_slot.retain(|slot, _| is_there(slot));
    }

    /// The ports for the next run in a slot: fixed ones must be free; automatic ones stay the same from
    /// run to run where they can.
    ///
    /// # Errors
    /// Which port is taken, by whom, and what to do.
    pub(crate) fn assign(
        &mut self,
        slot: &SlotId,
        spec: &ServiceSpec,
    ) -> Result<BTreeMap<ServiceName, u16>, String> {
        let before = self.by_slot.remove(slot).unwrap_or_default();
        let mut ports = BTreeMap::new();
        for (name, port) in &spec.ports {
            let number = match port {
                Port::Fixed(number) => check_free(name, *number).map(|()| *number)?,
                Port::Auto => self.choose(before.get(name).copied(), &ports)?,
                // The keeper has it.
                Port::Held(_) => continue,
            };
            ports.insert(name.clone(), number);
        }
        if !ports.is_empty() {
            self.by_slot.insert(slot.clone(), ports.clone());
        }
        Ok(ports)
    }

    fn choose(&self, before: Option<u16>, own: &BTreeMap<ServiceName, u16>) -> Result<u16, String> {
        let is_held = |number: u16| {
            let of_others = self.by_slot.values().flat_map(BTreeMap::values);
            of_others.chain(own.values()).any(|held| *held == number)
        };
        if let Some(before) = before.filter(|number| !is_held(*number) && bind(*number).is_ok()) {
            return Ok(before);
        }
        for _ in 0..TRIES_MAX {
            match bind(0) {
                Ok(number) if !is_held(number) => return Ok(number),
                Ok(_) => {}
                Err(error) => return Err(format!("no free port can be found: {error}")),
            }
        }
        Err("no free port can be found: all that were tried are held by other instances".into())
    }
}

/// The port, when a program could listen on it now.
fn bind(number: u16) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number))?;
    Ok(listener.local_addr()?.port())
}

fn check_free(name: &ServiceName, number: u16) -> Result<(), String> {
    match bind(number) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let listener = Here::new("").listener(number).unwrap_or_default();
            let holder = match (listener.program, listener.pid) {
                (Some(program), Some(pid)) => format!(" by {program} (pid {pid})"),
                (None, Some(pid)) => format!(" by the process {pid}"),
                _ => String::new(),
            };
            Err(format!(
                "port {number} is taken{holder}; stop that program, or write another port or `auto` in \
                 `ports.{name}`"
            ))
        }
        // Another fault, such as a port that only root may use, is for the program itself to meet: it may
        // run as another user.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slot(number: u32) -> SlotId {
        let service = ServiceName::new("api").expect("a name");
        SlotId {
            service,
            slot: number,
        }
    }

    fn spec(ports: serde_json::Value) -> ServiceSpec {
        serde_json::from_value(json!({ "command": "api", "ports": ports })).expect("a service")
    }

    #[test]
    fn an_automatic_port_is_no_other_instances_and_stays() {
        let mut ports = Ports::default();
        let spec = spec(json!({ "http": "auto", "admin": "auto" }));
        let first = ports.assign(&slot(1), &spec).expect("free ports");
        let second = ports.assign(&slot(2), &spec).expect("free ports");
        let all: std::collections::BTreeSet<_> = first.values().chain(second.values()).collect();
        assert_eq!(all.len(), 4);
        assert_eq!(ports.assign(&slot(1), &spec), Ok(first));
    }

    #[test]
    fn an_automatic_port_that_was_taken_meanwhile_changes() {
        let mut ports = Ports::default();
        let spec = spec(json!({ "http": "auto" }));
        let first = ports.assign(&slot(1), &spec).expect("a free port");
        let number = *first.values().next().expect("one port");
        let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).expect("it is free");
        assert_ne!(ports.assign(&slot(1), &spec), Ok(first));
    }

    #[test]
    fn a_fixed_port_that_is_taken_names_its_holder() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let number = holder.local_addr().expect("it is bound").port();
        let spec = spec(json!({ "http": number }));
        let refusal = Ports::default()
            .assign(&slot(1), &spec)
            .expect_err("it is taken");
        let pid = std::process::id();
        assert!(
            refusal.contains(&format!("port {number} is taken by")),
            "{refusal}"
        );
        assert!(refusal.contains(&format!("(pid {pid})")), "{refusal}");
        drop(holder);
        assert!(Ports::default().assign(&slot(1), &spec).is_ok());
    }
}
