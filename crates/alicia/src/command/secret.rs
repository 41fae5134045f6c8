//! `alicia secret`: values for services, stored sealed. A value comes from standard input or a prompt, never from the command
//! line, where others could read it; and it is never shown again.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use alicia_contract::ServiceName;
use alicia_contract::platform::SecretInfo;
use alicia_host::audit::offline::{self, Offline};
use alicia_secrets::{Described, Secret, VALUE_BYTES_MAX, Vault};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::{ApiClient, quoted};
use crate::cli::Global;
use crate::failure::{Failure, Outcome};
use crate::place::{self, FleetFile};
use crate::show::{self, Table};

/// Bytes of a value that is made here.
const GENERATED_BYTES: usize = 32;

/// `alicia secret`
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Set a secret, new or not, from standard input or a prompt.
    #[command(after_help = "Examples:
  alicia secret set db-password                 asks for it
  pass show db | alicia secret set db-password
  alicia secret set tls-key --from key.pem
  alicia secret set session-key --generate

A service gets it by `secrets: [db-password]` in alicia.yaml.")]
    Set(Set),
    /// List the secrets, without their values, and who uses them.
    List,
    /// Remove a secret.
    Remove {
        /// Its name.
        name: String,
    },
    /// Give a secret that is there a new value, and restart who uses it when asked.
    #[command(after_help = "Examples:
  alicia secret rotate db-password
  alicia secret rotate session-key --generate --restart")]
    Rotate(Rotate),
}

/// `alicia secret set`
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Its name: a-z, 0-9 and -.
    name: String,
    #[command(flatten)]
    value: ValueFrom,
}

/// `alicia secret rotate`
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Its name.
    name: String,
    #[command(flatten)]
    value: ValueFrom,
    /// Restart the services that use it.
    #[arg(long)]
    restart: bool,
}

/// Where a value comes from.
#[derive(Debug, Args)]
struct ValueFrom {
    /// From this file.
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    from: Option<PathBuf>,
    /// Make a random one: 43 characters of base64url.
    #[arg(long)]
    generate: bool,
}

pub(super) async fn run(global: &Global, command: &SecretCommand) -> Outcome {
    let place = Place::find(global)?;
    match command {
        SecretCommand::Set(set) => {
            let value = set.value.read(&set.name)?;
            let told = place.change("set", &set.name, value).await?;
            tell(global, &told, "is stored")
        }
        SecretCommand::List => list(global, &place.list().await?),
        SecretCommand::Remove { name } => {
            let told = place.remove(name).await?;
            tell(global, &told, "is removed")
        }
        SecretCommand::Rotate(rotate) => {
            let value = rotate.value.read(&rotate.name)?;
            let told = place.change("rotate", &rotate.name, value).await?;
            if rotate.restart {
                place.restart(&told.used_by).await?;
            }
            tell(global, &told, "has a new value")
        }
    }
}

/// The host that runs, or the files when none does.
enum Place {
    Host(ApiClient),
    Files { vault: Vault, offline: Offline },
}

impl Place {
    fn find(global: &Global) -> Outcome<Self> {
        match ApiClient::find(global) {
            Ok(api) => Ok(Self::Host(api)),
            Err(Failure::NoHost(_)) if global.api.is_none() => {
                let paths = place::paths(global)?;
                let loaded = FleetFile::find(global).load(global).ok();
                let key_file = loaded
                    .and_then(|loaded| Some(loaded.base.join(loaded.settings.secrets.key_file?)));
                place::make_private(paths.data())?;
                let vault = Vault::open(&paths.secrets(), key_file.as_deref())?;
                Ok(Self::Files {
                    vault,
                    offline: Offline::new(&paths),
                })
            }
            Err(failure) => Err(failure),
        }
    }

    async fn list(&self) -> Outcome<Vec<SecretInfo>> {
        match self {
            Self::Host(api) => api.get("/api/secrets").await,
            Self::Files { vault, .. } => Ok(vault.list()?.into_iter().map(unused).collect()),
        }
    }

