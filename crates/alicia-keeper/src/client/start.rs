//! Starts a keeper where none runs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::{Client, Session};
use crate::error::{Error, Result};

/// A keeper listens some milliseconds after its start; this is for a box under load.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries, while another host's keeper is about to listen.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

pub(super) async fn connect_or_start(
    directory: &Path,
    program: &Path,
    arguments: &[String],
) -> Result<Session> {
    match Client::connect(directory).await {
        Err(Error::NotRunning { .. }) => {}
        other => return other,
    }
    let start = async {
        let refusal = launch(program, arguments).await?;
        loop {
            // Where two hosts start at once, one keeper finds the directory locked: then the other
            // one is, or will be, there.
            match Client::connect(directory).await {
                Err(Error::NotRunning { .. }) if refusal.is_none() => sleep(RETRY_INTERVAL).await,
                Err(Error::NotRunning { .. }) => match &refusal {
                    Some(Refusal::Locked) => sleep(RETRY_INTERVAL).await,
                    Some(Refusal::Failed(reason)) => return Err(not_started(program, reason)),
                    None => {}
                },
                other => return other,
            }
        }
    };
    timeout(START_TIMEOUT, start)
        .await
        .unwrap_or_else(|_| Err(not_started(program, "it does not listen")))
}

enum Refusal {
    Locked,
    Failed(String),
}

/// Runs the program until it has detached itself.
async fn launch(program: &Path, arguments: &[String]) -> Result<Option<Refusal>> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .await
        .map_err(|error| not_started(program, &error.to_string()))?;
    if output.status.success() {
        return Ok(None);
    }
    if output.status.code() == Some(i32::from(crate::EXIT_LOCKED)) {
        return Ok(Some(Refusal::Locked));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(Some(Refusal::Failed(format!(
        "{}: {}",
        output.status,
        said.trim()
    ))))
}

fn not_started(program: &Path, reason: &str) -> Error {
    Error::NotStarted {
        program: program.display().to_string(),
        reason: reason.to_owned(),
    }
}
