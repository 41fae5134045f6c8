//! The pipes of instances and their logs, within the loop.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::Timespec;

use super::instance::SharedLog;
use super::timers::Timer;
use super::token::Token;
use super::{Keeper, PIPES_PER_TURN, note};
use crate::clock;
use crate::logs::{LineKind, Stream};
use crate::output::{Batch, LogFile, LogState, Trouble, Turn};
use crate::protocol::{Event, LogSpec, LogTrouble};

/// Read from one pipe in one turn: what a pipe holds by default.
const READ_BYTES: usize = 64 * 1024;
/// Reads after which the rest of a dead instance's output is given up: what two enlarged pipes hold
/// (1 MiB, the default limit of `F_SETPIPE_SZ`). Only one that still writes can have more.
const DRAIN_READS_MAX: usize = 16;
/// Between tries to write a marker line, for a log that is otherwise silent.
const MARKER_INTERVAL_MS: u64 = 1_000;

/// How long a pipe is left alone after a read of which lines were dropped: who floods waits in its own writes, and takes the
/// processor neither from the keeper nor from others. 64 KiB each time are still 6 MB a second.
const FLOOD_REST_MS: u64 = 10;

/// The logs that are open, and the buffers that all of them share.
#[derive(Debug, Default)]
pub(super) struct Logs {
    open: HashMap<PathBuf, Weak<RefCell<LogFile>>>,
    read_buffer: Vec<u8>,
    line_buffer: Vec<u8>,
    pub(super) closed_lines_dropped: u64,
    is_marker_due: bool,
    /// Pipes that are left alone for a moment: run and index.
    resting: Vec<(u64, usize)>,
}

impl Logs {
    /// Two runs of one slot share their log for the moment in which both have output.
    pub(super) fn open(&mut self, spec: &LogSpec) -> io::Result<SharedLog> {
        self.open.retain(|_, log| log.strong_count() > 0);
        if let Some(log) = self.open.get(&spec.path()).and_then(Weak::upgrade) {
            log.borrow_mut().set_spec(spec.clone());
            return Ok(log);
        }
        let log = Rc::new(RefCell::new(LogFile::open(spec.clone())?));
        self.open.insert(spec.path(), Rc::downgrade(&log));
        Ok(log)
    }

    /// After an upgrade.
    pub(super) fn restore(&mut self, state: LogState) -> io::Result<SharedLog> {
        let log = self.open(&state.spec)?;
        log.borrow_mut().restore(state);
        Ok(log)
    }

    pub(super) fn lines_dropped(&self) -> u64 {
        let open = self.open.values().filter_map(Weak::upgrade);
        self.closed_lines_dropped + open.map(|log| log.borrow().dropped_in_all()).sum::<u64>()
    }
}

impl Keeper {
    /// A turn at the pipes that have something, in the kernel's order, which goes round.
    pub(super) fn take_output(&mut self) {
        let mut events = Vec::with_capacity(PIPES_PER_TURN);
        let now = Timespec::default();
        if epoll::wait(&self.pipes_poll, spare_capacity(&mut events), Some(&now)).is_err() {
            return;
        }
        for token in events.into_iter().filter_map(Token::of) {
            if let Token::Output(run, index) = token
                && let (Turn::Read, true) = self.read_pipe(run, index)
            {
                self.rest(run, index);
            }
        }
    }

    /// Leaves a pipe alone for a moment.
    fn rest(&mut self, run: u64, index: usize) {
        let pipe = self
            .instances
            .get(&run)
            .and_then(|it| it.pipes[index].as_ref());
        if pipe.is_some_and(|pipe| epoll::delete(&self.pipes_poll, &pipe.fd).is_ok()) {
            if self.logs.resting.is_empty() {
                self.timers
                    .set(clock::monotonic_ms() + FLOOD_REST_MS, Timer::Output);
            }
            self.logs.resting.push((run, index));
        }
    }

    /// The rest is over.
    pub(super) fn read_again(&mut self) {
        for (run, index) in std::mem::take(&mut self.logs.resting) {
            let Some(instance) = self.instances.get(&run) else {
                continue;
            };
            if let Some(pipe) = &instance.pipes[index]
                && let Err(error) = epoll::add(
                    &self.pipes_poll,
                    &pipe.fd,
                    Token::Output(run, index).data(),
                    epoll::EventFlags::IN,
                )
            {
                note(&format!(
                    "{}: cannot watch its output: {error}",
                    instance.info.instance
                ));
            }
        }
    }