    async fn change(&self, verb: &str, name: &str, value: Secret) -> Outcome<SecretInfo> {
        match self {
            Self::Host(api) => {
                let rotate = if verb == "rotate" { "/rotate" } else { "" };
                let path = format!("/api/secrets/{}{rotate}", quoted(name));
                api.post(&path, &body(&value)).await
            }
            Self::Files { vault, offline } => {
                let is_there = vault.list()?.iter().any(|secret| secret.name == name);
                if verb == "rotate" && !is_there {
                    return Err(alicia_secrets::Error::NoSuchSecret(name.to_owned()).into());
                }
                note(offline, verb, name).await?;
                Ok(unused(vault.set(name, value, show::now())?))
            }
        }
    }

    async fn remove(&self, name: &str) -> Outcome<SecretInfo> {
        match self {
            Self::Host(api) => api.delete(&format!("/api/secrets/{}", quoted(name))).await,
            Self::Files { vault, offline } => {
                note(offline, "remove", name).await?;
                Ok(unused(vault.remove(name)?))
            }
        }
    }

    async fn restart(&self, services: &[ServiceName]) -> Outcome<()> {
        let Self::Host(api) = self else {
            return Ok(());
        };
        for service in services {
            let path = format!("/api/orchestrator/services/{service}/restart?wait=30s");
            let _: Value = api.post(&path, &json!({})).await?;
        }
        Ok(())
    }
}

async fn note(offline: &Offline, verb: &str, name: &str) -> Outcome<()> {
    if !alicia_secrets::is_name(name) {
        return Err(alicia_secrets::Error::BadName(name.to_owned()).into());
    }
    let user = rustix::process::getuid().as_raw();
    let done = offline::Done {
        actor: format!("user/{user}"),
        action: format!("secret.{verb}"),
        target: format!("secret:{name}"),
    };
    Ok(offline.note(done, show::now()).await?)
}

/// Without a host nobody knows the fleet.
fn unused(secret: Described) -> SecretInfo {
    SecretInfo {
        name: secret.name,
        version: secret.version,
        created: secret.created,
        changed: secret.changed,
        used_by: Vec::new(),
    }
}

fn body(value: &Secret) -> Value {
    match value.expose_text() {
        Some(text) => json!({ "value": text }),
        None => json!({ "base64": STANDARD.encode(value.expose()) }),
    }
}

fn list(global: &Global, secrets: &[SecretInfo]) -> Outcome {
    if global.json {
        show::json(&secrets)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["NAME", "VERSION", "CHANGED", "USED BY"]);
    for secret in secrets {
        let used_by: Vec<&str> = secret.used_by.iter().map(ServiceName::as_str).collect();
        table.row([
            secret.name.clone(),
            secret.version.to_string(),
            show::time(secret.changed),
            used_by.join(", "),
        ]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

fn tell(global: &Global, secret: &SecretInfo, what: &str) -> Outcome {
    if global.json {
        show::json(secret)?;
    } else {
        println!("{} {what} (version {})", secret.name, secret.version);
    }
    Ok(ExitCode::SUCCESS)
}

impl ValueFrom {
    fn read(&self, name: &str) -> Outcome<Secret> {
        let mut bytes = Vec::with_capacity(VALUE_BYTES_MAX + 2);
        let limit = VALUE_BYTES_MAX as u64 + 2;
        if self.generate {
            let mut random = [0; GENERATED_BYTES];
            getrandom::fill(&mut random)
                .map_err(|error| anyhow::anyhow!("get random numbers: {error}"))?;
            return Ok(Secret::new(URL_SAFE_NO_PAD.encode(random).into_bytes()));
        }
        if let Some(path) = &self.from {
            let file =
                std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
            file.take(limit).read_to_end(&mut bytes)?;
        } else if std::io::stdin().is_terminal() {
            return prompt(name);
        } else {
            std::io::stdin()
                .lock()
                .take(limit)
                .read_to_end(&mut bytes)?;
        }
        // `echo` and editors end a file with a line feed that is not part of the secret.
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Ok(Secret::new(bytes))
    }
}

/// Asks on the terminal, without echo, twice.
fn prompt(name: &str) -> Outcome<Secret> {
    let first = ask(&format!("value of {name}: "))?;
    let second = ask("once more: ")?;
    if first.expose() != second.expose() {
        return Err(Failure::Usage(
            "the two are not the same; nothing was changed".to_owned(),
        ));
    }
    Ok(first)
}

fn ask(question: &str) -> Outcome<Secret> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    eprint!("{question}");
    std::io::stderr().flush()?;
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    read?;
    let kept = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(kept);
    Ok(Secret::new(line.into_bytes()))
}
