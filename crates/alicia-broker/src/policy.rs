//! The house's identities and permissions, as the engine asks for them.

use std::sync::Arc;

use alicia_identity::{Authority as House, Identity as Who, Refusal as HouseRefusal};
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
    house: House,
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
        let who = self
            .house
            .authenticate_bus(username, password, self.clock.unix());
        let who = who.map_err(|refusal| refused(&refusal))?;
        let epoch = match &who {
            Who::Service { epoch, .. } => epoch.0,
            Who::Module(_) | Who::Key { .. } => 0,
        };
        let identity = Identity {
            name: who.to_string().into(),
            epoch,
        };
        Ok(Arc::new(Member {
            identity,
            who,
            house: self.house.clone(),
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
        HouseRefusal::BadCredentials | HouseRefusal::OtherUser(_) => Reason::BadCredentials,
        HouseRefusal::UnknownService(_) => Reason::NotAuthorized,
        HouseRefusal::ForgedSource { .. } => Reason::ForgedSource,
    };
    Refusal::new(reason, refusal.to_string())
}
