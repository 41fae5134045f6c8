//! The one who is asked: who is this, may they do that.
//!
//! Cheap to clone. Decisions read snapshots and never wait for a disk or a lock held across one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alicia_contract::discovery;
use alicia_contract::fleet::{Fleet, ServiceSpec};
use alicia_contract::id::ServiceName;
use alicia_contract::platform::{KeyInfo, NewKey, Scope};
use alicia_contract::topic::Prefix;
use alicia_contract::unit::UnixSeconds;
use arc_swap::ArcSwap;
use serde_json::Value;

use crate::identity::Identity;
use crate::key::ApiKey;
use crate::keyring::Keyring;
use crate::permissions::Permissions;
use crate::session::{self, Links};
use crate::token::{self, RootKey};
use crate::{Error, file};

/// The name of the key that is made at first start.
pub const ADMIN_KEY_NAME: &str = "admin";

/// Why somebody is turned away. The text is for the log; the client is told only that it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No or unknown credentials.
    #[error("the user name and password belong to no one")]
    BadCredentials,
    /// The password is good, but for another user name.
    #[error("the password belongs to {0}, not to this user name")]
    OtherUser(String),
    /// A service that is not in the fleet (any more).
    #[error("the service {0} is not in the fleet")]
    UnknownService(ServiceName),
    /// The message claims another source.
    #[error("the message claims to come from {claimed:?}, but its sender is {sender}")]
    ForgedSource {
        /// What the message says.
        claimed: String,
        /// Who really sent it.
        sender: String,
    },
}

/// Answers who somebody is and what they may do.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    prefix: Prefix,
    root: RootKey,
    keys: ArcSwap<Keyring>,
    /// Held while the file of keys is replaced: one change after the other.
    keys_change: Mutex<()>,
    links: Mutex<Links>,
    services: ArcSwap<HashMap<ServiceName, Arc<Permissions>>>,
    modules: Arc<Permissions>,
    scopes: [Arc<Permissions>; 3],
}

impl Authority {
    /// Opens the identity directory, and makes the root key on the first start.
    ///
    /// # Errors
    /// When a file there cannot be read, understood or written.
    pub fn open(directory: &Path, prefix: Prefix) -> Result<Self, Error> {
        file::make_directory(directory)?;
        let root = open_root_key(&directory.join("root.key"))?;
        let keys = Keyring::open(&directory.join("keys.json"))?;
        let scopes = [Scope::Read, Scope::Operate, Scope::Admin]
            .map(|scope| Arc::new(Permissions::of_key(&prefix, scope)));
        let modules = Arc::new(Permissions::of_module(&prefix));
        let inner = Inner {
            prefix,
            root,
            keys: ArcSwap::from_pointee(keys),
            keys_change: Mutex::new(()),
            links: Mutex::default(),
            services: ArcSwap::default(),
            modules,
            scopes,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The prefix of all topics.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.inner.prefix
    }

    /// Makes the first admin key and writes it to `path`, readable by the owner only. Does nothing when there
    /// are keys already.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn ensure_admin_key(&self, path: &Path, now: UnixSeconds) -> Result<(), Error> {
        if !self.inner.keys.load().is_empty() {
            return Ok(());
        }
        let (key, _) =
            self.change_keys(|keys| keys.create(ADMIN_KEY_NAME, Scope::Admin, now, None))?;
        file::replace(path, format!("{}\n", key.reveal()).as_bytes())
    }

    /// Takes over the services of a new fleet. Holders of tokens of services that are gone are refused from now on.
    pub fn set_fleet(&self, fleet: &Fleet) {
        let permissions = |(name, spec): (&ServiceName, &ServiceSpec)| {
            let granted = Permissions::of_service(&self.inner.prefix, name, &spec.allow);
            (name.clone(), Arc::new(granted))
        };
        self.inner
            .services
            .store(Arc::new(fleet.services.iter().map(permissions).collect()));
    }

    /// The token of an instance or a module.
    ///
    /// # Panics
    /// For the holder of a key: it has one already.
    #[must_use]
    pub fn issue_token(&self, identity: &Identity) -> String {
        token::sign(&self.inner.root, identity).expect("tokens are for instances and modules")
    }

    /// Who proves to be who with this token or key.
    ///
    /// # Errors
    /// [`Refusal::BadCredentials`], or [`Refusal::UnknownService`] for a token of a service that is gone.
    pub fn authenticate(&self, credential: &str, now: UnixSeconds) -> Result<Identity, Refusal> {
        let credential = credential.trim();
        let identity = token::verify(&self.inner.root, credential)
            .or_else(|| self.inner.keys.load().verify(credential, now))
            .ok_or(Refusal::BadCredentials)?;
        match identity.service() {
            Some(service) if !self.inner.services.load().contains_key(service) => {
                Err(Refusal::UnknownService(service.clone()))
            }
            _ => Ok(identity),
        }
    }

