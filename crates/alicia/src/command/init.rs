//! `alicia init`: writes an alicia.yaml to start from, with its schema beside it for the editor.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::write::replace;
use crate::cli::{Global, Init};
use crate::failure::{Failure, Outcome};
use crate::modules::MODULES;
use crate::place::HOME_FLEET;
use crate::show;

/// The name of the file when none is given.
pub(super) const FILE_DEFAULT: &str = "alicia.yaml";

/// The schema, beside the file, where the first line of the file points the editor to.
const SCHEMA_FILE: &str = "alicia.schema.json";

pub(super) fn run(global: &Global, init: &Init) -> Outcome {
    let path = file(global);
    if path.exists() && !init.force {
        let path = path.display();
        return Err(Failure::Usage(format!(
            "{path} is there already; --force replaces it, --file names another"
        )));
    }
    let schema_path = path.with_file_name(SCHEMA_FILE);
    let schema = serde_json::to_string_pretty(&alicia_host::schema(MODULES))? + "\n";
    replace(&schema_path, &schema)?;
    let text = format!("# yaml-language-server: $schema={SCHEMA_FILE}\n{HOME_FLEET}");
    replace(&path, &text)?;
    if global.json {
        show::json(&json!({ "file": path, "schema": schema_path }))?;
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "wrote {}: five small services to start from",
        path.display()
    );
    println!(
        "wrote {}: an editor with the YAML language server completes and checks with it;",
        schema_path.display()
    );
    println!(
        "  after an update of Alicia: alicia schema > {}",
        schema_path.display()
    );
    println!("next: alicia check, alicia up");
    Ok(ExitCode::SUCCESS)
}

/// The file that is meant: `--file`, in which a directory stands for the usual name in it, else `./alicia.yaml`.
pub(super) fn file(global: &Global) -> PathBuf {
    match &global.file {
        Some(directory) if directory.is_dir() => directory.join(FILE_DEFAULT),
        Some(file) => file.clone(),
        None => PathBuf::from(FILE_DEFAULT),
    }
}

/// The directory in which a file lies.
pub(super) fn directory_of(file: &Path) -> anyhow::Result<PathBuf> {
    let file = std::path::absolute(file).context("find the current directory")?;
    Ok(file.parent().unwrap_or(Path::new("/")).to_owned())
}
