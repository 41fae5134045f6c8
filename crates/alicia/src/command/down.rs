//! `alicia down`: ends the fleet and the host.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::ApiClient;
use crate::cli::{Down, Global};
use crate::failure::{EXIT_FAILED, Outcome};
use crate::place;

/// The services have their grace periods; after this the host is stuck and somebody should look.
const END_TIMEOUT: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(super) async fn run(global: &Global, down: &Down) -> Outcome {
    let paths = place::paths(global)?;
    let api = ApiClient::find(global)?;
    let stop = json!({ "leave_running": down.keep_services });
    let answer: Value = api.post("/api/host/stop", &stop).await?;
    if !global.json {
        println!("{}", answer["detail"].as_str().unwrap_or_default());
    }
    if let Some(warning) = answer["warning"].as_str() {
        eprintln!("warning: {warning}");
    }
    if global.api.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let ended = tokio::time::timeout(END_TIMEOUT, async {
        while place::running_host(&paths).is_some() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
    if ended.await.is_err() {
        let seconds = END_TIMEOUT.as_secs();
        let remedy = place::running_host(&paths).map_or_else(String::new, |host| {
            let pid = host.pid;
            format!(
                "; its process is {pid}: `kill {pid}` asks it once more, `kill -9 {pid}` ends it and leaves the \
                 services to the next `alicia up`"
            )
        });
        eprintln!(
            "the host has not ended after {seconds} s; see `alicia logs --host` and host.log{remedy}"
        );
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    if !global.json {
        println!("ended");
    }
    Ok(ExitCode::SUCCESS)
}
