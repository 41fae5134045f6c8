//! `alicia key` and `alicia open`: API keys, and a link that signs a browser in.

use std::process::ExitCode;

use alicia_contract::ServiceName;
use alicia_contract::identity::{Grant, Rotated};
use alicia_contract::platform::{CreatedKey, KeyInfo, NewKey, Scope};
use serde_json::{Value, json};

use crate::api::{ApiClient, quoted};
use crate::cli::{Global, Key, KeyCreate};
use crate::failure::{Failure, Outcome};
use crate::show::{self, Table};

pub(super) async fn run(global: &Global, key: &Key) -> Outcome {
    let api = ApiClient::find(global)?;
    match key {
        Key::Create(new) => create(&api, global, new).await,
        Key::List => list(&api, global).await,
        Key::Revoke { name } => revoke(&api, global, name).await,
        Key::RotateRoot => rotate_root(&api, global).await,
    }
}

/// One step of the ladder, or scopes of single verbs.
fn scopes(given: &[Grant]) -> Result<(Option<Scope>, Vec<Grant>), Failure> {
    let step = |grant: &Grant| match grant.as_str() {
        "read" => Some(Scope::Read),
        "operate" => Some(Scope::Operate),
        "admin" => Some(Scope::Admin),
        _ => None,
    };
    match given {
        [] => Ok((Some(Scope::Read), Vec::new())),
        [one] if step(one).is_some() => Ok((step(one), Vec::new())),
        several
            if several
                .iter()
                .any(|grant| step(grant) == Some(Scope::Admin)) =>
        {
            let text = "`admin` includes every other scope; give it alone";
            Err(Failure::Usage(text.to_owned()))
        }
        several => Ok((None, several.to_vec())),
    }
}

fn scope_text(key: &KeyInfo) -> String {
    match key.scope {
        Some(scope) => format!("{scope:?}").to_lowercase(),
        None => key
            .scopes
            .iter()
            .map(Grant::as_str)
            .collect::<Vec<_>>()
            .join(","),
    }
}

async fn rotate_root(api: &ApiClient, global: &Global) -> Outcome {
    let rotated: Rotated = api.post("/api/identity/rotate", &json!({})).await?;
    if global.json {
        show::json(&rotated)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("new root key  {}", rotated.kid);
    println!(
        "older one     {} (checked until {})",
        rotated.previous,
        show::time(rotated.overlap_until)
    );
    println!(
        "Credentials and the directory of keys are signed with the new key from now on. Instances and agents \
         renew by themselves and learn it from the directory. Token files were written anew; a program that keeps \
         an old token is turned away at its next connection after the overlap. Pages that are signed in stay so \
         until then. API keys are not concerned."
    );
    Ok(ExitCode::SUCCESS)
}

async fn create(api: &ApiClient, global: &Global, new: &KeyCreate) -> Outcome {
    let name = ServiceName::new(&new.name)
        .map_err(|error| Failure::Usage(format!("failed to {error}")))?;
    let (scope, scopes) = scopes(&new.scope)?;
    let body = NewKey {
        name,
        scope,
        scopes,
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
    let mut table = Table::new(&["NAME", "SCOPE", "KEY", "CREATED", "EXPIRES", "LAST USED"]);
    for key in keys {
        table.row([
            key.name.clone(),
            scope_text(&key),
            format!("{}…", key.prefix),
            show::time(key.created),
            key.expires.map_or_else(|| "never".to_owned(), show::time),
            key.last_used.map_or_else(|| "-".to_owned(), show::time),
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
