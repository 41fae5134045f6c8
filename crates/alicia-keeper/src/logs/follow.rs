//! Follows a log while it is written and put aside.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify;
use tokio::net::unix::pipe;
use tokio::time::sleep;

use super::read::{Filter, Opened, end_of_lines, inode, open_aside, read_last_before};
use super::{Aside, Line, put_aside_once};

/// Read at once; the rest is read in the next turn.
const CHUNK_BYTES: usize = 256 * 1024;
/// How long a change may go unnoticed where the kernel does not tell: no file yet, no inotify instance
/// left, a network file system.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Room for some notices; what they say does not matter.
const NOTICE_BYTES: usize = 1024;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With what comes now.
    Now,
    /// With so many last lines.
    Last(usize),
}

/// Follows a log across the files that are put aside. Reads of files are not asynchronous, but short.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    filter: Filter,
    /// An inotify descriptor: to tokio it is like a pipe, readable when something happened.
    notices: Option<pipe::Receiver>,
    watch: Option<i32>,
    file: Option<Open>,
    pending: Vec<Line>,
}

/// The file that is read, up to the end of its last whole line that was read.
#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    offset: u64,
    /// The number that it has, or gets when it is put aside. Numbers never repeat, so that the next file is found even
    /// when this one was packed meanwhile.
    number: u64,
}

impl Follow {
    /// Begins to follow. The file need not be there yet. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn open(path: &Path, from: From, filter: Filter) -> io::Result<Self> {
        let notices = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
            .ok()
            .and_then(|fd| pipe::Receiver::from_owned_fd_unchecked(fd).ok());
        let mut follow = Self {
            path: path.to_owned(),
            filter,
            notices,
            watch: None,
            file: None,
            pending: Vec::new(),
        };
        // Between the two steps of a rotation, the newest file is one that was put aside.
        let aside = put_aside_once(path)?.pop().filter(|aside| !aside.is_packed);
        let newest = match (open_if_there(path)?, aside) {
            (None, Some(aside)) => open_if_there(&aside.path)?,
            (current, _) => current,
        };
        if let Some(file) = newest {
            let end = end_of_lines(&file)?;
            if let From::Last(count) = from {
                follow.pending = read_last_before(path, Some((&file, end)), count, &follow.filter)?;
            }
            follow.switch_to(file, end)?;
        }
        Ok(follow)
    }

    /// The next lines: at least one, oldest first. May be dropped and called again without loss.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub async fn next(&mut self) -> io::Result<Vec<Line>> {
        loop {
            if !self.pending.is_empty() {
                return Ok(std::mem::take(&mut self.pending));
            }
            if !self.advance()? {
                self.wait().await;
            }
        }
    }

    /// Reads on, if there is anything. False: nothing for now.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(open) = &mut self.file else {
            return self.begin();
        };
        // Asked before reading: what is written to a file that was put aside was written before that.
        let is_current = inode(&self.path) == Some(open.inode);
        if open.read(&self.filter, &mut self.pending)? {
            return Ok(true);
        }
        if is_current { Ok(false) } else { self.switch() }
    }

    /// The file was not there when following began: all of it is new.
    fn begin(&mut self) -> io::Result<bool> {
        self.go_on_after(0)
    }

    /// To the file after the one that was put aside; to the oldest after it where that was removed already.
    fn switch(&mut self) -> io::Result<bool> {
        let Some(number) = self.file.as_ref().map(|open| open.number) else {
            return Ok(false);
        };
        self.go_on_after(number)
    }

    fn go_on_after(&mut self, number: u64) -> io::Result<bool> {
        let inode_now = self.file.as_ref().map(|open| open.inode);
        let aside = put_aside_once(&self.path)?;
        let Some(next) = aside.into_iter().find(|aside| aside.number > number) else {
            return match open_if_there(&self.path)? {
                Some(file) if Some(file.metadata()?.ino()) != inode_now => {
                    self.switch_to(file, 0)?;
                    Ok(true)
                }
                _ => Ok(false),
            };
        };
        match open_aside(&next, None)? {
            Some(Opened::Plain(file)) => self.switch_to(file, 0)?,
            Some(Opened::Packed(file)) => {
                let pending = &mut self.pending;
                file.forwards(&self.filter, |lines| {
                    pending.extend(lines);
                    Ok(true)
                })?;
                self.pass(&next)?;
            }
            // Removed since it was listed.
            None => self.pass(&next)?,
        }
        Ok(true)
    }

    /// Beyond a file that needs not be read any more. The file that is open stays so, at its end.
    fn pass(&mut self, aside: &Aside) -> io::Result<()> {
        match &mut self.file {
            Some(open) => open.number = aside.number,
            None => {
                // Nothing is open: a file that has nothing more to give takes the place.
                let file = File::open("/dev/null")?;
                self.file = Some(Open {
                    inode: file.metadata()?.ino(),
                    file,
                    offset: 0,
                    number: aside.number,
                });
            }
        }
        Ok(())
    }

    fn switch_to(&mut self, file: File, offset: u64) -> io::Result<()> {
        if let Some(notices) = &self.notices {
            if let Some(watch) = self.watch.take() {
                // Fails when the file is gone, and its watch with it.
                inotify::remove_watch(notices, watch).ok();
            }
            // By descriptor: the name may belong to another file by now.
            let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
            let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVE_SELF;
            self.watch = inotify::add_watch(notices, path, flags).ok();
        }
        let inode = file.metadata()?.ino();
        let number = self.number_of(inode)?;
        self.file = Some(Open {
            file,
            inode,
            offset,
            number,
        });
        Ok(())
    }

    /// The number of a plain file that was put aside, or the one that the current file will get.
    fn number_of(&self, wanted: u64) -> io::Result<u64> {
        let aside = put_aside_once(&self.path)?;
        let own = aside
            .iter()
            .find(|aside| !aside.is_packed && inode(&aside.path) == Some(wanted));
        let newest = aside.last().map_or(0, |aside| aside.number);
        Ok(own.map_or(newest + 1, |own| own.number))
    }

    async fn wait(&mut self) {
        let (Some(notices), Some(_)) = (&self.notices, self.watch) else {
            return sleep(POLL_INTERVAL).await;
        };
        tokio::select! {
            _ = notices.readable() => {
                let mut buffer = [0; NOTICE_BYTES];
                while notices.try_read(&mut buffer).is_ok_and(|length| length > 0) {}
            }
            () = sleep(POLL_INTERVAL) => {}
        }
    }
}

impl Open {
    /// Reads whole lines. An incomplete one is read again next time: the keeper may still cut it off.
    fn read(&mut self, filter: &Filter, lines: &mut Vec<Line>) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let length = self.file.read_at(&mut chunk, self.offset)?;
        let Some(end) = chunk[..length].iter().rposition(|byte| *byte == b'\n') else {
            return Ok(false);
        };
        self.offset += end as u64 + 1;
        let whole = chunk[..end].split(|byte| *byte == b'\n');
        lines.extend(whole.filter_map(|line| filter.pick(line)));
        Ok(true)
    }
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
