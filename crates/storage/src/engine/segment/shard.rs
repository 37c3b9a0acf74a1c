//! One shard in memory: where it starts and ends, its batches that no footer holds yet, which sealed segments hold the
//! rest, and the cached tail. Performance critical: `push` runs once per batch.

use std::collections::VecDeque;

use bytes::Bytes;
use model::Offset;

use crate::index::{Extent, Mark, Row};
use crate::log::{Description, StoredBatch};
use crate::producer::Producers;
use crate::retention::Piece;

/// What a cached batch costs beside its bytes.
pub(super) const CACHED_OVERHEAD: u32 = size_of::<CachedBatch>() as u32 + 32;

/// The batches of the shard in one sealed segment, without their extents: those are in the segment's footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) segment: u64,
    pub(super) base: u64,
    pub(super) timestamp_max: i64,
    pub(super) bytes: u64,
}

impl Run {
    /// The run that a section's rows make.
    pub(super) fn of(segment: u64, rows: impl IntoIterator<Item = Extent>) -> Option<Run> {
        let mut run: Option<Run> = None;
        for extent in rows {
            let base = extent.base;
            let run = run.get_or_insert(Run { segment, base, timestamp_max: i64::MIN, bytes: 0 });
            run.timestamp_max = run.timestamp_max.max(extent.timestamp_max);
            run.bytes += u64::from(extent.len);
        }
        run
    }
}

/// A batch in the tail cache.
#[derive(Clone, Debug)]
pub(super) struct CachedBatch {
    pub(super) extent: Extent,
    pub(super) bytes: Bytes,
}

/// One shard.
///
/// ```text
///   runs (sealed segments, ascending)   │ tail (extents, no footer yet)
///  [run][run]        [run]              │ [e][e][e][e][e]│
///                 ▲                     │       └ cached: the newest ones, also across a seal
///                 start: runs wholly below it are gone; extents stay until their segment is sealed, so that the footer
///                 tells what producers said in them
/// ```
#[derive(Default)]
pub(super) struct Shard {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) tail: VecDeque<Extent>,
    pub(super) cached: VecDeque<CachedBatch>,
    pub(super) runs: VecDeque<Run>,
    /// Absent while no idempotent producer wrote.
    pub(super) producing: Option<Box<Producing>>,
}

/// What idempotent producers left in a shard.
#[derive(Default)]
pub(super) struct Producing {
    pub(super) known: Producers,
    /// The producer of each batch in `tail` that has one, by offset.
    pub(super) marks: VecDeque<Mark>,
}

/// Where the batches from an offset on are to be had.
pub(super) enum Found {
    /// There are none: the offset is the end.
    End,
    /// Here they are.
    Cached(Vec<StoredBatch>),
    /// In the journal, at these places.
    Extents(Vec<Extent>),
    /// The footer of this segment knows.
    Sealed(u64),
    /// The only footer that knew is lost.
    Lost,
}

impl CachedBatch {
    fn to_stored(&self) -> StoredBatch {
        stored(&self.extent, self.bytes.clone())
    }
}

/// What a reader gets of a batch.
pub(super) fn stored(extent: &Extent, bytes: Bytes) -> StoredBatch {
    StoredBatch {
        base: Offset(extent.base),
        count: extent.count,
        flags: extent.flags,
        position: extent.position(),
        timestamp_max: extent.timestamp_max,
        bytes,
    }
}

/// From a list of extents by offset, those from the one that holds `from` on: at most `bytes_max`, but at least one.
pub(super) fn extents_from(
    extents: impl Iterator<Item = Extent>,
    from: u64,
    bytes_max: usize,
) -> Vec<Extent> {
    let mut size = 0;
    let mut found = Vec::new();
    for extent in extents.skip_while(|extent| extent.end() <= from) {
        size += extent.len as usize;
        if size > bytes_max && !found.is_empty() {
            break;
        }
        found.push(extent);
    }
    found
}

/// Adds to a list that has room for one at first: there may be millions of shards with one batch.
fn push_back<T>(list: &mut VecDeque<T>, item: T) {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
    list.push_back(item);
}

impl Shard {
    pub(super) fn push(&mut self, extent: Extent, bytes: Bytes) {
        self.end = extent.end();
        push_back(&mut self.tail, extent);
        push_back(&mut self.cached, CachedBatch { extent, bytes });
    }

    /// Raises the start; answers the segments whose runs are gone by that.
    pub(super) fn trim(&mut self, to: u64) -> Vec<u64> {
        self.start = self.start.max(to.min(self.end));
        let mut released = Vec::new();
        while let Some(run) = self.runs.front() {
            let next = self.runs.get(1).map(|next| next.base);
            let next = next.or_else(|| self.tail.front().map(|extent| extent.base)).unwrap_or(self.end);
            if next > self.start {
                break;
            }
            released.push(run.segment);
            self.runs.pop_front();
        }
        released
    }

