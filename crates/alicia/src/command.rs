//! A file per command, or per family of commands.

mod act;
mod agents;
pub(crate) mod alerts;
pub(crate) mod audit;
mod bus;
mod call;
mod check;
mod completions;
pub(crate) mod container;
pub(crate) mod deploy;
mod doctor;
mod down;
mod example;
pub(crate) mod explain;
pub(crate) mod health;
pub(crate) mod import;
mod init;
pub(crate) mod join;
mod keeper;
mod key;
mod logs;
mod new;
mod ps;
mod resolve;
mod run;
pub(crate) mod secret;
pub(crate) mod signal;
mod status;
mod up;
mod write;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::{Cli, Command};
use crate::failure::Outcome;
use crate::modules::MODULES;

/// Carries out what was typed.
pub(crate) fn run(cli: Cli) -> Outcome {
    let Cli {
        global, command, ..
    } = cli;
    match command {
        // These come first: the keeper must not have a runtime, and the host wants one of its own kind.
        Command::Keeper(keeper) => keeper::run(keeper),
        Command::Up(up) => up::run(&global, &up),
        Command::Run(run) => run::run(&global, &run),
        Command::Check(check) => check::run(&global, &check),
        Command::Schema => print_json(&alicia_host::schema(MODULES)),
        Command::Openapi => print_json(&alicia_host::http::openapi(MODULES)),
        Command::Completions(completions) => completions::run(&completions),
        Command::Import(import) => import::run(&global, &import),
        Command::Init(init) => init::run(&global, &init),
        Command::New(new) => new::run(&global, &new),
        Command::Down(down) => wait_for(down::run(&global, &down)),
        Command::Status => wait_for(status::run(&global)),
        Command::Alerts(alerts) => wait_for(alerts::run(&global, &alerts)),
        Command::Ps => wait_for(ps::run(&global)),
        Command::Health(asked) => wait_for(health::run(&global, &asked)),
        Command::Slo => wait_for(health::objectives(&global)),
        Command::Suggest(asked) => wait_for(health::suggest(&global, &asked)),
        Command::Report(asked) => wait_for(health::report(&global, &asked)),
        Command::Audit(audit) => wait_for(audit::run(&global, &audit)),
        Command::Secret(secret) => wait_for(secret::run(&global, &secret)),
        Command::Logs(logs) => wait_for(logs::run(&global, &logs)),
        Command::Start(targets) => wait_for(act::run(&global, act::Action::Start, &targets)),
        Command::Stop(targets) => wait_for(act::run(&global, act::Action::Stop, &targets)),
        Command::Restart(targets) => wait_for(act::run(&global, act::Action::Restart, &targets)),
        Command::Pause(targets) => wait_for(act::run(&global, act::Action::Pause, &targets)),
        Command::Resume(targets) => wait_for(act::run(&global, act::Action::Resume, &targets)),
        Command::Signal(signal) => wait_for(signal::run(&global, &signal)),
        Command::Explain(explain) => wait_for(explain::run(&global, &explain)),
        Command::Scale(scale) => wait_for(act::scale(&global, &scale)),
        Command::Call(call) => wait_for(call::run(&global, &call)),
        Command::Agents(agents) => wait_for(agents::run(&global, &agents)),
        Command::Resolve(resolve) => wait_for(resolve::run(&global, &resolve)),
        Command::Plan(plan) => wait_for(deploy::plan(&global, &plan)),
        Command::Deploy(asked) => wait_for(deploy::deploy(&global, &asked)),
        Command::Update(asked) => wait_for(deploy::update(&global, &asked)),
        Command::Rollback(asked) => wait_for(deploy::rollback(&global, &asked)),
        Command::Deployments(asked) => wait_for(deploy::deployments(&global, &asked)),
        Command::Reload => wait_for(act::reload(&global)),
        Command::Bus(bus) => wait_for(bus::run(&global, &bus)),
        Command::Doctor => wait_for(doctor::run(&global)),
        Command::Key(key) => wait_for(key::run(&global, &key)),
        Command::JoinToken(token) => wait_for(join::token(&global, &token)),
        Command::Join(join) => wait_for(join::join(&global, &join)),
        Command::Identity(identity) => wait_for(join::identity(&global, &identity)),
        Command::Open => wait_for(key::open(&global)),
        Command::Container(container) => wait_for(container::run(container)),
        Command::Example(example) => wait_for(example::run(&example)),
    }
}

/// Runs a command that talks to others.
fn wait_for(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(command)
}

/// Prints a document.
fn print_json(document: &serde_json::Value) -> Outcome {
    println!("{}", serde_json::to_string_pretty(document)?);
    Ok(ExitCode::SUCCESS)
}
