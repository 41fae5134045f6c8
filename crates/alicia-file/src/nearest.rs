//! "Did you mean …?": the known name that is nearest to a mistyped one.

/// The nearest name, when it is near enough to be worth a guess: at most a third of its characters differ.
#[must_use]
pub fn nearest<'n>(found: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    near(found, known).map(|(_, name)| name)
}

/// The same, with how many characters differ.
pub(crate) fn near<'n>(
    found: &str,
    known: impl IntoIterator<Item = &'n str>,
) -> Option<(usize, &'n str)> {
    let is_near = |(distance, name): &(usize, &str)| *distance <= name.chars().count().div_ceil(3);
    by_distance(found, known).into_iter().find(is_near)
}

/// These names, the nearest first, with how many characters differ. Case and what stands between words count for nothing.
pub(crate) fn by_distance<'n>(
    found: &str,
    known: impl IntoIterator<Item = &'n str>,
) -> Vec<(usize, &'n str)> {
    let plain = |text: &str| text.to_lowercase().replace(['_', ' ', '.'], "-");
    let found = plain(found);
    let mut names: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&found, &plain(name)), name))
        .collect();
    names.sort_unstable();
    names
}

/// Names in backticks with commas, and "or" before the last; at most `NAMES_MAX` of them.
#[must_use]
pub fn one_of<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    any_of(&names)
}

/// The most names in one sentence; a longer list is not read.
pub(crate) const NAMES_MAX: usize = 24;

/// Phrases with commas, and "or" before the last.
pub(crate) fn any_of(phrases: &[String]) -> String {
    match phrases {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        many if many.len() > NAMES_MAX => format!(
            "{} or {} more",
            many[..NAMES_MAX].join(", "),
            many.len() - NAMES_MAX
        ),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_a_stranger_none() {
        let known = ["command", "environment", "depends_on", "ports"];
        let check = |found, expected| assert_eq!(nearest(found, known), expected, "{found}");
        check("comand", Some("command"));
        check("Command", Some("command"));
        check("depends-on", Some("depends_on"));
        check("enviroment", Some("environment"));
        check("port", Some("ports"));
        check("image", None);
        check("", None);
    }

    #[test]
    fn a_list_reads_as_a_sentence() {
        assert_eq!(one_of(["a"]), "`a`");
        assert_eq!(one_of(["a", "b", "c"]), "`a`, `b` or `c`");
        assert_eq!(one_of([]), "nothing");
    }
}
