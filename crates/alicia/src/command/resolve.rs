//! `alicia resolve`: who is best for a capability, and why the others are not.

use std::process::ExitCode;

use alicia_contract::discovery::{Resolution, Verdict};
use serde_json::{Value, json};

use super::call::read_input;
use crate::api::ApiClient;
use crate::cli::{Global, Resolve};
use crate::failure::{EXIT_FAILED, Outcome};
use crate::show::{self, Table};

pub(super) async fn run(global: &Global, resolve: &Resolve) -> Outcome {
    let input = resolve.input.as_deref().map(read_input).transpose()?;
    let mut question = json!({
        "capability": resolve.capability,
        "version": resolve.version,
        "tags": resolve.tags,
        "service": resolve.service,
        "prefer": resolve.prefer,
        "limit": resolve.limit,
        "explain": resolve.explain,
    });
    if let Some(input) = input {
        question["input"] = input;
    }
    if let Some(fields) = question.as_object_mut() {
        fields.retain(|_, value| *value != Value::Null);
    }
    let api = ApiClient::find(global)?;
    let found: Resolution = api.post("/api/registry/resolve", &question).await?;
    if global.json {
        show::json(&found)?;
    } else {
        tell(&found);
    }
    Ok(if found.instances.is_empty() {
        ExitCode::from(EXIT_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn tell(found: &Resolution) {
    println!("{}", found.detail);
    if !found.candidates.is_empty() {
        println!();
        let mut table = Table::new(&["VERDICT", "SERVICE", "INSTANCE", "VERSION", "WHY"]);
        for candidate in &found.candidates {
            table.row([
                word(candidate.verdict).to_owned(),
                candidate.service.to_string(),
                candidate.instance.to_string(),
                candidate.version.clone(),
                candidate.reason.clone(),
            ]);
        }
        table.print();
    }
    if found.omitted > 0 {
        println!("and {} more; --explain N shows more of them", found.omitted);
    }
    for missing in &found.degraded {
        eprintln!("degraded: {missing}");
    }
}

const fn word(verdict: Verdict) -> &'static str {
    verdict.as_str()
}
