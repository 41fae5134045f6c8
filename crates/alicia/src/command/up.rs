//! `alicia up`: the fleet in the foreground with a live table, or in the background.

mod background;
mod settle;
mod table;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use alicia_contract::platform::HostFile;
use alicia_host::{Host, HostHandle, HostOptions, Loaded, Reread};
use alicia_identity::Identity;
use alicia_module::{Clock, Paths};
use anyhow::Context as _;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::ApiClient;
use crate::cli::{Global, Up};
use crate::error_pages::ERROR_PAGES;
use crate::failure::{EXIT_FAILED, Failure, Outcome};
use crate::log::{self, Beside};
use crate::modules::MODULES;
use crate::place::{self, FleetFile};

/// How `alicia` itself is called on the modules' own routes: with every right, as it is the same process.
const OWN_NAME: &str = "command-line";

pub(super) fn run(global: &Global, up: &Up) -> Outcome {
    let loaded = place::load_file(global)?;
    let paths = Paths::new(place::data_directory(global, Some(&loaded))?, &loaded.base);
    if !up.background
        && let Some(host) = place::running_host(&paths)
    {
        refuse_other_fleet(global, &host, &paths)?;
        return super::wait_for(settle::join(global, up, host.directory.as_deref()));
    }
    if up.detach {
        return super::wait_for(background::run(global, up, &paths));
    }
    let has_table = !up.background && !up.no_table && std::io::stdout().is_terminal();
    crate::hidden::hide();
    let beside = if has_table {
        Beside::Nothing
    } else {
        Beside::Stderr
    };
    log::start_in_file(&loaded.settings.log, &paths.host_log(), beside)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(host(global, up, loaded, &paths, has_table))
}

/// The file of this directory is not taken over by a host that runs the file of another one: nothing of it would start.
fn refuse_other_fleet(global: &Global, host: &HostFile, paths: &Paths) -> Outcome<()> {
    let (FleetFile::Path(file), Some(theirs)) = (FleetFile::find(global), &host.directory) else {
        return Ok(());
    };
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if whole(paths.base()) == whole(Path::new(theirs)) {
        return Ok(());
    }
    Err(Failure::Other(anyhow::anyhow!(
        "start the fleet of {}: the data directory {} is that of the fleet in {theirs}, which runs (pid {}); end that one with \
         `alicia down`, or give this one a data directory of its own: `data:` in the file, or --data DIR",
        file.display(),
        paths.data().display(),
        host.pid
    )))
}

/// The life of the host.
async fn host(global: &Global, up: &Up, loaded: Loaded, paths: &Paths, has_table: bool) -> Outcome {
    let host = Host::start(HostOptions {
        modules: MODULES,
        loaded: select(loaded, up),
        data: paths.data().to_owned(),
        program: place::program()?,
        reread: rereader(global.clone(), up.clone()),
        error_pages: ERROR_PAGES,
        clock: Clock::system(),
        alone: None,
    })
    .await?;
    let token = host
        .identity()
        .issue_token(&Identity::Module(OWN_NAME.to_owned()));
    let own = ApiClient::new(format!("http://{}", host.api()), Some(token));
    if !up.background {
        table::greet(&host, paths)?;
    }
    let handle = host.handle();
    tokio::select! {
        () = host.run() => Ok(ExitCode::SUCCESS),
        () = obey_signals(&handle, up.background) => Ok(ExitCode::from(EXIT_FAILED)),
        () = table::show(&own, has_table) => Ok(ExitCode::SUCCESS),
    }
}

/// `up api worker --profile dev`: the orchestrator starts these first.
fn select(mut loaded: Loaded, up: &Up) -> Loaded {
    if !up.services.is_empty() {
        loaded.set("orchestrator", "only", json!(up.services));
    }
    if !up.profile.is_empty() {
        loaded.set("orchestrator", "profiles", json!(up.profile));
    }
    loaded
}

fn rereader(global: Global, up: Up) -> Box<Reread> {
    let file = FleetFile::find(&global);
    Box::new(move |text| Ok(select(file.load_text(&global, text)?, &up)))
}

/// Control-C and SIGTERM end the fleet and then the host; a second one ends the host at once and leaves the
/// services to the keeper, from which the next `up` takes them over. SIGHUP reads the file again.
pub(super) async fn obey_signals(handle: &HostHandle, in_background: bool) {
    let stream = |kind| signal(kind).expect("the runtime hears signals");
    let mut interrupt = stream(SignalKind::interrupt());
    let mut terminate = stream(SignalKind::terminate());
    let mut hang_up = stream(SignalKind::hangup());
    let mut is_ending = false;
    loop {
        tokio::select! {
            _ = hang_up.recv() => {
                handle.reload().await;
                continue;
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if is_ending {
            return;
        }
        is_ending = true;
        if !in_background {
            eprintln!(
                "\nending the fleet; once more to end at once and leave the services running"
            );
        }
        handle.stop(false).await;
    }
}