    /// Where to get the batches from `from` on, which is not below the start.
    pub(super) fn find(&self, from: u64, bytes_max: usize) -> Found {
        if from >= self.end {
            return Found::End;
        }
        if let Some(cached) = self.cached_from(from, bytes_max) {
            return Found::Cached(cached);
        }
        if self.tail.front().is_some_and(|first| first.base <= from) {
            let first = self.tail.partition_point(|extent| extent.end() <= from);
            let cached = self.cached.front().map_or(u64::MAX, |batch| batch.extent.base);
            let extents = self.tail.range(first..).take_while(|extent| extent.base < cached);
            return Found::Extents(extents_from(extents.copied(), from, bytes_max));
        }
        let after = self.runs.partition_point(|run| run.base <= from);
        after.checked_sub(1).map_or(Found::Lost, |run| Found::Sealed(self.runs[run].segment))
    }

    /// Cached batches from the one that holds `from`, if that one is cached.
    pub(super) fn cached_from(&self, from: u64, bytes_max: usize) -> Option<Vec<StoredBatch>> {
        let first = self.cached.partition_point(|batch| batch.extent.end() <= from);
        if self.cached.get(first)?.extent.base > from {
            return None;
        }
        let mut size = 0;
        let mut found = Vec::new();
        for batch in self.cached.range(first..) {
            size += batch.bytes.len();
            if size > bytes_max && !found.is_empty() {
                break;
            }
            found.push(batch.to_stored());
        }
        Some(found)
    }

    /// Gives up cached batches up to the one at `base`.
    pub(super) fn evict(&mut self, base: u64) {
        while self.cached.front().is_some_and(|batch| batch.extent.base <= base) {
            self.cached.pop_front();
        }
        if self.cached.is_empty() {
            self.cached = VecDeque::new();
        }
    }

    /// The rows of a segment that has no footer yet, those below the start included.
    pub(super) fn rows_in(&self, segment: u64) -> Vec<Row> {
        let marks = self.producing.as_ref().map(|producing| &producing.marks);
        let mut marks = marks.into_iter().flatten().peekable();
        let mut row = |extent: &Extent| {
            while marks.next_if(|mark| mark.base < extent.base).is_some() {}
            Row { extent: *extent, mark: marks.next_if(|mark| mark.base == extent.base).copied() }
        };
        let rows = self.tail.iter().take_while(|extent| extent.segment <= segment);
        rows.filter(|extent| extent.segment == segment).map(&mut row).collect()
    }

    /// Forgets the extents of a segment whose footer is written; answers whether the footer is still needed for them.
    pub(super) fn seal(&mut self, segment: u64) -> bool {
        let sealed = self.tail.partition_point(|extent| extent.segment <= segment);
        let (start, end) = (self.start, self.tail.get(sealed).map_or(self.end, |extent| extent.base));
        let run = Run::of(segment, self.tail.drain(..sealed)).filter(|_| end > start);
        if self.tail.is_empty() {
            self.tail = VecDeque::new();
        }
        if let Some(producing) = &mut self.producing {
            let sealed = producing.marks.partition_point(|mark| mark.base < end);
            producing.marks.drain(..sealed);
        }
        if let Some(run) = run {
            self.add_run(run);
        }
        run.is_some()
    }

    /// Whether some of its batches are in this sealed segment.
    pub(super) fn has_run_in(&self, segment: u64) -> bool {
        self.runs.binary_search_by_key(&segment, |run| run.segment).is_ok()
    }

    /// Adds a run behind the others.
    pub(super) fn add_run(&mut self, run: Run) {
        self.runs.reserve_exact(1);
        self.runs.push_back(run);
    }

    /// The shard in pieces that can be trimmed one by one: per sealed segment, then per batch.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let ends = self.runs.iter().skip(1).map(|run| run.base);
        let ends = ends.chain([self.tail.front().map_or(self.end, |extent| extent.base)]);
        let sealed = self.runs.iter().zip(ends).map(|(run, end)| Piece {
            end: Offset(end),
            timestamp_max: run.timestamp_max,
            bytes: run.bytes,
        });
        let live = self.tail.iter().filter(|extent| extent.end() > self.start).map(|extent| Piece {
            end: Offset(extent.end()),
            timestamp_max: extent.timestamp_max,
            bytes: u64::from(extent.len),
        });
        sealed.chain(live).collect()
    }

    pub(super) fn describe(&self) -> Description {
        let pieces = self.pieces();
        let mut segments: Vec<u64> = self.runs.iter().map(|run| run.segment).collect();
        segments
            .extend(self.tail.iter().filter(|extent| extent.end() > self.start).map(|extent| extent.segment));
        segments.dedup();
        Description {
            bytes: pieces.iter().map(|piece| piece.bytes).sum(),
            segments,
            producers: self.producing.as_ref().map_or(0, |producing| producing.known.len()),
            pieces,
        }
    }
}
