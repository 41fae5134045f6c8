//! `alicia example NAME`: a service of the built-in home fleet.

use std::process::ExitCode;

use crate::cli::Example;
use crate::example::{clock, commands, notifier, rules, sensors};
use crate::failure::{Failure, Outcome};

pub(super) async fn run(example: &Example) -> Outcome {
    match example.name.as_str() {
        "sensors" => sensors::run().await?,
        "clock" => clock::run().await?,
        "commands" => commands::run().await?,
        "rules" => rules::run().await?,
        "notifier" => notifier::run().await?,
        other => {
            return Err(Failure::Usage(format!(
                "there is no example {other:?}; there are sensors, clock, commands, rules, notifier"
            )));
        }
    }
    Ok(ExitCode::SUCCESS)
}
