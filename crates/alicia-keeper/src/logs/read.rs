//! Reads logs from their files, across those that were put aside.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::bloom::is_in_word;
use super::facts::{Level, level_of};
use super::packed::PackedFile;
use super::{Aside, Line, Stream, put_aside_once};

/// Read at once from the end of a file: some hundred lines.
const BLOCK_BYTES: u64 = 64 * 1024;

/// The kernel's time of a change may lag behind the clock by a tick.
const MTIME_SLACK_US: u128 = 1_000_000;

/// Which lines are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not older, in microseconds since 1970.
    pub since_unix_us: Option<u64>,
    /// Not newer, in microseconds since 1970.
    pub until_unix_us: Option<u64>,
    /// With this text in it.
    pub contains: Option<String>,
    /// Of this stream only.
    pub stream: Option<Stream>,
    /// At least so grave. A line that says no level counts as information.
    pub level: Option<Level>,
    /// With this id in it, as a word of its own: of a trace, a request, anything.
    pub trace: Option<String>,
}

impl Filter {
    /// Whether a line is wanted.
    pub fn admits(&self, line: &Line) -> bool {
        !self.is_too_old(line)
            && self.until_unix_us.is_none_or(|until| line.unix_us <= until)
            && self.stream.is_none_or(|stream| line.stream == stream)
            && self.admits_text(line.text.as_bytes())
            && self.level.is_none_or(|level| level_of(line) >= level)
    }

    /// Reads a line of a file, without its line feed, if it is wanted. Most are not: they are passed over as bytes.
    pub(super) fn pick(&self, bytes: &[u8]) -> Option<Line> {
        if !self.admits_text(bytes) {
            return None;
        }
        Line::parse(bytes).filter(|line| self.admits(line))
    }

    fn admits_text(&self, bytes: &[u8]) -> bool {
        let contains = |text: &String| memchr::memmem::find(bytes, text.as_bytes()).is_some();
        self.contains.as_ref().is_none_or(contains)
            && self
                .trace
                .as_ref()
                .is_none_or(|id| has_word(bytes, id.as_bytes()))
    }

    /// Whether a file was written to for the last time before what is wanted.
    fn is_older(&self, path: &Path) -> bool {
        let Some(since) = self.since_unix_us else {
            return false;
        };
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        let written = modified
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        written.is_some_and(|written| written.as_micros() + MTIME_SLACK_US < u128::from(since))
    }

    fn is_too_old(&self, line: &Line) -> bool {
        self.since_unix_us.is_some_and(|since| line.unix_us < since)
    }
}

/// Whether a text is there and does not go on to either side.
fn has_word(bytes: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, word).any(|at| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let after = bytes.get(at + word.len()).copied();
        ![before, after].into_iter().flatten().any(is_in_word)
    })
}

/// The last `count` lines that the filter admits, oldest first. `path` is the file that is written now
/// ([`InstanceInfo::log`](crate::protocol::InstanceInfo::log)); where it does not exist there are no lines.
///
/// # Errors
/// Files that cannot be read.
pub fn read_last(path: &Path, count: usize, filter: &Filter) -> io::Result<Vec<Line>> {
    match File::open(path) {
        Ok(file) => {
            let end = file.metadata()?.len();
            read_last_before(path, Some((&file, end)), count, filter)
        }
        // Between the two steps of a rotation there are only files that were put aside.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            read_last_before(path, None, count, filter)
        }
        Err(error) => Err(error),
    }
}

/// Passes every line that the filter admits, oldest first, until `take` breaks.
///
/// # Errors
/// Files that cannot be read.
pub fn read_all(
    path: &Path,
    filter: &Filter,
    mut take: impl FnMut(Line) -> ControlFlow<()>,
) -> io::Result<()> {
    let current = open_if_there(path)?;
    let inode = current
        .as_ref()
        .map(|file| file.metadata())
        .transpose()?
        .map(|it| it.ino());
    for aside in put_aside_once(path)? {
        // The current file may have been put aside since it was opened.
        let goes_on = match open_aside(&aside, inode)? {
            None => true,
            Some(Opened::Plain(file)) => pass_lines(&file, filter, &mut take)?.is_continue(),
            Some(Opened::Packed(file)) => file.forwards(filter, |lines| {
                Ok(lines.into_iter().try_for_each(&mut take).is_continue())
            })?,
        };
        if !goes_on {
            return Ok(());
        }
    }
    match current {
        Some(file) => pass_lines(&file, filter, &mut take).map(|_| ()),
        None => Ok(()),
    }
}

/// The last lines before a place in the current file.
pub(super) fn read_last_before(
    path: &Path,
    current: Option<(&File, u64)>,
    count: usize,
    filter: &Filter,
) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut take = |line: Line| {
        if lines.len() >= count || filter.is_too_old(&line) {
            return ControlFlow::Break(());
        }
        if filter.admits(&line) {
            lines.push(line);
        }
        // Said at once, so that no block is unpacked for a line that is not wanted any more.
        match lines.len() < count {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    };
    let (mut flow, mut inode) = (ControlFlow::Continue(()), None);
    if let Some((file, end)) = current {
        flow = lines_backwards(file, end, &mut take)?;
        inode = Some(file.metadata()?.ino());
    }
    for aside in put_aside_once(path)?.into_iter().rev() {
        if flow.is_break() || filter.is_older(&aside.path) {
            break;
        }
        match open_aside(&aside, inode)? {
            None => {}
            Some(Opened::Plain(file)) => {
                flow = lines_backwards(&file, file.metadata()?.len(), &mut take)?;
            }
            Some(Opened::Packed(file)) => file.backwards(filter, |lines| {
                flow = lines.into_iter().rev().try_for_each(&mut take);
                Ok(flow.is_continue())
            })?,
        }
    }
    lines.reverse();
    Ok(lines)
}

