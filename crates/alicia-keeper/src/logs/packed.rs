//! Packed files: blocks of lines, each a zstd frame, and behind them an index that says what cannot be in which.
//!
//! ```text
//!  zstd frame │ zstd frame │ … │ skippable frame: index │ its length, "ALOG"
//! ```
//!
//! The index lies in a skippable frame (RFC 8878, section 3.1.2), so that `zstdcat` shows the lines as they were. For each
//! block it has the place, the times, the levels and a Bloom filter of the words. A file whose index is damaged is read as a
//! whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::bloom::{Wanted, Words};
use super::facts::level_of;
use super::read::Filter;
use super::{Line, PACKED};

/// Lines that are unpacked for one that is looked for, about a thousand. Larger blocks pack a little better and cost more for
/// each line that is found.
const BLOCK_BYTES: usize = 256 * 1024;

/// zstd's own default.
const LEVEL: i32 = 3;

/// The magic number of the skippable frame: one of sixteen.
const SKIPPABLE: u32 = 0x184d_2a5e;
const FORMAT: &[u8; 8] = b"alogidx1";
const TRAILER: &[u8; 4] = b"ALOG";
const TRAILER_BYTES: usize = 8;

/// A larger index is damage: one of 100 MiB of lines has about 2 MiB.
const INDEX_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A block cannot hold more than one piece over its limit.
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + 128 * 1024;

const FILE_MODE: u32 = 0o600;

/// What the index says of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    offset: u64,
    packed_bytes: u32,
    plain_bytes: u32,
    first_us: u64,
    last_us: u64,
    lines: u32,
    levels: u8,
    filter: Vec<u8>,
}

/// What packing a file gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Lines in it.
    pub lines: u64,
    /// Its bytes before.
    pub plain_bytes: u64,
    /// Its bytes now, the index included.
    pub packed_bytes: u64,
}

/// A packed file.
#[derive(Debug)]
pub(super) struct PackedFile {
    file: File,
    /// `None` when it is damaged: then the file is read as a whole.
    index: Option<Vec<Block>>,
}

/// Packs a file that was put aside and removes it. A crash in between leaves the file, or both.
///
/// # Errors
/// Files that cannot be read or written; the plain file is then still there.
pub fn pack(plain: &Path) -> io::Result<Packed> {
    let mut name = plain.as_os_str().to_owned();
    name.push(PACKED);
    let target = PathBuf::from(name);
    let beside = target.with_extension("new");
    let mut options = OpenOptions::new();
    let written = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&beside)?;
    let source = File::open(plain)?;
    let modified = source.metadata()?.modified()?;
    let packed = write(BufReader::new(source), &written)?;
    // The age of the lines decides when they go, not that of the packing.
    written.set_modified(modified)?;
    written.sync_all()?;
    fs::rename(&beside, &target)?;
    fs::remove_file(plain)?;
    Ok(packed)
}

/// Packs lines.
fn write(mut lines: impl BufRead, file: &File) -> io::Result<Packed> {
    let mut packer = Packer {
        file,
        compressor: zstd::bulk::Compressor::new(LEVEL)?,
        blocks: Vec::new(),
        plain: Vec::with_capacity(BLOCK_BYTES_MAX),
        next: empty_block(),
        words: Words::default(),
        packed: Packed::default(),
    };
    packer.compressor.include_checksum(true)?;
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        packer.add(&line)?;
        line.clear();
    }
    packer.finish()
}

fn empty_block() -> Block {
    Block {
        offset: 0,
        packed_bytes: 0,
        plain_bytes: 0,
        first_us: u64::MAX,
        last_us: 0,
        lines: 0,
        levels: 0,
        filter: Vec::new(),
    }
}

/// A file while it is packed.
struct Packer<'f> {
    file: &'f File,
    compressor: zstd::bulk::Compressor<'static>,
    blocks: Vec<Block>,
    /// The lines of the block that is being gathered.
    plain: Vec<u8>,
    next: Block,
    words: Words,
    packed: Packed,
}

