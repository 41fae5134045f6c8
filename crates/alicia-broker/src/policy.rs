//! The house's identities and permissions, as the engine asks for them.

use std::sync::Arc;

use alicia_contract::{ServiceName, health};
use alicia_identity::{Authority as House, Holder, Identity as Who, Refusal as HouseRefusal};
use alicia_module::Clock;

use crate::authority::{Authority, Identity, Login, Reason, Refusal, Subject};

/// Lets in who holds a token or a key.
pub(crate) struct Policy {
    pub(crate) house: House,
    pub(crate) clock: Clock,
}

/// A service, a module, or the holder of a key.
struct Member {
    identity: Identity,
    who: Who,
    /// The API key that it logged in with, if it was one; another of the same name is none of its own.
    key: Option<Holder>,
    house: House,
    clock: Clock,
}

impl Authority for Policy {
    fn authenticate(&self, login: &Login<'_>) -> Result<Arc<dyn Subject>, Refusal> {
        let password = login
            .password
            .and_then(|bytes| std::str::from_utf8(bytes).ok());
        let (Some(username), Some(password)) = (login.username, password) else {
            return Err(Refusal::new(
                Reason::BadCredentials,
                "user name or password is missing",
            ));
        };
        let now = self.clock.unix();
        let who = self
            .house
            .authenticate_client(username, password, login.client_id, now);
        let who = who.map_err(|refusal| refused(&refusal))?;
        let epoch = who.run().map_or(0, |(_, _, epoch)| epoch.0);
        let identity = Identity {
            name: who.to_string().into(),
            epoch,
            trusted: matches!(who, Who::Module(_)),
        };
        Ok(Arc::new(Member {
            identity,
            key: self.house.key_shown(password, now),
            who,
            house: self.house.clone(),
            clock: self.clock.clone(),
        }))
    }
}

impl Member {
    fn granted(&self, granted: bool, verb: &str, topic: &str) -> Result<(), Refusal> {
        if granted {
            return Ok(());
        }
        let detail = format!("{} may not {verb} {topic:?}", self.identity.name);
        Err(Refusal::new(Reason::NotAuthorized, detail))
    }
}

impl Subject for Member {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn may_act(&self) -> Result<(), Refusal> {
        let now = self.clock.unix();
        let is_key = matches!(self.who, Who::Key { .. } | Who::Limited { .. });
        if is_key && (self.key.is_none() || self.house.key_of(&self.who, now) != self.key) {
            let detail = "its key was revoked, has expired, or is another one by now";
            return Err(Refusal::new(Reason::BadCredentials, detail));
        }
        let may_stay = self.house.may_stay(&self.who, now);
        may_stay.map_err(|refusal| refused(&refusal))
    }

    fn is_farewell(&self, topic: &str) -> bool {
        let heartbeat = |service: &ServiceName| {
            health::HEARTBEAT.at(self.house.prefix(), &[service.as_str()]) == topic
        };
        self.who.service().is_some_and(heartbeat)
    }

    fn stamp(&self, topic: &str) -> Option<&str> {
        let is_ours = self.house.prefix().strip(topic).is_some();
        is_ours.then_some(&*self.identity.name)
    }

    fn may_publish(&self, topic: &str, retain: bool) -> Result<(), Refusal> {
        let granted = self.house.permissions(&self.who).may_publish(topic, retain);
        self.granted(granted, if retain { "retain" } else { "publish" }, topic)
    }

    fn may_subscribe(&self, filter: &str) -> Result<(), Refusal> {
        let granted = self.house.permissions(&self.who).may_subscribe(filter);
        self.granted(granted, "subscribe to", filter)
    }

    fn check_payload(&self, topic: &str, payload: &[u8]) -> Result<(), Refusal> {
        let checked = self.house.check_payload(&self.who, topic, payload);
        checked.map_err(|refusal| refused(&refusal))
    }
}

fn refused(refusal: &HouseRefusal) -> Refusal {
    let reason = match refusal {
        HouseRefusal::BadCredentials | HouseRefusal::OtherUser(_) | HouseRefusal::Expired(_) => {
            Reason::BadCredentials
        }
        HouseRefusal::StaleEpoch { .. } => Reason::StaleEpoch,
        HouseRefusal::OtherClient { .. } => Reason::BadClientId,
        HouseRefusal::UnknownService(_) => Reason::NotAuthorized,
        HouseRefusal::ForgedSource { .. } => Reason::ForgedSource,
    };
    Refusal::new(reason, refusal.to_string())
}
