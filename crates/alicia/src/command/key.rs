//! `alicia key` and `alicia open`: API keys, and a link that signs a browser in.

use std::process::ExitCode;

use alicia_contract::ServiceName;
use alicia_contract::platform::{CreatedKey, KeyInfo, NewKey, Scope};
use serde_json::{Value, json};

use crate::api::{ApiClient, quoted};
use crate::cli::{Global, Key, KeyCreate, ScopeName};
use crate::failure::{Failure, Outcome};
use crate::show::{self, Table};

pub(super) async fn run(global: &Global, key: &Key) -> Outcome {
    let api = ApiClient::find(global)?;
    match key {
        Key::Create(new) => create(&api, global, new).await,
        Key::List => list(&api, global).await,
        Key::Revoke { name } => revoke(&api, global, name).await,
    }
}

async fn create(api: &ApiClient, global: &Global, new: &KeyCreate) -> Outcome {
    let name = ServiceName::new(&new.name)
        .map_err(|error| Failure::Usage(format!("failed to {error}")))?;
    let scope = match new.scope {
        ScopeName::Read => Scope::Read,
        ScopeName::Operate => Scope::Operate,
        ScopeName::Admin => Scope::Admin,
    };
    let body = NewKey {
        name,
        scope,
        expires_days: new.expires_days,
    };
    let created: CreatedKey = api.post("/api/keys", &body).await?;
    if global.json {
        show::json(&created)?;
    } else {
        println!("{}", created.key);
        eprintln!(
            "This is the only time that the key is shown. On the bus the user name is {}.",
            created.info.name
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(api: &ApiClient, global: &Global) -> Outcome {
    let keys: Vec<KeyInfo> = api.get("/api/keys").await?;
    if global.json {
        show::json(&keys)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["NAME", "SCOPE", "KEY", "CREATED", "EXPIRES"]);
    for key in keys {
        table.row([
            key.name,
            format!("{:?}", key.scope).to_lowercase(),
            format!("{}…", key.prefix),
            show::time(key.created),
            key.expires.map_or_else(|| "never".to_owned(), show::time),
        ]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

async fn revoke(api: &ApiClient, global: &Global, name: &str) -> Outcome {
    let revoked: KeyInfo = api.delete(&format!("/api/keys/{}", quoted(name))).await?;
    if global.json {
        show::json(&revoked)?;
    } else {
        println!("revoked {}", revoked.name);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn open(global: &Global) -> Outcome {
    let api = ApiClient::find(global)?;
    let link: Value = api.post("/api/keys/link", &json!({})).await?;
    let url = format!(
        "{}{}",
        api.base(),
        link["path"].as_str().unwrap_or_default()
    );
    if global.json {
        show::json(&json!({ "url": url }))?;
    } else {
        println!("{url}");
    }
    Ok(ExitCode::SUCCESS)
}
