//! The texts of a new service, compiled in; `templates/README.md` says what is replaced in them.

use crate::cli::Language;

/// Name and text of a file.
type TextFile = (&'static str, &'static str);

macro_rules! template_file {
    ($path:literal) => {
        include_str!(concat!("../../../../../templates/service/", $path))
    };
}

macro_rules! library {
    ($($name:literal),+ $(,)?) => {
        &[$((
            concat!("alicia_sdk/", $name),
            include_str!(concat!("../../../../../sdk/python/src/alicia_sdk/", $name)),
        )),+]
    };
}

const PYTHON: &[TextFile] = &[
    ("service.py", template_file!("python/service.py")),
    ("test_service.py", template_file!("python/test_service.py")),
    ("run.py", template_file!("python/run.py")),
    (
        "requirements.txt",
        template_file!("python/requirements.txt"),
    ),
    (
        "requirements-test.txt",
        template_file!("python/requirements-test.txt"),
    ),
    ("README.md", template_file!("python/README.md")),
    ("Dockerfile", template_file!("python/Dockerfile")),
    (".gitignore", template_file!("python/gitignore")),
    (".dockerignore", template_file!("python/dockerignore")),
];

const RUST: &[TextFile] = &[
    ("src/main.rs", template_file!("rust/src/main.rs")),
    ("Cargo.toml", template_file!("rust/Cargo.toml")),
    ("README.md", template_file!("rust/README.md")),
    ("Dockerfile", template_file!("rust/Dockerfile")),
    (".gitignore", template_file!("rust/gitignore")),
    (".dockerignore", template_file!("rust/dockerignore")),
];

/// The client library for Python, which is on no package index. In the order of `ls`.
const PYTHON_LIBRARY: &[TextFile] = library![
    "__init__.py",
    "arguments.py",
    "calls.py",
    "commands.py",
    "declaration.py",
    "ed25519.py",
    "engine.py",
    "envelope.py",
    "identity.py",
    "link.py",
    "page.py",
    "pool.py",
    "problem.py",
    "py.typed",
    "schema.py",
    "service.py",
    "settings.py",
    "signature.py",
    "timers.py",
    "topics.py",
    "vitals.py",
];

/// What is written for a service in one language.
pub(super) struct Template(Language);

impl Template {
    pub(super) fn of(language: Language) -> Self {
        Self(language)
    }

    /// The files of its directory, with words to be replaced.
    pub(super) fn files(&self) -> &'static [TextFile] {
        match self.0 {
            Language::Python => PYTHON,
            Language::Rust => RUST,
        }
    }

    /// Files that are copied as they are, after those, in the directory `alicia_sdk`.
    pub(super) fn library(&self) -> &'static [TextFile] {
        match self.0 {
            Language::Python => PYTHON_LIBRARY,
            Language::Rust => &[],
        }
    }

    /// Its entry below `services:`, indented by two spaces.
    pub(super) fn entry(&self) -> &'static str {
        match self.0 {
            Language::Python => template_file!("python/service.yaml"),
            Language::Rust => template_file!("rust/service.yaml"),
        }
    }
}

/// What is put in.
pub(super) struct Values {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) directory: String,
    pub(super) sdk_path: String,
}

impl Values {
    /// Replaces `{{word}}` everywhere, and nothing else.
    pub(super) fn fill(&self, text: &str) -> String {
        let words = [
            ("{{name}}", &self.name),
            ("{{version}}", &self.version),
            ("{{directory}}", &self.directory),
            ("{{sdk_path}}", &self.sdk_path),
        ];
        words.iter().fold(text.to_owned(), |text, (word, value)| {
            text.replace(word, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The files below a directory, by their names in a new service.
    fn listed(directory: &str) -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(directory);
        let mut found = BTreeSet::new();
        let mut open = vec![root.clone()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).expect("the directory is there") {
                let path = entry.expect("is an entry").path();
                let name = path
                    .strip_prefix(&root)
                    .expect("lies below")
                    .to_str()
                    .expect("is text")
                    .to_owned();
                match name.as_str() {
                    _ if path.is_dir() && name != "__pycache__" => open.push(path),
                    "service.yaml" | "__pycache__" => {}
                    "gitignore" | "dockerignore" => drop(found.insert(format!(".{name}"))),
                    _ => drop(found.insert(name)),
                }
            }
        }
        found
    }

    #[test]
    fn every_file_of_the_templates_and_of_the_library_is_written() {
        let names = |files: &[TextFile]| {
            files
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(names(PYTHON), listed("templates/service/python"));
        assert_eq!(names(RUST), listed("templates/service/rust"));
        let library: BTreeSet<_> = listed("sdk/python/src/alicia_sdk")
            .iter()
            .map(|name| format!("alicia_sdk/{name}"))
            .collect();
        assert_eq!(names(PYTHON_LIBRARY), library);
    }

    #[test]
    fn no_word_is_left_to_be_replaced() {
        let word = || "x".to_owned();
        let values = Values {
            name: word(),
            version: word(),
            directory: word(),
            sdk_path: word(),
        };
        for language in [Language::Python, Language::Rust] {
            let template = Template::of(language);
            for (name, text) in template
                .files()
                .iter()
                .chain([&("service.yaml", template.entry())])
            {
                assert!(!values.fill(text).contains("{{"), "{name}");
            }
        }
    }
}
