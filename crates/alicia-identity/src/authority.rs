//! The one who is asked: who is this, may they do that.
//!
//! Cheap to clone. Decisions read snapshots and never wait for a disk or a lock held across one.

mod instances;
mod nonces;
mod outside;
mod sessions;
mod shared;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alicia_contract::fleet::{Fleet, ServiceSpec};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::identity::IdentitySettings;
use alicia_contract::platform::{KeyInfo, NewKey, Scope};
use alicia_contract::topic::Prefix;
use alicia_contract::unit::UnixSeconds;
use alicia_contract::{discovery, health};
use alicia_signature::KnownKey;
use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;

use crate::agents::Agents;
use crate::grants::{GRANTS_MAX, Grants};
use crate::identity::Identity;
use crate::key::ApiKey;
use crate::keyring::{KeyScope, Keyring};
use crate::permissions::Permissions;
use crate::roots::Roots;
use crate::runs::Runs;
use crate::session::Links;
use crate::{Error, credential, file, token};

use nonces::Nonces;

pub use instances::{Beginning, Process};
pub use outside::Admitted;

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
    /// A newer run has the place of this one, it has ended, or it was revoked.
    #[error(
        "{name} with epoch {epoch} ({instance}) may not act: a newer one has its place, or it has ended"
    )]
    StaleEpoch {
        /// The service or agent.
        name: ServiceName,
        /// The run.
        instance: InstanceId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The newest credential of an agent has ended.
    #[error("the credential of {0} has ended")]
    Expired(ServiceName),
    /// A credential shown under a client id that is not its run's.
    #[error("the credential is for the client id {expected}, not for {found:?}")]
    OtherClient {
        /// What the client id is, or begins with.
        expected: String,
        /// What it was.
        found: String,
    },
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
    roots: ArcSwap<Roots>,
    settings: ArcSwap<IdentitySettings>,
    runs: Runs,
    agents: Mutex<Agents>,
    /// The leading process of each run that is held here.
    processes: Mutex<HashMap<InstanceId, Process>>,
    nonces: Mutex<Nonces>,
    /// Every key that signs messages by its id, as of a version.
    known_keys: Mutex<(u64, HashMap<String, KnownKey>)>,
    /// When each key was last used, by its name.
    last_used: Mutex<HashMap<String, UnixSeconds>>,
    last_used_path: PathBuf,
    /// Where the last version of the directory of keys is written down.
    published_path: PathBuf,
    version: watch::Sender<u64>,
    /// Where versions of the directory begin: the time of the start.
    started_ms: AtomicU64,
    keys: ArcSwap<Keyring>,
    /// Held while keys are replaced, on disk or here: one change after the other.
    keys_change: Mutex<()>,
    /// The files of this directory as they were read last.
    seen: Mutex<shared::Seen>,
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
        let roots = Roots::open(directory)?;
        let runs = Runs::open(&directory.join("runs"))?;
        let agents = Agents::open(&directory.join("agents.json"))?;
        let last_used_path = directory.join("last-used.json");
        let last_used = file::read(&last_used_path)?
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let keys = Keyring::open(&directory.join("keys.json"))?;
        let scopes = [Scope::Read, Scope::Operate, Scope::Admin]
            .map(|scope| Arc::new(Permissions::of_key(&prefix, scope)));
        let modules = Arc::new(Permissions::of_module(&prefix));
        let inner = Inner {
            prefix,
            roots: ArcSwap::from_pointee(roots),
            settings: ArcSwap::default(),
            runs,
            agents: Mutex::new(agents),
            processes: Mutex::default(),
            nonces: Mutex::default(),
            known_keys: Mutex::default(),
            last_used: Mutex::new(last_used),
            last_used_path,
            published_path: directory.join("published.json"),
            version: watch::Sender::new(1),
            started_ms: AtomicU64::new(0),
            keys: ArcSwap::from_pointee(keys),
            keys_change: Mutex::new(()),
            seen: Mutex::default(),
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
        let (key, _) = self.change_keys(|keys| {
            keys.create(ADMIN_KEY_NAME, KeyScope::Ladder(Scope::Admin), now, None)
        })?;
        file::replace(path, format!("{}\n", key.reveal()).as_bytes())
    }

    /// Takes over the services of a new fleet. Holders of tokens of services that are gone are refused from now on.
    pub fn set_fleet(&self, fleet: &Fleet) {
        let permissions = |(name, spec): (&ServiceName, &Arc<ServiceSpec>)| {
            let granted = Permissions::of_service(&self.inner.prefix, name, &spec.allow);
            (name.clone(), Arc::new(granted))
        };
        self.inner
            .services
            .store(Arc::new(fleet.services.iter().map(permissions).collect()));
        self.changed();
    }

    /// Says when the host started: versions of the directory of keys begin there, so that they rise from host to host,
    /// or above the last one that was published, should the clock have been set back since.
    pub fn started(&self, now: UnixSeconds) {
        let published = file::read(&self.inner.published_path).ok().flatten();
        let published = published.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let first = instances::millis(now).max(published.unwrap_or_default());
        self.inner.started_ms.store(first, Ordering::Relaxed);
    }

    /// Writes down that a version of the directory of keys is known to others.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note_published(&self, version: u64) -> Result<(), Error> {
        let bytes = serde_json::to_vec(&version).expect("a number");
        file::replace_unsynced(&self.inner.published_path, &bytes)
    }

    /// The token of an instance or a module.
    ///
    /// # Panics
    /// For the holder of a key: it has one already.
    #[must_use]
    pub fn issue_token(&self, identity: &Identity) -> String {
        token::sign(self.inner.roots.load().mac(), identity)
            .expect("tokens are for instances and modules")
    }

    /// Who proves to be who with this token, credential or key.
    ///
    /// # Errors
    /// [`Refusal::BadCredentials`]; [`Refusal::UnknownService`] for a service that is gone; [`Refusal::StaleEpoch`]
    /// for a run that may not act any more.
    pub fn authenticate(&self, credential: &str, now: UnixSeconds) -> Result<Identity, Refusal> {
        self.prove(credential, now).map(|(identity, _)| identity)
    }

    /// As [`Self::authenticate`], and whether it was with a credential rather than a token or key.
    fn prove(&self, text: &str, now: UnixSeconds) -> Result<(Identity, bool), Refusal> {
        let text = text.trim();
        let roots = self.inner.roots.load();
        let by_credential =
            credential::verify(text, &roots.public(now), now).map(|(identity, _)| identity);
        let is_credential = by_credential.is_some();
        let identity = by_credential
            .or_else(|| roots.macs(now).find_map(|mac| token::verify(mac, text)))
            .or_else(|| self.inner.keys.load().verify(text, now))
            .ok_or(Refusal::BadCredentials)?;
        match &identity {
            Identity::Service { service, .. } if !self.is_service(service) => {
                return Err(Refusal::UnknownService(service.clone()));
            }
            Identity::Key { name, .. } | Identity::Limited { name, .. } => {
                relock(&self.inner.last_used).insert(name.clone(), now);
            }
            _ => self.may_act(&identity)?,
        }
        Ok((identity, is_credential))
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
        self.prove_bus(user_name, password, now)
            .map(|(identity, _)| identity)
    }

    fn prove_bus(
        &self,
        user_name: &str,
        password: &str,
        now: UnixSeconds,
    ) -> Result<(Identity, bool), Refusal> {
        let (identity, is_credential) = self.prove(password, now)?;
        if identity.user_name() == user_name {
            Ok((identity, is_credential))
        } else {
            Err(Refusal::OtherUser(identity.to_string()))
        }
    }

    /// As [`Self::authenticate_bus`], for a client with this id. A credential is good for the client ids of its run
    /// only, `<service>-<instance>` or what begins with it and `-`, so that who steals one cannot be there beside
    /// its owner.
    ///
    /// # Errors
    /// As [`Self::authenticate_bus`], and [`Refusal::OtherClient`].
    pub fn authenticate_client(
        &self,
        user_name: &str,
        password: &str,
        client_id: &str,
        now: UnixSeconds,
    ) -> Result<Identity, Refusal> {
        let (identity, is_credential) = self.prove_bus(user_name, password, now)?;
        if let Some((name, instance, _)) = identity.run().filter(|_| is_credential) {
            let expected = format!("{name}-{instance}");
            let rest = client_id.strip_prefix(&expected);
            if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
                let found = client_id.chars().take(128).collect();
                return Err(Refusal::OtherClient { expected, found });
            }
        }
        Ok(identity)
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
            Identity::Limited { name, grants } => Arc::new(Permissions::of_limited_key(
                &self.inner.prefix,
                name,
                grants,
            )),
            Identity::Agent { name, grants, .. } => {
                Arc::new(Permissions::of_agent(&self.inner.prefix, name, grants))
            }
        }
    }

    /// Checks that a message claims no other source than its sender, and registers, removes and keeps alive no other
    /// service and no other instance.
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
        let attached = alicia_signature::message::detach(payload);
        let payload = attached.as_ref().map_or(payload, |(inner, _)| inner);
        let Ok(message) = serde_json::from_slice::<Value>(payload) else {
            return Ok(());
        };
        let is_envelope = message.get("message_type").is_some() && message.get("payload").is_some();
        let source = message.get("source").filter(|_| is_envelope);
        refuse_other(source, &sender.to_string(), sender)?;
        let is_heartbeat = health::HEARTBEAT
            .values(&self.inner.prefix, topic)
            .is_some();
        if !is_heartbeat && !self.announces_a_service(topic) {
            return Ok(());
        }
        let announcement = if is_envelope {
            &message["payload"]
        } else {
            &message
        };
        // An instance speaks for itself: not for the other instances of its service either.
        if let Some((_, own, _)) = sender.run() {
            let claimed = announcement.get("instance").filter(|it| !it.is_null());
            refuse_other(claimed, own.as_str(), sender)?;
        }
        if is_heartbeat {
            return Ok(());
        }
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
        let mut keys = self.inner.keys.load().list();
        let last_used = relock(&self.inner.last_used);
        for key in &mut keys {
            key.last_used = last_used.get(&key.name).copied();
        }
        keys
    }

    /// Writes down when keys were last used. Called now and then: what is lost in a crash is a minute.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_last_used(&self) -> Result<(), Error> {
        let last_used = relock(&self.inner.last_used).clone();
        let bytes = serde_json::to_vec(&last_used).expect("texts and numbers");
        file::replace_unsynced(&self.inner.last_used_path, &bytes)
    }

    /// Makes a key; on return it is on disk. Blocks for the write.
    ///
    /// # Errors
    /// As [`Keyring::create`].
    pub fn create_key(&self, new: &NewKey, now: UnixSeconds) -> Result<(ApiKey, KeyInfo), Error> {
        let expires = new
            .expires_days
            .map(|days| now + f64::from(days) * 86_400.0);
        let scope = match (new.scope, new.scopes.as_slice()) {
            (Some(scope), []) => KeyScope::Ladder(scope),
            (None, [_, ..]) if new.scopes.len() <= GRANTS_MAX => limited(new),
            _ => return Err(Error::Scopes(GRANTS_MAX)),
        };
        self.change_keys(|keys| keys.create(new.name.as_str(), scope, now, expires))
    }

    /// Removes a key; on return the removal is on disk. Blocks for the write.
    ///
    /// # Errors
    /// As [`Keyring::revoke`].
    pub fn revoke_key(&self, name: &str, now: UnixSeconds) -> Result<KeyInfo, Error> {
        self.change_keys(|keys| keys.revoke(name, now))
    }

    fn change_keys<T>(
        &self,
        change: impl FnOnce(&mut Keyring) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _one_at_a_time = relock(&self.inner.keys_change);
        let mut keys = Keyring::clone(&self.inner.keys.load());
        let answer = change(&mut keys)?;
        self.inner.keys.store(Arc::new(keys));
        self.changed();
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

/// What a key of limited scope may do; one whose scopes hold a step of the ladder may do that too.
fn limited(new: &NewKey) -> KeyScope {
    let grants = Grants::new(new.scopes.clone());
    KeyScope::Limited(grants.iter().cloned().collect())
}

/// Locks; each lock is held for a few lines, and what it guards is whole after a panic.
fn relock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            (name, ServiceSpec::new(vec!["true".into()]).into())
        };
        Fleet {
            name: "test".into(),
            services: names.iter().map(service).collect(),
            ..Fleet::default()
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
        let (own, other) = (InstanceId::from_parts(1, 1), InstanceId::from_parts(2, 2));
        for topic in [
            health,
            "alicia/system/discovery/register",
            "alicia/system/discovery/unregister",
        ] {
            let of = |instance: Value| json!({ "service": "api", "instance": instance });
            check(topic, &of(json!(own)).to_string(), true);
            check(topic, &of(Value::Null).to_string(), true);
            check(topic, &of(json!(other)).to_string(), false);
            check(topic, &envelope("api", of(json!(own))), true);
            check(topic, &envelope("api", of(json!(other))), false);
        }
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
