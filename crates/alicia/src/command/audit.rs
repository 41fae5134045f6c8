//! `alicia audit`: who did what, and whether the log of it is whole. Works on the files of the data directory, with a host
//! or without one; with `--api`, asks that host.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use alicia_contract::Period;
use alicia_contract::audit::{AuditPage, AuditRow, AuditVerdict};
use alicia_host::audit::{keys, read, verify};
use alicia_module::Paths;
use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::api::{ApiClient, quoted};
use crate::cli::Global;
use crate::failure::{EXIT_FAILED, Failure, Outcome, plural};
use crate::place::{self, FleetFile};
use crate::show;

/// How often `-f` looks for new rows.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// `alicia audit`
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Walk along the whole audit log and say what is wrong where.
    #[command(after_help = "Examples:
  alicia audit verify
  alicia audit verify --json
  alicia audit verify --witness /mnt/elsewhere/checkpoints.jsonl   compare with a copy that was kept elsewhere

Exit codes: 0 nothing is wrong, 1 something is.")]
    Verify(Verify),
    /// Show the last rows, and with -f what comes.
    #[command(after_help = "Examples:
  alicia audit tail
  alicia audit tail -f --by key/admin
  alicia audit tail --since 24h --grep secret --json")]
    Tail(Tail),
}

/// `alicia audit verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A copy of the file of checkpoints that was kept elsewhere. Default: the file of the house.
    #[arg(long, value_name = "FILE")]
    witness: Option<PathBuf>,
}

/// `alicia audit tail`
#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// Go on with what comes.
    #[arg(short, long)]
    follow: bool,
    /// How many rows at first.
    #[arg(short = 'n', long, default_value_t = 50, value_name = "ROWS", value_parser = clap::value_parser!(u16).range(1..=1000))]
    tail: u16,
    /// Only rows of this last time, for example 24h.
    #[arg(long, value_name = "PERIOD")]
    since: Option<Period>,
    /// Only rows of whom has this in the name: `key/admin`, `api`, `stranger`.
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Only rows that have this somewhere.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only rows of this module.
    #[arg(long, value_name = "MODULE")]
    module: Option<String>,
    /// Only rows of this outcome.
    #[arg(long, value_name = "OUTCOME", value_parser = ["done", "failed", "denied"])]
    outcome: Option<String>,
}

pub(super) async fn run(global: &Global, audit: &Audit) -> Outcome {
    match audit {
        Audit::Verify(asked) => verify_all(global, asked).await,
        Audit::Tail(asked) => tail(global, asked).await,
    }
}

