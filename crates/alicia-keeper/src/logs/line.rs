//! One line of a log.

use serde::{Deserialize, Serialize};

use crate::clock::{self, STAMP_BYTES};

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The program's standard output.
    Stdout,
    /// The program's standard error.
    Stderr,
    /// The keeper: what is missing, and why.
    Keeper,
}

/// Whether a line is all that the program wrote up to its line feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// A full line, or the last piece of one.
    Full,
    /// A piece: the rest follows.
    Partial,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When the keeper read it, in microseconds since 1970.
    pub unix_us: u64,
    /// Who wrote it.
    pub stream: Stream,
    /// Without the line feed; what is not UTF-8 is replaced.
    pub text: String,
    /// Full or partial.
    pub kind: LineKind,
}

// === impl Stream ===

impl Stream {
    /// As it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Keeper => "keeper",
        }
    }
}

// === impl Line ===

impl Line {
    /// Reads a line of a file, without its line feed; `None` if it is none. Lines of the host's own log, JSON or text,
    /// are read too.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::parse_output(bytes).or_else(|| Self::parse_own(bytes))
    }

    /// `{"timestamp":"…","level":…}` or `<stamp>  INFO …`, as the host writes them.
    fn parse_own(bytes: &[u8]) -> Option<Self> {
        let json = bytes.strip_prefix(br#"{"timestamp":""#);
        let (stamp, rest) = json.unwrap_or(bytes).split_at_checked(STAMP_BYTES)?;
        let text = match json {
            Some(_) => bytes,
            None => Some(rest.trim_ascii_start()).filter(|text| {
                let levels = ["TRACE ", "DEBUG ", "INFO ", "WARN ", "ERROR "];
                levels
                    .iter()
                    .any(|level| text.starts_with(level.as_bytes()))
            })?,
        };
        Some(Self {
            unix_us: clock::parse_stamp(stamp)?,
            stream: Stream::Stderr,
            text: String::from_utf8_lossy(text).into_owned(),
            kind: LineKind::Full,
        })
    }

    fn parse_output(bytes: &[u8]) -> Option<Self> {
        let (stamp, rest) = bytes.split_at_checked(STAMP_BYTES)?;
        let (stream, rest) = match rest.split_at_checked(8)? {
            (b" stdout ", rest) => (Stream::Stdout, rest),
            (b" stderr ", rest) => (Stream::Stderr, rest),
            (b" keeper ", rest) => (Stream::Keeper, rest),
            _ => return None,
        };
        let (kind, text) = match rest.split_at_checked(2)? {
            (b"F ", text) => (LineKind::Full, text),
            (b"P ", text) => (LineKind::Partial, text),
            _ => return None,
        };
        let text = String::from_utf8_lossy(text).into_owned();
        Some(Self {
            unix_us: clock::parse_stamp(stamp)?,
            stream,
            text,
            kind,
        })
    }
}

/// Length of what stands before the text.
pub(crate) const HEAD_BYTES: usize = STAMP_BYTES + 10;

/// Appends a line as it stands in the file.
pub(crate) fn format(
    buffer: &mut Vec<u8>,
    stamp: &[u8; STAMP_BYTES],
    (stream, kind): (Stream, LineKind),
    text: &[u8],
) {
    buffer.extend_from_slice(stamp);
    buffer.push(b' ');
    buffer.extend_from_slice(stream.as_str().as_bytes());
    buffer.extend_from_slice(match kind {
        LineKind::Full => b" F ",
        LineKind::Partial => b" P ",
    });
    buffer.extend_from_slice(text);
    buffer.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for stream in [Stream::Stdout, Stream::Stderr, Stream::Keeper] {
            for kind in [LineKind::Full, LineKind::Partial] {
                for text in ["", " ", "a b", "F P stdout"] {
                    let mut bytes = Vec::new();
                    format(
                        &mut bytes,
                        &clock::stamp(77),
                        (stream, kind),
                        text.as_bytes(),
                    );
                    assert_eq!(bytes.len(), HEAD_BYTES + text.len() + 1);
                    let line = Line {
                        unix_us: 77,
                        stream,
                        text: text.into(),
                        kind,
                    };
                    assert_eq!(Line::parse(bytes.strip_suffix(b"\n").unwrap()), Some(line));
                }
            }
        }
    }

    #[test]
    fn lines_of_the_host_are_read() {
        let stamp = "2026-11-20T17:34:26.123456Z";
        let json = format!(r#"{{"timestamp":"{stamp}","level":"INFO","message":"started"}}"#);
        let line = Line::parse(json.as_bytes()).unwrap();
        assert_eq!(line.text, json);
        assert_eq!(&clock::stamp(line.unix_us)[..], stamp.as_bytes());
        let text = format!("{stamp}  WARN alicia_host: slow");
        assert_eq!(
            Line::parse(text.as_bytes()).unwrap().text,
            "WARN alicia_host: slow"
        );
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let stamp = "2026-11-20T17:34:26.123456Z";
        for text in [
            "",
            "hello",
            stamp,
            &format!("{stamp} stdin_ F x"),
            &format!("{stamp} stdout X x"),
        ] {
            assert_eq!(Line::parse(text.as_bytes()), None, "{text}");
        }
    }
}
