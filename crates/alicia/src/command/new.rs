//! `alicia new service NAME`: a directory with a service that runs as it is, and its entry in alicia.yaml.
//!
//! All of it is prepared first: the directory under another name, the text of the file with its new entry, which is
//! read again. Then two renames put it into place, so that a fault leaves nothing half written.

mod entry;
mod template;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use alicia_contract::ServiceName;
use anyhow::Context as _;
use serde_json::json;

use super::init;
use super::write::{beside, replace};
use crate::cli::{Global, Language, New, NewService};
use crate::failure::{Failure, Outcome};
use crate::show;
use template::{Template, Values};

/// The version that a new service starts with.
const FIRST_VERSION: &str = "0.1.0";

/// Where the client library for Rust lies in the source of Alicia.
const RUST_SDK: &str = "crates/alicia-sdk";

pub(super) fn run(global: &Global, new: &New) -> Outcome {
    let New::Service(new) = new;
    let name = ServiceName::new(&new.name).map_err(|_| {
        let found = &new.name;
        Failure::Usage(format!(
            "{found:?} is no name of a service: use 1 to 63 of a-z, 0-9 and -"
        ))
    })?;
    let template = Template::of(new.lang);
    let values = Values {
        name: name.to_string(),
        version: FIRST_VERSION.to_owned(),
        directory: format!("./{name}"),
        sdk_path: sdk_path(new)?,
    };
    let file = init::file(global);
    let directory = init::directory_of(&file)?.join(name.as_str());
    if directory.symlink_metadata().is_ok() {
        let there = directory.display();
        return Err(Failure::Usage(format!(
            "{there} is there already; choose another name, or move it away"
        )));
    }
    let text = entry::add(&file, &name, &values.fill(template.entry()))
        .map_err(|refusal| refusal.tell(global.json))?;
    write(&directory, &template, &values)?;
    if let Err(error) = replace(&file, &text) {
        fs::remove_dir_all(&directory).context("take back the directory that was just written")?;
        return Err(error.into());
    }
    tell(global, &name, &file, &directory)
}

/// For Rust, the absolute path of the client library: below `--sdk`, else above where the command runs.
fn sdk_path(new: &NewService) -> Outcome<String> {
    if new.lang == Language::Python {
        return Ok(String::new());
    }
    let has_sdk = |directory: &Path| directory.join(RUST_SDK).join("Cargo.toml").is_file();
    let here = std::env::current_dir().context("find the current directory")?;
    let source = match &new.sdk {
        Some(named) => Some(here.join(named)).filter(|source| has_sdk(source)),
        None => here
            .ancestors()
            .find(|above| has_sdk(above))
            .map(Path::to_owned),
    };
    let Some(source) = source else {
        let problem = match &new.sdk {
            Some(named) => format!("{} has no {RUST_SDK}", named.display()),
            None => {
                "a service in Rust needs the source of Alicia, since its library is in no registry"
                    .to_owned()
            }
        };
        return Err(Failure::Usage(format!(
            "{problem}: name the directory of the source with --sdk DIR"
        )));
    };
    let path = fs::canonicalize(source.join(RUST_SDK))?;
    // Cargo.toml is text, and the path stands in quotes there.
    let path = path
        .to_str()
        .filter(|path| !path.contains(['"', '\\', '\n']));
    Ok(path
        .ok_or_else(|| {
            Failure::Usage("the path of the source cannot be written in Cargo.toml".to_owned())
        })?
        .to_owned())
}

/// Writes every file under another name, and then gives the directory its own.
fn write(directory: &Path, template: &Template, values: &Values) -> anyhow::Result<()> {
    let unfinished = beside(directory);
    let written = write_files(&unfinished, template, values).and_then(|()| {
        fs::rename(&unfinished, directory).with_context(|| format!("make {}", directory.display()))
    });
    if written.is_err() {
        // It may not have been made at all.
        fs::remove_dir_all(&unfinished).ok();
    }
    written
}

fn write_files(directory: &Path, template: &Template, values: &Values) -> anyhow::Result<()> {
    fs::create_dir(directory).with_context(|| format!("make {}", directory.display()))?;
    for (name, text) in template.files() {
        write_file(&directory.join(name), &values.fill(text))?;
    }
    for (name, text) in template.library() {
        write_file(&directory.join(name), text)?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let parent = path.parent().expect("it lies in the directory");
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn tell(global: &Global, name: &ServiceName, file: &Path, directory: &Path) -> Outcome {
    if global.json {
        show::json(&json!({ "service": name, "directory": directory, "file": file }))?;
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "wrote {}: a service that runs as it is; its README says how to go on",
        directory.display()
    );
    println!("added {name} to {}", file.display());
    println!(
        "next: alicia up, or `alicia reload` where the fleet runs; then alicia logs -f {name}"
    );
    Ok(ExitCode::SUCCESS)
}
