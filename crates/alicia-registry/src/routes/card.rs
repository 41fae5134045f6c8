//! REST: an instance as an A2A agent card.

use alicia_contract::a2a::AgentCard;
use alicia_contract::id::InstanceId;
use alicia_module::api::{Answer, PathParams};
use alicia_module::{Access, ApiError, Operation};
use axum::extract::State;

use super::{Module, refused};
use crate::card::{self, CARD_TYPE};
use crate::error::Refusal;

pub(super) fn operation(path: &'static str) -> Operation {
    Operation::get(
        path,
        "An instance as an A2A 1.0 agent card, signed by the house.",
    )
    .access(Access::Authenticated)
    .answers::<AgentCard>(200, "The card.")
    .refuses(404, "There is no such instance.")
}

pub(super) async fn card(
    State(module): Module,
    PathParams(instance): PathParams<InstanceId>,
) -> Result<Answer<AgentCard>, ApiError> {
    let unsigned = {
        let registry = module.shared.read();
        let entry = registry.get(&instance);
        entry.map(|entry| card::card(&registry, entry))
    };
    let mut found = unsigned.ok_or_else(|| refused(&Refusal::Unknown(instance).into()))?;
    let now = module.shared.now().unix;
    let identity = &module.router.identity;
    found.signatures = identity
        .sign_document(CARD_TYPE, &card::signed_bytes(&found), now)
        .into_iter()
        .map(|one| card::signature(one.protected, one.signature))
        .collect();
    Ok(Answer(found))
}
