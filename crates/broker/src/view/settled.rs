//! The settled holes above a floor: a roaring bitmap per chunk of 65,536 positions, and runs of chunks that are
//! full as two numbers. So a hole costs a bit or less, a range over millions of positions nothing, and there is no cap.

use std::collections::BTreeMap;
use std::ops::Range;

use roaring::RoaringBitmap;

/// Positions per chunk: those of one roaring container, and of one row of the snapshot.
pub(super) const CHUNK_BITS: u32 = 16;
const LOW_MAX: u32 = (1 << CHUNK_BITS) - 1;

/// Bound: the last position is never settled (ranges exclude their end), so the last chunk is never full.
pub(super) const FULL_END_MAX: u64 = (1 << (64 - CHUNK_BITS)) - 1;

/// By first chunk. Invariant: bitmaps are neither empty nor full; runs neither touch nor cover another entry.
#[derive(Debug, Default)]
pub(super) struct Settled {
    chunks: BTreeMap<u64, Chunk>,
}

#[derive(Debug)]
pub(super) enum Chunk {
    Part(RoaringBitmap),
    /// Full from the key to before this chunk.
    Full {
        end: u64,
    },
}

fn split(position: u64) -> (u64, u32) {
    (position >> CHUNK_BITS, position as u32 & LOW_MAX)
}

fn join(chunk: u64, low: u32) -> u64 {
    chunk << CHUNK_BITS | u64::from(low)
}

impl Settled {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bitmaps and runs in order, by first chunk.
    pub(super) fn chunks(&self) -> &BTreeMap<u64, Chunk> {
        &self.chunks
    }

    pub(super) fn contains(&self, position: u64) -> bool {
        let (chunk, low) = split(position);
        self.full_run(chunk).is_some() || self.part(chunk).is_some_and(|part| part.contains(low))
    }

    /// Adds a range that is not empty.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        let (first, low) = split(range.start);
        let (last, high) = split(range.end - 1);
        if first == last {
            self.insert_part(first, low, high);
        } else {
            self.insert_part(first, low, LOW_MAX);
            self.insert_full(first + 1..last);
            self.insert_part(last, 0, high);
        }
    }

    /// The first position from `position` on that is not in the set.
    pub(super) fn next_unsettled(&self, mut position: u64) -> u64 {
        loop {
            let (chunk, low) = split(position);
            if let Some(run) = self.full_run(chunk) {
                position = join(run.end, 0);
                continue;
            }
            let run = self.part(chunk).and_then(|part| part.range(low..).next_range());
            match run {
                Some(run) if *run.start() == low && *run.end() == LOW_MAX => position = join(chunk + 1, 0),
                Some(run) if *run.start() == low => return join(chunk, *run.end() + 1),
                Some(_) | None => return position,
            }
        }
    }

    /// The first position from `position` on that is in the set.
    pub(super) fn next_settled(&self, position: u64) -> Option<u64> {
        let (chunk, low) = split(position);
        if self.full_run(chunk).is_some() {
            return Some(position);
        }
        if let Some(low) = self.part(chunk).and_then(|part| part.range(low..).next()) {
            return Some(join(chunk, low));
        }
        let (next, entry) = self.chunks.range(chunk + 1..).next()?;
        match entry {
            Chunk::Part(part) => part.min().map(|low| join(*next, low)),
            Chunk::Full { .. } => Some(join(*next, 0)),
        }
    }

    /// Forgets what is below `floor`, which is not in the set.
    pub(super) fn forget_below(&mut self, floor: u64) {
        let (chunk, low) = split(floor);
        while let Some(entry) = self.chunks.first_entry() {
            if *entry.key() >= chunk {
                break;
            }
            entry.remove();
        }
        let emptied = match self.chunks.get_mut(&chunk) {
            Some(Chunk::Part(part)) => {
                part.remove_range(..low);
                part.is_empty()
            }
            Some(Chunk::Full { .. }) | None => false,
        };
        if emptied {
            self.chunks.remove(&chunk);
        }
    }

    /// The run of full chunks that `chunk` is in.
    pub(super) fn full_run(&self, chunk: u64) -> Option<Range<u64>> {
        match self.chunks.range(..=chunk).next_back()? {
            (start, Chunk::Full { end }) if chunk < *end => Some(*start..*end),
            (_, Chunk::Full { .. } | Chunk::Part(_)) => None,
        }
    }

    fn part(&self, chunk: u64) -> Option<&RoaringBitmap> {
        match self.chunks.get(&chunk)? {
            Chunk::Part(part) => Some(part),
            Chunk::Full { .. } => None,
        }
    }

    fn insert_part(&mut self, chunk: u64, low: u32, high: u32) {
        if self.full_run(chunk).is_some() {
            return;
        }
        let entry = self.chunks.entry(chunk).or_insert_with(|| Chunk::Part(RoaringBitmap::new()));
        let Chunk::Part(part) = entry else { return };
        part.insert_range(low..=high);
        if part.len() > u64::from(LOW_MAX) {
            self.insert_full(chunk..chunk + 1);
        }
    }

    fn insert_full(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        let Range { mut start, mut end } = run;
        if let Some(before) = start.checked_sub(1).and_then(|chunk| self.full_run(chunk)) {
            start = before.start;
        }
        if let Some(after) = self.full_run(end) {
            end = after.end;
        }
        while let Some((key, entry)) = self.chunks.range(start..end).next() {
            if let Chunk::Full { end: held } = entry {
                end = end.max(*held);
            }
            let key = *key;
            self.chunks.remove(&key);
        }
        self.chunks.insert(start, Chunk::Full { end });
    }
}
