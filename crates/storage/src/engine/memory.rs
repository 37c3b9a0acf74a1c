//! The `memory` engine: a bounded ring of batches per shard, never on disk. What a restart loses is its documented
//! promise; offsets begin at an origin that is new at every start, so that none is ever used for other content.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use ahash::AHashMap;
use model::{Offset, ShardId};
use parking_lot::RwLock;

use crate::budget::{Budget, Evict, HolderId, Holding};
use crate::error::LogError;
use crate::log::{
    Append, BatchFlags, Change, CommittedBatch, DROPPED_ENTRIES, Description, Log, Offsets, Position, Reach,
    Scanned, Selection, StoredBatch, TimeHit, TimeQuery,
};
use crate::producer::{Claim, Producers, Verdict};
use crate::retention::Piece;
use crate::tail::{Ends, Watch, Watchers};
use crate::time;

/// Bound: bytes of batches per shard.
const SHARD_BYTES_MAX: usize = 64 << 20;
/// Bound: records per shard.
const SHARD_RECORDS_MAX: u64 = 100_000;
/// What a batch costs beside its bytes.
const OVERHEAD: u32 = size_of::<StoredBatch>() as u32 + 32;

/// What the groups of a node share.
pub(crate) struct MemoryNode {
    budget: Budget,
    /// First offset of every shard.
    origin: Offset,
}

impl MemoryNode {
    /// `origin` must be above every offset of earlier starts; `bytes_max` bounds all rings together, oldest batches out.
    pub(crate) fn new(origin: Offset, bytes_max: usize) -> Arc<MemoryNode> {
        Arc::new(MemoryNode { budget: Budget::new(bytes_max), origin })
    }

    /// A new, empty log of a group.
    pub(crate) fn log(self: &Arc<MemoryNode>) -> Arc<MemoryLog> {
        Arc::new_cyclic(|this: &Weak<MemoryLog>| MemoryLog {
            node: self.clone(),
            holder: self.budget.register(this.clone() as Weak<dyn Evict>),
            state: RwLock::default(),
            watchers: Arc::default(),
            this: this.clone(),
        })
    }
}

/// The shards of one group that this engine holds.
pub(crate) struct MemoryLog {
    node: Arc<MemoryNode>,
    holder: HolderId,
    state: RwLock<State>,
    watchers: Arc<Watchers>,
    this: Weak<MemoryLog>,
}

#[derive(Default)]
struct State {
    shards: AHashMap<ShardId, Ring>,
    dropped: AHashMap<ShardId, u64>,
    applied: u64,
    touched: Vec<ShardId>,
    held: Vec<Holding>,
}

/// One shard. Invariant: batches are dense from the first one to `end`; `start` is within or at the end of them.
struct Ring {
    start: u64,
    end: u64,
    bytes: usize,
    batches: VecDeque<StoredBatch>,
    producers: Producers,
}

impl Ring {
    fn new(origin: Offset) -> Ring {
        Ring {
            start: origin.0,
            end: origin.0,
            bytes: 0,
            batches: VecDeque::new(),
            producers: Producers::default(),
        }
    }

    fn append(&mut self, batch: CommittedBatch) -> Append {
        let header = &batch.header;
        let count = u32::try_from(header.offset_count()).unwrap_or(u32::MAX).max(1);
        if header.is_idempotent() {
            let claim = Claim {
                producer: header.producer_id,
                epoch: header.producer_epoch,
                sequence: header.base_sequence,
                records: count,
            };
            match self.producers.judge(&claim) {
                Verdict::New => self.producers.remember(&claim, self.end, header.max_timestamp),
                Verdict::Duplicate { base } => return Append::Duplicate { base: Offset(base) },
                Verdict::OutOfOrder => return Append::OutOfOrderSequence,
                Verdict::Fenced => return Append::FencedEpoch,
            }
        }
        let base = Offset(self.end);
        self.end += u64::from(count);
        self.bytes += batch.bytes.len();
        self.batches.push_back(StoredBatch {
            base,
            count,
            flags: batch.flags,
            position: batch.position,
            timestamp_max: header.max_timestamp,
            bytes: batch.bytes,
        });
        while self.batches.len() > 1 && (self.bytes > SHARD_BYTES_MAX || self.records() > SHARD_RECORDS_MAX) {
            self.pop();
        }
        Append::Stored { base }
    }

