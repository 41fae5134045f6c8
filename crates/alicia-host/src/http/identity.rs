//! REST of identities: join tokens, agents that join and renew, the keys of all, rotation.

use alicia_contract::ServiceName;
use alicia_contract::identity::{
    AgentInfo, CreatedJoinToken, JoinRequest, JoinTokenInfo, Joined, KeyDirectory, NewJoinToken,
    Nonce, RenewRequest, Renewed, Rotated,
};
use alicia_contract::platform::Scope;
use alicia_module::api::{Access, Answer, Api, Body, Caller, PathParams};
use alicia_module::{ApiError, Operation};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;

use super::platform::{Platform, blocking, key_error};

/// The shortest and the longest life of a join token, in seconds.
const JOIN_TTL_S: std::ops::RangeInclusive<u32> = 10..=86_400;

/// Adds the operations to those of the platform.
pub(super) fn with(api: Api<Platform>) -> Api<Platform> {
    let admin = Access::Scope(Scope::Admin);
    api.with(
        Operation::post(
            "/api/identity/join-tokens",
            "Makes a join token, good once, for an agent that nobody here starts.",
        )
        .access(admin)
        .body::<NewJoinToken>()
        .answers::<CreatedJoinToken>(201, "The token; it is not shown again.")
        .refuses(409, "A service of the file has this name."),
        create_join_token,
    )
    .with(
        Operation::get(
            "/api/identity/join-tokens",
            "The join tokens that can still be used.",
        )
        .access(admin)
        .answers::<Vec<JoinTokenInfo>>(200, "The tokens, without their secrets."),
        join_tokens,
    )
    .with(
        Operation::delete("/api/identity/join-tokens/{id}", "Takes a join token back.")
            .access(admin)
            .answers::<JoinTokenInfo>(200, "The token that was taken back.")
            .refuses(404, "There is no such token."),
        revoke_join_token,
    )
    .with(
        Operation::post(
            "/api/identity/join",
            "An agent joins, with a join token and a key of its own.",
        )
        .access(Access::Open)
        .body::<JoinRequest>()
        .answers::<Joined>(201, "It has joined; an older copy of it is cut off.")
        .refuses(403, "The token or the proof is not good."),
        join,
    )
    .with(
        Operation::get(
            "/api/identity/nonce",
            "A text to be signed for a renewal, good once and for a minute.",
        )
        .access(Access::Open)
        .answers::<Nonce>(200, "The nonce."),
        nonce,
    )
    .with(
        Operation::post(
            "/api/identity/renew",
            "A new credential for an agent that has joined.",
        )
        .access(Access::Open)
        .body::<RenewRequest>()
        .answers::<Renewed>(200, "The credential.")
        .refuses(
            403,
            "It was revoked, has joined again, or the proof is not good.",
        ),
        renew,
    )
    .with(
        Operation::get("/api/identity/agents", "The agents that have joined.")
            .answers::<Vec<AgentInfo>>(200, "The agents."),
        agents,
    )
    .with(
        Operation::delete(
            "/api/identity/agents/{name}",
            "Revokes an agent: its credentials and its key are good for nothing.",
        )
        .access(admin)
        .answers::<AgentInfo>(200, "The agent that was revoked.")
        .refuses(404, "There is no such agent."),
        revoke_agent,
    )
    .with(
        Operation::get(
            "/api/identity/keys",
            "The public keys of all who may act, as on the bus.",
        )
        .access(Access::Authenticated)
        .answers::<KeyDirectory>(200, "The directory."),
        keys,
    )
    .with(
        Operation::post(
            "/api/identity/rotate",
            "Makes new root keys; the older ones are good until everybody has renewed.",
        )
        .access(admin)
        .answers::<Rotated>(200, "What was done.")
        .refuses(409, "Too many root keys overlap already."),
        rotate,
    )
}

