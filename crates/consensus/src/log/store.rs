//! What openraft sees of a group's log: writes go to the journal, reads are answered from the index.
//!
//! Order is the journal's: votes, entries, truncations and purges of a group enter one queue in the order in
//! which openraft asked for them and become durable in that order. So a vote is never overtaken by an entry
//! of its term, and an entry that follows a truncation is never durable without it (Spec: openraft, io
//! ordering).

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use model::GroupId;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, RaftLogReader};
use storage::journal::{EntryKind, Payload};

use super::Shared;
use super::index::{Found, LogIndex, Shape, Slot};
use super::writer::{Stripe, Writer};
use crate::codec::{self, Note};
use crate::health::Health;
use crate::types::{Command, Entry, LogId, Membership, Types, Vote, log_id, term_of};

/// Entries handed to the applier at a time.
const RUN: u64 = 64;

/// The log of one group. There is one per group; readers are made from it.
pub(crate) struct GroupLog {
    shared: Arc<Shared>,
    writer: Writer,
}

/// A reader of a group's log.
#[derive(Clone)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
}

impl GroupLog {
    /// The log of a group over what recovery found of it.
    pub(crate) fn new(group: GroupId, stripe: Stripe, index: LogIndex, health: Arc<Health>) -> GroupLog {
        let shared = Arc::new(Shared::new(index));
        GroupLog { writer: Writer::new(group, stripe, shared.clone(), health), shared }
    }

    /// A reader of this log.
    pub(crate) fn reader(&self) -> Reader {
        Reader { shared: self.shared.clone() }
    }

    /// The writer, for whoever runs its retries.
    pub(crate) fn writer(&self) -> Writer {
        self.writer.clone()
    }
}

impl RaftLogStorage<Types> for GroupLog {
    type LogReader = Reader;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let index = self.shared.index.lock();
        Ok(LogState { last_purged_log_id: index.purged(), last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> Reader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let leader = vote.leader_id;
        let mut entry = self.writer.entry(EntryKind::Vote, (leader.term, 0), leader.voted_for);
        entry.payload = Payload::of_head(codec::encode_vote(vote));
        self.writer.write(entry).await?;
        self.shared.index.lock().vote = Some(*vote);
        Ok(())
    }

    /// Kept in memory and written with the next purge: a restarted leader finds out what is committed by
    /// committing an entry of its own term, and a journal frame per commit would cost every following
    /// proposal a sync.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.index.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.index.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let range = {
            let mut index = self.shared.index.lock();
            let mut first = None;
            for Entry { log_id, payload } in entries {
                if index.last().is_none() {
                    index.begin_at(log_id.index);
                }
                debug_assert_eq!(index.next(), log_id.index, "a hole in the log");
                let (shape, payload, membership) = stored(payload);
                index.push(Slot { term: term_of(&log_id), shape, location: None, payload }, membership);
                first.get_or_insert(log_id.index);
            }
            first.unwrap_or(index.next())..index.next()
        };
        self.writer.append(range, flushed).await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.as_ref().map_or(0, |id| id.index + 1);
        self.writer.cut(from).await;
        let at = (last.as_ref().map_or(0, term_of), from);
        self.writer.write(self.writer.entry(EntryKind::Truncate, at, 0)).await
    }

    /// Not waited for: a purge that a crash undoes is repeated by the next one. The note goes first, so that
    /// the membership outlives the entry that set it.
    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let at = (term_of(&upto), upto.index);
        let note = {
            let mut index = self.shared.index.lock();
            let note = Note {
                committed: index.committed.max(Some(upto)),
                membership: index.membership_at(upto.index),
            };
            index.purge(upto);
            note
        };
        let mut hint = self.writer.entry(EntryKind::Committed, at, 0);
        hint.payload = Payload::of_head(codec::encode_note(&note));
        let purge = self.writer.entry(EntryKind::Purge, at, 0);
        self.writer.queue(vec![hint, purge], |_| {}).await;
        Ok(())
    }
}

impl Reader {
    /// Runs something on the index.
    pub(crate) fn index<R>(&self, look: impl FnOnce(&mut LogIndex) -> R) -> R {
        look(&mut self.shared.index.lock())
    }

    /// The next run of entries to apply, once all of them are durable.
    async fn take(&self, range: Range<u64>) -> Vec<Entry> {
        loop {
            let located = self.shared.located.notified();
            {
                let mut index = self.shared.index.lock();
                if let Some(found) = index.take(range.clone()) {
                    return found.into_iter().map(|found| entry(&index, found)).collect();
                }
            }
            located.await;
        }
    }
}

impl RaftLogReader<Types> for Reader {
    /// Commands come as references to the journal unless their payload is cached: nothing is read from disk
    /// here.
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let index = self.shared.index.lock();
        Ok(index.read(bounds(&range)).into_iter().map(|found| entry(&index, found)).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.index.lock().vote)
    }

    /// The applier's way to read: in runs, moving payloads out of the cache.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let all = bounds(&range);
        let end = all.end.min(self.shared.index.lock().next());
        let start = (self.clone(), all.start, Vec::new().into_iter());
        stream::unfold(start, move |(reader, mut next, mut run)| async move {
            loop {
                if let Some(entry) = run.next() {
                    return Some((Ok(entry), (reader, next, run)));
                }
                if next >= end {
                    return None;
                }
                let upto = end.min(next.saturating_add(RUN));
                run = reader.take(next..upto).await.into_iter();
                next = upto;
            }
        })
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// How the log keeps an entry: its shape, the payload to cache, the membership it sets.
fn stored(payload: EntryPayload<Command, u64, ()>) -> (Shape, Option<Payload>, Option<Membership>) {
    match payload {
        EntryPayload::Blank => (Shape::Blank, None, None),
        EntryPayload::Normal(command) => (Shape::Command, command.payload, None),
        EntryPayload::Membership(membership) => (Shape::Membership, None, Some(membership)),
    }
}

/// An entry as openraft wants it.
fn entry(index: &LogIndex, found: Found) -> Entry {
    let Slot { term, shape, location, payload } = found.slot;
    let payload = match shape {
        Shape::Command => EntryPayload::Normal(Command { payload, location }),
        Shape::Blank => EntryPayload::Blank,
        Shape::Membership => EntryPayload::Membership(index.membership_of(found.index).unwrap_or_default()),
    };
    Entry { log_id: log_id(term, found.index), payload }
}
