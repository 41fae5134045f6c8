//! `alicia keeper`: the process that holds the services. It has no runtime and no database.

use std::process::ExitCode;

use crate::cli::Keeper;
use crate::failure::Outcome;

pub(super) fn run(keeper: Keeper) -> Outcome {
    crate::hidden::hide();
    let options = alicia_keeper::Options::parse(keeper.arguments).map_err(anyhow::Error::msg)?;
    match alicia_keeper::run(&options) {
        Err(alicia_keeper::Error::Locked { .. }) => Ok(ExitCode::from(alicia_keeper::EXIT_LOCKED)),
        other => Ok(other.map(|()| ExitCode::SUCCESS)?),
    }
}
