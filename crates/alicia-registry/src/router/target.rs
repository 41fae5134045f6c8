//! Whom a caller may call, and on which topic an instance is asked alone.

use alicia_contract::discovery::{INSTANCE_COMMAND, Verdict};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::SERVICE_COMMAND;
use alicia_contract::platform::{KeyInfo, Scope};
use alicia_contract::topic::Prefix;
use alicia_identity::{Authority, Identity, Permissions};

use crate::core::{DERIVED_OWNER, Entry, Offer, Registry};
use crate::resolve::Admission;

/// What is checked of instances before one is called for somebody.
pub(crate) struct Callers<'r> {
    registry: &'r Registry,
    prefix: &'r Prefix,
    permissions: std::sync::Arc<Permissions>,
    caller: String,
}

// === impl Callers ===

impl<'r> Callers<'r> {
    pub(crate) fn new(registry: &'r Registry, identity: &'r Authority, caller: &Identity) -> Self {
        Self {
            registry,
            prefix: identity.prefix(),
            permissions: identity.permissions(caller),
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
        (!self.permissions.may_publish(&topic, false)).then(|| {
            let reason = format!("{caller} may not command {service}: its file has no `allow: {{command: [{service}]}}`, or its key no scope operate");
            (Verdict::NotAllowed, reason)
        })
    }

    fn refuses(&self, entry: &Entry) -> Option<(Verdict, String)> {
        let refused = self.topic(entry).err()?;
        Some((Verdict::NotCallable, refused))
    }
}

/// Who somebody is by the name that the broker verified. The scope of a key that is not known is the least with
/// which one may publish a call at all.
pub(crate) fn identity_of(source: &str, identity: &Authority) -> Option<Identity> {
    match source.split_once('/') {
        Some(("system", module)) => Some(Identity::Module(module.to_owned())),
        Some(("key", name)) => {
            let keys = identity.keys();
            // One that is limited to certain verbs has no step of the ladder, and commands nobody.
            let known = keys.iter().find(|key| key.name.as_str() == name);
            let scope_of = |key: &KeyInfo| Option::<Scope>::from(key.scope);
            Some(Identity::Key {
                name: name.to_owned(),
                scope: known.map_or(Scope::Operate, |key| scope_of(key).unwrap_or(Scope::Read)),
            })
        }
        Some(_) => None,
        None => Some(Identity::Service {
            service: ServiceName::new(source).ok()?,
            instance: InstanceId::from_parts(0, 0),
            epoch: Epoch(0),
        }),
    }
}
