//! The state machine of a data group: what a committed entry does to the log and to the rows. Hot path.
//!
//! Invariant: applying depends on the entry and on what was applied before, and on nothing else. The log and the
//! rows each remember how far they are, and neither looks at the other, so that each can be replayed on its own. Whether a
//! shard was dropped, which decides about the rows of an append, each knows for itself ([`Dropped`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use consensus::{Committed, MachineFailed, StateMachine};
use model::batch::BatchHeader;
use model::{GroupId, Offset, ShardId};
use storage::kv::{self, CommandResult, Kv, KvError, KvTurn};
use storage::{Append, BatchFlags, Change, CommittedBatch, Log, Position};

use crate::command::{Decoded, DecodedAppend, Reply, decode_bundle, encode_replies};
use crate::dropped::Dropped;

/// A batch that has just become readable.
#[derive(Debug, Clone)]
pub struct AppliedBatch {
    /// Its shard.
    pub shard: ShardId,
    /// Offset of its first record.
    pub base: Offset,
    /// How it was published.
    pub flags: BatchFlags,
    /// Where it stands in the group's log.
    pub position: Position,
    /// The stored bytes.
    pub bytes: Bytes,
}

/// Is told what was applied, on the consensus thread. Must not block: it hands over and wakes.
pub trait Observer: Send + Sync {
    /// Batches of `group` that became readable, in log order; called once per run of entries, after everything up to
    /// `through` is readable. Entries that are replayed at a start are not told.
    fn applied(&self, group: GroupId, batches: &mut Vec<AppliedBatch>, through: u64);
}

/// How far a group's state survives a crash without its journal. Written by the janitor after a flush.
#[derive(Debug, Default)]
pub(crate) struct Flushed(pub(crate) AtomicU64);

impl Flushed {
    /// What a store has when it is opened is all durable.
    pub(crate) fn starting_at(index: u64) -> Self {
        Self(AtomicU64::new(index))
    }
}

pub(crate) struct DataMachine {
    group: GroupId,
    log: Arc<dyn Log>,
    kv: Arc<dyn Kv>,
    observer: Arc<dyn Observer>,
    flushed: Arc<Flushed>,
    dropped: Dropped,
    /// Batches of this turn.
    fresh: Vec<AppliedBatch>,
    /// What went wrong in this turn; reported at its end.
    failed: Option<MachineFailed>,
}

impl DataMachine {
    /// Blocks on the rows.
    pub(crate) fn open(
        group: GroupId,
        (log, kv): (Arc<dyn Log>, Arc<dyn Kv>),
        observer: Arc<dyn Observer>,
        flushed: Arc<Flushed>,
    ) -> Result<Self, KvError> {
        let dropped = Dropped::load(&*kv)?;
        Ok(Self { group, log, kv, observer, flushed, dropped, fresh: Vec::new(), failed: None })
    }

    fn apply_entry(&mut self, entry: &Committed) -> Result<Vec<Reply>, MachineFailed> {
        let mut decoded = decode_bundle(&entry.payload.head)
            .map_err(|error| MachineFailed::new("read a committed entry", error))?;
        let mut replies = Vec::with_capacity(decoded.commands.len());
        self.settle_rows(entry.index, &mut decoded);
        let mut rows = self.change_rows(entry.index, &decoded.rows)?.into_iter();
        let mut body = 0;
        for command in decoded.commands {
            let mut reply = Reply { appends: Vec::with_capacity(command.appends.len()), rows: None };
            for append in command.appends {
                reply.appends.push(self.append(entry, body, append.shard, append.flags)?);
                if append.has_rows {
                    rows.next();
                }
                body += 1;
            }
            for change in command.changes {
                let changed = self.log.change(entry.index, change);
                changed.map_err(|error| MachineFailed::new("change a log", error))?;
            }
            if command.has_rows {
                reply.rows = rows.next();
            }
            replies.push(reply);
        }
        Ok(replies)
    }

