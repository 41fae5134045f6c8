//! `alicia health`, `alicia slo`, `alicia suggest`, `alicia report`: how services are, how they were, and what to do.

use std::process::ExitCode;

use alicia_contract::ServiceName;
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::api::{ApiClient, quoted};
use crate::cli::Global;
use crate::failure::{EXIT_FAILED, Outcome};
use crate::show::{self, Table};

/// `alicia health`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia health          every service: state, uptime, latency
  alicia health api      one service: checks, alerts, uptime, history

Exit codes: 0 all of them work, 1 not all.")]
pub(crate) struct Health {
    /// The service; without it, all.
    service: Option<ServiceName>,
}

/// `alicia suggest`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia suggest         what to do about everything that is wrong
  alicia suggest api     about one service")]
pub(crate) struct Suggest {
    /// The service; without it, all.
    service: Option<ServiceName>,
}

/// `alicia report`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia report                               the last 24 hours, as Markdown
  alicia report --period 7d --format html > week.html
  alicia report --period 30d --json")]
pub(crate) struct Report {
    /// How far back: `24h`, `7d`, `30d`.
    #[arg(long, default_value = "24h", value_name = "PERIOD")]
    period: String,
    /// The form; with --json, JSON.
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a mail or a ticket.
    Markdown,
    /// For a browser.
    Html,
    /// For programs.
    Json,
}

/// States in which a service works.
const WORKS: [&str; 2] = ["healthy", "degraded"];

pub(super) async fn run(global: &Global, health: &Health) -> Outcome {
    let api = ApiClient::find(global)?;
    match &health.service {
        None => all(global, &api).await,
        Some(service) => one(global, &api, service).await,
    }
}

async fn all(global: &Global, api: &ApiClient) -> Outcome {
    let figures: Value = api.get("/api/health/metrics").await?;
    let services = list(&figures["services"]);
    if global.json {
        show::json(&services)?;
    } else if services.is_empty() {
        println!("no service is watched");
    } else {
        let mut table = Table::new(&[
            "SERVICE", "STATE", "24H", "7D", "30D", "90D", "CHECKS", "P95",
        ]);
        for of in services {
            let checks = list(&of["checks"]);
            let slowest = checks
                .iter()
                .filter_map(|check| check["latency_ms_p95"].as_f64())
                .reduce(f64::max);
            let uptime = |n: usize| percent(&of["uptime"][n]["percent"]);
            table.row([
                text(&of["service"]),
                text(&of["state"]),
                uptime(0),
                uptime(1),
                uptime(2),
                uptime(3),
                checks.len().to_string(),
                slowest.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms")),
            ]);
        }
        table.print();
    }
    Ok(verdict(services.iter().all(|of| works(&of["state"]))))
}

async fn one(global: &Global, api: &ApiClient, service: &ServiceName) -> Outcome {
    let view: Value = api.get(&format!("/api/health/services/{service}")).await?;
    if global.json {
        show::json(&view)?;
        return Ok(verdict(works(&view["state"])));
    }
    let since = show::time(view["since"].as_f64().unwrap_or_default());
    println!("{service} is {} since {since}", text(&view["state"]));
    if let Some(reason) = view["reason"].as_str().filter(|reason| !reason.is_empty()) {
        println!("  {reason}");
    }
    section(
        "Checks",
        &["CHECK", "INSTANCE", "STATE", "LATENCY", "DETAIL"],
        &view["checks"],
        |of| {
            let latency = of["latency_ms"].as_f64();
            vec![
                text(&of["name"]),
                text(&of["instance"]),
                text(&of["state"]),
                latency.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
                text(&of["detail"]),
            ]
        },
    );
    section(
        "Alerts",
        &["ALERT", "SEVERITY", "SINCE", "SUMMARY", "RUN"],
        &view["alerts"],
        |of| {
            vec![
                text(&of["rule"]),
                text(&of["severity"]),
                show::time(of["started"].as_f64().unwrap_or_default()),
                text(&of["summary"]),
                text(&of["suggestion"]),
            ]
        },
    );
    section(
        "Uptime",
        &["WINDOW", "UPTIME", "DOWN", "UNKNOWN"],
        &view["uptime"],
        |of| {
            vec![
                text(&of["window"]),
                percent(&of["percent"]),
                show::span(of["down_s"].as_f64().unwrap_or_default()),
                show::span(of["unknown_s"].as_f64().unwrap_or_default()),
            ]
        },
    );
    section("History", &["AT", "STATE", "WHY"], &view["history"], |of| {
        vec![
            show::time(of["at"].as_f64().unwrap_or_default()),
            text(&of["state"]),
            text(&of["reason"]),
        ]
    });
    Ok(verdict(works(&view["state"])))
}

