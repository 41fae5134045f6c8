//! `alicia signal`: a signal to the processes of a service, for example to have it read its files again.

use std::process::ExitCode;

use alicia_contract::fleet::{INSTANCES_MAX, StopSignal};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{ApiClient, quoted};
use crate::cli::Global;
use crate::failure::Outcome;
use crate::show;

/// `alicia signal`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia signal api HUP                every process of every instance
  alicia signal api SIGUSR1 --slot 2   of api-2 only")]
pub(crate) struct Signal {
    /// The service.
    pub(crate) service: String,
    /// SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH or SIGKILL; also without SIG.
    #[arg(value_name = "SIGNAL", value_parser = read)]
    pub(crate) signal: StopSignal,
    /// To this slot only.
    #[arg(long, value_name = "SLOT", value_parser = clap::value_parser!(u32).range(1..=i64::from(INSTANCES_MAX)))]
    pub(crate) slot: Option<u32>,
}

/// Who got it.
#[derive(Debug, Serialize, Deserialize)]
struct Signalled {
    instances: Vec<String>,
}

/// `HUP`, `hup` and `SIGHUP` are the same.
fn read(text: &str) -> Result<StopSignal, String> {
    let name = text.to_uppercase();
    let name = match name.strip_prefix("SIG") {
        Some(_) => name,
        None => format!("SIG{name}"),
    };
    serde_json::from_value(Value::String(name)).map_err(|error| error.to_string())
}

pub(super) async fn run(global: &Global, signal: &Signal) -> Outcome {
    let api = ApiClient::find(global)?;
    let path = format!(
        "/api/orchestrator/services/{}/signal",
        quoted(&signal.service)
    );
    let body = json!({ "signal": signal.signal, "slot": signal.slot });
    let sent: Signalled = api.post(&path, &body).await?;
    if global.json {
        show::json(&sent)?;
    } else {
        println!("sent to {}", sent.instances.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_as_people_write_it() {
        for text in ["HUP", "hup", "SIGHUP", "sighup"] {
            assert_eq!(read(text), Ok(StopSignal::Sighup), "{text}");
        }
        for wrong in ["", "SIG", "1", "SIGSTOP", "hup "] {
            let error = read(wrong).expect_err("no signal");
            assert!(error.contains("SIGTERM"), "{error}");
        }
    }
}
