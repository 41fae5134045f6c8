//! REST of the stored secrets: set, listed, rotated, removed; never read. Only a service that is started gets a value.

use alicia_contract::platform::{Scope, SecretInfo};
use alicia_module::api::{Access, Answer, Api, Body, Caller, PathParams};
use alicia_module::{ApiError, Operation};
use alicia_secrets::{Described, Error, Secret, is_name};
use alicia_store::audit::Outcome;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::platform::Platform;
use crate::audit::record::Act;

/// A value; one of the two fields. It does not print.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSecret {
    /// The value as text.
    #[schemars(with = "Option<String>")]
    value: Option<Secret>,
    /// The value in base64, when it is no text.
    #[schemars(with = "Option<String>")]
    base64: Option<Secret>,
}

/// Adds the operations to those of the platform.
pub(super) fn with(api: Api<Platform>) -> Api<Platform> {
    let admin = Access::Scope(Scope::Admin);
    api.with(
        Operation::get(
            "/api/secrets",
            "Every stored secret, without its value, and who uses it.",
        )
        .access(admin)
        .answers::<Vec<SecretInfo>>(200, "The secrets, by name."),
        list,
    )
    .with(
        Operation::post("/api/secrets/{name}", "Sets a secret, new or not.")
            .access(admin)
            .body::<NewSecret>()
            .answers::<SecretInfo>(200, "It is stored, sealed.")
            .refuses(409, "There are too many.")
            .refuses(422, "A name or value that cannot be used."),
        set,
    )
    .with(
        Operation::post(
            "/api/secrets/{name}/rotate",
            "Gives a secret that is there a new value.",
        )
        .access(admin)
        .body::<NewSecret>()
        .answers::<SecretInfo>(200, "Starts from now on get the new value.")
        .refuses(404, "There is no such secret.")
        .refuses(422, "A value that cannot be used."),
        rotate,
    )
    .with(
        Operation::delete("/api/secrets/{name}", "Removes a secret.")
            .access(admin)
            .answers::<SecretInfo>(200, "The secret that was removed.")
            .refuses(404, "There is no such secret."),
        remove,
    )
}

async fn list(State(platform): State<Platform>) -> Result<Answer<Vec<SecretInfo>>, ApiError> {
    let vault = platform.vault.clone();
    let secrets = blocking(move || vault.list()).await?;
    Ok(Answer(
        secrets
            .into_iter()
            .map(|secret| platform.secret(secret))
            .collect(),
    ))
}

async fn set(
    State(platform): State<Platform>,
    Caller(caller): Caller,
    PathParams(name): PathParams<String>,
    Body(new): Body<NewSecret>,
) -> Result<Answer<SecretInfo>, ApiError> {
    let value = new.value()?;
    platform
        .note(&caller.to_string(), "set", &name, Outcome::Done)
        .await?;
    platform
        .store_secret(&caller.to_string(), name, value)
        .await
}

async fn rotate(
    State(platform): State<Platform>,
    Caller(caller): Caller,
    PathParams(name): PathParams<String>,
    Body(new): Body<NewSecret>,
) -> Result<Answer<SecretInfo>, ApiError> {
    let value = new.value()?;
    let (vault, wanted) = (platform.vault.clone(), name.clone());
    let is_there = blocking(move || vault.list())
        .await?
        .iter()
        .any(|secret| secret.name == wanted);
    if !is_there {
        return Err(problem(&Error::NoSuchSecret(name)));
    }
    platform
        .note(&caller.to_string(), "rotate", &name, Outcome::Done)
        .await?;
    platform
        .store_secret(&caller.to_string(), name, value)
        .await
}

async fn remove(
    State(platform): State<Platform>,
    Caller(caller): Caller,
    PathParams(name): PathParams<String>,
) -> Result<Answer<SecretInfo>, ApiError> {
    platform
        .note(&caller.to_string(), "remove", &name, Outcome::Done)
        .await?;
    let (vault, removed) = (platform.vault.clone(), name.clone());
    match blocking(move || vault.remove(&removed)).await {
        Ok(secret) => Ok(Answer(platform.secret(secret))),
        Err(error) => {
            platform
                .note(&caller.to_string(), "remove", &name, Outcome::Failed)
                .await?;
            Err(error)
        }
    }
}

