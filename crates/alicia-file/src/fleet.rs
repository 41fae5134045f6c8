//! What a schema cannot say about the services of a file: names that must exist, values that must fit each other.
//!
//! [`read`] makes the fleet out of a document, [`check`] finds what is wrong in it. Both are pure; what only this
//! machine knows (is the program there?) is checked by [`crate::machine`].

use alicia_contract::ServiceName;
use alicia_contract::fleet::{Fleet, GroupSpec, INSTANCES_MAX, Port, SERVICES_MAX, ServiceSpec};

use crate::document::Document;
use crate::fault::{Fault, in_order};
use crate::tree::pointer_to;

pub use command::words;

mod capability;
mod command;
mod confine;
mod container;
mod dependency;
pub(crate) mod environment;
mod life;
mod port;
mod probe;
mod secret;
mod slo;
mod topic;
mod update;

/// Names that a service cannot have, because topics and identities of Alicia itself begin with them. Those of
/// [`alicia_contract::discovery::RESERVED_NAMES`], which are levels within topics, cannot be had either.
pub const RESERVED_NAMES: [&str; 4] = ["alicia", "broadcast", "keys", "system"];

/// The name of a fleet that has none.
pub const NAME_DEFAULT: &str = "fleet";

/// Makes the fleet out of `/name`, `/services` and `/groups`. To be called when the document fits its schema.
///
/// # Errors
/// Every value that is not what it should be.
pub fn read(document: &Document) -> Result<Fleet, Vec<Fault>> {
    let mut faults = Vec::new();
    let name = document.get("/name").unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    let mut fleet = Fleet {
        name: name.unwrap_or_else(|| NAME_DEFAULT.to_owned()),
        ..Fleet::default()
    };
    for key in document.keys("/services") {
        let pointer = pointer_to("/services", key);
        let name = ServiceName::new(key)
            .map_err(|error| document.fault_at_key(&pointer, error.to_string()));
        let spec = document.get::<ServiceSpec>(&pointer).and_then(|spec| {
            let empty = || document.fault_at(&pointer, format!("`{key}` is empty"));
            spec.ok_or_else(|| empty().with_hint("add `command:`"))
        });
        match (name, spec) {
            (Ok(name), Ok(spec)) => {
                fleet.services.insert(name, spec.into());
            }
            (name, spec) => faults.extend(name.err().into_iter().chain(spec.err())),
        }
    }
    for key in document.keys("/groups") {
        let pointer = pointer_to("/groups", key);
        let name = ServiceName::new(key)
            .map_err(|error| document.fault_at_key(&pointer, error.to_string()));
        match (name, document.get::<GroupSpec>(&pointer)) {
            (Ok(name), Ok(group)) => {
                fleet.groups.insert(name, group.unwrap_or_default());
            }
            (name, group) => faults.extend(name.err().into_iter().chain(group.err())),
        }
    }
    match faults.is_empty() {
        true => Ok(fleet),
        false => Err(in_order(faults)),
    }
}

/// Everything that is wrong in a fleet. With the document that it was read from, faults show their lines.
#[must_use]
pub fn check(fleet: &Fleet, document: Option<&Document>) -> Vec<Fault> {
    let mut report = Report {
        document,
        faults: Vec::new(),
    };
    if fleet.services.len() > SERVICES_MAX {
        let message = format!("{} services, at most {SERVICES_MAX}", fleet.services.len());
        report.value("/services", message, "split the fleet");
        return report.faults;
    }
    for (name, spec) in &fleet.services {
        let mut service = Service {
            name,
            spec,
            fleet,
            report: &mut report,
        };
        service.check_name();
        service.check_numbers();
        capability::check(&mut service);
        command::check(&mut service);
        confine::check(&mut service);
        container::check(&mut service);
        environment::check(&mut service);
        life::check(&mut service);
        dependency::check(&mut service);
        port::check(&mut service);
        probe::check(&mut service);
        secret::check(&mut service);
        slo::check(&mut service);
        topic::check(&mut service);
        update::check(&mut service);
    }
    dependency::check_cycles(fleet, &mut report);
    life::check_groups(fleet, &mut report);
    port::check_shared(fleet, &mut report);
    in_order(report.faults)
}

