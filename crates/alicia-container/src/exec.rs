//! A program in a container that runs: how `exec` probes look at a service in one.

use alicia_contract::InstanceId;
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use crate::engine::{Ask, Engine, Error, escape};
use crate::frames::Frames;
use crate::settings::{LABEL_FLEET, LABEL_INSTANCE};

/// How much of its output is kept.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Runs a program in the container of a run; gives its exit code and what it said.
///
/// # Errors
/// When there is no such container, or the engine refuses.
pub async fn exec(
    engine: &Engine,
    fleet: &str,
    instance: &InstanceId,
    command: &[String],
) -> Result<(u8, Vec<u8>), Error> {
    let labels = [
        format!("{LABEL_FLEET}={fleet}"),
        format!("{LABEL_INSTANCE}={instance}"),
    ];
    let filters = escape(&json!({ "label": labels }).to_string());
    let path = format!("/containers/json?filters={filters}");
    let found = engine.ask(Ask::get("list containers", path)).await?;
    let Some(id) = found[0]["Id"].as_str() else {
        return Err(Error::Refused {
            what: "run a program in the container".to_owned(),
            status: 404,
            message: "the container does not run".to_owned(),
        });
    };
    let body = json!({ "Cmd": command, "AttachStdout": true, "AttachStderr": true });
    let path = format!("/containers/{id}/exec");
    let made = engine
        .ask(Ask::post(
            "run a program in the container",
            path,
            Some(body),
        ))
        .await?;
    let id = made["Id"].as_str().unwrap_or_default().to_owned();
    let path = format!("/exec/{id}/start");
    let body = json!({ "Detach": false, "Tty": false });
    let (_, said) = engine
        .send(Ask::post(
            "run a program in the container",
            path,
            Some(body),
        ))
        .await?;
    let said = Limited::new(said, OUTPUT_BYTES_MAX).collect().await;
    let mut frames = Frames::default();
    frames.push(&said.map(|body| body.to_bytes()).unwrap_or_default());
    let mut output = Vec::new();
    while let Some((_, bytes)) = frames.next() {
        output.extend_from_slice(&bytes);
    }
    let path = format!("/exec/{id}/json");
    let ended = engine
        .ask(Ask::get("say how the program ended", path))
        .await?;
    let code = ended["ExitCode"]
        .as_u64()
        .and_then(|code| u8::try_from(code).ok());
    Ok((code.unwrap_or(u8::MAX), output))
}
