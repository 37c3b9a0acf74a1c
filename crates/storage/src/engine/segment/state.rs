//! All shards of a group in memory, and the rules by which committed batches and commands change them. Performance
//! critical: `append` runs once per batch under the group's write lock.

use std::collections::VecDeque;

use ahash::AHashMap;
use model::{Offset, ShardId};

use super::shard::{CACHED_OVERHEAD, Producing, Run, Shard};
use crate::budget::Holding;
use crate::index::{Changed, Extent, GroupTails, Mark};
use crate::log::{Append, BatchFlags, Change, CommittedBatch, DROPPED_ENTRIES, Position, Scanned, Selection};
use crate::producer::{Claim, Verdict};

/// The group's shards.
#[derive(Default)]
pub(super) struct State {
    shards: AHashMap<ShardId, Shard>,
    /// Dropped shards, with the index of the drop.
    dropped: AHashMap<ShardId, u64>,
    /// Every batch that no footer holds yet, in log order.
    order: VecDeque<Ordered>,
    /// How many of `order` were forgotten since the start: positions in `segments` count from the first ever.
    order_forgotten: u64,
    /// Where in `order` each segment begins, ascending.
    segments: VecDeque<SegmentStart>,
    /// Every command that no footer holds yet, in log order.
    changes: VecDeque<(u64, Change)>,
    applied: u64,
    turn: Turn,
}

/// What happened since the last turn ended.
#[derive(Default)]
pub(super) struct Turn {
    /// Shards that grew or went.
    pub(super) touched: Vec<ShardId>,
    /// What was cached, with its cost.
    pub(super) cached: Vec<Holding>,
}

#[derive(Clone, Copy)]
struct Ordered {
    index: u64,
    shard: ShardId,
    base: u64,
}

#[derive(Clone, Copy)]
struct SegmentStart {
    segment: u64,
    at: u64,
}

/// What the footer of a segment must say about the group.
pub(super) struct Sealing {
    /// Entries up to here are told by this footer and those before it.
    pub(super) applied: u64,
    pub(super) changes: Vec<(u64, Change)>,
    /// In log order, repeated.
    pub(super) shards: Vec<ShardId>,
}

