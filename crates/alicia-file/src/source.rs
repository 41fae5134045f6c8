//! What a document is put together from: files, environment and flags.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fault::Fault;
use crate::yaml::FILE_BYTES_MAX;

/// The most fragments in a directory.
pub const FRAGMENTS_MAX: usize = 1_000;

/// What the names of variables of Alicia start with.
pub const VARIABLE_PREFIX: &str = "ALICIA_";

/// A file that has been read.
#[derive(Debug, Clone)]
pub struct FileText {
    /// The path as faults name it.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What a document is put together from. A later layer wins: defaults, files, environment, flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub(crate) defaults: Value,
    pub(crate) files: Vec<FileText>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) flags: Vec<(String, String)>,
    pub(crate) foreign: bool,
}

// === impl Sources ===

impl Sources {
    /// No layer yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Built-in defaults, below all else.
    #[must_use]
    pub fn defaults(mut self, defaults: Value) -> Self {
        self.defaults = defaults;
        self
    }

    /// A file that is already in memory, such as the built-in example.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push(FileText {
            name: name.into(),
            bytes: bytes.into(),
        });
        self
    }

    /// Reads a file, or every `*.yaml` of a directory in the order of their names.
    ///
    /// # Errors
    /// One fault for each file that cannot be read or is larger than [`FILE_BYTES_MAX`].
    pub fn path(mut self, path: &Path) -> Result<Self, Vec<Fault>> {
        let paths = match path.is_dir() {
            true => fragments(path).map_err(|fault| vec![*fault])?,
            false => vec![path.to_owned()],
        };
        let mut faults = Vec::new();
        for path in paths {
            match read(&path) {
                Ok(file) => self.files.push(file),
                Err(fault) => faults.push(*fault),
            }
        }
        match faults.is_empty() {
            true => Ok(self),
            false => Err(faults),
        }
    }

    /// The files are those of another program: merge keys (`<<`) and numbers as keys are taken.
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.foreign = true;
        self
    }

    /// The environment of the program. Counted are variables that start with `ALICIA_` and are not in `ignored`, where
    /// a name that ends with `*` stands for all that start like it.
    ///
    /// `ALICIA_HTTP__LISTEN=127.0.0.1:4001` sets `/http/listen`: two underscores separate levels.
    #[must_use]
    pub fn environment(
        mut self,
        pairs: impl IntoIterator<Item = (String, String)>,
        ignored: &[&str],
    ) -> Self {
        let is_ignored = |name: &str| {
            ignored
                .iter()
                .any(|ignored| match ignored.strip_suffix('*') {
                    Some(start) => name.starts_with(start),
                    None => name == *ignored,
                })
        };
        let mut pairs: Vec<_> = pairs
            .into_iter()
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX) && !is_ignored(name))
            .collect();
        pairs.sort();
        self.variables.append(&mut pairs);
        self
    }

    /// Values from the command line: a JSON pointer and a value each.
    #[must_use]
    pub fn flags(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        self.flags.extend(pairs);
        self
    }
}

fn fragments(directory: &Path) -> Result<Vec<PathBuf>, Box<Fault>> {
    let name = directory.display();
    let fault =
        |message: String, hint: &str| Box::new(Fault::of_value("", message).with_hint(hint));
    let cannot_read = |error: std::io::Error| {
        fault(
            format!("the directory {name} cannot be read: {error}"),
            "check its permissions",
        )
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(cannot_read)? {
        let path = entry.map_err(cannot_read)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden {
            paths.push(path);
        }
        if paths.len() > FRAGMENTS_MAX {
            let message = format!("the directory {name} has more than {FRAGMENTS_MAX} files");
            return Err(fault(message, "join some of them"));
        }
    }
    if paths.is_empty() {
        let message = format!("the directory {name} has no file that ends with `.yaml`");
        return Err(fault(message, "name a file, or run `alicia init` in it"));
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<FileText, Box<Fault>> {
    let name = path.display().to_string();
    let fault =
        |message: String, hint: &str| Box::new(Fault::of_value("", message).with_hint(hint));
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that a file of endless length is seen and not read.
    let outcome = fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(fault(
            format!("there is no file {name}"),
            "name another with --file, or write one with `alicia init`",
        )),
        Err(error) => Err(fault(
            format!("the file {name} cannot be read: {error}"),
            "check its permissions",
        )),
        Ok(_) => Ok(FileText { name, bytes }),
    }
}
