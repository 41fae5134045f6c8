//! The output of a container as the engine sends it: frames of an eight-byte head and a payload.
//!
//! `[stream, 0, 0, 0, size…]`, the size in big endian, stream 1 output and 2 errors. Source: the page of the Engine
//! API on attaching to a container.

use bytes::{Buf as _, Bytes, BytesMut};

/// The head of a frame.
const HEAD_BYTES: usize = 8;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Output,
    Errors,
}

/// Takes what arrives apart. Payloads are given out as they come: a frame may be larger than any buffer.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    waiting: BytesMut,
    /// What is left of the frame that is being read.
    open: Option<(Stream, usize)>,
}

impl Frames {
    /// Adds what arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next piece of a payload.
    pub(crate) fn next(&mut self) -> Option<(Stream, Bytes)> {
        loop {
            if let Some((stream, left)) = self.open {
                let size = left.min(self.waiting.len());
                if size == 0 && left > 0 {
                    return None;
                }
                let piece = self.waiting.split_to(size).freeze();
                self.open = (left > size).then_some((stream, left - size));
                if !piece.is_empty() {
                    return Some((stream, piece));
                }
                continue;
            }
            if self.waiting.len() < HEAD_BYTES {
                return None;
            }
            let mut head = self.waiting.split_to(HEAD_BYTES);
            let stream = match head.get_u8() {
                2 => Stream::Errors,
                _ => Stream::Output,
            };
            head.advance(3);
            self.open = Some((stream, head.get_u32() as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_put_together_however_they_are_cut() {
        let mut all = Vec::new();
        for (stream, text) in [(1_u8, "one\n"), (2, "two\n"), (1, ""), (1, "three")] {
            let size = u32::try_from(text.len()).expect("is short").to_be_bytes();
            all.extend([stream, 0, 0, 0]);
            all.extend(size);
            all.extend(text.bytes());
        }
        for cut in 1..all.len() {
            let mut frames = Frames::default();
            let (mut output, mut errors) = (Vec::new(), Vec::new());
            for piece in all.chunks(cut) {
                frames.push(piece);
                while let Some((stream, bytes)) = frames.next() {
                    match stream {
                        Stream::Output => output.extend_from_slice(&bytes),
                        Stream::Errors => errors.extend_from_slice(&bytes),
                    }
                }
            }
            assert_eq!(output, b"one\nthree", "pieces of {cut}");
            assert_eq!(errors, b"two\n", "pieces of {cut}");
        }
    }
}