async fn verify_all(global: &Global, asked: &Verify) -> Outcome {
    let verdict: AuditVerdict = match (&global.api, &asked.witness) {
        (Some(_), Some(_)) => {
            let text = "a witness is compared with the files of a data directory: leave --api away";
            return Err(Failure::Usage(text.to_owned()));
        }
        (Some(_), None) => ApiClient::find(global)?.get("/api/audit/verify").await?,
        (None, witness) => {
            let paths = place::paths(global)?;
            let databases = databases(&paths)?;
            let checkpoints = witness
                .clone()
                .unwrap_or_else(|| checkpoints(global, &paths));
            let places = verify::Places {
                databases: &databases,
                checkpoints: &checkpoints,
                key: keys::public_key(&paths.audit()).ok(),
            };
            verify::verify(&places).context("read the data directory")?
        }
    };
    if global.json {
        show::json(&verdict)?;
    } else {
        tell(&verdict);
    }
    Ok(if verdict.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

fn tell(verdict: &AuditVerdict) {
    for chain in &verdict.chains {
        let rows = format!("{} {}", chain.rows, plural(chain.rows as usize, "row"));
        let seen = format!(
            "{} {}",
            chain.witnesses,
            plural(chain.witnesses, "witness point")
        );
        let judged = if chain.faults.is_empty() {
            "whole"
        } else {
            "NOT WHOLE"
        };
        println!("{:<14} {judged:<10} {rows}, {seen}", chain.module);
        for fault in &chain.faults {
            println!("  {}", fault.what);
        }
    }
    let last = verdict
        .last_checkpoint
        .map(|at| format!(", the last of {}", show::time(at)));
    println!(
        "{} {} in {}{}",
        verdict.checkpoints,
        plural(
            usize::try_from(verdict.checkpoints).unwrap_or(usize::MAX),
            "checkpoint"
        ),
        verdict.checkpoints_file,
        last.unwrap_or_default()
    );
    for fault in &verdict.checkpoint_faults {
        println!("  {}", fault.what);
    }
    if verdict.ok {
        println!("the audit log is whole");
    } else {
        println!(
            "the audit log is not whole: keep a copy of the data directory before anything else is changed"
        );
    }
}

/// Where the file of the house says that checkpoints go.
fn checkpoints(global: &Global, paths: &Paths) -> PathBuf {
    let loaded = FleetFile::find(global).load(global).ok();
    let of_file =
        loaded.and_then(|loaded| Some(loaded.base.join(loaded.settings.audit.checkpoints?)));
    of_file.unwrap_or_else(|| paths.audit().join("checkpoints.jsonl"))
}

fn databases(paths: &Paths) -> Outcome<PathBuf> {
    let directory = paths.database("x").with_file_name("");
    if !directory.is_dir() {
        return Err(Failure::Usage(format!(
            "no fleet ever ran on {}; name another data directory with --data DIR",
            paths.data().display()
        )));
    }
    Ok(directory)
}

async fn tail(global: &Global, asked: &Tail) -> Outcome {
    let source = match &global.api {
        Some(_) => Source::Host(ApiClient::find(global)?),
        None => Source::Files(databases(&place::paths(global)?)?),
    };
    let mut page = source.page(asked, None).await?;
    page.rows.reverse();
    loop {
        for row in &page.rows {
            print_row(row, global.json)?;
        }
        if !asked.follow {
            return Ok(ExitCode::SUCCESS);
        }
        if page.rows.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        page = source.page(asked, Some(&page.after)).await?;
    }
}

/// Where rows come from.
enum Source {
    Host(ApiClient),
    Files(PathBuf),
}

impl Source {
    async fn page(&self, asked: &Tail, after: Option<&str>) -> Outcome<AuditPage> {
        match self {
            Self::Host(api) => api.get(&query(asked, after)).await,
            Self::Files(databases) => {
                let ago = |since: Period| since.duration().as_secs_f64();
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "microseconds of this millennium"
                )]
                let since = asked
                    .since
                    .map(|since| ((show::now() - ago(since)) * 1e6) as i64);
                let query = read::Query {
                    after: after.and_then(read::Places::parse),
                    since_unix_us: since,
                    by: asked.by.clone(),
                    grep: asked.grep.clone(),
                    module: asked.module.clone(),
                    outcome: asked.outcome.clone(),
                    limit: asked.tail.into(),
                    ..read::Query::default()
                };
                Ok(read::page(databases, &query)?)
            }
        }
    }
}

fn query(asked: &Tail, after: Option<&str>) -> String {
    let mut query = vec![format!("limit={}", asked.tail)];
    query.extend(asked.since.map(|since| format!("since={since}")));
    let texts = [
        ("after", after),
        ("by", asked.by.as_deref()),
        ("grep", asked.grep.as_deref()),
        ("module", asked.module.as_deref()),
        ("outcome", asked.outcome.as_deref()),
    ];
    query.extend(
        texts
            .iter()
            .filter_map(|(name, text)| Some(format!("{name}={}", quoted((*text)?)))),
    );
    format!("/api/audit?{}", query.join("&"))
}

fn print_row(row: &AuditRow, as_json: bool) -> Outcome<()> {
    if as_json {
        println!("{}", serde_json::to_string(row)?);
        return Ok(());
    }
    let detail = match &row.detail {
        serde_json::Value::Object(fields) if fields.is_empty() => String::new(),
        serde_json::Value::Null => String::new(),
        detail => format!(" {detail}"),
    };
    let origin = if row.origin.is_empty() {
        String::new()
    } else {
        format!(" from {}", row.origin)
    };
    let text = format!(
        "{} {:<6} {} {} {}{origin}{detail}",
        show::time(row.at),
        row.outcome,
        row.actor,
        row.action,
        row.target
    );
    println!("{}", show::one_line(&text));
    Ok(())
}
