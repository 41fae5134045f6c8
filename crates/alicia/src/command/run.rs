//! `alicia run MODULE…`: single modules in a process of their own, on the bus of a host or on another broker.

use std::process::ExitCode;

use alicia_bus::BusAddress;
use alicia_host::{Alone, Host, HostOptions, Loaded};
use alicia_module::{Clock, Paths};
use anyhow::Context as _;

use super::up::obey_signals;
use crate::cli::{Global, RunModules};
use crate::error_pages::ERROR_PAGES;
use crate::failure::{EXIT_FAILED, Failure, Outcome};
use crate::log;
use crate::modules::MODULES;
use crate::place::{self, FleetFile};

pub(super) fn run(global: &Global, run: &RunModules) -> Outcome {
    for name in &run.modules {
        if !MODULES.iter().any(|module| module.name == name) {
            let known: Vec<&str> = MODULES.iter().map(|module| module.name).collect();
            return Err(Failure::Usage(format!(
                "there is no module {name:?}; there are {}",
                known.join(", ")
            )));
        }
    }
    // The file is read as if `http.listen` were this address.
    let mut global = global.clone();
    global.set.push(format!("http.listen={}", run.listen));
    let loaded = place::load_file(&global)?;
    let paths = Paths::new(place::data_directory(&global, Some(&loaded))?, &loaded.base);
    crate::hidden::hide();
    log::start(&loaded.settings.log);
    let alone = Alone {
        modules: run.modules.clone(),
        bus: find_bus(run, &loaded, &paths)?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(host(global, loaded, &paths, alone))
}

/// `--bus`, else `bus.url` of the file (by giving none), else the bus of the host that runs.
fn find_bus(run: &RunModules, loaded: &Loaded, paths: &Paths) -> Outcome<Option<BusAddress>> {
    let needs_no_bus = run.modules.iter().any(|module| module == "broker");
    if let Some(url) = &run.bus {
        return Ok(Some(url.parse()?));
    }
    if loaded.settings.bus.url.is_some() || needs_no_bus {
        return Ok(None);
    }
    match place::running_host(paths).and_then(|host| host.bus) {
        Some(bus) => Ok(Some(bus.parse()?)),
        None => Err(Failure::Usage(
            "there is no bus to talk over: name one with --bus mqtt://HOST:PORT, set `bus.url`, or start a \
             fleet with `alicia up`"
                .to_owned(),
        )),
    }
}

async fn host(global: Global, loaded: Loaded, paths: &Paths, alone: Alone) -> Outcome {
    let file = FleetFile::find(&global);
    let host = Host::start(HostOptions {
        modules: MODULES,
        loaded,
        data: paths.data().to_owned(),
        program: place::program()?,
        reread: Box::new(move |text| file.load_text(&global, text)),
        error_pages: ERROR_PAGES,
        clock: Clock::system(),
        alone: Some(alone),
    })
    .await?;
    println!("http://{}", host.api());
    let handle = host.handle();
    tokio::select! {
        () = host.run() => Ok(ExitCode::SUCCESS),
        () = obey_signals(&handle, true) => Ok(ExitCode::from(EXIT_FAILED)),
    }
}
