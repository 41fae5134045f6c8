//! `alicia container`: a process that stands for a container, and a look into one. Started by the orchestrator.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;

use alicia_container::{Ended, Engine, Error, Settings};
use alicia_contract::InstanceId;
use anyhow::Context as _;
use clap::Subcommand;
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::Outcome;

/// The exit status for what a person must mend: `EX_CONFIG` of sysexits.h.
const EXIT_CONFIGURATION: u8 = 78;
/// The exit status for what may go away by itself: `EX_UNAVAILABLE`.
const EXIT_UNAVAILABLE: u8 = 69;

/// Signals that go on to the container.
const SIGNALS: [fn() -> SignalKind; 7] = [
    SignalKind::terminate,
    SignalKind::interrupt,
    SignalKind::quit,
    SignalKind::hangup,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
    SignalKind::window_change,
];

/// How many signals may wait.
const SIGNALS_MAX: usize = 32;

/// `alicia container`
#[derive(Debug, Subcommand)]
pub(crate) enum Container {
    /// Stand for a container.
    Run {
        /// JSON; see `alicia_container::Settings`.
        settings: String,
    },
    /// Run a program in the container of a run.
    Exec {
        /// The socket of the engine.
        #[arg(long)]
        engine: Option<String>,
        /// The fleet.
        fleet: String,
        /// The run.
        instance: String,
        /// The program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

pub(super) async fn run(container: Container) -> Outcome {
    match container {
        Container::Run { settings } => stand_in(&settings).await,
        Container::Exec {
            engine,
            fleet,
            instance,
            command,
        } => look_in(engine.as_deref(), &fleet, &instance, &command).await,
    }
}

async fn stand_in(settings: &str) -> Outcome {
    let settings: Settings = serde_json::from_str(settings).context("read the settings")?;
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    // Before anything else: a signal that comes now is for the container.
    let signals = hear_signals()?;
    let ended = match find(settings.container.engine.as_deref()) {
        Ok(engine) => {
            let to = (tokio::io::stdout(), tokio::io::stderr());
            alicia_container::run(&engine, &settings, &environment, signals, to).await
        }
        Err(error) => Err(error),
    };
    Ok(match ended {
        Ok(Ended {
            code,
            out_of_memory,
        }) => {
            if out_of_memory {
                tell("X_ALICIA_CAUSE=out-of-memory");
            }
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!("failed to {error}");
            ExitCode::from(exit_code(&error))
        }
    })
}

fn exit_code(error: &Error) -> u8 {
    match error.is_passing() {
        true => EXIT_UNAVAILABLE,
        false => EXIT_CONFIGURATION,
    }
}

fn find(engine: Option<&str>) -> Result<Engine, Error> {
    let docker_host = std::env::var("DOCKER_HOST").ok();
    Engine::find(engine, docker_host.as_deref())
}

fn hear_signals() -> anyhow::Result<mpsc::Receiver<i32>> {
    let (heard, signals) = mpsc::channel(SIGNALS_MAX);
    for kind in SIGNALS {
        let kind = kind();
        let mut stream = signal(kind).context("listen for signals")?;
        let heard = heard.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "this is a program of its own: no module owns the task"
        )]
        drop(tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if heard.send(kind.as_raw_value()).await.is_err() {
                    return;
                }
            }
        }));
    }
    Ok(signals)
}

/// Tells the supervisor something, as sd_notify(3) does. Without a supervisor there is nobody to tell.
fn tell(message: &str) {
    let Ok(address) = std::env::var("NOTIFY_SOCKET") else {
        return;
    };
    let sent = UnixDatagram::unbound().and_then(|socket| match address.strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(message.as_bytes(), &address)
        }
        None => socket.send_to(message.as_bytes(), &address),
    });
    if let Err(error) = sent {
        eprintln!("failed to tell the supervisor why it ended: {error}");
    }
}

async fn look_in(engine: Option<&str>, fleet: &str, instance: &str, command: &[String]) -> Outcome {
    let instance = InstanceId::new(instance)?;
    let looked = async {
        let engine = find(engine)?;
        alicia_container::exec(&engine, fleet, &instance, command).await
    };
    match looked.await {
        Ok((code, output)) => {
            let mut stdout = tokio::io::stdout();
            stdout.write_all(&output).await?;
            stdout.flush().await?;
            Ok(ExitCode::from(code))
        }
        Err(error) => {
            eprintln!("failed to {error}");
            Ok(ExitCode::from(EXIT_UNAVAILABLE))
        }
    }
}
