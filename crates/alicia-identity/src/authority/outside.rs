//! Agents that nobody here starts: they join with a token, and renew with their own key.

use alicia_contract::id::{InstanceId, ServiceName};
use alicia_contract::identity::{
    AgentInfo, JoinRequest, JoinTokenInfo, NewJoinToken, RenewRequest, Renewed, join_text,
    renewal_text,
};
use alicia_contract::unit::UnixSeconds;

use super::instances::{check_proof, millis};
use super::{Authority, relock};
use crate::Error;
use crate::credential::spiffe_id;
use crate::grants::{GRANTS_MAX, Grants};
use crate::identity::Identity;

/// An agent that has just joined.
#[derive(Debug)]
pub struct Admitted {
    /// `spiffe://<domain>/agent/<name>`.
    pub id: String,
    /// Who it is.
    pub identity: Identity,
    /// Its first credential.
    pub renewed: Renewed,
}

// === impl Authority ===

impl Authority {
    /// A join token; on return it is on disk. Blocks for the write.
    ///
    /// # Errors
    /// When a service of the file has the name, there are too many, or the file cannot be written.
    pub fn create_join_token(
        &self,
        new: &NewJoinToken,
        now: UnixSeconds,
    ) -> Result<(String, JoinTokenInfo), Error> {
        if self.is_service(&new.name) {
            return Err(Error::NameTaken(new.name.clone()));
        }
        if new.scopes.len() > GRANTS_MAX {
            return Err(Error::Scopes(GRANTS_MAX));
        }
        relock(&self.inner.agents).create_token(new, now)
    }

    /// The join tokens that can still be used.
    #[must_use]
    pub fn join_tokens(&self, now: UnixSeconds) -> Vec<JoinTokenInfo> {
        relock(&self.inner.agents).tokens(now)
    }

    /// Takes a join token back.
    ///
    /// # Errors
    /// When there is none of this id, or the file cannot be written.
    pub fn revoke_join_token(&self, id: &str) -> Result<JoinTokenInfo, Error> {
        relock(&self.inner.agents).revoke_token(id)
    }

    /// An agent joins with a token and a key of its own. An agent of this name that has joined before is cut off.
    /// Blocks for the write.
    ///
    /// # Errors
    /// When the token is not good, or the proof is not that of the key.
    pub fn join(&self, request: &JoinRequest, now: UnixSeconds) -> Result<Admitted, Error> {
        let text = join_text(&request.token, &request.key);
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(Error::Random)?;
        let instance = InstanceId::from_parts(millis(now), u128::from_le_bytes(random) >> 48);
        let ttl = self.settings().credential_ttl.duration().as_secs_f64();
        let (name, agent) = {
            let mut agents = relock(&self.inner.agents);
            let token = agents
                .token(&request.token, now)
                .ok_or(Error::BadJoinToken)?;
            check_proof(&request.key, &text, &request.proof)?;
            if self.is_service(&token.name) {
                return Err(Error::NameTaken(token.name));
            }
            let agent = agents.join(&token, &request.key, instance, (now, now + ttl))?;
            (token.name, agent)
        };
        self.changed();
        let identity = Identity::Agent {
            name: name.clone(),
            instance: agent.instance,
            epoch: agent.epoch,
            grants: Grants::new(agent.scopes),
        };
        Ok(Admitted {
            id: spiffe_id(&self.settings().domain, &name),
            renewed: self.issue_credential(&identity, now),
            identity,
        })
    }

    /// A new credential for an agent that has joined. Blocks for a write.
    ///
    /// # Errors
    /// When it was revoked, has joined again since, or its proof is not good.
    pub fn renew_agent(&self, request: &RenewRequest, now: UnixSeconds) -> Result<Renewed, Error> {
        let (name, instance, epoch) = (&request.name, &request.instance, request.epoch);
        let agent = relock(&self.inner.agents).agent(name).cloned();
        let agent = agent.filter(|agent| agent.instance == *instance && agent.epoch == epoch);
        let agent = agent.filter(|_| !self.is_service(name));
        let agent = agent.ok_or_else(|| {
            Error::MayNotAct(format!(
                "the agent {name} was revoked, has joined again, or a service of the file has its name"
            ))
        })?;
        let text = renewal_text(&request.nonce, name.as_str(), instance.as_str(), epoch.0);
        check_proof(&agent.x, &text, &request.proof)?;
        self.use_nonce(instance, &request.nonce, now)?;
        let identity = Identity::Agent {
            name: name.clone(),
            instance: instance.clone(),
            epoch,
            grants: Grants::new(agent.scopes),
        };
        let renewed = self.issue_credential(&identity, now);
        relock(&self.inner.agents).renewed(name, renewed.expires)?;
        Ok(renewed)
    }

    /// Whether a service of the file has this name. Then no agent may act under it, were it there before.
    pub(super) fn is_service(&self, name: &ServiceName) -> bool {
        self.inner.services.load().contains_key(name)
    }

    /// The agents that have joined.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentInfo> {
        relock(&self.inner.agents).list()
    }

    /// Revokes an agent: its credentials and its key are good for nothing from now on. Blocks for the write.
    ///
    /// # Errors
    /// When there is none of this name, or the file cannot be written.
    pub fn revoke_agent(&self, name: &ServiceName) -> Result<AgentInfo, Error> {
        let revoked = relock(&self.inner.agents).revoke(name)?;
        self.changed();
        Ok(revoked)
    }
}