/// A file that was put aside.
pub(super) enum Opened {
    Plain(File),
    Packed(PackedFile),
}

/// `None` for one that is gone by now, or is the current file.
pub(super) fn open_aside(aside: &Aside, current: Option<u64>) -> io::Result<Option<Opened>> {
    if !aside.is_packed
        && let Some(file) = open_if_there(&aside.path)?
    {
        let is_current = Some(file.metadata()?.ino()) == current;
        return Ok((!is_current).then_some(Opened::Plain(file)));
    }
    // It may have been packed since it was listed.
    let mut packed = aside.path.clone().into_os_string();
    if !aside.is_packed {
        packed.push(super::PACKED);
    }
    match PackedFile::open(Path::new(&packed)) {
        Ok(file) => Ok(Some(Opened::Packed(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file that a rotation removed in this moment has no lines.
fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn pass_lines(
    file: &File,
    filter: &Filter,
    take: &mut impl FnMut(Line) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut reader = BufReader::new(file);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        let line = bytes.strip_suffix(b"\n").and_then(|line| filter.pick(line));
        if let Some(line) = line
            && take(line).is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        bytes.clear();
    }
    Ok(ControlFlow::Continue(()))
}

/// Passes the whole lines before `end`, newest first.
fn lines_backwards(
    file: &File,
    mut end: u64,
    take: &mut impl FnMut(Line) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    // The beginning of a line whose end was in a later block.
    let mut tail: Vec<u8> = Vec::new();
    let mut is_last = true;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or_default()];
        file.read_exact_at(&mut block, start)?;
        block.append(&mut tail);
        let mut rest = block.as_slice();
        while let Some(at) = rest.iter().rposition(|byte| *byte == b'\n') {
            // What follows the last line feed of the file is no whole line yet.
            let line = Line::parse(&rest[at + 1..]).filter(|_| !is_last);
            is_last = false;
            rest = &rest[..at];
            if line.is_some_and(|line| take(line).is_break()) {
                return Ok(ControlFlow::Break(()));
            }
        }
        tail = rest.to_vec();
        end = start;
    }
    match Line::parse(&tail).filter(|_| !is_last) {
        Some(line) => Ok(take(line)),
        None => Ok(ControlFlow::Continue(())),
    }
}

/// Removes nothing and changes nothing: the place after the last whole line of a file.
pub(super) fn end_of_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or_default()];
        file.read_exact_at(&mut block, start)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The inode of a path, if there is one.
pub(super) fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::clock;
    use crate::logs::{LineKind, format, numbered};

    /// Lines 0 to 2,999 in three files, the last one with a torn end.
    fn log(directory: &Path) -> PathBuf {
        let path = directory.join("a.log");
        let files = [numbered(&path, 9), numbered(&path, 10), path.clone()];
        for (part, file) in files.iter().enumerate() {
            let mut bytes = Vec::new();
            for number in part as u64 * 1_000..(part as u64 + 1) * 1_000 {
                let text = format!("line {number} {}", "x".repeat(number as usize % 300));
                let origin = (Stream::Stdout, LineKind::Full);
                format(&mut bytes, &clock::stamp(number), origin, text.as_bytes());
            }
            if part == 2 {
                bytes.extend_from_slice(b"1970-01-01T00:00:00.003000Z stdout F torn");
            }
            fs::write(file, bytes).unwrap();
        }
        path
    }

    fn numbers(lines: &[Line]) -> Vec<u64> {
        lines.iter().map(|line| line.unix_us).collect()
    }

    #[test]
    fn the_last_lines_come_from_as_many_files_as_it_takes() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path());
        for count in [0, 1, 10, 1_000, 1_001, 2_500, 3_000, 9_000] {
            let lines = read_last(&path, count, &Filter::default()).unwrap();
            let first = 3_000 - (count as u64).min(3_000);
            assert_eq!(numbers(&lines), (first..3_000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_filter_admits_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path());
        let contains = Filter {
            contains: Some("line 1234 ".into()),
            ..Filter::default()
        };
        assert_eq!(numbers(&read_last(&path, 5, &contains).unwrap()), [1234]);
        let since = Filter {
            since_unix_us: Some(2_998),
            ..Filter::default()
        };
        assert_eq!(
            numbers(&read_last(&path, 5, &since).unwrap()),
            [2_998, 2_999]
        );
        let stream = Filter {
            stream: Some(Stream::Stderr),
            ..Filter::default()
        };
        assert_eq!(read_last(&path, 5, &stream).unwrap(), []);
    }

    #[test]
    fn all_lines_come_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path());
        let mut seen = Vec::new();
        read_all(&path, &Filter::default(), |line| {
            seen.push(line.unix_us);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(seen, (0..3_000).collect::<Vec<_>>());
    }

    #[test]
    fn lines_are_there_while_the_current_file_is_being_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path());
        fs::remove_file(&path).unwrap();
        let lines = read_last(&path, 5, &Filter::default()).unwrap();
        assert_eq!(numbers(&lines), [1_995, 1_996, 1_997, 1_998, 1_999]);
    }

    #[test]
    fn no_file_has_no_lines() {
        let path = Path::new("/nonexistent/a.log");
        assert_eq!(read_last(path, 5, &Filter::default()).unwrap(), []);
    }
}
