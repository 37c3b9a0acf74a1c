//! `Writer`: how a group's entries get into the journal, also while its disk is full.
//!
//! ```text
//!            append 7   append 8   append 9          space returns
//!   journal     ok        FULL       gap      ...     8, 9 again: ok
//!   flushed     7          -          -                 8, 9
//!                          └ stalled from 8: 9 and what follows is parked until 8 is written
//! ```
//!
//! What is not durable is never evicted from the index, so that it can be written again from there.

use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use model::GroupId;
use openraft::storage::IOFlushed;
use storage::journal::{self, Completion, Durability, EntryKind, Journal, JournalError, Location, Payload};
use tokio::sync::{Notify, oneshot};

use super::Shared;
use super::index::{Found, LogIndex, Shape};
use crate::codec;
use crate::health::{Cause, Health};
use crate::types::Types;

/// More than the journal puts around one entry, in bytes.
const ENTRY_OVERHEAD: usize = 256;

/// How long a full disk is left alone. There is a timer only while it is full.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// The journal that some groups share, and the news that its queue became shorter.
#[derive(Clone)]
pub(crate) struct Stripe {
    pub(crate) journal: Arc<Journal>,
    /// Told whenever the journal completed something.
    drained: Arc<Notify>,
}

impl Stripe {
    pub(crate) fn new(journal: Arc<Journal>) -> Stripe {
        Stripe { journal, drained: Arc::new(Notify::new()) }
    }

    /// The largest payload that is taken for one entry.
    pub(crate) fn entry_bytes_max(&self) -> usize {
        self.append_bytes_max().saturating_sub(ENTRY_OVERHEAD)
    }

    fn append_bytes_max(&self) -> usize {
        self.journal.append_bytes_max()
    }

    /// Puts an append into the journal's queue, and waits while that is full: whatever fills it completes.
    async fn append(&self, mut entries: Vec<journal::Entry>, done: Completion) {
        let drained = self.drained.clone();
        let mut done: Completion = Box::new(move |written| {
            done(written);
            drained.notify_waiters();
        });
        loop {
            let drained = self.drained.notified();
            match self.journal.append(entries, Durability::Sync, done) {
                Ok(()) => return,
                Err(full) => (entries, done) = (full.entries, full.done),
            }
            drained.await;
        }
    }
}

/// What a group's writer has under way. Lock order: before the index.
#[derive(Default)]
pub(super) struct Flow {
    /// The first entry that a full disk refused. Nothing is sent behind it.
    stalled: Option<u64>,
    /// Raised by each stall: what was sent before it is parked, whatever becomes of it.
    epoch: u64,
    /// Who waits for entries at or behind the stall.
    parked: Vec<IOFlushed<Types>>,
}

/// Writes one group's log.
#[derive(Clone)]
pub(crate) struct Writer {
    group: GroupId,
    stripe: Stripe,
    shared: Arc<Shared>,
    health: Arc<Health>,
}

impl Writer {
    pub(super) fn new(group: GroupId, stripe: Stripe, shared: Arc<Shared>, health: Arc<Health>) -> Writer {
        Writer { group, stripe, shared, health }
    }

    /// Sends entries of the index to the journal; `flushed` is told when they, and all before them, are
    /// durable.
    pub(super) async fn append(&self, range: Range<u64>, flushed: IOFlushed<Types>) {
        let _turn = self.shared.turn.lock().await;
        let epoch = {
            let mut flow = self.shared.flow.lock();
            if flow.stalled.is_some() {
                flow.parked.push(flushed);
                return;
            }
            flow.epoch
        };
        self.send(range, epoch, Waiter::Raft(flushed)).await;
    }

    /// Queues an entry that is no log entry and waits until it is durable.
    pub(super) async fn write(&self, entry: journal::Entry) -> Result<(), io::Error> {
        let (done, durable) = oneshot::channel();
        self.queue(vec![entry], move |written| {
            // The waiting side goes away only when the group is being torn down.
            let _ = done.send(written);
        })
        .await;
        durable.await.map_err(|_| io::Error::other("the journal went away"))?
    }

    /// Queues entries that are no log entries, which a full disk takes from its reserve.
    pub(super) async fn queue(
        &self,
        entries: Vec<journal::Entry>,
        done: impl FnOnce(Result<(), io::Error>) + Send + 'static,
    ) {
        let health = self.health.clone();
        let written = move |written: Result<Vec<Location>, JournalError>| {
            done(written.map(drop).map_err(|error| {
                health.fail(Cause::JournalSealed);
                io::Error::other(error)
            }));
        };
        self.stripe.append(entries, Box::new(written)).await;
    }

    /// An entry that is no log entry.
    pub(super) fn entry(&self, kind: EntryKind, (term, index): (u64, u64), node: u64) -> journal::Entry {
        journal::Entry { kind, group: self.group, index, term, node, payload: Payload::default() }
    }

    /// Forgets whoever waits for entries from `from` on, which are being cut.
    pub(super) async fn cut(&self, from: u64) {
        let _turn = self.shared.turn.lock().await;
        let mut flow = self.shared.flow.lock();
        self.shared.index.lock().truncate(from);
        if flow.stalled.is_some_and(|stalled| stalled >= from) {
            flow.stalled = None;
            flow.epoch += 1;
            flow.parked.clear();
            self.health.set_stalled(false);
        }
    }

