//! The writer's side of a test: numbers entries, keeps them for replay, and asks the log.

use std::sync::Arc;

use bytes::Bytes;
use model::batch::{BatchBuilder, BatchHeader};
use model::{EngineKind, GroupId, Offset, ShardId, TopicNumber};

use super::Subject;
use crate::log::{Append, BatchFlags, Change, CommittedBatch, Log, Offsets, Position, StoredBatch};

/// A subject with the entries it was given.
pub struct Harness {
    /// The engine under test.
    pub subject: Box<dyn Subject>,
    entries: Vec<(u64, Made)>,
    index: u64,
}

/// What an entry made of a log.
#[derive(Clone)]
pub enum Made {
    /// Batches, in order.
    Appends(Vec<(ShardId, CommittedBatch)>),
    /// A command.
    Change(Change),
}

/// Shard `number` of an engine, in group 1.
pub fn shard(engine: EngineKind, number: u32) -> ShardId {
    ShardId::new(engine, GroupId(1), TopicNumber(number), 0)
}

/// A batch with one record per timestamp. `producer`: id, epoch, first sequence.
pub fn batch(timestamps: &[i64], producer: Option<(i64, i16, i32)>) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(64 * timestamps.len());
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.with_producer(id, epoch, sequence);
    }
    for (number, timestamp) in timestamps.iter().enumerate() {
        let value = format!("record {number} at {timestamp}");
        builder
            .push(*timestamp, None, Some(value.as_bytes()), std::iter::empty())
            .expect("a few small records fit into a batch");
    }
    builder.finish()
}

impl Harness {
    /// Begins with an empty subject.
    pub fn new(subject: Box<dyn Subject>) -> Harness {
        Harness { subject, entries: Vec::new(), index: 0 }
    }

    /// Shard `number` of the engine under test.
    pub fn shard(&self, number: u32) -> ShardId {
        shard(self.subject.engine(), number)
    }

    /// The log under test.
    pub fn log(&self) -> Arc<dyn Log> {
        self.subject.log()
    }

    /// The last log index.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Commits one entry of several batches and ends the turn.
    pub fn append_all(&mut self, batches: &[(ShardId, Bytes, BatchFlags)]) -> Vec<Append> {
        self.index += 1;
        let mut appends = Vec::new();
        for (ordinal, (shard, bytes, flags)) in batches.iter().enumerate() {
            let committed = CommittedBatch {
                bytes: bytes.clone(),
                header: BatchHeader::parse(bytes).expect("the suite builds sound batches"),
                flags: *flags,
                position: Position { index: self.index, ordinal: ordinal as u16 },
                location: self.subject.store(bytes),
            };
            appends.push((*shard, committed));
        }
        self.entries.push((self.index, Made::Appends(appends.clone())));
        let log = self.log();
        let append = |(shard, batch)| log.append(shard, batch).expect("append");
        let outcomes = appends.into_iter().map(append).collect();
        log.turn_ended(self.index).expect("turn_ended");
        outcomes
    }

    /// Commits one batch.
    pub fn append(&mut self, shard: ShardId, bytes: &Bytes) -> Append {
        self.append_all(&[(shard, bytes.clone(), BatchFlags::NONE)])[0]
    }

    /// Commits one batch that is to be stored, and answers its base offset, counted from the shard's first offset ever.
    pub fn stored(&mut self, shard: ShardId, bytes: &Bytes) -> u64 {
        match self.append(shard, bytes) {
            Append::Stored { base } => base.0,
            refused => panic!("not stored: {refused:?}"),
        }
    }

    /// Commits a command.
    pub fn change(&mut self, change: Change) {
        self.index += 1;
        self.entries.push((self.index, Made::Change(change)));
        self.log().change(self.index, change).expect("change");
        self.log().turn_ended(self.index).expect("turn_ended");
    }

    /// Restarts, and replays what the log asks for, and a little before that.
    pub fn restart(&mut self) {
        self.subject.restart();
        if self.subject.is_durable() {
            let from = self.log().applied().saturating_sub(2);
            self.replay(from);
        }
    }

    /// Gives all entries above an index again.
    pub fn replay(&self, after: u64) {
        let log = self.log();
        for (index, made) in self.entries.iter().filter(|(index, _)| *index > after) {
            give(&*log, *index, made);
            log.turn_ended(*index).expect("turn_ended");
        }
    }

    /// All readable batches, read a little at a time.
    pub fn read_all(&self, shard: ShardId) -> Vec<StoredBatch> {
        let log = self.log();
        let Offsets { start, end } = log.offsets(shard).expect("offsets");
        let mut batches: Vec<StoredBatch> = Vec::new();
        let mut next = start;
        while next < end {
            let some = log.read(shard, next, 300).expect("read");
            assert!(!some.is_empty(), "nothing at {next}, but the end is {end}");
            next = some[some.len() - 1].end();
            batches.extend(some);
        }
        batches
    }

    /// Where the shard starts and ends.
    pub fn offsets(&self, shard: ShardId) -> (u64, u64) {
        let Offsets { start: Offset(start), end: Offset(end) } = self.log().offsets(shard).expect("offsets");
        (start, end)
    }
}

/// Gives one entry to a log.
pub(crate) fn give(log: &dyn Log, index: u64, made: &Made) {
    match made {
        Made::Appends(appends) => {
            for (shard, batch) in appends {
                log.append(*shard, batch.clone()).expect("append");
            }
        }
        Made::Change(change) => log.change(index, *change).expect("change"),
    }
}
