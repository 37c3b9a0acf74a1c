//! The `segment` engine: an index over the journal. Batches are not copied; the index says where they lie, footers say it
//! for sealed segments, and the newest batches are kept in memory.
//!
//! How segments are written, purged and recycled is the journal's affair; which groups exist is the caller's.

mod lru;
mod sealed;
mod shard;
mod state;
mod stripe;

#[cfg(test)]
mod tests;

pub(crate) use stripe::SegmentStripe;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use model::batch::BatchHeader;
use model::{GroupId, Offset, ShardId};
use parking_lot::RwLock;
use tracing::warn;

use self::shard::{Found, Shard, extents_from, stored};
use self::state::{State, scanned};
use crate::budget::{Evict, HolderId};
use crate::error::LogError;
use crate::index::Extent;
use crate::log::{
    Append, Change, CommittedBatch, Description, Log, Offsets, Position, Reach, Scanned, Selection,
    StoredBatch, TimeHit, TimeQuery,
};
use crate::tail::{Ends, Watch, Watchers};
use crate::time;

/// The shards of one group that this engine holds.
pub(crate) struct SegmentLog {
    group: GroupId,
    stripe: Arc<SegmentStripe>,
    state: RwLock<State>,
    watchers: Arc<Watchers>,
    holder: HolderId,
    /// The last log index that footers tell all about.
    indexed: AtomicU64,
    this: Weak<SegmentLog>,
}

impl Evict for SegmentLog {
    fn evict(&self, batches: &[(ShardId, u64)]) {
        self.state.write().evict(batches);
    }
}

impl Ends for SegmentLog {
    fn end(&self, shard: ShardId) -> Option<Offset> {
        let state = self.state.read();
        if state.is_dropped(shard) {
            return None;
        }
        Some(Offset(state.shard(shard).map_or(0, |found| found.end)))
    }
}

impl Log for SegmentLog {
    fn append(&self, shard: ShardId, batch: CommittedBatch) -> Result<Append, LogError> {
        Ok(self.state.write().append(shard, batch))
    }

    fn change(&self, index: u64, change: Change) -> Result<(), LogError> {
        let released = self.state.write().change(index, change);
        self.stripe.sealed.release(&released);
        Ok(())
    }

    fn turn_ended(&self, applied: u64) -> Result<(), LogError> {
        let turn = self.state.write().turn_ended(applied);
        if !turn.cached.is_empty() {
            self.stripe.cache.add(self.holder, &turn.cached);
        }
        self.watchers.wake(&turn.touched, self);
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.state.read().applied()
    }

    fn flush(&self) -> Result<u64, LogError> {
        self.stripe.write_footers()?;
        Ok(self.indexed.load(Ordering::Acquire))
    }

    fn read(&self, shard: ShardId, from: Offset, bytes_max: usize) -> Result<Vec<StoredBatch>, LogError> {
        let mut batches: Vec<StoredBatch> = Vec::new();
        match self.read_into(&mut batches, shard, from, bytes_max) {
            // What lies behind them is told to whoever asks for it: damage must not hide its neighbours.
            Err(_) if !batches.is_empty() => Ok(batches),
            read => read.map(|()| batches),
        }
    }

