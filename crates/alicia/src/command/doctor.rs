//! `alicia doctor`: looks at this machine, the file and the host, and says what is wrong and how to mend it.
//!
//! Every look is a function that gives findings and never fails: what cannot be found out is a finding too.

mod clock;
mod data;
mod host;
mod machine;
mod ports;

use std::process::ExitCode;

use alicia_file::Fault;
use alicia_host::Loaded;
use alicia_module::Paths;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::cli::Global;
use crate::failure::{EXIT_FAILED, Failure, Outcome, plural};
use crate::place::{self, FleetFile};
use crate::show;

/// Told by the keeper where one runs, else by a look at what it would find.
const CONTAINMENT: &str = "containment";

/// What would hold the limits of an instance; told by the keeper too.
const LIMITS: &str = "limits";

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Works, and may not for long.
    Warn,
    /// Keeps a fleet from working.
    Fail,
}

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    check: String,
    level: Level,
    found: String,
    /// How to mend it, unless it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn ok(check: &str, found: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            level: Level::Ok,
            found: found.into(),
            mend: None,
        }
    }

    fn warn(check: &str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        let mend = Some(mend.into());
        Self {
            check: check.to_owned(),
            level: Level::Warn,
            found: found.into(),
            mend,
        }
    }

    fn fail(check: &str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(check, found, mend)
        }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// The worst of the findings.
    level: Level,
    findings: Vec<Finding>,
}

pub(super) async fn run(global: &Global) -> Outcome {
    let loaded = FleetFile::find(global).load(global);
    let data = place::data_directory(global, loaded.as_ref().ok());
    let mut findings = vec![file(global, &loaded)];
    match data {
        Ok(data) => {
            let paths = Paths::new(data, ".");
            findings.extend(data::look(&paths));
            findings.extend(in_context(global, loaded.as_ref().ok(), &paths).await);
        }
        Err(failure) => findings.push(Finding::fail(
            "data directory",
            in_words(&failure),
            "name one with --data DIR",
        )),
    }
    findings.extend(clock::look());
    findings.extend(machine::look());
    if !findings.iter().any(|finding| finding.check == CONTAINMENT) {
        findings.push(machine::containment());
    }
    if !findings.iter().any(|finding| finding.check == LIMITS) {
        findings.push(machine::limits_here());
    }
    let level = findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Ok);
    if global.json {
        show::json(&Report { level, findings })?;
    } else {
        print(&findings);
    }
    Ok(if level == Level::Fail {
        ExitCode::from(EXIT_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// What depends on the file and on whether a host runs.
async fn in_context(global: &Global, loaded: Option<&Loaded>, paths: &Paths) -> Vec<Finding> {
    let running = place::running_host(paths);
    let mut findings = Vec::new();
    if let Some(loaded) = loaded {
        findings.extend(ports::look(loaded, running.as_ref()));
    }
    findings.extend(host::look(global, paths, running.as_ref()).await);
    findings
}

/// The faults of the file, and what this machine lacks for it.
fn file(global: &Global, loaded: &Result<Loaded, Vec<Fault>>) -> Finding {
    let name = match FleetFile::find(global) {
        FleetFile::Path(path) => path.display().to_string(),
        FleetFile::Home => "no alicia.yaml here, so the built-in example fleet".to_owned(),
    };
    let (faults, command) = match loaded {
        Err(faults) => (faults.clone(), "alicia check"),
        Ok(loaded) => (super::check::lacking(global, loaded), "alicia check --here"),
    };
    let Some(first) = faults.first() else {
        return Finding::ok("file", name);
    };
    let count = faults.len();
    let found = format!(
        "{name}: {count} {}, first: {}",
        plural(count, "fault"),
        first_line(&first.to_string())
    );
    Finding::fail(
        "file",
        found,
        format!("`{command}` shows all of them with their lines"),
    )
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Why something could not be found out.
fn in_words(failure: &Failure) -> String {
    match failure {
        Failure::Faults { .. } => "the file has faults".to_owned(),
        Failure::Refused(problem) => format!("{} ({})", problem.detail, problem.code),
        Failure::NoHost(text) | Failure::Usage(text) => text.clone(),
        Failure::Other(error) => format!("failed to {error:#}"),
    }
}

fn print(findings: &[Finding]) {
    let width = findings
        .iter()
        .map(|finding| finding.check.len())
        .max()
        .unwrap_or_default();
    for finding in findings {
        let (word, colour) = match finding.level {
            Level::Ok => ("ok  ", AnsiColor::Green),
            Level::Warn => ("warn", AnsiColor::Yellow),
            Level::Fail => ("fail", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into()));
        anstream::println!(
            "{style}{word}{style:#}  {:width$}  {}",
            finding.check,
            finding.found
        );
        if let Some(mend) = &finding.mend {
            anstream::println!("      {:width$}  {style}→{style:#} {mend}", "");
        }
    }
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    let (warnings, failures) = (count(Level::Warn), count(Level::Fail));
    match (failures, warnings) {
        (0, 0) => println!("\nall is well"),
        _ => println!(
            "\n{failures} {}, {warnings} {}",
            plural(failures, "fault"),
            plural(warnings, "warning")
        ),
    }
}