/// `alicia slo`
pub(super) async fn objectives(global: &Global) -> Outcome {
    let answer: Value = ApiClient::find(global)?.get("/api/health/slos").await?;
    let objectives = list(&answer["objectives"]);
    if global.json {
        show::json(&objectives)?;
    } else if objectives.is_empty() {
        println!("no service promises anything; write `slo: {{availability: 99.9}}` in one");
    } else {
        let mut table = Table::new(&[
            "SERVICE",
            "PROMISE",
            "WINDOW",
            "KEPT",
            "BUDGET LEFT",
            "BURN 1H",
            "ALERT",
        ]);
        for of in objectives {
            let burn = of["burn"][0]["rate_long"].as_f64();
            table.row([
                text(&of["service"]),
                text(&of["promise"]),
                text(&of["window"]),
                percent(&of["kept_percent"]),
                percent(&of["budget_left_percent"]),
                burn.map_or_else(|| "-".to_owned(), |rate| format!("{rate}x")),
                text(&of["alert"]),
            ]);
        }
        table.print();
    }
    Ok(verdict(objectives.iter().all(|of| of["alert"].is_null())))
}

pub(super) async fn suggest(global: &Global, suggest: &Suggest) -> Outcome {
    let path = match &suggest.service {
        None => "/api/health/suggestions".to_owned(),
        Some(service) => format!("/api/health/suggestions?service={service}"),
    };
    let answer: Value = ApiClient::find(global)?.get(&path).await?;
    let suggestions = list(&answer["suggestions"]);
    if global.json {
        show::json(&suggestions)?;
    } else if suggestions.is_empty() {
        println!("nothing is wrong");
    }
    if !global.json {
        for of in suggestions {
            println!("{} ({})", text(&of["summary"]), text(&of["severity"]));
            for advice in list(&of["advice"]) {
                println!("  {}", text(&advice["advice"]));
                println!("    run: {}", text(&advice["command"]));
                for seen in list(&advice["evidence"]) {
                    println!("    seen: {}", text(seen));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn report(global: &Global, report: &Report) -> Outcome {
    let api = ApiClient::find(global)?;
    let period = quoted(&report.period);
    let format = if global.json {
        Format::Json
    } else {
        report.format
    };
    let name = match format {
        Format::Markdown => "markdown",
        Format::Html => "html",
        Format::Json => "json",
    };
    let path = format!("/api/health/reports?period={period}&format={name}");
    if format == Format::Json {
        let report: Value = api.get(&path).await?;
        show::json(&report)?;
    } else {
        let answer = api.stream(&path, "*/*").await?;
        println!("{}", answer.text().await?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn section(title: &str, headings: &[&str], rows: &Value, row: impl Fn(&Value) -> Vec<String>) {
    let rows = list(rows);
    if rows.is_empty() {
        return;
    }
    println!("\n{title}");
    let mut table = Table::new(headings);
    rows.iter().for_each(|of| table.row(row(of)));
    table.print();
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn percent(value: &Value) -> String {
    value
        .as_f64()
        .map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"))
}

fn works(state: &Value) -> bool {
    state.as_str().is_some_and(|state| WORKS.contains(&state))
}

fn verdict(well: bool) -> ExitCode {
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    }
}
