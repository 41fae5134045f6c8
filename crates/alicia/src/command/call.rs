//! `alicia call`: a capability, carried out by one instance.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::ExitCode;

use alicia_contract::discovery::{CapabilityAnswer, Resolution};
use alicia_contract::envelope::MESSAGE_BYTES_MAX;
use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::api::ApiClient;
use crate::cli::{Call, Global};
use crate::failure::{EXIT_FAILED, Failure, Outcome};
use crate::show;

/// Candidates that are looked at to see whether one service alone has a capability.
const LOOKED_AT: u32 = 500;

pub(super) async fn run(global: &Global, call: &Call) -> Outcome {
    let What {
        service,
        capability,
        input,
    } = What::read(&call.what)?;
    let api = ApiClient::find(global)?;
    let service = match service {
        Some(service) => Some(service),
        None => only_service(&api, &capability, call).await?,
    };
    let body = json!({
        "capability": capability,
        "service": service,
        "version": call.version,
        "tags": call.tags,
        "input": input,
        "timeout": call.timeout,
        "retry": call.retry,
    });
    let asked = api
        .post_within::<CapabilityAnswer>("/api/registry/call", &body, call.timeout.duration())
        .await;
    match asked {
        Ok(answer) if global.json => show::json(&answer)?,
        Ok(answer) => match &answer.output {
            Value::String(text) => println!("{text}"),
            output => println!("{}", serde_json::to_string_pretty(output)?),
        },
        // For programs the problem is the answer.
        Err(Failure::Refused(problem)) if global.json => {
            show::json(&*problem)?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        Err(failure) => return Err(failure),
    }
    Ok(ExitCode::SUCCESS)
}

/// What was typed.
#[derive(Debug, PartialEq)]
struct What {
    service: Option<String>,
    capability: String,
    input: Value,
}

impl What {
    /// `SERVICE CAPABILITY JSON`, `SERVICE CAPABILITY`, `CAPABILITY JSON` or `CAPABILITY`. The second of two words
    /// is an input when it is JSON or `-`.
    fn read(words: &[String]) -> Outcome<Self> {
        let is_input = |text: &str| text == "-" || serde_json::from_str::<Value>(text).is_ok();
        let looks_like_input = |text: &str| is_input(text) || text.starts_with(['{', '[', '"']);
        match words {
            [capability] => Ok(Self::of(None, capability, Value::Object(Map::new()))),
            [capability, input] if looks_like_input(input) => {
                Ok(Self::of(None, capability, read_input(input)?))
            }
            [service, capability] => {
                let nothing = Value::Object(Map::new());
                Ok(Self::of(Some(service), capability, nothing))
            }
            [service, capability, input] => {
                Ok(Self::of(Some(service), capability, read_input(input)?))
            }
            _ => Err(Failure::Usage(
                "expected [SERVICE] CAPABILITY [JSON]; see `alicia call --help`".to_owned(),
            )),
        }
    }

    fn of(service: Option<&String>, capability: &str, input: Value) -> Self {
        Self {
            service: service.cloned(),
            capability: capability.to_owned(),
            input,
        }
    }
}

/// JSON from the command line or standard input.
pub(super) fn read_input(text: &str) -> Outcome<Value> {
    let mut typed = text.to_owned();
    if text == "-" {
        typed.clear();
        std::io::stdin()
            .take(MESSAGE_BYTES_MAX as u64 + 1)
            .read_to_string(&mut typed)
            .context("read standard input")?;
    }
    if typed.len() > MESSAGE_BYTES_MAX {
        let limit = format!("an input has at most {MESSAGE_BYTES_MAX} bytes");
        return Err(Failure::Usage(limit));
    }
    serde_json::from_str(&typed).map_err(|error| {
        Failure::Usage(format!(
            "the input is no JSON: {error}; write for example '{{\"text\": \"hello\"}}'"
        ))
    })
}

/// Without a service, the capability must be that of one service only: who types it should know whom it reaches.
/// `None` when nobody has it: the call itself says so, and names what there is.
async fn only_service(api: &ApiClient, capability: &str, call: &Call) -> Outcome<Option<String>> {
    let question = json!({
        "capability": capability,
        "version": call.version,
        "tags": call.tags,
        "explain": LOOKED_AT,
    });
    let found: Resolution = api.post("/api/registry/resolve", &question).await?;
    let services: BTreeSet<&str> = found
        .candidates
        .iter()
        .map(|candidate| candidate.service.as_str())
        .collect();
    if services.len() > 1 {
        let names: Vec<&str> = services.into_iter().collect();
        return Err(Failure::Usage(format!(
            "{capability} is a capability of {}; name one: `alicia call {} {capability}`",
            names.join(", "),
            names[0],
        )));
    }
    Ok(services.first().map(|name| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_what_is_meant() {
        let check = |words: &[&str], service: Option<&str>, capability: &str, input: Value| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let expected = What {
                service: service.map(str::to_owned),
                capability: capability.to_owned(),
                input,
            };
            assert_eq!(What::read(&words).ok(), Some(expected), "{words:?}");
        };
        check(&["measure"], None, "measure", json!({}));
        check(
            &["sensors", "measure"],
            Some("sensors"),
            "measure",
            json!({}),
        );
        check(
            &["notify", r#"{"a": 1}"#],
            None,
            "notify",
            json!({ "a": 1 }),
        );
        check(&["notify", "7"], None, "notify", json!(7));
        check(&["a", "b", "[1]"], Some("a"), "b", json!([1]));
    }

    #[test]
    fn what_is_no_json_is_said_before_anything_is_sent() {
        for words in [["a", "b", "text"], ["a", "b", "{"], ["a", "b", ""]] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let refused = What::read(&words);
            assert!(
                matches!(&refused, Err(Failure::Usage(text)) if text.contains("no JSON")),
                "{words:?}"
            );
        }
        let half: Vec<String> = ["notify", "{\"a\": "].map(str::to_owned).into();
        assert!(matches!(What::read(&half), Err(Failure::Usage(_))));
    }
}
