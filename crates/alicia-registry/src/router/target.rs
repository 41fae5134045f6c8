//! Whom a caller may call, and on which topic an instance is asked alone.

use alicia_contract::discovery::{INSTANCE_COMMAND, Verdict};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::SERVICE_COMMAND;
use alicia_contract::platform::{KeyInfo, Scope};
use alicia_contract::topic::Prefix;
use alicia_identity::{Authority, Grants, Identity, Permissions};

use crate::core::{DERIVED_OWNER, Entry, Offer, Registry};
use crate::resolve::Admission;

/// What is checked of instances before one is called for somebody.
pub(crate) struct Callers<'r> {
    registry: &'r Registry,
    prefix: &'r Prefix,
    permissions: std::sync::Arc<Permissions>,
    /// A scope of its own lets it call every capability: `registry:call`.
    may_call_all: bool,
    caller: String,
}

// === impl Callers ===

impl<'r> Callers<'r> {
    pub(crate) fn new(registry: &'r Registry, identity: &'r Authority, caller: &Identity) -> Self {
        Self {
            registry,
            prefix: identity.prefix(),
            permissions: identity.permissions(caller),
            may_call_all: caller.may("registry", "call"),
            caller: caller.to_string(),
        }
    }

    /// Where an instance is asked so that no other hears it.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub(crate) fn topic(&self, entry: &Entry) -> Result<String, String> {
        let registration = &entry.registration;
        let service = registration.service.as_str();
        let own = INSTANCE_COMMAND.at(self.prefix, &[service, registration.instance.as_str()]);
        let of_all = SERVICE_COMMAND.at(self.prefix, &[service]);
        let said = registration.endpoints.mqtt.as_deref();
        if said == Some(own.as_str()) {
            return Ok(own);
        }
        // What a registration names beyond these two is not believed: it could be somebody else's topic.
        if said != Some(of_all.as_str()) && !(said.is_none() && entry.owner == DERIVED_OWNER) {
            return Err(format!("names no command topic of its own, expected {own}"));
        }
        if self.registry.live(&registration.service).nth(1).is_some() {
            return Err(format!(
                "hears {of_all} only, like the other instances of {service}; to be called alone it subscribes to {own} and says so in `endpoints.mqtt`"
            ));
        }
        Ok(of_all)
    }
}

impl Admission for Callers<'_> {
    fn refuses_offer(&self, offer: &Offer) -> Option<(Verdict, String)> {
        let any = InstanceId::from_parts(0, 0);
        let topic = INSTANCE_COMMAND.at(self.prefix, &[offer.service.as_str(), any.as_str()]);
        let (caller, service) = (&self.caller, &offer.service);
        let is_allowed = self.may_call_all || self.permissions.may_publish(&topic, false);
        (!is_allowed).then(|| {
            let reason = format!("{caller} may not command {service}: its file has no `allow: {{command: [{service}]}}`, or its key no scope operate or registry:call");
            (Verdict::NotAllowed, reason)
        })
    }

    fn refuses(&self, entry: &Entry) -> Option<(Verdict, String)> {
        let refused = self.topic(entry).err()?;
        Some((Verdict::NotCallable, refused))
    }
}

/// Who somebody is by the name that the broker verified. The scope of a key that is not known here is the least
/// with which one may publish a call at all: another broker than ours has checked it.
pub(crate) fn identity_of(source: &str, identity: &Authority) -> Option<Identity> {
    match source.split_once('/') {
        Some(("system", module)) => Some(Identity::Module(module.to_owned())),
        Some(("key", name)) => {
            let keys = identity.keys();
            let known = keys.into_iter().find(|key| key.name == name);
            let name = name.to_owned();
            Some(match known {
                None => Identity::Key {
                    name,
                    scope: Scope::Operate,
                },
                Some(KeyInfo {
                    scope: Some(scope), ..
                }) => Identity::Key { name, scope },
                Some(limited) => Identity::Limited {
                    name,
                    grants: Grants::new(limited.scopes),
                },
            })
        }
        Some(_) => None,
        None => {
            let service = ServiceName::new(source).ok()?;
            let agents = identity.agents();
            let joined = agents.into_iter().find(|agent| agent.name == service);
            Some(match joined {
                Some(agent) => Identity::Agent {
                    name: agent.name,
                    instance: agent.instance,
                    epoch: agent.epoch,
                    grants: Grants::new(agent.scopes),
                },
                None => Identity::Service {
                    service,
                    instance: InstanceId::from_parts(0, 0),
                    epoch: Epoch(0),
                },
            })
        }
    }
}
