//! The last line of an output, in bounded memory.

/// How much of the end is kept, in bytes: several of the longest lines that a detail shows.
const TAIL_BYTES_MAX: usize = 4 << 10;

/// The longest line that is shown, in characters.
const LINE_CHARS_MAX: usize = 200;

/// The end of an output.
#[derive(Debug, Default)]
pub(super) struct Tail(Vec<u8>);

// === impl Tail ===

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let excess = (self.0.len() + bytes.len()).saturating_sub(TAIL_BYTES_MAX);
        self.0.drain(..excess);
        self.0.extend_from_slice(bytes);
    }

    /// The last line that says something.
    pub(super) fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        let plain = line.chars().map(|c| if c.is_control() { ' ' } else { c });
        Some(plain.take(LINE_CHARS_MAX).collect())
    }

    /// A sentence, followed by the last line when there is one.
    pub(super) fn after(&self, sentence: String) -> String {
        match self.last_line() {
            Some(line) => format!("{sentence}: {line}"),
            None => sentence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_says_something_is_kept() {
        let check = |pushed: &[&[u8]], expected: Option<&str>| {
            let mut tail = Tail::default();
            for bytes in pushed {
                tail.push(bytes);
            }
            assert_eq!(tail.last_line().as_deref(), expected);
            assert!(tail.0.len() <= TAIL_BYTES_MAX);
        };
        check(&[], None);
        check(&[b"\n \n"], None);
        check(&[b"a\nb", b"c\n\n"], Some("bc"));
        check(&[b"\x1b[31mred\n"], Some(" [31mred"));
        check(&[b"\xffx"], Some("\u{fffd}x"));
        check(&[&[b'x'; 10_000], b"\nend"], Some("end"));
        check(
            &[&[b'x'; 10_000]],
            Some("x".repeat(LINE_CHARS_MAX).as_str()),
        );
    }
}