impl NewSecret {
    fn value(self) -> Result<Secret, ApiError> {
        match (self.value, self.base64) {
            (Some(value), None) => Ok(value),
            (None, Some(text)) => STANDARD
                .decode(text.expose())
                .map(Secret::new)
                .map_err(|_| unusable("`base64` is not base64 with padding (RFC 4648, section 4)")),
            _ => Err(unusable("send either `value` or `base64`")),
        }
    }
}

impl Platform {
    async fn store_secret(
        &self,
        caller: &str,
        name: String,
        value: Secret,
    ) -> Result<Answer<SecretInfo>, ApiError> {
        let (vault, now, target) = (self.vault.clone(), self.clock.unix(), name.clone());
        match blocking(move || vault.set(&name, value, now)).await {
            Ok(secret) => Ok(Answer(self.secret(secret))),
            Err(error) => {
                self.note(caller, "set", &target, Outcome::Failed).await?;
                Err(error)
            }
        }
    }

    /// Written down before it is done.
    async fn note(
        &self,
        actor: &str,
        verb: &str,
        name: &str,
        outcome: Outcome,
    ) -> Result<(), ApiError> {
        if !is_name(name) {
            return Err(problem(&Error::BadName(name.to_owned())));
        }
        let act = Act {
            actor: actor.to_owned(),
            action: format!("secret.{verb}"),
            target: format!("secret:{name}"),
            outcome,
            detail: Value::Object(Default::default()),
        };
        self.audit.recorder.record(act).await
    }

    fn secret(&self, secret: Described) -> SecretInfo {
        let loaded = self.house.fleet();
        let users = loaded.services.iter().filter(|(_, spec)| {
            let secrets = &spec.secrets.0;
            secrets.iter().any(|(name, given)| {
                given.file.is_none() && given.stored_as(name).as_str() == secret.name
            })
        });
        let used_by = users.map(|(service, _)| service.clone()).collect();
        SecretInfo {
            name: secret.name,
            version: secret.version,
            created: secret.created,
            changed: secret.changed,
            used_by,
        }
    }
}

/// Files wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, ApiError> {
    let outcome = tokio::task::spawn_blocking(work).await;
    let outcome = outcome.map_err(|_| ApiError::unavailable("host", "the house is closing"))?;
    outcome.map_err(|error| problem(&error))
}

fn problem(error: &Error) -> ApiError {
    let (status, code, title) = match error {
        Error::NoSuchSecret(_) => (
            StatusCode::NOT_FOUND,
            "host.no_such_secret",
            "No such secret",
        ),
        Error::BadName(_) | Error::BadValue { .. } => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "host.unusable_secret",
            "It cannot be used",
        ),
        Error::TooMany(_) => (
            StatusCode::CONFLICT,
            "host.too_many_secrets",
            "Too many secrets",
        ),
        Error::File { .. }
        | Error::OpenKey { .. }
        | Error::BadKey { .. }
        | Error::OtherKey { .. }
        | Error::KeyGone { .. }
        | Error::Damaged { .. }
        | Error::Random(_) => return ApiError::internal("host", error),
    };
    ApiError::new(status, code, title, format!("failed to {error}"))
}

fn unusable(detail: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "host.unusable_secret",
        "It cannot be used",
        detail,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Secret, ApiError> {
        let new: NewSecret = serde_json::from_value(value).expect("it has the form");
        assert!(!format!("{new:?}").contains("hunter2"));
        new.value()
    }

    #[test]
    fn a_value_is_text_or_base64() {
        assert_eq!(
            read(json!({"value": "hunter2"})).expect("text").expose(),
            b"hunter2"
        );
        assert_eq!(
            read(json!({"base64": "AP8="})).expect("bytes").expose(),
            [0, 255]
        );
        for bad in [
            json!({}),
            json!({"value": "a", "base64": "YQ=="}),
            json!({"base64": "?"}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