    /// Writes again what a full disk refused, until it takes it. Runs as long as the group does.
    pub(crate) async fn keep_writing(self) -> Infallible {
        loop {
            self.shared.refused.notified().await;
            while self.shared.flow.lock().stalled.is_some() {
                tokio::time::sleep(FULL_RETRY).await;
                self.write_again().await;
            }
        }
    }

    async fn write_again(&self) {
        let _turn = self.shared.turn.lock().await;
        loop {
            let (range, epoch) = {
                let mut flow = self.shared.flow.lock();
                let end = self.shared.index.lock().next();
                let Some(from) = flow.stalled.filter(|from| *from < end) else {
                    return self.resume(&mut flow);
                };
                (from..end, flow.epoch)
            };
            let end = range.end;
            let (done, tried) = oneshot::channel();
            self.send(range, epoch, Waiter::Retry(done)).await;
            if tried.await != Ok(true) {
                return;
            }
            self.shared.flow.lock().stalled = Some(end);
        }
    }

    /// Everything is written: whoever was parked has what it waited for.
    fn resume(&self, flow: &mut Flow) {
        flow.stalled = None;
        self.health.set_stalled(false);
        for flushed in flow.parked.drain(..) {
            flushed.io_completed(Ok(()));
        }
    }

    /// Sends a range of the index in appends that the journal takes, and tells `waiter` of the last one: they
    /// complete in order.
    async fn send(&self, range: Range<u64>, epoch: u64, waiter: Waiter) {
        let mut chunks = self.chunks(range);
        let last = chunks.pop();
        for chunk in chunks {
            let done = self.written(&chunk, epoch, Waiter::Nobody);
            self.stripe.append(chunk.entries, done).await;
        }
        match last {
            Some(chunk) => {
                let done = self.written(&chunk, epoch, waiter);
                self.stripe.append(chunk.entries, done).await;
            }
            None => waiter.tell(true),
        }
    }

    fn chunks(&self, range: Range<u64>) -> Vec<Chunk> {
        let index = self.shared.index.lock();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut bytes = 0;
        for found in index.read(range) {
            let first = found.index;
            let entry = log_entry(self.group, &index, found);
            let more = entry.payload.encoded_len() + ENTRY_OVERHEAD;
            match chunks.last_mut() {
                Some(chunk) if bytes + more <= self.stripe.append_bytes_max() => chunk.entries.push(entry),
                Some(_) | None => {
                    bytes = 0;
                    chunks.push(Chunk { first, entries: vec![entry] });
                }
            }
            bytes += more;
        }
        chunks
    }

    /// What happens, on the journal's thread, when a chunk was written or refused.
    fn written(&self, chunk: &Chunk, epoch: u64, waiter: Waiter) -> Completion {
        let (shared, health) = (self.shared.clone(), self.health.clone());
        let first = chunk.first;
        let terms: Vec<u64> = chunk.entries.iter().map(|entry| entry.term).collect();
        Box::new(move |written| {
            let mut flow = shared.flow.lock();
            match written {
                Ok(_) | Err(JournalError::Full | JournalError::Gap { .. }) if flow.epoch != epoch => {
                    flow.park(waiter);
                }
                Ok(locations) => {
                    shared.index.lock().located(first, terms.into_iter().zip(locations));
                    drop(flow);
                    shared.located.notify_waiters();
                    waiter.tell(true);
                }
                Err(JournalError::Full) => {
                    flow.stalled = Some(first);
                    flow.epoch += 1;
                    flow.park(waiter);
                    health.set_stalled(true);
                    shared.refused.notify_one();
                }
                Err(error) => {
                    health.fail(Cause::JournalSealed);
                    flow.park(waiter);
                    for flushed in flow.parked.drain(..) {
                        flushed.io_completed(Err(io::Error::other(error.clone())));
                    }
                }
            }
        })
    }
}

/// Consecutive entries that go into one append.
struct Chunk {
    first: u64,
    entries: Vec<journal::Entry>,
}

/// Who is told of an append.
enum Waiter {
    Nobody,
    Raft(IOFlushed<Types>),
    Retry(oneshot::Sender<bool>),
}

impl Waiter {
    fn tell(self, durable: bool) {
        match self {
            Waiter::Nobody => {}
            Waiter::Raft(flushed) => {
                let outcome = if durable { Ok(()) } else { Err(io::Error::other("not durable")) };
                flushed.io_completed(outcome);
            }
            // The retry may have been cancelled with its group.
            Waiter::Retry(done) => drop(done.send(durable)),
        }
    }
}

impl Flow {
    fn park(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Raft(flushed) => self.parked.push(flushed),
            Waiter::Nobody | Waiter::Retry(_) => waiter.tell(false),
        }
    }
}

/// How the journal keeps an entry of the log.
fn log_entry(group: GroupId, index: &LogIndex, found: Found) -> journal::Entry {
    let payload = match found.slot.shape {
        Shape::Command => found.slot.payload.unwrap_or_default(),
        Shape::Blank => Payload::default(),
        Shape::Membership => {
            let membership = index.membership_of(found.index).unwrap_or_default();
            Payload::of_head(codec::encode_membership(&membership))
        }
    };
    let (kind, term, node) = (EntryKind::Append, found.slot.term, found.slot.shape.to_word());
    journal::Entry { kind, group, index: found.index, term, node, payload }
}