    fn read_tail(
        &self,
        shard: ShardId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Option<Vec<StoredBatch>>, LogError> {
        self.with_shard(shard, |found| {
            let Offsets { start, end } = offsets(found);
            if from < start || from > end {
                return Err(LogError::OutOfRange { start, end });
            }
            if from == end {
                return Ok(Some(Vec::new()));
            }
            Ok(found.and_then(|found| found.cached_from(from.0, bytes_max)))
        })?
    }

    fn offsets(&self, shard: ShardId) -> Result<Offsets, LogError> {
        self.with_shard(shard, offsets)
    }

    fn offset_for_time(&self, shard: ShardId, query: TimeQuery) -> Result<Option<TimeHit>, LogError> {
        let Some((start, runs, tail)) = self.with_shard(shard, |found| {
            let found = found?;
            let runs = found.runs.iter().map(|run| (run.segment, run.timestamp_max)).collect::<Vec<_>>();
            Some((Offset(found.start), runs, found.tail.iter().copied().collect::<Vec<Extent>>()))
        })?
        else {
            return Ok(None);
        };
        let maxima = runs.iter().map(|run| run.1).chain(tail.iter().map(|extent| extent.timestamp_max));
        let largest = maxima.max().unwrap_or(i64::MIN);
        let found = self.search(shard, time::Search::new(query, start).expect(largest), &runs, &tail)?;
        let is_answer = match query {
            TimeQuery::AtOrAfter(_) => true,
            TimeQuery::Largest => found.is_some_and(|hit| hit.timestamp >= largest),
        };
        if is_answer {
            return Ok(found);
        }
        // The largest is trimmed away, but counts in its batch or segment: look at all of them.
        self.search(shard, time::Search::new(query, start), &runs, &tail)
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
        reach: Reach,
    ) -> Result<Option<Vec<Scanned>>, LogError> {
        // The live part first: what is sealed meanwhile is then seen twice, and not missed.
        let live = self.state.read().scan(after, selection, max);
        let mut found = Vec::new();
        for segment in self.stripe.sealed.with_group_from(self.group, after.next_index()) {
            if found.len() >= max {
                break;
            }
            let here = self.within(segment, selection);
            let here = match &here {
                Some(shards) if shards.is_empty() => continue,
                Some(shards) => Selection::Shards(shards),
                None => Selection::All,
            };
            if reach == Reach::Memory && !self.stripe.sealed.has_at_once(segment, self.group, &here) {
                return Ok(None);
            }
            match self.scan_sealed(segment, after, &here, max - found.len()) {
                Ok(mut part) => found.append(&mut part),
                // Recycled meanwhile: nothing in it was readable any more.
                Err(LogError::Damaged { .. }) if !self.stripe.sealed.is_known(segment) => {}
                Err(LogError::Damaged { what }) => {
                    warn!(segment, what, "a sealed segment cannot be read and is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        let last = found.last().map_or(after, |batch| batch.position);
        found.extend(live.into_iter().filter(|batch| batch.position > last));
        found.truncate(max);
        Ok(Some(found))
    }

    fn shards(&self) -> Result<Vec<ShardId>, LogError> {
        Ok(self.state.read().shard_ids())
    }

    fn describe(&self, shard: ShardId) -> Result<Description, LogError> {
        self.with_shard(shard, |found| found.map(Shard::describe).unwrap_or_default())
    }
}

impl SegmentLog {
    /// Looks at a shard under the read lock; `None` is a shard that was never appended to.
    fn with_shard<T>(&self, shard: ShardId, look: impl FnOnce(Option<&Shard>) -> T) -> Result<T, LogError> {
        let state = self.state.read();
        if state.is_dropped(shard) {
            return Err(LogError::Dropped);
        }
        Ok(look(state.shard(shard)))
    }

    /// Reads on behind `batches` until `bytes_max` or the end.
    fn read_into(
        &self,
        batches: &mut Vec<StoredBatch>,
        shard: ShardId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<(), LogError> {
        let mut size = 0;
        let mut next = from.0;
        loop {
            let found = self.with_shard(shard, |found| {
                let offsets = offsets(found);
                if (next < offsets.start.0 || next > offsets.end.0) && batches.is_empty() {
                    return Err(LogError::OutOfRange { start: offsets.start, end: offsets.end });
                }
                Ok(found.map_or(Found::End, |found| found.find(next, bytes_max.saturating_sub(size))))
            })??;
            let extents = match found {
                Found::End => return Ok(()),
                Found::Cached(cached) => {
                    for batch in cached {
                        if !push_within(batches, &mut size, bytes_max, batch) {
                            break;
                        }
                    }
                    return Ok(());
                }
                Found::Lost => return Err(LogError::Damaged { what: "footer" }),
                Found::Extents(extents) => extents,
                Found::Sealed(segment) => {
                    let extents = self.stripe.sealed.extents(segment, shard, self.group)?;
                    let first = extents.partition_point(|extent| extent.end() <= next);
                    extents_from(extents[first..].iter().copied(), next, bytes_max.saturating_sub(size))
                }
            };
            if extents.first().is_none_or(|first| first.base > next) {
                return Err(LogError::Damaged { what: "extent index" });
            }
            for extent in &extents {
                if size + extent.len as usize > bytes_max && !batches.is_empty() {
                    return Ok(());
                }
                let Some(batch) = self.fetch(shard, extent)? else { return Ok(()) };
                push_within(batches, &mut size, bytes_max, batch);
                next = extent.end();
            }
        }
    }

    /// Reads a batch from the journal and checks it. `None` if the shard was trimmed beyond it meanwhile, so that its segment may
    /// be gone.
    fn fetch(&self, shard: ShardId, extent: &Extent) -> Result<Option<StoredBatch>, LogError> {
        let read = self.stripe.source.read(extent.location());
        match read.and_then(|bytes| check(&bytes).map(|()| bytes)) {
            Ok(bytes) => Ok(Some(stored(extent, bytes))),
            Err(err) => match self.offsets(shard)? {
                Offsets { start, .. } if start.0 >= extent.end() => Ok(None),
                _ => Err(err),
            },
        }
    }

    /// Runs a search over sealed segments (with their largest timestamps) and extents, in offset order.
    fn search(
        &self,
        shard: ShardId,
        mut search: time::Search,
        runs: &[(u64, i64)],
        tail: &[Extent],
    ) -> Result<Option<TimeHit>, LogError> {
        for (segment, timestamp_max) in runs {
            if search.is_of_interest(*timestamp_max) {
                let extents = self.stripe.sealed.extents(*segment, shard, self.group)?;
                self.search_in(&mut search, shard, &extents)?;
            }
        }
        self.search_in(&mut search, shard, tail)?;
        Ok(search.best())
    }

    fn search_in(
        &self,
        search: &mut time::Search,
        shard: ShardId,
        extents: &[Extent],
    ) -> Result<(), LogError> {
        for extent in extents {
            if extent.end() > search.start().0
                && search.is_of_interest(extent.timestamp_max)
                && let Some(batch) = self.fetch(shard, extent)?
            {
                search.look(&batch);
            }
        }
        Ok(())
    }

    /// The shards of a selection that have something in a sealed segment, which their runs say; `None`: all that there are.
    fn within(&self, segment: u64, selection: &Selection<'_>) -> Option<Vec<ShardId>> {
        let Selection::Shards(shards) = selection else { return None };
        let state = self.state.read();
        let has = |id: &&ShardId| state.shard(**id).is_some_and(|shard| shard.has_run_in(segment));
        Some(shards.iter().filter(has).copied().collect())
    }

    /// What a scan finds in a sealed segment, at most `max`, in log order.
    fn scan_sealed(
        &self,
        segment: u64,
        after: Position,
        selection: &Selection<'_>,
        max: usize,
    ) -> Result<Vec<Scanned>, LogError> {
        let shown = |state: &State, shard: ShardId, extent: &Extent| {
            scanned(shard, extent, state.shard(shard)?.start, after)
        };
        match selection {
            Selection::All => {
                let all = self.stripe.sealed.log_order(segment, self.group)?;
                let first = all.partition_point(|(_, extent)| extent.position() <= after);
                let state = self.state.read();
                Ok(all[first..]
                    .iter()
                    .filter_map(|(shard, extent)| shown(&state, *shard, extent))
                    .take(max)
                    .collect())
            }
            Selection::Shards(shards) => {
                let mut found: Vec<Scanned> = Vec::new();
                for shard in *shards {
                    let extents = self.stripe.sealed.extents(segment, *shard, self.group)?;
                    let first = extents.partition_point(|extent| extent.position() <= after);
                    let state = self.state.read();
                    let batches = extents[first..].iter().filter_map(|extent| shown(&state, *shard, extent));
                    found.extend(batches.take(max));
                }
                found.sort_unstable_by_key(|batch| batch.position);
                found.truncate(max);
                Ok(found)
            }
        }
    }
}

fn offsets(shard: Option<&Shard>) -> Offsets {
    shard.map_or(Offsets { start: Offset(0), end: Offset(0) }, |found| Offsets {
        start: Offset(found.start),
        end: Offset(found.end),
    })
}

/// Adds a batch if it fits or is the first.
fn push_within(
    batches: &mut Vec<StoredBatch>,
    size: &mut usize,
    bytes_max: usize,
    batch: StoredBatch,
) -> bool {
    let fits = batches.is_empty() || *size + batch.bytes.len() <= bytes_max;
    if fits {
        *size += batch.bytes.len();
        batches.push(batch);
    }
    fits
}

/// Checks that bytes from disk are one whole batch, as they were when they were committed.
fn check(bytes: &[u8]) -> Result<(), LogError> {
    let damaged = LogError::Damaged { what: "record batch" };
    let Ok(header) = BatchHeader::parse(bytes) else { return Err(damaged) };
    let sound = header.total_len() == bytes.len()
        && crc_fast::crc32_iscsi(&bytes[model::batch::field::ATTRIBUTES..]) == header.crc;
    if sound { Ok(()) } else { Err(damaged) }
}
