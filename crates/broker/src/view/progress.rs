//! The durable half of a view: what is settled and what came back. A follower keeps only this and applies facts to
//! it; a new owner builds its view on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::facts::{Facts, Past};
use super::settled::{CHUNK_BITS, Settled};

/// What a subscription has settled, and the past of positions that came back.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) floor: u64,
    /// Above the floor only.
    pub(super) settled: Settled,
    /// Of unsettled positions only.
    pub(super) past: BTreeMap<u64, Past>,
    /// One after the highest position that was settled or returned.
    pub(super) mark: u64,
    /// First chunks of rows that differ from what was last taken.
    pub(super) changed: BTreeSet<u64>,
    /// First chunks of rows that were taken and not taken back.
    pub(super) stored: BTreeSet<u64>,
}

impl Progress {
    /// Nothing settled; everything below `start` is none of its business.
    pub fn starting_at(start: u64) -> Progress {
        Progress { floor: start, mark: start, ..Progress::default() }
    }

    /// Everything below is settled. It never falls.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Positions below may have been delivered before; none from here on was settled or returned.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Whether `position` is settled.
    pub fn is_settled(&self, position: u64) -> bool {
        position < self.floor || self.settled.contains(position)
    }

    /// Takes over facts that are committed. Deterministic, and the same again if they are applied twice.
    pub fn apply(&mut self, facts: &Facts) {
        for range in &facts.settled {
            self.settle(range.clone());
        }
        for (position, past) in &facts.returned {
            self.give_back(*position, *past);
        }
    }

    pub(super) fn settle(&mut self, range: Range<u64>) {
        let start = range.start.max(self.floor);
        if start >= range.end {
            return;
        }
        self.mark = self.mark.max(range.end);
        self.forget_past(start..range.end);
        if start > self.floor {
            self.settled.insert(start..range.end);
            self.note_changed(start..range.end);
            return;
        }
        self.floor = range.end;
        if !self.settled.is_empty() {
            self.floor = self.settled.next_unsettled(range.end);
            self.settled.forget_below(self.floor);
        }
        let chunk = self.floor >> CHUNK_BITS;
        while self.changed.first().is_some_and(|first| *first < chunk) {
            self.changed.pop_first();
        }
    }

    pub(super) fn give_back(&mut self, position: u64, past: Past) {
        if self.is_settled(position) || position == u64::MAX {
            return;
        }
        self.mark = self.mark.max(position + 1);
        self.past.insert(position, past);
        self.changed.insert(position >> CHUNK_BITS);
    }

    fn forget_past(&mut self, range: Range<u64>) {
        while let Some((position, _)) = self.past.range(range.clone()).next() {
            let position = *position;
            self.past.remove(&position);
            self.changed.insert(position >> CHUNK_BITS);
        }
    }

    /// Notes the rows at both ends of a range that was settled, and the run of full chunks it may have joined.
    fn note_changed(&mut self, range: Range<u64>) {
        let (first, last) = (range.start >> CHUNK_BITS, (range.end - 1) >> CHUNK_BITS);
        for chunk in [first, last, (first + 1).min(last)] {
            self.changed.insert(self.settled.full_run(chunk).map_or(chunk, |run| run.start));
        }
    }
}
