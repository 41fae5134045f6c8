//! `alicia logs`: the output of services, one stream or several side by side.

use std::process::ExitCode;

use alicia_contract::orchestrator::FleetStatus;
use anstyle::{AnsiColor, Style};
use futures_util::future::try_join_all;
use reqwest::Response;

use crate::api::{ApiClient, quoted};
use crate::cli::{Global, Logs};
use crate::failure::Outcome;
use crate::show;

/// The name under which the log of the host is found.
const HOST: &str = "system";

/// The names of services that are shown side by side get these in turn.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Yellow,
    AnsiColor::Blue,
    AnsiColor::Red,
];

pub(super) async fn run(global: &Global, logs: &Logs) -> Outcome {
    let api = ApiClient::find(global)?;
    let services = match logs.services.as_slice() {
        [] if logs.host => vec![HOST.to_owned()],
        [] => {
            let fleet: FleetStatus = api.get("/api/orchestrator/status").await?;
            fleet
                .services
                .into_iter()
                .map(|service| service.service.to_string())
                .collect()
        }
        named => named.to_vec(),
    };
    let width = services.iter().map(String::len).max().unwrap_or_default();
    let is_single = services.len() == 1;
    let streams = services.iter().enumerate().map(|(at, service)| {
        let colour = Style::new().fg_color(Some(COLOURS[at % COLOURS.len()].into()));
        let label = if is_single || global.json {
            String::new()
        } else {
            format!("{colour}{service:width$}{colour:#} ")
        };
        show(&api, path(logs, service), label, global.json)
    });
    try_join_all(streams).await?;
    Ok(ExitCode::SUCCESS)
}

fn path(logs: &Logs, service: &str) -> String {
    let mut query = vec![format!("tail={}", logs.tail)];
    if logs.follow {
        query.push("follow=true".to_owned());
    }
    if let Some(since) = logs.since {
        query.push(format!("since={since}"));
    }
    if let Some(until) = logs.until {
        query.push(format!("until={until}"));
    }
    for (name, text) in [
        ("grep", &logs.grep),
        ("level", &logs.level),
        ("trace", &logs.trace),
    ] {
        query.extend(text.iter().map(|text| format!("{name}={}", quoted(text))));
    }
    format!(
        "/api/orchestrator/services/{}/logs?{}",
        quoted(service),
        query.join("&")
    )
}

async fn show(api: &ApiClient, path: String, label: String, as_json: bool) -> Outcome<()> {
    let accept = if as_json {
        "application/x-ndjson"
    } else {
        "text/plain"
    };
    let mut answer = api.stream(&path, accept).await?;
    let mut rest = Vec::new();
    while let Some(chunk) = next_chunk(&mut answer).await? {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            print_line(&label, &line[..end], as_json);
        }
    }
    if !rest.is_empty() {
        print_line(&label, &rest, as_json);
    }
    Ok(())
}

async fn next_chunk(answer: &mut Response) -> Outcome<Option<Vec<u8>>> {
    Ok(answer.chunk().await?.map(|chunk| chunk.to_vec()))
}

/// A line of JSON is printed to the letter: it has no control characters but in their escaped form.
fn print_line(label: &str, line: &[u8], as_json: bool) {
    let line = String::from_utf8_lossy(line);
    if as_json {
        println!("{line}");
    } else {
        anstream::println!("{label}{}", show::output_line(&line));
    }
}
