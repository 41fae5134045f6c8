//! One output pipe of an instance, and the cutting of its bytes into lines.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, read};

use super::log_file::Batch;
use crate::logs::{LineKind, Stream};

/// A longer line is split, so that one line costs a bounded amount of memory.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;

/// A pipe that the keeper reads.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) fd: OwnedFd,
    pub(crate) stream: Stream,
    pub(crate) cutter: Cutter,
}

/// What one turn at a pipe brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Bytes; there may be more.
    Read,
    /// Nothing for now.
    Empty,
    /// No process holds the other end.
    Closed,
}

/// Cuts bytes into lines and keeps what has no line feed yet.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    pub(crate) rest: Vec<u8>,
}

// === impl Pipe ===

impl Pipe {
    pub(crate) fn new(fd: OwnedFd, stream: Stream) -> Self {
        Self {
            fd,
            stream,
            cutter: Cutter::default(),
        }
    }

    /// Reads once, so that an instance that floods takes no more than its turn.
    pub(crate) fn turn(&mut self, buffer: &mut [u8], batch: &mut Batch<'_>) -> Turn {
        loop {
            match read(&self.fd, &mut *buffer) {
                Ok(0) => return Turn::Closed,
                Ok(length) => {
                    let stream = self.stream;
                    let push = &mut |text: &[u8], kind| batch.push((stream, kind), text);
                    self.cutter.cut(&buffer[..length], push);
                    return Turn::Read;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Turn::Empty,
                Err(_) => return Turn::Closed,
            }
        }
    }

    /// The program's last words may lack their line feed.
    pub(crate) fn finish(&mut self, batch: &mut Batch<'_>) {
        let stream = self.stream;
        self.cutter
            .finish(&mut |text, kind| batch.push((stream, kind), text));
    }
}

// === impl Cutter ===

impl Cutter {
    fn cut(&mut self, mut bytes: &[u8], push: &mut impl FnMut(&[u8], LineKind)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, more) = bytes.split_at(end);
            bytes = &more[1..];
            if self.rest.is_empty() {
                let last = split_long(line, push);
                push(last, LineKind::Full);
            } else {
                self.rest.extend_from_slice(line);
                let last = split_long(&self.rest, push);
                push(last, LineKind::Full);
                // Memory is held only while a line is incomplete: most instances hold none.
                self.rest = Vec::new();
            }
        }
        self.rest.extend_from_slice(bytes);
        let kept = split_long(&self.rest, push).len();
        let pushed = self.rest.len() - kept;
        self.rest.drain(..pushed);
    }

    fn finish(&mut self, push: &mut impl FnMut(&[u8], LineKind)) {
        if !self.rest.is_empty() {
            push(&self.rest, LineKind::Full);
            self.rest = Vec::new();
        }
    }
}

/// Pushes pieces of a line until the rest is short enough, and returns the rest.
fn split_long<'a>(mut line: &'a [u8], push: &mut impl FnMut(&[u8], LineKind)) -> &'a [u8] {
    while line.len() > LINE_BYTES_MAX {
        let (piece, more) = line.split_at(character_boundary(line));
        push(piece, LineKind::Partial);
        line = more;
    }
    line
}

/// Not in the middle of a UTF-8 character, if it is one.
fn character_boundary(line: &[u8]) -> usize {
    let is_continuation = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    (LINE_BYTES_MAX - 3..=LINE_BYTES_MAX)
        .rev()
        .find(|end| !is_continuation(line[*end]))
        .unwrap_or(LINE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<(String, LineKind)> {
        let mut lines = Vec::new();
        let mut push = |text: &[u8], kind| {
            assert!(text.len() <= LINE_BYTES_MAX);
            lines.push((String::from_utf8(text.to_vec()).unwrap(), kind));
        };
        let mut cutter = Cutter::default();
        for chunk in chunks {
            cutter.cut(chunk, &mut push);
            assert!(cutter.rest.len() <= LINE_BYTES_MAX);
        }
        cutter.finish(&mut push);
        lines
    }

    #[test]
    fn lines_do_not_depend_on_how_bytes_arrive() {
        let text = b"one\n\ntwo two\nthree";
        let expect = lines(&[text]);
        assert_eq!(expect.len(), 4);
        for at in 0..text.len() {
            assert_eq!(lines(&[&text[..at], &text[at..]]), expect);
        }
        assert_eq!(lines(&text.chunks(1).collect::<Vec<_>>()), expect);
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_make_the_whole() {
        for (unit, feed) in [("x", "\n"), ("ä", "\n"), ("€", ""), ("🙂", "\n")] {
            let long = unit.repeat(3 * LINE_BYTES_MAX / unit.len() + 5);
            let got = lines(&[format!("{long}{feed}").as_bytes()]);
            let whole: String = got.iter().map(|(text, _)| text.as_str()).collect();
            assert_eq!(whole, long);
            let (last, pieces) = got.split_last().unwrap();
            assert_eq!(last.1, LineKind::Full);
            assert!(pieces.len() == 3 && pieces.iter().all(|(_, kind)| *kind == LineKind::Partial));
        }
    }
}
