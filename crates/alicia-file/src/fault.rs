//! A fault: one thing that is wrong, where it stands, and what to do about it.
//!
//! It is written for the person who has the file open: position first, the line itself below it, and the
//! hint under the underlined text. The JSON form holds the same parts for editors and scripts.

use std::fmt;

use serde::Serialize;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum Origin {
    /// A place in a file.
    File {
        /// The path of the file, as it was given.
        file: String,
        /// The line, from 1.
        line: u32,
        /// The column in characters, from 1.
        column: u32,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// An argument of the command line.
    Flag {
        /// The argument.
        flag: String,
    },
    /// A built-in default.
    Default,
    /// A value that was handed over without a text, as a fleet over REST is.
    Value,
}

/// The line of text that a fault is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The line, or the part of a long line around the fault; control characters are replaced.
    pub text: String,
    /// The first underlined character of `text`, from 0.
    pub start: usize,
    /// How many characters are underlined; 1 or more.
    pub width: usize,
}

/// One thing that is wrong, where it stands, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where the value comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// The value, as a JSON pointer (RFC 6901) into the document; empty for the whole of it.
    pub pointer: String,
    /// What was found and what was expected, in one sentence.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The line of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Box<Excerpt>>,
}

// === impl Fault ===

impl Fault {
    /// A fault about a value that no text is known for.
    #[must_use]
    pub fn of_value(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            origin: Origin::Value,
            pointer: pointer.into(),
            message: message.into(),
            hint: None,
            excerpt: None,
        }
    }

    /// The same fault, saying what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault; says what to do when that is known.
    #[must_use]
    pub fn with_hint_if(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            // As it was typed: `/http/listen=…` was `--set http.listen=…`.
            Self::Flag { flag } => {
                let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
                let name = name.trim_start_matches('/').replace('/', ".");
                write!(f, "--set {name}={value}")
            }
            Self::Default => f.write_str("built-in default"),
            Self::Value => f.write_str("value"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.pointer.as_str()) {
            (Origin::Value | Origin::Default, "") => {}
            (Origin::Value | Origin::Default, pointer) => write!(f, "{}: ", &pointer[1..])?,
            (origin, _) => write!(f, "{origin}: ")?,
        }
        f.write_str(&self.message)?;
        let hint = self.hint.as_deref();
        match (&self.origin, &self.excerpt) {
            (Origin::File { line, .. }, Some(excerpt)) => excerpt.write(f, *line, hint),
            _ => hint.map_or(Ok(()), |hint| write!(f, "\n      = {hint}")),
        }
    }
}

impl std::error::Error for Fault {}

impl Excerpt {
    fn write(&self, f: &mut fmt::Formatter<'_>, line: u32, hint: Option<&str>) -> fmt::Result {
        let (indent, underline) = (" ".repeat(self.start), "^".repeat(self.width));
        write!(f, "\n{line:>5} | {}", self.text)?;
        write!(f, "\n      | {indent}{underline}")?;
        hint.map_or(Ok(()), |hint| write!(f, " {hint}"))
    }
}

/// Faults in the order in which a reader meets them: by file and line. What has no place in a file comes last,
/// and the same fault is said once.
#[must_use]
pub fn in_order(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by(|a, b| {
        (&a.origin, &a.pointer, &a.message).cmp(&(&b.origin, &b.pointer, &b.message))
    });
    faults.dedup();
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Fault {
        Fault {
            origin: Origin::File {
                file: "alicia.yaml".to_owned(),
                line: 12,
                column: 5,
            },
            pointer: "/services/api/comand".to_owned(),
            message: "unknown key `comand`".to_owned(),
            hint: Some("did you mean `command`?".to_owned()),
            excerpt: Some(Box::new(Excerpt {
                text: "    comand: python3 api.py".to_owned(),
                start: 4,
                width: 6,
            })),
        }
    }

    #[test]
    fn a_fault_shows_its_line_and_underlines_it() {
        assert_eq!(
            fault().to_string(),
            "alicia.yaml:12:5: unknown key `comand`\n   \
             12 |     comand: python3 api.py\n      \
             |     ^^^^^^ did you mean `command`?"
        );
    }

    #[test]
    fn a_fault_without_a_line_names_its_origin() {
        let variable = Fault {
            origin: Origin::Environment {
                variable: "ALICIA_HTTP__LISTN".to_owned(),
            },
            excerpt: None,
            ..fault()
        };
        assert_eq!(
            variable.to_string(),
            "environment variable ALICIA_HTTP__LISTN: unknown key `comand`\n      \
             = did you mean `command`?"
        );
        assert_eq!(
            Fault::of_value("/services/api", "too many").to_string(),
            "services/api: too many"
        );
    }

    #[test]
    fn the_json_form_is_flat() {
        let json = serde_json::to_value(fault()).expect("a fault is plain data");
        assert_eq!(json["source"], "file");
        assert_eq!(json["line"], 12);
        assert_eq!(json["hint"], "did you mean `command`?");
        assert_eq!(json["excerpt"]["start"], 4);
    }
}