    /// Leaves out the rows of appends whose shard is dropped by then, and has the shards noted that this entry drops.
    fn settle_rows(&mut self, index: u64, decoded: &mut Decoded) {
        if index <= self.kv.applied() {
            return;
        }
        let mut rows = decoded.rows.iter_mut();
        let mut notes = Vec::new();
        for command in &decoded.commands {
            for DecodedAppend { shard, .. } in command.appends.iter().filter(|append| append.has_rows) {
                let rows = rows.next();
                if self.dropped.refuses(*shard, index) {
                    rows.into_iter().for_each(|rows| rows.operations.clear());
                }
            }
            for change in &command.changes {
                if let Change::Drop { shard } = change {
                    self.dropped.note(*shard, index, &mut notes);
                }
            }
            if command.has_rows {
                rows.next();
            }
        }
        if !notes.is_empty() {
            decoded.rows.push(kv::Command { operations: notes });
        }
    }

    fn change_rows(&mut self, index: u64, rows: &[kv::Command]) -> Result<Vec<CommandResult>, MachineFailed> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut turn = KvTurn::new(&*self.kv);
        let results = turn.entry(index, rows);
        let results = results.map_err(|error| MachineFailed::new("read rows", error))?;
        turn.finish().map_err(|error| MachineFailed::new("write rows", error))?;
        Ok(results)
    }

    fn append(
        &mut self,
        entry: &Committed,
        body: usize,
        shard: ShardId,
        flags: BatchFlags,
    ) -> Result<Append, MachineFailed> {
        let unreadable = |_| MachineFailed::new("read a committed batch", "it does not check out");
        let bytes = entry.payload.bodies.get(body).cloned().ok_or(()).map_err(unreadable)?;
        let header = BatchHeader::parse(&bytes).map_err(|_| ()).map_err(unreadable)?;
        let location = entry.payload.body_location(entry.location, body).ok_or(()).map_err(unreadable)?;
        let position = Position { index: entry.index, ordinal: body as u16 };
        let batch = CommittedBatch { bytes: bytes.clone(), header, flags, position, location };
        let appended = self.log.append(shard, batch);
        let appended = appended.map_err(|error| MachineFailed::new("append to a log", error))?;
        if let Append::Stored { base } = appended {
            self.fresh.push(AppliedBatch { shard, base, flags, position, bytes });
        }
        Ok(appended)
    }
}

impl StateMachine for DataMachine {
    fn apply(&mut self, entry: Committed) -> Bytes {
        if self.failed.is_some() {
            return Bytes::new();
        }
        match self.apply_entry(&entry) {
            Ok(replies) => encode_replies(&replies),
            Err(error) => {
                self.failed = Some(error);
                Bytes::new()
            }
        }
    }

    fn turn_ended(&mut self, applied: u64) -> Result<(), MachineFailed> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let written = self.kv.apply(&[], applied);
        written.map_err(|error| MachineFailed::new("write rows", error))?;
        let ended = self.log.turn_ended(applied);
        ended.map_err(|error| MachineFailed::new("end a turn of the log", error))?;
        if !self.fresh.is_empty() {
            self.observer.applied(self.group, &mut self.fresh, applied);
            self.fresh.clear();
        }
        Ok(())
    }

    fn applied(&self) -> u64 {
        // Whichever is behind is given the entries again; the other one passes over what it has.
        self.log.applied().min(self.kv.applied())
    }

    fn flushed(&self) -> u64 {
        self.flushed.0.load(Ordering::Acquire)
    }

    fn checkpoint(&mut self) -> Result<Bytes, MachineFailed> {
        let mut out = Vec::new();
        let exported = self.kv.export(&mut out);
        exported.map_err(|error| MachineFailed::new("export rows", error))?;
        Ok(out.into())
    }

    fn restore(&mut self, _applied: u64, _checkpoint: Bytes) -> Result<(), MachineFailed> {
        // The batches of a checkpoint are fetched apart, from a replica; a group of one voter has none to fetch from.
        Err(MachineFailed::new("restore a checkpoint", "this node is the group's only replica"))
    }
}
