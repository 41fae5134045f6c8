//! `alicia join-token`, `alicia join` and `alicia identity`: agents that nobody here starts.

use std::io::{BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alicia_contract::ServiceName;
use alicia_contract::identity::{
    AgentInfo, CreatedJoinToken, Grant, IdentityFile, JoinRequest, JoinTokenInfo, Joined,
    KeyDirectory, NewJoinToken, Nonce, RenewRequest, Renewed, join_text, renewal_text,
};
use alicia_signature::SigningKey;
use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};

use crate::api::{ApiClient, quoted};
use crate::cli::Global;
use crate::failure::{Failure, Outcome};
use crate::show::{self, Table};

/// A join token has 36 bytes.
const TOKEN_BYTES_MAX: u64 = 1_024;

/// `alicia join-token`
#[derive(Debug, Subcommand)]
pub(crate) enum JoinToken {
    /// Make a token, good once; the agent joins with `alicia join`.
    #[command(
        after_help = "Example:\n  alicia join-token create robot --ttl 10m --scope health:read"
    )]
    Create(TokenCreate),
    /// List the tokens that can still be used.
    List,
    /// Take a token back.
    Revoke {
        /// Its id, as `alicia join-token list` shows it.
        id: String,
    },
}

/// `alicia join-token create`
#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// The name of the agent; no service of the file has it.
    name: String,
    /// How long the token is good: 10s to 24h.
    #[arg(long, default_value = "10m")]
    ttl: alicia_contract::Period,
    /// What the agent may do beside what every service may: `read`, `orchestrator:restart`, …; may be given several
    /// times.
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    scope: Vec<Grant>,
}

/// `alicia join`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  alicia join - --api http://127.0.0.1:4000 --out robot.json < token\n  \
                  ALICIA_IDENTITY_FILE=robot.json ALICIA_MQTT_URL=mqtt://127.0.0.1:1883 python robot.py"
)]
pub(crate) struct Join {
    /// The join token; `-` reads it from standard input, as whoever is on the machine sees arguments.
    token: String,
    /// Where the identity is written, for the owner only: the client libraries read it from
    /// `ALICIA_IDENTITY_FILE`.
    #[arg(long, value_name = "FILE", default_value = "identity.json")]
    out: PathBuf,
}

/// `alicia identity`
#[derive(Debug, Subcommand)]
pub(crate) enum Identity {
    /// List the agents that have joined.
    List,
    /// Revoke an agent: its credentials and its key are good for nothing.
    Revoke {
        /// Its name.
        name: String,
    },
    /// List the public keys of all who may act.
    Keys,
    /// Print a new credential of an agent that has joined, for programs that know nothing of renewal.
    Credential {
        /// The file that `alicia join` has written.
        #[arg(long, value_name = "FILE", default_value = "identity.json")]
        identity: PathBuf,
    },
}

pub(super) async fn token(global: &Global, token: &JoinToken) -> Outcome {
    let api = ApiClient::find(global)?;
    match token {
        JoinToken::Create(new) => create(&api, global, new).await,
        JoinToken::List => list_tokens(&api, global).await,
        JoinToken::Revoke { id } => {
            let path = format!("/api/identity/join-tokens/{}", quoted(id));
            let revoked: JoinTokenInfo = api.delete(&path).await?;
            told(
                global,
                &revoked,
                &format!("revoked the token for {}", revoked.name),
            )
        }
    }
}