impl Packer<'_> {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.plain.is_empty() && self.plain.len() + bytes.len() > BLOCK_BYTES {
            self.end_block()?;
        }
        self.plain.extend_from_slice(bytes);
        self.next.lines += 1;
        self.packed.lines += 1;
        // What is no line is kept, and found by nobody but `zstdcat`.
        if let Some(line) = bytes.strip_suffix(b"\n").and_then(Line::parse) {
            self.next.first_us = self.next.first_us.min(line.unix_us);
            self.next.last_us = self.next.last_us.max(line.unix_us);
            self.next.levels |= level_of(&line).bit();
            self.words.add(line.text.as_bytes());
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        let frame = self.compressor.compress(&self.plain)?;
        self.file.write_all_at(&frame, self.packed.packed_bytes)?;
        let block = std::mem::replace(&mut self.next, empty_block());
        self.blocks.push(Block {
            offset: self.packed.packed_bytes,
            packed_bytes: length(frame.len())?,
            plain_bytes: length(self.plain.len())?,
            filter: self.words.take_filter(),
            ..block
        });
        self.packed.packed_bytes += frame.len() as u64;
        self.packed.plain_bytes += self.plain.len() as u64;
        self.plain.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Packed> {
        if !self.plain.is_empty() {
            self.end_block()?;
        }
        let index = encode(&self.blocks);
        let mut frame = Vec::with_capacity(index.len() + 16);
        frame.extend(SKIPPABLE.to_le_bytes());
        frame.extend(length(index.len() + TRAILER_BYTES)?.to_le_bytes());
        frame.extend(&index);
        frame.extend(length(index.len())?.to_le_bytes());
        frame.extend(TRAILER);
        self.file.write_all_at(&frame, self.packed.packed_bytes)?;
        self.packed.packed_bytes += frame.len() as u64;
        Ok(self.packed)
    }
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

fn encode(blocks: &[Block]) -> Vec<u8> {
    let mut index = FORMAT.to_vec();
    index.extend((blocks.len() as u32).to_le_bytes());
    for block in blocks {
        index.extend(block.offset.to_le_bytes());
        index.extend(block.packed_bytes.to_le_bytes());
        index.extend(block.plain_bytes.to_le_bytes());
        index.extend(block.first_us.to_le_bytes());
        index.extend(block.last_us.to_le_bytes());
        index.extend(block.lines.to_le_bytes());
        index.push(block.levels);
        index.extend((block.filter.len() as u32).to_le_bytes());
        index.extend(&block.filter);
    }
    let sum = crc32fast::hash(&index);
    index.extend(sum.to_le_bytes());
    index
}

/// `None` for what is damaged, or of a newer format.
fn decode(index: &[u8]) -> Option<Vec<Block>> {
    let (index, sum) = index.split_last_chunk()?;
    if crc32fast::hash(index) != u32::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = index.strip_prefix(FORMAT)?;
    let count = u32::from_le_bytes(take(&mut rest)?);
    let mut blocks = Vec::new();
    for _ in 0..count {
        let mut block = Block {
            offset: u64::from_le_bytes(take(&mut rest)?),
            packed_bytes: u32::from_le_bytes(take(&mut rest)?),
            plain_bytes: u32::from_le_bytes(take(&mut rest)?),
            first_us: u64::from_le_bytes(take(&mut rest)?),
            last_us: u64::from_le_bytes(take(&mut rest)?),
            lines: u32::from_le_bytes(take(&mut rest)?),
            levels: u8::from_le_bytes(take(&mut rest)?),
            filter: Vec::new(),
        };
        let filter_bytes = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (filter, more) = rest.split_at_checked(filter_bytes)?;
        block.filter = filter.to_vec();
        rest = more;
        blocks.push(block);
    }
    rest.is_empty().then_some(blocks)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, more) = rest.split_first_chunk::<N>()?;
    *rest = more;
    Some(*bytes)
}

// === impl PackedFile ===

impl PackedFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let index = read_index(&file)?;
        Ok(Self { file, index })
    }

    /// The lines that the filter admits, oldest first, block by block from the newest: `take` gets those of one block and
    /// says whether to go on.
    pub(super) fn backwards(
        &self,
        filter: &Filter,
        mut take: impl FnMut(Vec<Line>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let Some(index) = &self.index else {
            return take(lines(&self.read_whole()?, filter)).map(drop);
        };
        let wanted = Wanted::new(filter.trace.as_deref().unwrap_or_default());
        for block in index
            .iter()
            .rev()
            .filter(|block| block.may_have(filter, &wanted))
        {
            if !take(lines(&self.read(block)?, filter))? {
                break;
            }
        }
        Ok(())
    }

    /// The lines that the filter admits, oldest first, block by block.
    pub(super) fn forwards(
        &self,
        filter: &Filter,
        mut take: impl FnMut(Vec<Line>) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let Some(index) = &self.index else {
            return take(lines(&self.read_whole()?, filter));
        };
        let wanted = Wanted::new(filter.trace.as_deref().unwrap_or_default());
        for block in index.iter().filter(|block| block.may_have(filter, &wanted)) {
            if !take(lines(&self.read(block)?, filter))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read(&self, block: &Block) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; block.packed_bytes as usize];
        self.file.read_exact_at(&mut frame, block.offset)?;
        zstd::bulk::decompress(&frame, (block.plain_bytes as usize).min(BLOCK_BYTES_MAX))
    }

    /// Without an index: what the frames give, up to the first that is damaged.
    fn read_whole(&self) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let mut decoder = zstd::stream::read::Decoder::new(&self.file)?;
        // What came before the damage is still good.
        drop(decoder.read_to_end(&mut plain));
        Ok(plain)
    }
}

impl Block {
    fn may_have(&self, filter: &Filter, wanted: &Wanted) -> bool {
        filter
            .since_unix_us
            .is_none_or(|since| self.last_us >= since)
            && filter
                .until_unix_us
                .is_none_or(|until| self.first_us <= until)
            && filter
                .level
                .is_none_or(|level| self.levels & level.and_above() != 0)
            && wanted.may_be_in(&self.filter)
    }
}

fn lines(plain: &[u8], filter: &Filter) -> Vec<Line> {
    let whole = plain.split_inclusive(|byte| *byte == b'\n');
    let parsed = whole.filter_map(|line| filter.pick(line.strip_suffix(b"\n")?));
    parsed.collect()
}

fn read_index(file: &File) -> io::Result<Option<Vec<Block>>> {
    let end = file.metadata()?.len();
    let mut trailer = [0; TRAILER_BYTES];
    if end < TRAILER_BYTES as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut trailer, end - TRAILER_BYTES as u64)?;
    let (bytes, magic) = trailer.split_at(4);
    let bytes = u64::from(u32::from_le_bytes(bytes.try_into().unwrap_or_default()));
    let start = end.checked_sub(bytes + TRAILER_BYTES as u64);
    let Some(start) = start.filter(|_| magic == TRAILER && bytes <= INDEX_BYTES_MAX) else {
        return Ok(None);
    };
    let mut index = vec![0; usize::try_from(bytes).unwrap_or_default()];
    file.read_exact_at(&mut index, start)?;
    Ok(decode(&index))
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