    fn records(&self) -> u64 {
        self.batches.front().map_or(0, |first| self.end - first.base.0)
    }

    fn pop(&mut self) {
        if let Some(first) = self.batches.pop_front() {
            self.bytes -= first.bytes.len();
            self.start = self.start.max(first.end().0);
        }
    }

    fn trim(&mut self, to: u64) {
        self.start = self.start.max(to.min(self.end));
        while self.batches.front().is_some_and(|first| first.end().0 <= self.start) {
            self.pop();
        }
    }

    fn read(&self, from: Offset, bytes_max: usize) -> Vec<StoredBatch> {
        let first = self.batches.partition_point(|batch| batch.end() <= from);
        let mut size = 0;
        let mut found = Vec::new();
        for batch in self.batches.range(first..) {
            size += batch.bytes.len();
            if size > bytes_max && !found.is_empty() {
                break;
            }
            found.push(batch.clone());
        }
        found
    }
}

impl Evict for MemoryLog {
    fn evict(&self, batches: &[(ShardId, u64)]) {
        let mut state = self.state.write();
        for (shard, base) in batches {
            let Some(ring) = state.shards.get_mut(shard) else { continue };
            while ring.batches.front().is_some_and(|first| first.base.0 <= *base) {
                ring.pop();
            }
        }
    }
}

impl Ends for MemoryLog {
    fn end(&self, shard: ShardId) -> Option<Offset> {
        self.offsets(shard).ok().map(|offsets| offsets.end)
    }
}

