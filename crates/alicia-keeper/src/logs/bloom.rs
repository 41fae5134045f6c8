//! The words of a block of lines as a Bloom filter (Bloom 1970): "certainly not in here" without unpacking.
//!
//! A word is a run of letters, digits, `_` and bytes outside of ASCII, of 4 to 64 bytes; short numbers are none. An id with
//! dashes is several words, all of which must be there.

use std::collections::HashSet;

/// Shorter words are everywhere, longer ones are data.
const WORD_BYTES_MIN: usize = 4;
const WORD_BYTES_MAX: usize = 64;

/// Shorter numbers say nothing: durations, sizes, counts.
const NUMBER_BYTES_MIN: usize = 6;

/// With 10 bits a word and 5 probes, about 1 in 100 words that are not there seems to be.
const BITS_PER_WORD: usize = 10;
const PROBES: u64 = 5;

/// Collects the words of a block.
#[derive(Debug, Default)]
pub(super) struct Words(HashSet<u64>);

// === impl Words ===

impl Words {
    pub(super) fn add(&mut self, text: &[u8]) {
        self.0.extend(words(text).map(hash));
    }

    /// The filter, and none collected any more.
    pub(super) fn take_filter(&mut self) -> Vec<u8> {
        let bytes = (self.0.len() * BITS_PER_WORD).div_ceil(64).max(1) * 8;
        let mut filter = vec![0; bytes];
        for word in self.0.drain() {
            for bit in probes(word, bytes) {
                filter[bit / 8] |= 1 << (bit % 8);
            }
        }
        filter
    }
}

/// What must be in a block for a text to be in one of its lines as a word of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted(Vec<u64>);

// === impl Wanted ===

impl Wanted {
    pub(super) fn new(text: &str) -> Self {
        Self(words(text.as_bytes()).map(hash).collect())
    }

    /// Whether the text may be in the block.
    pub(super) fn may_be_in(&self, filter: &[u8]) -> bool {
        filter.is_empty()
            || self.0.iter().all(|word| {
                probes(*word, filter.len()).all(|bit| filter[bit / 8] & (1 << (bit % 8)) != 0)
            })
    }
}

fn probes(word: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let bits = bytes as u64 * 8;
    // Two halves give as many hashes as wanted (Kirsch and Mitzenmacher 2006). Odd, so that no probe repeats.
    let (first, step) = (word & 0xffff_ffff, word >> 32 | 1);
    (0..PROBES).map(move |probe| (first.wrapping_add(probe.wrapping_mul(step)) % bits) as usize)
}

/// Whether a byte is part of a word.
pub(super) const fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| !is_in_word(*byte)).filter(|word| {
        (WORD_BYTES_MIN..=WORD_BYTES_MAX).contains(&word.len())
            && (word.len() >= NUMBER_BYTES_MIN || !word.iter().all(u8::is_ascii_digit))
    })
}

/// FNV-1a over words of 8 bytes, mixed at the end. It is on disk: it never changes.
fn hash(word: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325 ^ word.len() as u64;
    for part in word.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        hash = (hash ^ u64::from_le_bytes(bytes)).wrapping_mul(PRIME);
        hash ^= hash >> 29;
    }
    hash = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 29
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_little_else() {
        let mut collected = Words::default();
        for number in 0..5_000_u32 {
            collected.add(format!("request {number:08x} took 12 ms").as_bytes());
        }
        let filter = collected.take_filter();
        let found = |number: u32| Wanted::new(&format!("{number:08x}")).may_be_in(&filter);
        assert!((0..5_000).all(found));
        let false_hits = (5_000..105_000).filter(|number| found(*number)).count();
        assert!(false_hits < 3_000, "{false_hits} of 100,000");
    }

    #[test]
    fn an_id_with_dashes_is_found_by_its_parts() {
        let mut collected = Words::default();
        collected.add(b"id=019a2b3c-7d8e-7f90-a1b2-c3d4e5f60718;");
        let filter = collected.take_filter();
        assert!(Wanted::new("019a2b3c-7d8e-7f90-a1b2-c3d4e5f60718").may_be_in(&filter));
        assert!(!Wanted::new("019a2b3c-7d8e-7f90-a1b2-c3d4e5f60719").may_be_in(&filter));
        // Nothing to go by: it may be anywhere.
        assert!(Wanted::new("a-b").may_be_in(&filter));
    }

    #[test]
    fn the_hash_is_the_one_on_disk() {
        assert_eq!(
            hash(b"4bf92f3577b34da6a3ce929d0e0e4736"),
            hash(b"4bf92f3577b34da6a3ce929d0e0e4736")
        );
        assert_ne!(hash(b"abcd"), hash(b"abcd\0"));
    }
}
