//! What follows behind: transitions get their last lines, go to the bus, and are written down, in order.

use std::sync::Arc;

use alicia_contract::orchestrator::{InstanceState, TRANSITIONS, Transition};
use alicia_failpoint::failpoint;
use alicia_keeper::logs::{Filter, read_last};
use alicia_module::Context;
use alicia_module::paths::Paths;
use tokio::sync::{mpsc, oneshot};

use super::launch::log_path;
use crate::core::event::{Record, SlotId};
use crate::metrics::Counts;
use crate::store;

/// Records that wait. A fleet of 1,000 that starts makes 2,000.
const RECORDS_MAX: usize = 8_192;

/// Records that are written in one transaction.
const BATCH_MAX: usize = 256;

/// Lines that go with an end: what fits into an alert.
const LAST_LINES: usize = 10;

/// What waits.
#[derive(Debug)]
enum Waiting {
    Record(Box<Record>),
    /// Everything before it is done.
    Flush(oneshot::Sender<()>),
}

/// The entrance of the queue.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    queue: mpsc::Sender<Waiting>,
    counts: Arc<Counts>,
}

impl Sender {
    /// Never waits: what does not fit is counted and lost to the history, not to the fleet.
    pub(crate) fn send(&self, record: Record) {
        if self
            .queue
            .try_send(Waiting::Record(Box::new(record)))
            .is_err()
        {
            self.counts.record_dropped();
            tracing::warn!("a transition is not in the history: too many wait");
        }
    }

    /// Waits until everything sent so far is written down.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(Waiting::Flush(done)).await.is_ok() {
            // The task has ended: there is nobody to wait for.
            drop(flushed.await);
        }
    }
}

/// Starts the tasks behind the queue. What is said does not wait for the disk, and what is written not for the bus.
pub(crate) fn start(cx: &Context, counts: &Arc<Counts>) -> Sender {
    let (queue, records) = mpsc::channel(RECORDS_MAX);
    let (said, to_say) = mpsc::channel(RECORDS_MAX);
    let (read, to_write) = mpsc::channel(RECORDS_MAX);
    cx.spawn(
        "records",
        pass_on(cx.clone(), records, (said, read), counts.clone()),
    );
    cx.spawn("write-records", write(cx.clone(), to_write, counts.clone()));
    cx.spawn("transitions", announce(cx.clone(), to_say, counts.clone()));
    Sender {
        queue,
        counts: counts.clone(),
    }
}

/// Adds the last lines, has the transitions said, and passes everything on to be written, in order.
async fn pass_on(
    cx: Context,
    mut records: mpsc::Receiver<Waiting>,
    (said, to_write): (mpsc::Sender<Transition>, mpsc::Sender<Waiting>),
    counts: Arc<Counts>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while records.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let (unread, flushes) = apart(batch.drain(..));
        let read = add_last_lines(&cx.paths, unread).await;
        for record in &read {
            if said.try_send(record.transition.clone()).is_err() {
                counts.record_dropped();
            }
        }
        let read = read
            .into_iter()
            .map(|record| Waiting::Record(Box::new(record)));
        for waiting in read.chain(flushes.into_iter().map(Waiting::Flush)) {
            // The writer ends after this task does.
            if to_write.send(waiting).await.is_err() {
                return;
            }
        }
    }
}

async fn write(cx: Context, mut read: mpsc::Receiver<Waiting>, counts: Arc<Counts>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while read.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let (records, flushes) = apart(batch.drain(..));
        failpoint("orchestrator/record");
        if let Err(error) = store::write_records(&cx.store, records).await {
            counts.record_dropped();
            tracing::error!(%error, "transitions were not written down");
        }
        failpoint("orchestrator/recorded");
        for done in flushes {
            if done.send(()).is_err() {
                tracing::debug!("nobody waits for the records any more");
            }
        }
    }
}

fn apart(waiting: impl Iterator<Item = Waiting>) -> (Vec<Record>, Vec<oneshot::Sender<()>>) {
    let (mut records, mut flushes) = (Vec::new(), Vec::new());
    for one in waiting {
        match one {
            Waiting::Record(record) => records.push(*record),
            Waiting::Flush(done) => flushes.push(done),
        }
    }
    (records, flushes)
}

async fn add_last_lines(paths: &Paths, mut batch: Vec<Record>) -> Vec<Record> {
    if !batch.iter().any(|record| wants_lines(&record.transition)) {
        return batch;
    }
    let paths = paths.clone();
    let unread = batch.clone();
    let read = move || {
        for record in &mut batch {
            if wants_lines(&record.transition) {
                record.transition.last_lines = last_lines(&paths, record);
            }
        }
        batch
    };
    tokio::task::spawn_blocking(read).await.unwrap_or(unread)
}

fn wants_lines(transition: &Transition) -> bool {
    matches!(
        transition.to,
        InstanceState::Backoff | InstanceState::Failed | InstanceState::Parked
    )
}

/// What the run said last. What the one before it said, and the one behind it, which may be there already, is passed over.
fn last_lines(paths: &Paths, record: &Record) -> Vec<String> {
    let transition = &record.transition;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "microseconds since 1970 fit for 500,000 years, and none are negative"
    )]
    let until_unix_us = (transition.at * 1e6).ceil() as u64;
    let slot = SlotId {
        service: transition.service.clone(),
        slot: transition.slot,
    };
    last_lines_of(paths, &slot, (record.began_unix_us, until_unix_us))
}

/// The last lines in the log of a slot between these times, in microseconds since 1970, the oldest first. None of a run
/// that never began.
pub(crate) fn last_lines_of(
    paths: &Paths,
    slot: &SlotId,
    (began_unix_us, until_unix_us): (Option<u64>, u64),
) -> Vec<String> {
    if began_unix_us.is_none() {
        return Vec::new();
    }
    let path = log_path(paths, &slot.service, slot.slot);
    let filter = Filter {
        since_unix_us: began_unix_us,
        until_unix_us: Some(until_unix_us),
        ..Filter::default()
    };
    let lines = read_last(&path, LAST_LINES, &filter).unwrap_or_default();
    lines.into_iter().map(|line| line.text).collect()
}

/// Events may be missed: without a bus, the newest wait and the rest is lost to who was not there.
async fn announce(cx: Context, mut to_say: mpsc::Receiver<Transition>, counts: Arc<Counts>) {
    while let Some(transition) = to_say.recv().await {
        failpoint("orchestrator/published");
        if let Err(error) = cx.bus.publish(TRANSITIONS, &[], &transition).await {
            counts.record_dropped();
            tracing::debug!(%error, "a transition was not published");
        }
    }
}