async fn create_join_token(
    State(platform): State<Platform>,
    Caller(caller): Caller,
    Body(new): Body<NewJoinToken>,
) -> Result<(StatusCode, Json<CreatedJoinToken>), ApiError> {
    if !JOIN_TTL_S.contains(&new.ttl_s) {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "host.invalid_input",
            "Invalid input",
            format!("ttl_s is {}, expected 10 to 86400", new.ttl_s),
        ));
    }
    let (now, identity) = (platform.clock.unix(), platform.identity.clone());
    let (token, info) = blocking(move || identity.create_join_token(&new, now)).await?;
    tracing::info!(%caller, agent = %info.name, id = info.id, "join token created");
    Ok((StatusCode::CREATED, Json(CreatedJoinToken { info, token })))
}

async fn join_tokens(State(platform): State<Platform>) -> Answer<Vec<JoinTokenInfo>> {
    Answer(platform.identity.join_tokens(platform.clock.unix()))
}

async fn revoke_join_token(
    State(platform): State<Platform>,
    Caller(caller): Caller,
    PathParams(id): PathParams<String>,
) -> Result<Answer<JoinTokenInfo>, ApiError> {
    let identity = platform.identity.clone();
    let revoked = blocking(move || identity.revoke_join_token(&id)).await?;
    tracing::info!(%caller, agent = %revoked.name, id = revoked.id, "join token revoked");
    Ok(Answer(revoked))
}

async fn join(
    State(platform): State<Platform>,
    Body(request): Body<JoinRequest>,
) -> Result<(StatusCode, Json<Joined>), ApiError> {
    let (now, identity) = (platform.clock.unix(), platform.identity.clone());
    let admitted = blocking(move || identity.join(&request, now)).await;
    let admitted =
        admitted.inspect_err(|refusal| tracing::warn!(?refusal, "an agent was not admitted"))?;
    let Some((name, instance, epoch)) = admitted.identity.run() else {
        return Err(ApiError::unavailable("host", "the agent has no run"));
    };
    tracing::info!(agent = %name, %instance, %epoch, "an agent joined");
    let bus = platform.addresses.bus();
    let bus = bus.borrow().as_ref().map(ToString::to_string);
    let joined = Joined {
        id: admitted.id,
        name: name.clone(),
        instance: instance.clone(),
        epoch,
        renewed: admitted.renewed,
        bus,
        prefix: platform.identity.prefix().to_string(),
        signatures: platform.identity.signature_policy(),
    };
    Ok((StatusCode::CREATED, Json(joined)))
}

async fn nonce(State(platform): State<Platform>) -> Result<Answer<Nonce>, ApiError> {
    let nonce = platform.identity.nonce(platform.clock.unix());
    Ok(Answer(Nonce {
        nonce: nonce.map_err(key_error)?,
    }))
}

async fn renew(
    State(platform): State<Platform>,
    Body(request): Body<RenewRequest>,
) -> Result<Answer<Renewed>, ApiError> {
    let (now, identity) = (platform.clock.unix(), platform.identity.clone());
    let renewed = blocking(move || identity.renew_agent(&request, now)).await;
    let renewed =
        renewed.inspect_err(|refusal| tracing::warn!(?refusal, "a credential was refused"))?;
    Ok(Answer(renewed))
}

async fn agents(State(platform): State<Platform>) -> Answer<Vec<AgentInfo>> {
    Answer(platform.identity.agents())
}

async fn revoke_agent(
    State(platform): State<Platform>,
    Caller(caller): Caller,
    PathParams(name): PathParams<ServiceName>,
) -> Result<Answer<AgentInfo>, ApiError> {
    let identity = platform.identity.clone();
    let revoked = blocking(move || identity.revoke_agent(&name)).await?;
    tracing::info!(%caller, agent = %revoked.name, "agent revoked");
    Ok(Answer(revoked))
}

async fn keys(State(platform): State<Platform>) -> Answer<KeyDirectory> {
    Answer(platform.identity.directory(platform.clock.unix()))
}

async fn rotate(
    State(platform): State<Platform>,
    Caller(caller): Caller,
) -> Result<Answer<Rotated>, ApiError> {
    let (now, identity) = (platform.clock.unix(), platform.identity.clone());
    let credentials = platform.credentials.clone();
    let rotated = blocking(move || identity.rotate_roots(&credentials, now)).await?;
    tracing::info!(%caller, kid = rotated.kid, "root keys rotated");
    Ok(Answer(rotated))
}