impl State {
    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// The shards that are there, in ascending order.
    pub(super) fn shard_ids(&self) -> Vec<ShardId> {
        let mut ids: Vec<ShardId> = self.shards.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn shard(&self, shard: ShardId) -> Option<&Shard> {
        self.shards.get(&shard)
    }

    /// Whether the shard is known to be dropped for a reader.
    pub(super) fn is_dropped(&self, shard: ShardId) -> bool {
        self.dropped.contains_key(&shard)
    }

    pub(super) fn append(&mut self, shard_id: ShardId, batch: CommittedBatch) -> Append {
        let index = batch.position.index;
        if index <= self.applied {
            return Append::AlreadyApplied;
        }
        if !self.dropped.is_empty() && self.is_dropped_at(shard_id, index) {
            return Append::ShardDropped;
        }
        let shard = self.shards.entry(shard_id).or_default();
        let count = u32::try_from(batch.header.offset_count()).unwrap_or(u32::MAX).max(1);
        let base = shard.end;
        if batch.header.is_idempotent()
            && let Some(refused) = judge(shard, &batch, count)
        {
            return refused;
        }
        let cost = batch.location.len.saturating_add(CACHED_OVERHEAD);
        let extent = Extent::new(base, count, &batch);
        shard.push(extent, batch.bytes);
        if self.segments.back().is_none_or(|last| last.segment < extent.segment) {
            let at = self.order_forgotten + self.order.len() as u64;
            self.segments.push_back(SegmentStart { segment: extent.segment, at });
        }
        self.order.push_back(Ordered { index, shard: shard_id, base });
        self.turn.touched.push(shard_id);
        self.turn.cached.push((shard_id, base, cost));
        Append::Stored { base: Offset(base) }
    }

    /// Applies a command; answers the segments of which it released a run each.
    pub(super) fn change(&mut self, index: u64, change: Change) -> Vec<u64> {
        if index <= self.applied {
            return Vec::new();
        }
        match change {
            Change::Trim { shard, to } => {
                let Some(found) = self.shards.get_mut(&shard) else { return Vec::new() };
                let released = found.trim(to.0);
                let to = Offset(to.0.min(found.end));
                self.changes.push_back((index, Change::Trim { shard, to }));
                released
            }
            Change::Drop { shard } => {
                self.dropped.insert(shard, index);
                self.turn.touched.push(shard);
                self.changes.push_back((index, change));
                let runs = self.shards.remove(&shard).map(|found| found.runs).unwrap_or_default();
                runs.iter().map(|run| run.segment).collect()
            }
            Change::ExpireProducers { before } => {
                for shard in self.shards.values_mut() {
                    if let Some(producing) = &mut shard.producing {
                        producing.known.expire(before);
                    }
                }
                self.changes.push_back((index, change));
                Vec::new()
            }
        }
    }

    pub(super) fn turn_ended(&mut self, applied: u64) -> Turn {
        self.applied = self.applied.max(applied);
        std::mem::take(&mut self.turn)
    }

    pub(super) fn evict(&mut self, batches: &[(ShardId, u64)]) {
        for (shard, base) in batches {
            if let Some(found) = self.shards.get_mut(shard) {
                found.evict(*base);
            }
        }
    }

    /// Batches after a position that no footer holds yet, in log order.
    pub(super) fn scan(&self, after: Position, selection: &Selection<'_>, max: usize) -> Vec<Scanned> {
        match selection {
            Selection::All => {
                let first = self.order.partition_point(|ordered| ordered.index < after.index);
                let batches = self.order.range(first..).filter_map(|ordered| {
                    let shard = self.shards.get(&ordered.shard)?;
                    let at = shard.tail.binary_search_by_key(&ordered.base, |extent| extent.base).ok()?;
                    scanned(ordered.shard, &shard.tail[at], shard.start, after)
                });
                batches.take(max).collect()
            }
            Selection::Shards(shards) => {
                let mut found: Vec<Scanned> = Vec::new();
                for id in *shards {
                    let Some(shard) = self.shards.get(id) else { continue };
                    let first = shard.tail.partition_point(|extent| extent.position() <= after);
                    let rest = shard.tail.range(first..);
                    found
                        .extend(rest.filter_map(|extent| scanned(*id, extent, shard.start, after)).take(max));
                }
                found.sort_unstable_by_key(|batch| batch.position);
                found.truncate(max);
                found
            }
        }
    }

    /// What a footer of `segment` must say about the group; `last` is the last index of the group in the segment. `None` while
    /// entries of the segment are not applied.
    pub(super) fn sealing(&self, segment: u64, last: u64) -> Option<Sealing> {
        if self.applied < last {
            return None;
        }
        let end = self.order_end(segment);
        // Rewritten after a change of leader: the entry lies in a later segment, its index in this one is void.
        let void = self.order.get(end).map_or(u64::MAX, |ordered| ordered.index - 1);
        let applied = last.min(void);
        let shards = self.order.range(..end).map(|ordered| ordered.shard).collect();
        let told = self.changes.partition_point(|(index, _)| *index <= applied);
        Some(Sealing { applied, changes: self.changes.range(..told).copied().collect(), shards })
    }

    /// After the footer of `segment` is registered: forgets the extents of these shards; answers how many runs there are now.
    pub(super) fn seal_shards(&mut self, segment: u64, shards: &[ShardId]) -> usize {
        let mut seal = |id: &&ShardId| self.shards.get_mut(id).is_some_and(|shard| shard.seal(segment));
        shards.iter().filter(|id| seal(id)).count()
    }

    /// After all shards are sealed: forgets order and commands that footers hold.
    pub(super) fn seal_order(&mut self, segment: u64, applied: u64) {
        let end = self.order_end(segment);
        self.order.drain(..end);
        self.order_forgotten += end as u64;
        while self.segments.front().is_some_and(|start| start.segment <= segment) {
            self.segments.pop_front();
        }
        while self.changes.front().is_some_and(|(index, _)| *index <= applied) {
            self.changes.pop_front();
        }
        let horizon = self.applied.saturating_sub(DROPPED_ENTRIES);
        self.dropped.retain(|_, index| *index >= horizon);
    }

    /// Takes over what footers told when the node was opened.
    pub(super) fn restore(&mut self, tails: GroupTails) {
        self.applied = tails.applied;
        self.dropped = tails.dropped.into_iter().collect();
        self.shards.reserve(tails.shards.len());
        for (id, tail) in tails.shards {
            let producing = (!tail.producers.is_empty())
                .then(|| Box::new(Producing { known: tail.producers, ..Producing::default() }));
            let shard = self.shards.entry(id).or_default();
            (shard.start, shard.end, shard.producing) = (tail.start, tail.end, producing);
        }
    }

    /// Adds a run while the node is opened, after [`restore`](State::restore), by ascending segments. `end` is the offset after
    /// the run's last record. Answers whether the run is readable.
    pub(super) fn restore_run(&mut self, shard: ShardId, run: Run, end: u64) -> bool {
        let shard = self.shards.get_mut(&shard).filter(|shard| end > shard.start);
        shard.map(|shard| shard.add_run(run)).is_some()
    }

    /// Bytes of the part of the index that no footer holds yet.
    pub(super) fn live_bytes(&self) -> usize {
        self.order.len() * (size_of::<Ordered>() + size_of::<Extent>())
    }

    /// How many of `order` lie in segments up to this one.
    fn order_end(&self, segment: u64) -> usize {
        let after = self.segments.iter().find(|start| start.segment > segment);
        after.map_or(self.order.len(), |start| (start.at - self.order_forgotten) as usize)
    }

    /// Invariant: a function of the log alone; when tombstones are really removed does not matter.
    fn is_dropped_at(&self, shard: ShardId, index: u64) -> bool {
        self.dropped.get(&shard).is_some_and(|dropped| index <= dropped.saturating_add(DROPPED_ENTRIES))
    }
}

/// Asks the shard's producers about a batch and remembers it; `None` if it is to be stored.
fn judge(shard: &mut Shard, batch: &CommittedBatch, count: u32) -> Option<Append> {
    let header = &batch.header;
    let claim = Claim {
        producer: header.producer_id,
        epoch: header.producer_epoch,
        sequence: header.base_sequence,
        records: count,
    };
    let producing = shard.producing.get_or_insert_default();
    match producing.known.judge(&claim) {
        Verdict::New => {}
        Verdict::Duplicate { base } => return Some(Append::Duplicate { base: Offset(base) }),
        Verdict::OutOfOrder => return Some(Append::OutOfOrderSequence),
        Verdict::Fenced => return Some(Append::FencedEpoch),
    }
    producing.known.remember(&claim, shard.end, header.max_timestamp);
    producing.marks.push_back(Mark {
        base: shard.end,
        producer: claim.producer,
        epoch: claim.epoch,
        sequence: claim.sequence,
    });
    None
}

/// An extent as a scan after `after` shows it, if it does.
pub(super) fn scanned(shard: ShardId, extent: &Extent, start: u64, after: Position) -> Option<Scanned> {
    let shown =
        extent.position() > after && extent.end() > start && !extent.flags.contains(BatchFlags::AT_MOST_ONCE);
    shown.then(|| Scanned {
        position: extent.position(),
        shard,
        base: Offset(extent.base),
        count: extent.count,
        size: extent.len,
    })
}

/// Commands in the form of a footer.
pub(super) fn changed(group: model::GroupId, changes: &[(u64, Change)]) -> Vec<Changed> {
    changes.iter().map(|(index, change)| Changed { group, index: *index, change: *change }).collect()
}