/// The port that a probe uses when it names none: the one named `http`, or the only one.
#[must_use]
pub fn default_port(spec: &ServiceSpec) -> Option<(&ServiceName, Port)> {
    let http = spec.ports.iter().find(|(name, _)| name.as_str() == "http");
    let only = || spec.ports.iter().next().filter(|_| spec.ports.len() == 1);
    http.or_else(only).map(|(name, port)| (name, *port))
}

/// The port that a probe of readiness or liveness asks when it names none: as [`default_port`], but rather the
/// only one that is not held, because on a held port every instance answers.
#[must_use]
pub fn probe_port(spec: &ServiceSpec) -> Option<(&ServiceName, Port)> {
    let default = default_port(spec);
    if default.is_some_and(|(_, port)| !matches!(port, Port::Held(_))) {
        return default;
    }
    let mut own = spec
        .ports
        .iter()
        .filter(|(_, port)| !matches!(port, Port::Held(_)));
    match (own.next(), own.next()) {
        (Some((name, port)), None) => Some((name, *port)),
        _ => default,
    }
}

/// The faults that were found, with lines when the document is known.
pub(crate) struct Report<'r> {
    pub(crate) document: Option<&'r Document>,
    pub(crate) faults: Vec<Fault>,
}

/// One service while it is checked.
pub(crate) struct Service<'s, 'r> {
    pub(crate) name: &'s ServiceName,
    pub(crate) spec: &'s ServiceSpec,
    pub(crate) fleet: &'s Fleet,
    pub(crate) report: &'s mut Report<'r>,
}

// === impl Report ===

impl Report<'_> {
    /// A fault at a value.
    pub(crate) fn value(
        &mut self,
        pointer: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let message = message.into();
        let fault = match self.document {
            Some(document) => document.fault_at(pointer, message),
            None => Fault::of_value(pointer, message),
        };
        self.faults.push(fault.with_hint(hint));
    }

    /// A fault at a key.
    pub(crate) fn key(
        &mut self,
        pointer: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let message = message.into();
        let fault = match self.document {
            Some(document) => document.fault_at_key(pointer, message),
            None => Fault::of_value(pointer, message),
        };
        self.faults.push(fault.with_hint(hint));
    }
}

// === impl Service ===

impl Service<'_, '_> {
    /// The pointer of a part of the service: `ports/http`.
    pub(crate) fn pointer(&self, part: &str) -> String {
        let service = pointer_to("/services", self.name.as_str());
        match part {
            "" => service,
            part => format!("{service}/{part}"),
        }
    }

    /// A fault at a part of the service.
    pub(crate) fn fault(
        &mut self,
        part: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let pointer = self.pointer(part);
        self.report.value(&pointer, message, hint);
    }

    fn check_name(&mut self) {
        let name = self.name.as_str();
        if RESERVED_NAMES.contains(&name)
            || alicia_contract::discovery::RESERVED_NAMES.contains(&name)
        {
            let message = format!("the name `{}` is reserved for Alicia itself", self.name);
            let pointer = self.pointer("");
            self.report.key(&pointer, message, "choose another name");
        }
    }

    fn check_numbers(&mut self) {
        let spec = self.spec;
        if spec.instances > INSTANCES_MAX {
            let message = format!("{} instances, at most {INSTANCES_MAX}", spec.instances);
            self.fault("instances", message, "use fewer instances");
        }
        if spec.start_timeout.duration().is_zero() {
            let message = "`start_timeout` is 0s, so that it fails as soon as it starts";
            self.fault("start_timeout", message, "write for example `60s`");
        }
        if spec
            .heartbeat_timeout
            .is_some_and(|timeout| timeout.duration().is_zero())
        {
            let message = "`heartbeat_timeout` is 0s, so that it alerts at once";
            self.fault("heartbeat_timeout", message, "write for example `30s`");
        }
        let back_off = &spec.back_off;
        if back_off.initial > back_off.max {
            let message = format!(
                "`initial` is {}, which is longer than `max` with {}",
                back_off.initial, back_off.max
            );
            self.fault(
                "back_off/initial",
                message,
                "make it shorter, or `max` longer",
            );
        }
        if spec.directory.as_deref() == Some("") {
            let message = "`directory` is empty";
            self.fault(
                "directory",
                message,
                "remove it: the default is the file's directory",
            );
        }
    }
}