    /// Who connects to the bus with this user name and password.
    ///
    /// # Errors
    /// As [`Authority::authenticate`], and [`Refusal::OtherUser`] when the user name is not the one of the password.
    pub fn authenticate_bus(
        &self,
        user_name: &str,
        password: &str,
        now: UnixSeconds,
    ) -> Result<Identity, Refusal> {
        let identity = self.authenticate(password, now)?;
        if identity.user_name() == user_name {
            Ok(identity)
        } else {
            Err(Refusal::OtherUser(identity.to_string()))
        }
    }

    /// What an identity may do on the bus, as of now.
    #[must_use]
    pub fn permissions(&self, identity: &Identity) -> Arc<Permissions> {
        match identity {
            Identity::Module(_) => self.inner.modules.clone(),
            Identity::Service { service, .. } => self
                .inner
                .services
                .load()
                .get(service)
                .cloned()
                .unwrap_or_default(),
            Identity::Key { scope, .. } => self.inner.scopes[*scope as usize].clone(),
        }
    }

    /// Checks that a message claims no other source than its sender, and registers no other service.
    ///
    /// Modules and admin keys may speak for others. What is not JSON claims nothing.
    ///
    /// # Errors
    /// [`Refusal::ForgedSource`].
    pub fn check_payload(
        &self,
        sender: &Identity,
        topic: &str,
        payload: &[u8],
    ) -> Result<(), Refusal> {
        if sender.has_scope(Scope::Admin) {
            return Ok(());
        }
        // The whole message is read, in the way its receivers read it: a shortcut here that sees another
        // `source` than they do (a repeated key, an escaped one) would be a way around.
        let Ok(message) = serde_json::from_slice::<Value>(payload) else {
            return Ok(());
        };
        let is_envelope = message.get("message_type").is_some() && message.get("payload").is_some();
        let source = message.get("source").filter(|_| is_envelope);
        refuse_other(source, &sender.to_string(), sender)?;
        if !self.announces_a_service(topic) {
            return Ok(());
        }
        let announcement = if is_envelope {
            &message["payload"]
        } else {
            &message
        };
        let own = sender.service().map_or("", ServiceName::as_str);
        refuse_other(announcement.get("service"), own, sender)
    }

    fn announces_a_service(&self, topic: &str) -> bool {
        let prefix = &self.inner.prefix;
        let topics = [
            discovery::REGISTER.template(),
            discovery::UNREGISTER.template(),
        ];
        prefix
            .strip(topic)
            .is_some_and(|topic| topics.contains(&topic))
    }

