//! `alicia import FORMAT FILE…`: the files of another supervisor as an alicia.yaml.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use alicia_file::{FILE_BYTES_MAX, FileText, env_file};
use alicia_import::{Draft, Format, Surroundings, import};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::write;
use crate::cli::Global;
use crate::failure::{Failure, Outcome, plural};

/// `alicia import`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia import compose compose.yaml > alicia.yaml
  alicia import systemd /etc/systemd/system/api.service -o alicia.yaml
  alicia import pm2 ecosystem.config.js      evaluates the file with node

What has no counterpart is said on standard error, and stands as a comment before its service.")]
pub(crate) struct Import {
    /// Whose files they are.
    pub(crate) format: FormatName,
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Write to this file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the file of -o when it is there.
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}

/// The name of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// compose.yaml of Docker or Podman.
    Compose,
    /// supervisord.conf.
    Supervisord,
    /// An ecosystem file of pm2: JSON, YAML or JavaScript.
    Pm2,
    /// process-compose.yaml.
    ProcessCompose,
    /// Procfile.
    Procfile,
    /// Unit files of systemd.
    Systemd,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Compose => Self::Compose,
            FormatName::Supervisord => Self::Supervisord,
            FormatName::Pm2 => Self::Pm2,
            FormatName::ProcessCompose => Self::ProcessCompose,
            FormatName::Procfile => Self::Procfile,
            FormatName::Systemd => Self::Systemd,
        }
    }
}

pub(super) fn run(global: &Global, wanted: &Import) -> Outcome {
    if let Some(output) = wanted
        .output
        .as_ref()
        .filter(|path| path.exists() && !wanted.force)
    {
        let there = output.display();
        return Err(Failure::Usage(format!(
            "{there} is there already; name another, or replace it with --force"
        )));
    }
    let files = wanted
        .files
        .iter()
        .map(|path| read(path, wanted.format))
        .collect::<Outcome<Vec<_>>>()?;
    let around = surroundings(&wanted.files[0])?;
    let draft = import(wanted.format.into(), files, &around).map_err(|faults| Failure::Faults {
        faults,
        json: global.json,
    })?;
    let text = draft.to_yaml();
    if let Some(output) = &wanted.output {
        write::replace(output, &text)?;
    }
    match global.json {
        true => print_json(&draft, &text, wanted.output.as_deref())?,
        false => print(&draft, &text, wanted.output.as_deref()),
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path, format: FormatName) -> Outcome<FileText> {
    let name = path.display().to_string();
    let is_script = path
        .extension()
        .is_some_and(|kind| kind == "js" || kind == "cjs" || kind == "mjs");
    if format == FormatName::Pm2 && is_script {
        return Ok(FileText {
            bytes: evaluate(path)?,
            name,
        });
    }
    let usage = |problem: String| Failure::Usage(format!("{name}: {problem}"));
    let metadata = std::fs::metadata(path).map_err(|error| usage(error.to_string()))?;
    if metadata.is_dir() {
        return Err(usage("this is a directory; name its files".to_owned()));
    }
    if metadata.len() > FILE_BYTES_MAX as u64 {
        return Err(usage(format!(
            "this file is larger than {} MiB",
            FILE_BYTES_MAX >> 20
        )));
    }
    let bytes = std::fs::read(path).map_err(|error| usage(error.to_string()))?;
    Ok(FileText { name, bytes })
}

/// An ecosystem in JavaScript is a program; node says what comes of it.
fn evaluate(path: &Path) -> Outcome<Vec<u8>> {
    const SCRIPT: &str = "import(require('url').pathToFileURL(process.argv[1]))\
        .then(found => process.stdout.write(JSON.stringify(found.default ?? found)))";
    let name = path.display();
    let path = std::path::absolute(path).context("find the current directory")?;
    let output = Command::new("node")
        .arg("-e")
        .arg(SCRIPT)
        .arg(&path)
        .output();
    let output = output.map_err(|error| {
        Failure::Usage(format!(
            "{name} is JavaScript, and node, which evaluates it, cannot be run: {error}; \
             install node, or write the file as JSON"
        ))
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said
            .lines()
            .find(|line| line.contains("Error"))
            .unwrap_or("")
            .trim();
        return Err(Failure::Usage(format!(
            "node could not evaluate {name}: {last}"
        )));
    }
    Ok(output.stdout)
}

/// The shell's variables above those of `.env`, which is read as compose and foreman do.
fn surroundings(first: &Path) -> Outcome<Surroundings> {
    let env = first.with_file_name(".env");
    let mut around = Surroundings {
        variables: BTreeMap::new(),
        has_env_file: env.is_file(),
    };
    if around.has_env_file {
        let bytes = std::fs::read(&env).with_context(|| format!("read {}", env.display()))?;
        let name = env.display().to_string();
        let pairs = env_file::parse(&name, &bytes).map_err(|faults| Failure::Faults {
            faults,
            json: false,
        })?;
        around.variables.extend(pairs);
    }
    around.variables.extend(std::env::vars());
    Ok(around)
}

fn print_json(draft: &Draft, text: &str, output: Option<&Path>) -> Outcome<()> {
    let notes: Vec<_> = draft
        .all_notes()
        .into_iter()
        .map(|(service, note)| {
            json!({ "service": service, "place": note.place, "message": note.message })
        })
        .collect();
    let services: Vec<_> = draft.services.keys().collect();
    let document = json!({ "services": services, "notes": notes, "file": output, "text": text });
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}

fn print(draft: &Draft, text: &str, output: Option<&Path>) {
    match output {
        None => print!("{text}"),
        Some(output) => {
            let services = draft.services.len();
            let file = output.display();
            println!("wrote {file}: {services} {}", plural(services, "service"));
            println!("next: alicia --file {file} check");
        }
    }
    for (service, note) in draft.all_notes() {
        match service {
            Some(service) => eprintln!("note: {service}: {note}"),
            None => eprintln!("note: {note}"),
        }
    }
}
