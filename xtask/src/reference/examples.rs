//! An example for each section of `docs/file.md`, from `examples.yaml`.

const TEXT: &str = include_str!("examples.yaml");

/// The example of the file as a whole, whose path is empty.
const WHOLE: &str = "The file";

/// The example of a section, by its path.
pub(super) fn of(path: &str) -> Option<&'static str> {
    let mut found = all().filter(|(known, _)| *known == path);
    found.next().map(|(_, example)| example)
}

/// Every example with the path of its section.
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    TEXT.split("\n### ").skip(1).filter_map(|part| {
        let (path, example) = part.split_once('\n')?;
        let path = if path == WHOLE { "" } else { path };
        Some((path, example.trim()))
    })
}
