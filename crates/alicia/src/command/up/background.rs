//! `alicia up -d`: starts a host of its own session and waits until its services are settled.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use alicia_module::Paths;
use anyhow::Context as _;

use super::settle;
use crate::api::ApiClient;
use crate::cli::{Global, Up};
use crate::failure::{EXIT_FAILED, Outcome};
use crate::place;

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A host that has not written itself down by then is stuck; its log says where.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(global: &Global, up: &Up, paths: &Paths) -> Outcome {
    place::make_private(paths.data())?;
    let log_start = std::fs::metadata(paths.host_log()).map_or(0, |log| log.len());
    let mut child = start(global, up, paths)?;
    let found = tokio::time::timeout(START_TIMEOUT, async {
        loop {
            if let Some(host) = place::running_host(paths) {
                return Ok::<_, std::io::Error>(Some(host));
            }
            if child.try_wait()?.is_some() {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
    match found.await {
        Ok(Ok(Some(host))) => {
            let global = Global {
                api: Some(host.api),
                data: Some(paths.data().to_owned()),
                ..global.clone()
            };
            let api = ApiClient::find(&global)?;
            if !global.json {
                println!(
                    "the fleet runs at {} (pid {}); `alicia open` prints a link to the page",
                    api.base(),
                    host.pid
                );
            }
            settle::wait(&api, &global, up).await
        }
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(None)) => Ok(tell_log(
            &paths.host_log(),
            log_start,
            "the host ended at once",
        )),
        Err(_) => Ok(tell_log(
            &paths.host_log(),
            log_start,
            "the host did not get ready",
        )),
    }
}

/// Starts this program again in a session of its own, with its output in the log of the host.
fn start(global: &Global, up: &Up, paths: &Paths) -> Outcome<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(paths.host_log())
        .with_context(|| format!("open {}", paths.host_log().display()))?;
    let mut command = Command::new(place::program()?);
    if let Some(file) = &global.file {
        command.arg("--file").arg(file);
    }
    for set in &global.set {
        command.arg("--set").arg(set);
    }
    command
        .arg("--data")
        .arg(paths.data())
        .args(["up", "--background"]);
    for profile in &up.profile {
        command.arg("--profile").arg(profile);
    }
    // The group of its own keeps the terminal's Control-C away; the host makes a session of it.
    command.args(&up.services).process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command.spawn().context("start the host")?)
}

/// Shows what the host wrote since this start.
fn tell_log(path: &Path, from: u64, what: &str) -> ExitCode {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(16 << 10).read_to_string(&mut text)
    });
    match read {
        Ok(_) => eprintln!("{}", text.trim_end()),
        Err(error) => eprintln!("{} cannot be read: {error}", path.display()),
    }
    eprintln!("{what}; the log is {}", path.display());
    ExitCode::from(EXIT_FAILED)
}