    /// One read of one pipe, into the log; and whether lines of it were dropped.
    fn read_pipe(&mut self, run: u64, index: usize) -> (Turn, bool) {
        let Some(instance) = self.instances.get_mut(&run) else {
            return (Turn::Closed, false);
        };
        let (Some(pipe), Some(log)) = (&mut instance.pipes[index], &instance.log) else {
            return (Turn::Closed, false);
        };
        self.logs.read_buffer.resize(READ_BYTES, 0);
        let mut log = log.borrow_mut();
        let dropped_before = log.dropped_in_all();
        let mut batch = log.batch(&mut self.logs.line_buffer, clock::unix_us());
        let turn = pipe.turn(&mut self.logs.read_buffer, &mut batch);
        if turn == Turn::Closed {
            pipe.finish(&mut batch);
        }
        let trouble = batch.finish();
        let owes_marker = log.owes_marker();
        let is_dropping = log.dropped_in_all() > dropped_before;
        drop(log);
        if turn == Turn::Closed {
            instance.pipes[index] = None;
        }
        self.after_batch(run, trouble, owes_marker);
        (turn, is_dropping)
    }

    /// What a leader wrote before its end is in the log when its end is told.
    pub(super) fn drain_output(&mut self, run: u64) {
        for index in 0..2 {
            for _ in 0..DRAIN_READS_MAX {
                if self.read_pipe(run, index).0 != Turn::Read {
                    break;
                }
            }
        }
    }

    /// No process is left that could write: the rest is taken, the pipes and the log are closed.
    pub(super) fn close_output(&mut self, run: u64) {
        self.drain_output(run);
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        let Some(log) = instance.log.take() else {
            return;
        };
        let mut file = log.borrow_mut();
        let mut batch: Batch<'_> = file.batch(&mut self.logs.line_buffer, clock::unix_us());
        for pipe in instance.pipes.iter_mut().filter_map(Option::take) {
            let mut pipe = pipe;
            pipe.finish(&mut batch);
        }
        let trouble = batch.finish_with_markers();
        let dropped = file.dropped_in_all();
        drop(file);
        if Rc::strong_count(&log) == 1 {
            self.logs.closed_lines_dropped += dropped;
        }
        drop(log);
        self.after_batch(run, trouble, false);
    }

    /// A line of the keeper's own in the log of an instance.
    pub(super) fn say(&mut self, run: u64, text: &str) {
        let log = self.instances.get(&run).and_then(|it| it.log.clone());
        let Some(log) = log else {
            return;
        };
        let mut file = log.borrow_mut();
        let mut batch = file.batch(&mut self.logs.line_buffer, clock::unix_us());
        batch.push((Stream::Keeper, LineKind::Full), text.as_bytes());
        let trouble = batch.finish();
        let owes_marker = file.owes_marker();
        drop(file);
        self.after_batch(run, trouble, owes_marker);
    }

    fn after_batch(&mut self, run: u64, trouble: Option<Trouble>, owes_marker: bool) {
        if owes_marker && !self.logs.is_marker_due {
            self.logs.is_marker_due = true;
            self.timers
                .set(clock::monotonic_ms() + MARKER_INTERVAL_MS, Timer::LogMarker);
        }
        let Some(Trouble {
            error,
            lines_dropped,
            is_flood,
        }) = trouble
        else {
            return;
        };
        if let Some(instance) = self.instances.get(&run) {
            let instance = instance.info.instance.clone();
            self.broadcast(&Event::Log(LogTrouble {
                instance,
                error,
                lines_dropped,
                flood: is_flood,
            }));
        }
    }

    /// Marker lines of logs that have nothing else to write.
    pub(super) fn write_markers(&mut self) {
        self.logs.is_marker_due = false;
        let owing = self.instances.iter().filter_map(|(run, instance)| {
            let log = instance.log.as_ref()?;
            log.borrow().owes_marker().then(|| (*run, Rc::clone(log)))
        });
        for (run, log) in owing.collect::<Vec<_>>() {
            let mut log = log.borrow_mut();
            let batch = log.batch(&mut self.logs.line_buffer, clock::unix_us());
            let trouble = batch.finish_with_markers();
            let owes_marker = log.owes_marker();
            drop(log);
            self.after_batch(run, trouble, owes_marker);
        }
    }
}