    /// Every key, without its secret.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.inner.keys.load().list()
    }

    /// Makes a key; on return it is on disk. Blocks for the write.
    ///
    /// # Errors
    /// As [`Keyring::create`].
    pub fn create_key(&self, new: &NewKey, now: UnixSeconds) -> Result<(ApiKey, KeyInfo), Error> {
        let expires = new
            .expires_days
            .map(|days| now + f64::from(days) * 86_400.0);
        self.change_keys(|keys| keys.create(new.name.as_str(), new.scope, now, expires))
    }

    /// Removes a key; on return the removal is on disk. Blocks for the write.
    ///
    /// # Errors
    /// As [`Keyring::revoke`].
    pub fn revoke_key(&self, name: &str, now: UnixSeconds) -> Result<KeyInfo, Error> {
        self.change_keys(|keys| keys.revoke(name, now))
    }

    /// A one-time code with which the holder of a key starts a session in a browser.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn create_link(&self, key_name: &str, now: UnixSeconds) -> Result<String, Error> {
        self.links().create(key_name, now)
    }

    /// Uses up a one-time code: the session of its holder; `None` for a code that is used, old or unknown.
    #[must_use]
    pub fn redeem_link(&self, code: &str, now: UnixSeconds) -> Option<String> {
        let key_name = self.links().redeem(code, now)?;
        self.inner.keys.load().holder(&key_name, now)?;
        Some(session::sign(&self.inner.root, &key_name, now))
    }

    /// A session for who shows a key; `None` when the key is not good.
    #[must_use]
    pub fn start_session(&self, key: &str, now: UnixSeconds) -> Option<String> {
        match self.inner.keys.load().verify(key.trim(), now)? {
            Identity::Key { name, .. } => Some(session::sign(&self.inner.root, &name, now)),
            _ => None,
        }
    }

    /// Whose session this is; `None` when it has ended or its key is gone.
    #[must_use]
    pub fn session(&self, session: &str, now: UnixSeconds) -> Option<Identity> {
        let key_name = session::verify(&self.inner.root, session, now)?;
        self.inner.keys.load().holder(&key_name, now)
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.inner
            .links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change_keys<T>(
        &self,
        change: impl FnOnce(&mut Keyring) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _one_at_a_time: MutexGuard<'_, ()> = self
            .inner
            .keys_change
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut keys = Keyring::clone(&self.inner.keys.load());
        let answer = change(&mut keys)?;
        self.inner.keys.store(Arc::new(keys));
        Ok(answer)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}

/// Refuses a claim that is not the one expected.
fn refuse_other(claimed: Option<&Value>, own: &str, sender: &Identity) -> Result<(), Refusal> {
    match claimed {
        Some(claimed) if claimed.as_str() != Some(own) => Err(Refusal::ForgedSource {
            claimed: claimed
                .as_str()
                .map_or_else(|| claimed.to_string(), str::to_owned),
            sender: sender.to_string(),
        }),
        _ => Ok(()),
    }
}

fn open_root_key(path: &Path) -> Result<RootKey, Error> {
    let Some(bytes) = file::read(path)? else {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        file::replace(path, &bytes)?;
        return Ok(RootKey::new(bytes));
    };
    let found = bytes.len();
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| Error::Corrupt {
        path: path.to_owned(),
        detail: format!("found {found} bytes, expected 32"),
    })?;
    Ok(RootKey::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::id::{Epoch, InstanceId};
    use serde_json::json;

    struct House {
        _directory: tempfile::TempDir,
        authority: Authority,
    }

    fn house() -> House {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(directory.path(), Prefix::default()).expect("opens");
        authority.set_fleet(&fleet(&["api", "db"]));
        House {
            _directory: directory,
            authority,
        }
    }

    fn fleet(names: &[&str]) -> Fleet {
        let service = |name: &&str| {
            let name = ServiceName::new(*name).expect("id");
            (name, ServiceSpec::new(vec!["true".into()]))
        };
        Fleet {
            name: "test".into(),
            services: names.iter().map(service).collect(),
        }
    }

    fn api() -> Identity {
        Identity::Service {
            service: ServiceName::new("api").expect("id"),
            instance: InstanceId::from_parts(1, 1),
            epoch: Epoch(1),
        }
    }

    #[test]
    fn a_token_is_good_for_its_own_user_name_only_and_survives_a_restart() {
        let house = house();
        let token = house.authority.issue_token(&api());
        let again = Authority::open(house._directory.path(), Prefix::default()).expect("opens");
        again.set_fleet(&fleet(&["api"]));
        assert_eq!(again.authenticate_bus("api", &token, 0.0), Ok(api()));
        let other = again.authenticate_bus("db", &token, 0.0);
        assert_eq!(other, Err(Refusal::OtherUser("api".into())));
        let wrong = again.authenticate_bus("api", "alt_x.y", 0.0);
        assert_eq!(wrong, Err(Refusal::BadCredentials));
    }

    #[test]
    fn a_service_that_left_the_fleet_is_refused() {
        let house = house();
        let token = house.authority.issue_token(&api());
        house.authority.set_fleet(&fleet(&["db"]));
        let refused = house.authority.authenticate(&token, 0.0);
        assert!(matches!(refused, Err(Refusal::UnknownService(_))));
        assert!(
            !house
                .authority
                .permissions(&api())
                .may_publish("alicia/system/health/api", false)
        );
    }

    #[test]
    fn the_first_admin_key_is_made_once() {
        let house = house();
        let path = house._directory.path().join("admin.key");
        house.authority.ensure_admin_key(&path, 0.0).expect("made");
        let key = std::fs::read_to_string(&path).expect("there");
        let admin = Identity::Key {
            name: "admin".into(),
            scope: Scope::Admin,
        };
        assert_eq!(
            house.authority.authenticate_bus("admin", &key, 0.0),
            Ok(admin)
        );
        house
            .authority
            .ensure_admin_key(&path, 0.0)
            .expect("left alone");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), key);
    }

    #[test]
    fn nobody_speaks_for_another() {
        let house = house();
        let check = |topic: &str, message: &str, allowed: bool| {
            let answer = house
                .authority
                .check_payload(&api(), topic, message.as_bytes());
            assert_eq!(answer.is_ok(), allowed, "{topic} {message}");
        };
        let envelope = |source: &str, payload: Value| {
            json!({"source": source, "message_type": "event", "payload": payload}).to_string()
        };
        let health = "alicia/system/health/api";
        check(health, &envelope("api", json!({})), true);
        check(health, &envelope("db", json!({})), false);
        check(health, &envelope("db", json!(5)), false);
        check(
            health,
            r#"{"source":"api","source":"db","message_type":"event","payload":{}}"#,
            false,
        );
        check(
            health,
            r#"{"sourc\u0065":"db","message_type":"event","payload":{}}"#,
            false,
        );
        check(
            health,
            r#"{"source":5,"message_type":"event","payload":{}}"#,
            false,
        );
        check(health, r#"{"status":"healthy","source":"sensor 7"}"#, true);
        check(health, "not json", true);
        let register = "alicia/system/discovery/register";
        check(register, &envelope("api", json!({"service": "api"})), true);
        check(register, &envelope("api", json!({"service": "db"})), false);
        check(register, r#"{"service":"db"}"#, false);
        check(register, r#"{"service":"api"}"#, true);
    }
}
