//! Agents that nobody here starts: join tokens, and who has joined.
//!
//! ```text
//!   token ── join, once, with a key of the agent's own ──▶ agent, epoch n
//!                                      joins again ──▶ epoch n + 1, the older is cut off
//!                                        revoked   ──▶ gone, the epoch is remembered
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::identity::{AgentInfo, Grant, JoinTokenInfo, NewJoinToken};
use alicia_contract::unit::UnixSeconds;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, file};

/// What every join token starts with, so that scanners for leaked secrets find it.
pub(crate) const JOIN_TOKEN_PREFIX: &str = "alj_";

/// Join tokens that wait, and agents that have joined.
pub(crate) const AGENTS_MAX: usize = 1_000;

const TOKEN_BYTES: usize = 24;
/// Characters of a token by which it is told from others.
const ID_CHARS: usize = 8;

/// The agents of one host, and the tokens that wait.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Agents {
    path: PathBuf,
    book: Book,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Book {
    #[serde(default)]
    tokens: BTreeMap<String, StoredToken>,
    #[serde(default)]
    agents: BTreeMap<ServiceName, Agent>,
    /// The highest epoch that each name ever had, so that a revoked agent that joins again has a higher one.
    #[serde(default)]
    epochs: BTreeMap<ServiceName, Epoch>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredToken {
    hash: String,
    name: ServiceName,
    #[serde(default)]
    scopes: Vec<Grant>,
    expires: UnixSeconds,
}

/// An agent that has joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) instance: InstanceId,
    pub(crate) epoch: Epoch,
    pub(crate) scopes: Vec<Grant>,
    /// Its public key.
    pub(crate) x: String,
    pub(crate) joined: UnixSeconds,
    /// The end of its newest credential.
    pub(crate) valid_until: UnixSeconds,
}

// === impl Agents ===

impl Agents {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let book = match file::read(path)? {
            None => Book::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::Corrupt {
                path: path.to_owned(),
                detail: error.to_string(),
            })?,
        };
        Ok(Self {
            path: path.to_owned(),
            book,
        })
    }

    /// A token, and what is listed of it; on return it is on disk.
    pub(crate) fn create_token(
        &mut self,
        new: &NewJoinToken,
        now: UnixSeconds,
    ) -> Result<(String, JoinTokenInfo), Error> {
        let mut book = self.book.clone();
        book.tokens.retain(|_, token| token.expires > now);
        if book.tokens.len() >= AGENTS_MAX {
            return Err(Error::TooManyAgents(AGENTS_MAX));
        }
        let mut bytes = [0_u8; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(Error::Random)?;
        let secret = URL_SAFE_NO_PAD.encode(bytes);
        let text = format!("{JOIN_TOKEN_PREFIX}{secret}");
        let id = hash(&text)[..ID_CHARS].to_owned();
        let token = StoredToken {
            hash: hash(&text),
            name: new.name.clone(),
            scopes: new.scopes.clone(),
            expires: now + f64::from(new.ttl_s),
        };
        let info = token.info(&id);
        book.tokens.insert(id, token);
        self.replace(book)?;
        Ok((text, info))
    }

    /// The tokens that can still be used.
    pub(crate) fn tokens(&self, now: UnixSeconds) -> Vec<JoinTokenInfo> {
        let tokens = self.book.tokens.iter();
        tokens
            .filter(|(_, token)| token.expires > now)
            .map(|(id, token)| token.info(id))
            .collect()
    }

    /// Takes a token back.
    pub(crate) fn revoke_token(&mut self, id: &str) -> Result<JoinTokenInfo, Error> {
        let mut book = self.book.clone();
        let token = book.tokens.remove(id);
        let token = token.ok_or_else(|| Error::NoSuchAgent(format!("the join token {id:?}")))?;
        self.replace(book)?;
        Ok(token.info(id))
    }

    /// What a token is for, if it can be used now.
    pub(crate) fn token(&self, text: &str, now: UnixSeconds) -> Option<JoinTokenInfo> {
        let wanted = hash(text);
        let (id, token) = self
            .book
            .tokens
            .iter()
            .find(|(_, token)| token.hash == wanted && token.expires > now)?;
        Some(token.info(id))
    }

    /// Uses a token up: the agent has joined with a new epoch. On return both are on disk.
    pub(crate) fn join(
        &mut self,
        token: &JoinTokenInfo,
        x: &str,
        instance: InstanceId,
        life: (UnixSeconds, UnixSeconds),
    ) -> Result<Agent, Error> {
        let mut book = self.book.clone();
        let is_new = !book.agents.contains_key(&token.name);
        if is_new && book.agents.len() >= AGENTS_MAX {
            return Err(Error::TooManyAgents(AGENTS_MAX));
        }
        if book.tokens.remove(&token.id).is_none() {
            return Err(Error::BadJoinToken);
        }
        let epoch = book.epochs.entry(token.name.clone()).or_default();
        *epoch = epoch.next();
        let agent = Agent {
            instance,
            epoch: *epoch,
            scopes: token.scopes.clone(),
            x: x.to_owned(),
            joined: life.0,
            valid_until: life.1,
        };
        book.agents.insert(token.name.clone(), agent.clone());
        self.replace(book)?;
        Ok(agent)
    }

    /// An agent has a new credential.
    pub(crate) fn renewed(&mut self, name: &ServiceName, until: UnixSeconds) -> Result<(), Error> {
        let mut book = self.book.clone();
        if let Some(agent) = book.agents.get_mut(name) {
            agent.valid_until = until;
        }
        self.replace(book)
    }

    pub(crate) fn agent(&self, name: &ServiceName) -> Option<&Agent> {
        self.book.agents.get(name)
    }

    pub(crate) fn agents(&self) -> impl Iterator<Item = (&ServiceName, &Agent)> {
        self.book.agents.iter()
    }

    pub(crate) fn list(&self) -> Vec<AgentInfo> {
        self.agents()
            .map(|(name, agent)| agent.info(name))
            .collect()
    }

    /// Removes an agent; on return the removal is on disk.
    pub(crate) fn revoke(&mut self, name: &ServiceName) -> Result<AgentInfo, Error> {
        let mut book = self.book.clone();
        let agent = book.agents.remove(name);
        let agent = agent.ok_or_else(|| Error::NoSuchAgent(format!("the agent {name}")))?;
        self.replace(book)?;
        Ok(agent.info(name))
    }

    /// Where they lie.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn replace(&mut self, book: Book) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(&book).expect("texts and numbers");
        file::replace(&self.path, &bytes)?;
        self.book = book;
        Ok(())
    }
}