impl Log for MemoryLog {
    fn append(&self, shard: ShardId, batch: CommittedBatch) -> Result<Append, LogError> {
        let index = batch.position.index;
        let cost = u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX).saturating_add(OVERHEAD);
        let mut state = self.state.write();
        if index <= state.applied {
            return Ok(Append::AlreadyApplied);
        }
        if state.dropped.get(&shard).is_some_and(|dropped| index <= dropped.saturating_add(DROPPED_ENTRIES)) {
            return Ok(Append::ShardDropped);
        }
        let origin = self.node.origin;
        let append = state.shards.entry(shard).or_insert_with(|| Ring::new(origin)).append(batch);
        if let Append::Stored { base } = append {
            state.touched.push(shard);
            state.held.push((shard, base.0, cost));
        }
        Ok(append)
    }

    fn change(&self, index: u64, change: Change) -> Result<(), LogError> {
        let mut state = self.state.write();
        if index <= state.applied {
            return Ok(());
        }
        match change {
            Change::Trim { shard, to } => {
                state.shards.get_mut(&shard).into_iter().for_each(|ring| ring.trim(to.0));
            }
            Change::Drop { shard } => {
                state.shards.remove(&shard);
                state.dropped.insert(shard, index);
                state.touched.push(shard);
            }
            Change::ExpireProducers { before } => {
                state.shards.values_mut().for_each(|ring| ring.producers.expire(before));
                let horizon = index.saturating_sub(DROPPED_ENTRIES);
                state.dropped.retain(|_, dropped| *dropped >= horizon);
            }
        }
        Ok(())
    }

    fn turn_ended(&self, applied: u64) -> Result<(), LogError> {
        let (touched, held) = {
            let mut state = self.state.write();
            state.applied = state.applied.max(applied);
            (std::mem::take(&mut state.touched), std::mem::take(&mut state.held))
        };
        if !held.is_empty() {
            self.node.budget.add(self.holder, &held);
        }
        self.watchers.wake(&touched, self);
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.state.read().applied
    }

    fn flush(&self) -> Result<u64, LogError> {
        Ok(self.applied())
    }

    fn read(&self, shard: ShardId, from: Offset, bytes_max: usize) -> Result<Vec<StoredBatch>, LogError> {
        self.with_ring(shard, |ring, Offsets { start, end }| {
            if from < start || from > end {
                return Err(LogError::OutOfRange { start, end });
            }
            Ok(ring.map(|ring| ring.read(from, bytes_max)).unwrap_or_default())
        })?
    }

    fn read_tail(
        &self,
        shard: ShardId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Option<Vec<StoredBatch>>, LogError> {
        self.read(shard, from, bytes_max).map(Some)
    }

    fn offsets(&self, shard: ShardId) -> Result<Offsets, LogError> {
        self.with_ring(shard, |_, offsets| offsets)
    }

    fn offset_for_time(&self, shard: ShardId, query: TimeQuery) -> Result<Option<TimeHit>, LogError> {
        let (start, batches) = self.with_ring(shard, |ring, offsets| {
            (
                offsets.start,
                ring.map(|ring| ring.batches.iter().cloned().collect::<Vec<_>>()).unwrap_or_default(),
            )
        })?;
        let mut search = time::Search::new(query, start);
        for batch in &batches {
            if search.is_of_interest(batch.timestamp_max) {
                search.look(batch);
            }
        }
        Ok(search.best())
    }

    fn watch(&self, shard: ShardId, beyond: Offset) -> Watch {
        let ends = self.this.upgrade().expect("whoever calls holds the log");
        Watch::new(self.watchers.clone(), ends, shard, beyond)
    }

    fn scan(
        &self,
        after: Position,
        selection: &Selection<'_>,
        max: usize,
        _reach: Reach,
    ) -> Result<Option<Vec<Scanned>>, LogError> {
        let state = self.state.read();
        let mut found: Vec<Scanned> = Vec::new();
        let mut add = |shard: ShardId, ring: &Ring| {
            let first = ring.batches.partition_point(|batch| batch.position <= after);
            let batches = ring.batches.range(first..);
            let shown = batches.filter(|batch| !batch.flags.contains(BatchFlags::AT_MOST_ONCE));
            found.extend(shown.take(max).map(|batch| Scanned {
                position: batch.position,
                shard,
                base: batch.base,
                count: batch.count,
                size: u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX),
            }));
        };
        match selection {
            Selection::All => state.shards.iter().for_each(|(shard, ring)| add(*shard, ring)),
            Selection::Shards(shards) => {
                for shard in *shards {
                    state.shards.get(shard).into_iter().for_each(|ring| add(*shard, ring));
                }
            }
        }
        found.sort_unstable_by_key(|batch| batch.position);
        found.truncate(max);
        Ok(Some(found))
    }

    fn shards(&self) -> Result<Vec<ShardId>, LogError> {
        let mut ids: Vec<ShardId> = self.state.read().shards.keys().copied().collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn describe(&self, shard: ShardId) -> Result<Description, LogError> {
        self.with_ring(shard, |ring, _| {
            let Some(ring) = ring else { return Description::default() };
            let piece = |batch: &StoredBatch| Piece {
                end: batch.end(),
                timestamp_max: batch.timestamp_max,
                bytes: batch.bytes.len() as u64,
            };
            Description {
                bytes: ring.bytes as u64,
                pieces: ring.batches.iter().map(piece).collect(),
                segments: Vec::new(),
                producers: ring.producers.len(),
            }
        })
    }
}

impl MemoryLog {
    fn with_ring<T>(
        &self,
        shard: ShardId,
        look: impl FnOnce(Option<&Ring>, Offsets) -> T,
    ) -> Result<T, LogError> {
        let state = self.state.read();
        if state.dropped.contains_key(&shard) {
            return Err(LogError::Dropped);
        }
        let ring = state.shards.get(&shard);
        let origin = Offsets { start: self.node.origin, end: self.node.origin };
        let offsets =
            ring.map_or(origin, |ring| Offsets { start: Offset(ring.start), end: Offset(ring.end) });
        Ok(look(ring, offsets))
    }
}
