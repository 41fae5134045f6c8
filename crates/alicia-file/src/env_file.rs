//! Files of environment variables: `NAME=value` lines.
//!
//! Empty lines and lines that start with `#` are skipped; `export ` before a name is. A value ends at its line's end or
//! at ` #`; in single quotes it is taken as it is; in double quotes `\n`, `\t`, `\\`, `\"` and `\$` are escapes.
//! Nothing is interpolated.

use crate::fault::Fault;
use crate::fleet::environment::is_name;
use crate::layer::{Layer, Layers, Place, lines};
use crate::schema::shorten;

/// The largest file of variables: more than any program accepts (Linux takes 128 KiB per variable).
pub const ENV_FILE_BYTES_MAX: usize = 1 << 20;

/// What is wrong in a line: the column from 0, the message, the hint.
type Wrong = (usize, String, &'static str);

/// Reads the lines of a file. The same name again replaces the value before.
///
/// # Errors
/// Every line that cannot be read, named by `name` and its number.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Vec<(String, String)>, Vec<Fault>> {
    let text = String::from_utf8_lossy(bytes);
    let mut layers = Layers::default();
    let layer = layers.add(Layer::file(name, &text));
    let whole = |message: &str, hint: &str| {
        let place = Place {
            layer,
            line: 1,
            column: 1,
            width: 1,
        };
        vec![layers.fault(place, "", message).with_hint(hint)]
    };
    if bytes.len() > ENV_FILE_BYTES_MAX {
        return Err(whole(
            "this file is larger than 1 MiB",
            "pass large values as files",
        ));
    }
    if matches!(text, std::borrow::Cow::Owned(_)) {
        return Err(whole("this file is not UTF-8", "save the file as UTF-8"));
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut faults = Vec::new();
    for (line, number) in lines(text.trim_start_matches('\u{feff}')).zip(1..) {
        match pair(line) {
            Ok(None) => {}
            Ok(Some((name, value))) => {
                pairs.retain(|(known, _)| *known != name);
                pairs.push((name, value));
            }
            Err((column, message, hint)) => {
                let column = u32::try_from(column + 1).unwrap_or(u32::MAX);
                let place = Place {
                    layer,
                    line: number,
                    column,
                    width: u32::MAX,
                };
                faults.push(layers.fault(place, "", message).with_hint(hint));
            }
        }
    }
    match faults.is_empty() {
        true => Ok(pairs),
        false => Err(faults),
    }
}

fn pair(line: &str) -> Result<Option<(String, String)>, Wrong> {
    let text = line.trim_start();
    let indent = line.chars().count() - text.chars().count();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    if text.contains('\0') {
        return Err((indent, "found a NUL character".to_owned(), "remove it"));
    }
    let assignment = text.strip_prefix("export ").unwrap_or(text).trim_start();
    let Some((name, value)) = assignment.split_once('=') else {
        let message = format!("found `{}`, expected `NAME=value`", shorten(assignment));
        return Err((indent, message, "write a `=`, or a `#` before a comment"));
    };
    if !is_name(name) {
        let message = format!("`{}` is no name of an environment variable", shorten(name));
        let hint = match name.ends_with(' ') {
            true => "write no space before the `=`",
            false => "use letters, digits and `_`, and no digit at the start",
        };
        return Err((indent, message, hint));
    }
    let column = line.chars().count() - value.trim_start().chars().count();
    value_of(value.trim())
        .map(|value| Some((name.to_owned(), value)))
        .map_err(|(message, hint)| (column, message.to_owned(), hint))
}

fn value_of(text: &str) -> Result<String, (&'static str, &'static str)> {
    let (value, rest) = match text.chars().next() {
        Some('\'') => text[1..]
            .split_once('\'')
            .map(|(value, rest)| (value.to_owned(), rest))
            .ok_or(NOT_CLOSED)?,
        Some('"') => double_quoted(&text[1..]).ok_or(NOT_CLOSED)?,
        // An empty value before a comment: `NAME= # why`.
        Some('#') => return Ok(String::new()),
        _ => {
            let end = text.find(" #").unwrap_or(text.len());
            return Ok(text[..end].trim_end().to_owned());
        }
    };
    match rest.trim_start() {
        "" => Ok(value),
        rest if rest.starts_with('#') => Ok(value),
        _ => Err((
            "found text after a closing quote",
            "put the whole value in quotes",
        )),
    }
}

const NOT_CLOSED: (&str, &str) = ("a quote is not closed", "close it on the same line");

/// The value up to the closing quote, and what follows.
fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                c @ ('\\' | '"' | '$' | '`') => value.push(c),
                other => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expected: Option<(&str, &str)>) {
        let pairs = parse(".env", line.as_bytes()).expect(line);
        let found = pairs
            .first()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(found, expected, "{line:?}");
    }

    #[test]
    fn lines_are_names_and_values() {
        check("", None);
        check("  # A=b", None);
        check("A=b", Some(("A", "b")));
        check("export A=b c ", Some(("A", "b c")));
        check("A=", Some(("A", "")));
        check("A= # nothing", Some(("A", "")));
        check("A=b#c # d", Some(("A", "b#c")));
        check("A='b # c' # d", Some(("A", "b # c")));
        check(r#"A="b \"c\" \n$D""#, Some(("A", "b \"c\" \n$D")));
        check("A=b=c", Some(("A", "b=c")));
        check("A=1\r\n", Some(("A", "1")));
        check("A=1\nA=2", Some(("A", "2")));
    }

    #[test]
    fn each_wrong_line_is_named() {
        let text = "A=1\nB\n2C=3\nD =4\nE='x\nF=\"x\" y\n";
        let faults = parse("dev.env", text.as_bytes()).expect_err("five lines are wrong");
        let found: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.origin, fault.message))
            .collect();
        assert_eq!(
            found,
            [
                "dev.env:2:1: found `B`, expected `NAME=value`",
                "dev.env:3:1: `2C` is no name of an environment variable",
                "dev.env:4:1: `D ` is no name of an environment variable",
                "dev.env:5:3: a quote is not closed",
                "dev.env:6:3: found text after a closing quote",
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(pairs) = parse(".env", &bytes) {
                for (name, _) in pairs {
                    prop_assert!(is_name(&name));
                }
            }
        }
    }
}