impl StoredToken {
    fn info(&self, id: &str) -> JoinTokenInfo {
        JoinTokenInfo {
            id: id.to_owned(),
            name: self.name.clone(),
            scopes: self.scopes.clone(),
            expires: self.expires,
        }
    }
}

impl Agent {
    fn info(&self, name: &ServiceName) -> AgentInfo {
        AgentInfo {
            name: name.clone(),
            instance: self.instance.clone(),
            epoch: self.epoch,
            scopes: self.scopes.clone(),
            joined: self.joined,
            valid_until: self.valid_until,
        }
    }
}

/// SHA-256 in hex: a token has 192 random bits, so that a plain hash is enough.
fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str) -> NewJoinToken {
        NewJoinToken {
            name: ServiceName::new(name).expect("id"),
            ttl_s: 600,
            scopes: Vec::new(),
        }
    }

    #[test]
    fn a_token_is_good_once_and_for_its_time_and_is_not_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agents.json");
        let mut agents = Agents::open(&path).expect("opens");
        let (text, info) = agents.create_token(&new("robot"), 0.0).expect("made");
        assert!(
            !std::fs::read_to_string(&path)
                .expect("there")
                .contains(&text)
        );
        assert_eq!(agents.token(&text, 600.0), None, "it has ended");
        assert_eq!(agents.token(&text, 599.0).as_ref(), Some(&info));
        let instance = InstanceId::from_parts(1, 1);
        let life = (1.0, 3_601.0);
        let agent = agents
            .join(&info, "x", instance.clone(), life)
            .expect("joins");
        assert_eq!(agent.epoch, Epoch(1));
        assert_eq!(agents.token(&text, 1.0), None, "it was used");
        let again = agents.join(&info, "x", instance, life);
        assert!(matches!(again, Err(Error::BadJoinToken)));
    }

    #[test]
    fn an_agent_that_joins_again_has_a_higher_epoch_even_when_it_was_revoked() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agents.json");
        let mut agents = Agents::open(&path).expect("opens");
        let name = ServiceName::new("robot").expect("id");
        for expected in 1..=3 {
            let (_, info) = agents.create_token(&new("robot"), 0.0).expect("made");
            let instance = InstanceId::from_parts(expected, 1);
            let agent = agents
                .join(&info, "x", instance, (0.0, 1.0))
                .expect("joins");
            assert_eq!(agent.epoch, Epoch(expected));
            if expected == 2 {
                agents.revoke(&name).expect("revoked");
                assert_eq!(agents.agent(&name), None);
            }
        }
        let again = Agents::open(&path).expect("opens");
        assert_eq!(again.list(), agents.list());
    }

    #[test]
    fn tokens_are_listed_and_taken_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut agents = Agents::open(&directory.path().join("agents.json")).expect("opens");
        let (text, info) = agents.create_token(&new("robot"), 0.0).expect("made");
        assert_eq!(agents.tokens(1.0), std::slice::from_ref(&info));
        assert_eq!(agents.tokens(601.0), []);
        agents.revoke_token(&info.id).expect("there");
        assert_eq!(agents.token(&text, 1.0), None);
        assert!(matches!(
            agents.revoke_token(&info.id),
            Err(Error::NoSuchAgent(_))
        ));
    }
}