async fn create(api: &ApiClient, global: &Global, new: &TokenCreate) -> Outcome {
    let name = ServiceName::new(&new.name)
        .map_err(|error| Failure::Usage(format!("failed to {error}")))?;
    let ttl_s = u32::try_from(new.ttl.duration().as_secs()).unwrap_or(u32::MAX);
    let body = NewJoinToken {
        name,
        ttl_s,
        scopes: new.scope.clone(),
    };
    let created: CreatedJoinToken = api.post("/api/identity/join-tokens", &body).await?;
    if global.json {
        show::json(&created)?;
    } else {
        println!("{}", created.token);
        eprintln!(
            "Good once, until {}, and not shown again. The agent joins with: alicia join - --api {}, which reads it \
             from standard input",
            show::time(created.info.expires),
            api.base()
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn list_tokens(api: &ApiClient, global: &Global) -> Outcome {
    let tokens: Vec<JoinTokenInfo> = api.get("/api/identity/join-tokens").await?;
    if global.json {
        show::json(&tokens)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["ID", "AGENT", "SCOPES", "EXPIRES"]);
    for token in tokens {
        let scopes = texts(&token.scopes);
        table.row([
            token.id,
            token.name.to_string(),
            scopes,
            show::time(token.expires),
        ]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

/// Joins: no key of the house is needed, the token is enough.
pub(super) async fn join(global: &Global, join: &Join) -> Outcome {
    let base = ApiClient::find(global)?.base().to_owned();
    let api = ApiClient::new(base, None);
    let token = match join.token.as_str() {
        "-" => read_token(std::io::stdin().lock())?,
        token => token.to_owned(),
    };
    let key = SigningKey::generate().map_err(|error| Failure::Other(error.into()))?;
    let x = key.public().to_string();
    let request = JoinRequest {
        proof: URL_SAFE_NO_PAD.encode(key.sign(&join_text(&token, &x))),
        token,
        key: x,
    };
    let file = open_new(&join.out)?;
    let joined: Result<Joined, Failure> = api.post("/api/identity/join", &request).await;
    let joined = joined.inspect_err(|_| {
        // Nothing of it is of use.
        drop(std::fs::remove_file(&join.out));
    })?;
    let identity = IdentityFile {
        id: joined.id.clone(),
        service: joined.name.clone(),
        instance: joined.instance.clone(),
        epoch: joined.epoch,
        key: key.reveal(),
        socket: String::new(),
        logs_in: true,
        api: Some(api.base().to_owned()),
        roots: joined.renewed.roots.clone(),
        signatures: joined.signatures,
    };
    write(file, &identity)
        .map_err(|error| Failure::Other(anyhow::Error::new(error).context("write the identity")))?;
    if global.json {
        let told = serde_json::json!({
            "id": joined.id, "name": joined.name, "instance": joined.instance, "epoch": joined.epoch,
            "bus": joined.bus, "prefix": joined.prefix, "identity": join.out,
        });
        show::json(&told)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("joined as {} (epoch {})", joined.id, joined.epoch);
    println!(
        "ALICIA_IDENTITY_FILE={} ALICIA_MQTT_URL={} ALICIA_TOPIC_PREFIX={}",
        join.out.display(),
        joined.bus.as_deref().unwrap_or("mqtt://HOST:PORT"),
        joined.prefix
    );
    Ok(ExitCode::SUCCESS)
}

/// The first line of standard input.
fn read_token(input: impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    let read = input.take(TOKEN_BYTES_MAX).read_line(&mut line);
    read.context("read the join token from standard input")?;
    match line.trim() {
        "" => Err(Failure::Usage(
            "there is no join token in standard input; make one with `alicia join-token create NAME`"
                .to_owned(),
        )),
        token => Ok(token.to_owned()),
    }
}

fn open_new(path: &Path) -> Result<std::fs::File, Failure> {
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| {
        let shown = path.display();
        Failure::Usage(format!(
            "{shown} cannot be written: {error}; choose another file with --out"
        ))
    })
}

fn write(mut file: std::fs::File, identity: &IdentityFile) -> std::io::Result<()> {
    let bytes = serde_json::to_vec_pretty(identity).map_err(std::io::Error::other)?;
    file.write_all(&bytes)?;
    file.sync_all()
}

pub(super) async fn identity(global: &Global, identity: &Identity) -> Outcome {
    if let Identity::Credential { identity } = identity {
        return credential(global, identity).await;
    }
    let api = ApiClient::find(global)?;
    match identity {
        Identity::Revoke { name } => {
            let path = format!("/api/identity/agents/{}", quoted(name));
            let revoked: AgentInfo = api.delete(&path).await?;
            told(global, &revoked, &format!("revoked {}", revoked.name))
        }
        Identity::Keys => keys(&api, global).await,
        Identity::List | Identity::Credential { .. } => agents(&api, global).await,
    }
}

async fn agents(api: &ApiClient, global: &Global) -> Outcome {
    let agents: Vec<AgentInfo> = api.get("/api/identity/agents").await?;
    if global.json {
        show::json(&agents)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        "AGENT",
        "INSTANCE",
        "EPOCH",
        "SCOPES",
        "JOINED",
        "VALID UNTIL",
    ]);
    for agent in agents {
        let scopes = texts(&agent.scopes);
        table.row([
            agent.name.to_string(),
            agent.instance.to_string(),
            agent.epoch.to_string(),
            scopes,
            show::time(agent.joined),
            show::time(agent.valid_until),
        ]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

async fn keys(api: &ApiClient, global: &Global) -> Outcome {
    let directory: KeyDirectory = api.get("/api/identity/keys").await?;
    if global.json {
        show::json(&directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["SOURCE", "INSTANCE", "EPOCH", "KEY"]);
    for key in directory.keys {
        table.row([key.source, key.instance, key.epoch.to_string(), key.x]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

async fn credential(global: &Global, path: &Path) -> Outcome {
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let file: IdentityFile =
        serde_json::from_str(&text).map_err(|error| wrong(format!("no identity: {error}")))?;
    let key = SigningKey::from_text(&file.key).map_err(|error| wrong(error.to_string()))?;
    let base = match (&global.api, &file.api) {
        (Some(api), _) | (None, Some(api)) => api.trim_end_matches('/').to_owned(),
        (None, None) => return Err(wrong("it names no URL of REST; give --api".to_owned())),
    };
    let api = ApiClient::new(base, None);
    let Nonce { nonce } = api.get("/api/identity/nonce").await?;
    let text = renewal_text(
        &nonce,
        file.service.as_str(),
        file.instance.as_str(),
        file.epoch.0,
    );
    let request = RenewRequest {
        name: file.service,
        instance: file.instance,
        epoch: file.epoch,
        nonce,
        proof: URL_SAFE_NO_PAD.encode(key.sign(&text)),
    };
    let renewed: Renewed = api.post("/api/identity/renew", &request).await?;
    if global.json {
        show::json(&renewed)?;
    } else {
        println!("{}", renewed.credential);
    }
    Ok(ExitCode::SUCCESS)
}

fn told(global: &Global, what: &impl serde::Serialize, words: &str) -> Outcome {
    if global.json {
        show::json(what)?;
    } else {
        println!("{words}");
    }
    Ok(ExitCode::SUCCESS)
}

fn texts(scopes: &[Grant]) -> String {
    let texts: Vec<&str> = scopes.iter().map(Grant::as_str).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_first_line_of_what_comes_in() {
        let read = |text: &str| read_token(text.as_bytes()).ok();
        assert_eq!(read("alj_x\nmore\n").as_deref(), Some("alj_x"));
        assert_eq!(read(" alj_x").as_deref(), Some("alj_x"));
        assert_eq!(read(""), None);
        assert_eq!(read("\n"), None);
    }
}
