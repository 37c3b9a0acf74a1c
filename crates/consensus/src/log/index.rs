//! `LogIndex`: which entries a group's log holds, where the journal has them, and the payloads that are still
//! to be applied. It does no I/O and takes no locks.

use std::collections::VecDeque;
use std::ops::Range;

use storage::journal::{Location, Payload};

use crate::types::{LogId, Membership, StoredMembership, Vote, log_id};

/// What kind of entry a log position holds. It is known for every live entry without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A proposed payload.
    Command,
    /// The empty entry by which a new leader commits its predecessors' entries.
    Blank,
    /// A change of the group's voters.
    Membership,
}

impl Shape {
    /// How the journal's node word says it. Standard Raft terms have one leader, so that word carries no
    /// leader.
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Shape::Command => 0,
            Shape::Blank => 1,
            Shape::Membership => 2,
        }
    }

    /// The shape that a node word says, unless it is damaged or of a newer version.
    pub(crate) fn from_word(word: u64) -> Option<Shape> {
        match word {
            0 => Some(Shape::Command),
            1 => Some(Shape::Blank),
            2 => Some(Shape::Membership),
            _ => None,
        }
    }
}

/// One live entry.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) term: u64,
    pub(crate) shape: Shape,
    /// `None` until the journal has synced the entry.
    pub(crate) location: Option<Location>,
    /// `None` once it was applied, or evicted.
    pub(crate) payload: Option<Payload>,
}

/// An entry as the log hands it out.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) index: u64,
    pub(crate) slot: Slot,
}

/// The log of one group.
///
/// ```text
///   purged ┐        ┌ first                 last ┐
///   ───────┤ gone   │  slots[0] slots[1] ...     │ next append
///                      located   located  not yet
///                                cached   cached
/// ```
///
/// `Invariant:` `first == purged + 1` (or 0), and there is no hole between `first` and `last`.
///
/// `Bound:` at 40 to 100 bytes an entry, a purge that lags by a million entries costs 100 MB; the machine's
/// `flushed` decides.
#[derive(Default)]
pub(crate) struct LogIndex {
    first: u64,
    slots: VecDeque<Slot>,
    purged: Option<LogId>,
    /// Memberships in index order: the one in force at `purged`, then those of live entries.
    memberships: Vec<StoredMembership>,
    /// Bytes of cached payloads.
    cached: usize,
    cached_max: usize,
    /// Everything below it has been evicted, applied, or is not a command.
    evicted: u64,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
}

impl LogIndex {
    /// An empty log that caches at most about `cached_max` bytes of durable payloads.
    pub(crate) fn new(cached_max: usize) -> LogIndex {
        LogIndex { cached_max, ..LogIndex::default() }
    }

    /// Begins after `purged` with the given membership in force (recovery, or an installed snapshot's).
    pub(crate) fn begin(&mut self, purged: Option<LogId>, membership: StoredMembership) {
        self.slots.clear();
        self.cached = 0;
        self.first = purged.as_ref().map_or(0, |id| id.index + 1);
        self.evicted = self.first;
        self.purged = purged;
        self.memberships = if membership.log_id().is_some() { vec![membership] } else { Vec::new() };
    }

    /// Makes the log begin at `first` while it is empty and nothing was purged.
    pub(crate) fn begin_at(&mut self, first: u64) {
        debug_assert!(self.last().is_none(), "the log has a beginning");
        self.first = first;
        self.evicted = first;
    }

    /// Adds an entry at the end and returns its index. A membership entry brings its membership.
    pub(crate) fn push(&mut self, slot: Slot, membership: Option<Membership>) -> u64 {
        let index = self.next();
        if let Some(membership) = membership {
            self.memberships.push(StoredMembership::new(Some(log_id(slot.term, index)), membership));
        }
        self.cached += slot.payload.as_ref().map_or(0, weight);
        self.slots.push_back(slot);
        index
    }

    /// Records where the journal put entries `from..`, if they are still the ones that were appended.
    pub(crate) fn located(&mut self, from: u64, terms: impl Iterator<Item = (u64, Location)>) {
        for (index, (term, location)) in (from..).zip(terms) {
            if let Some(slot) = self.slot_mut(index)
                && slot.term == term
            {
                slot.location = Some(location);
            }
        }
        self.evict();
    }

    /// Removes entries from `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        while self.next() > from.max(self.first) {
            let slot = self.slots.pop_back();
            self.cached -= slot.and_then(|slot| slot.payload).as_ref().map_or(0, weight);
        }
        self.memberships.retain(|kept| kept.log_id().as_ref().is_none_or(|id| id.index < from));
        self.evicted = self.evicted.min(self.next());
    }

    /// Forgets entries up to `upto`, which may lie beyond the end.
    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.purged.as_ref().is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let gone = (upto.index + 1 - self.first).min(self.slots.len() as u64) as usize;
        for slot in self.slots.drain(..gone) {
            self.cached -= slot.payload.as_ref().map_or(0, weight);
        }
        self.first = upto.index + 1;
        self.evicted = self.evicted.max(self.first);
        let in_force = self.memberships.partition_point(|kept| at(kept) <= upto.index);
        self.memberships.drain(..in_force.saturating_sub(1));
        self.purged = Some(upto);
    }

    /// The membership in force at `index`: that of the last membership entry at or before it.
    pub(crate) fn membership_at(&self, index: u64) -> StoredMembership {
        let known = self.memberships.partition_point(|kept| at(kept) <= index);
        known.checked_sub(1).map(|last| self.memberships[last].clone()).unwrap_or_default()
    }

    /// Takes over the membership of an installed snapshot.
    pub(crate) fn adopt_membership(&mut self, membership: StoredMembership) {
        self.memberships.retain(|kept| at(kept) > at(&membership));
        self.memberships.insert(0, membership);
    }

    /// The entries of a range, as far as the log has them, without payloads that are not cached.
    pub(crate) fn read(&self, range: Range<u64>) -> Vec<Found> {
        let range = range.start.max(self.first)..range.end.min(self.next());
        range.map(|index| Found { index, slot: self.slots[(index - self.first) as usize].clone() }).collect()
    }

    /// Like [`read`](LogIndex::read), but for the one reader that applies: payloads move out of the cache.
    /// `None` when one of the entries is not durable yet.
    pub(crate) fn take(&mut self, range: Range<u64>) -> Option<Vec<Found>> {
        let range = range.start.max(self.first)..range.end.min(self.next());
        let mut found = Vec::with_capacity(range.end.saturating_sub(range.start) as usize);
        if range.clone().any(|index| self.slots[(index - self.first) as usize].location.is_none()) {
            return None;
        }
        for index in range {
            let slot = &mut self.slots[(index - self.first) as usize];
            let payload = slot.payload.take();
            let (term, shape, location) = (slot.term, slot.shape, slot.location);
            self.cached -= payload.as_ref().map_or(0, weight);
            found.push(Found { index, slot: Slot { term, shape, location, payload } });
        }
        Some(found)
    }

    /// The membership that the entry at `index` sets, if it is a membership entry.
    pub(crate) fn membership_of(&self, index: u64) -> Option<Membership> {
        let found = self.memberships.iter().find(|kept| at(kept) == index);
        found.map(|kept| kept.membership().clone())
    }

    /// The log id at `index`, if the log knows it: a live entry or the last purged one.
    pub(crate) fn log_id(&self, index: u64) -> Option<LogId> {
        if let Some(purged) = self.purged.as_ref().filter(|purged| purged.index == index) {
            return Some(*purged);
        }
        let slot = index.checked_sub(self.first).and_then(|at| self.slots.get(at as usize))?;
        Some(log_id(slot.term, index))
    }

    /// The last purged entry.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last entry, or the last purged one where there is none.
    pub(crate) fn last(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(log_id(slot.term, self.next() - 1)),
            None => self.purged,
        }
    }

    /// The index that the next entry gets.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Drops the oldest durable payloads while the cache is over its bound: they are read back from the
    /// journal. What is not durable stays, and is bounded by the proposals in flight.
    fn evict(&mut self) {
        while self.cached > self.cached_max && self.evicted < self.next() {
            let slot = &mut self.slots[(self.evicted - self.first) as usize];
            if slot.location.is_none() {
                return;
            }
            self.cached -= slot.payload.take().as_ref().map_or(0, weight);
            self.evicted += 1;
        }
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        index.checked_sub(self.first).and_then(|at| self.slots.get_mut(at as usize))
    }
}

fn at(membership: &StoredMembership) -> u64 {
    membership.log_id().as_ref().map_or(0, |id| id.index)
}

/// Bytes that a cached payload holds on to.
fn weight(payload: &Payload) -> usize {
    payload.head.len() + payload.bodies.iter().map(bytes::Bytes::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use storage::journal::{Location, Payload};

    use super::{LogIndex, Shape, Slot};
    use crate::types::{Membership, log_id};

    #[derive(Clone, Debug)]
    enum Step {
        Push { shape: Shape, bytes: usize },
        Located { part: u8 },
        Truncate { part: u8 },
        Purge { part: u8, beyond: u64 },
        Take { part: u8 },
        NewTerm,
    }

    fn step() -> impl Strategy<Value = Step> {
        let shape = prop_oneof![
            6 => proptest::strategy::Just(Shape::Command),
            1 => proptest::strategy::Just(Shape::Blank),
            1 => proptest::strategy::Just(Shape::Membership),
        ];
        let part = || any::<u8>();
        prop_oneof![
            8 => (shape, 0_usize..40).prop_map(|(shape, bytes)| Step::Push { shape, bytes }),
            3 => part().prop_map(|part| Step::Located { part }),
            1 => part().prop_map(|part| Step::Truncate { part }),
            1 => (part(), 0_u64..3).prop_map(|(part, beyond)| Step::Purge { part, beyond: beyond / 2 * 5 }),
            2 => part().prop_map(|part| Step::Take { part }),
            1 => proptest::strategy::Just(Step::NewTerm),
        ]
    }

    /// An entry as a plain list keeps it.
    #[derive(Clone, Debug, PartialEq)]
    struct Plain {
        term: u64,
        shape: Shape,
        voter: Option<u64>,
        located: bool,
    }

    /// The naive log: entries from 0 on, with what is purged.
    #[derive(Default)]
    struct Naive {
        first: usize,
        entries: Vec<Plain>,
        located: usize,
    }

    fn location(index: u64) -> Location {
        Location { segment: index, offset: 0, len: 1 }
    }

    fn pick(part: u8, from: usize, to: usize) -> usize {
        from + (to - from) * usize::from(part) / 256
    }

    /// The index and the list say the same.
    fn check(
        index: &LogIndex,
        naive: &Naive,
        cached_max: usize,
    ) -> Result<(), proptest::test_runner::TestCaseError> {
        let end = naive.entries.len();
        prop_assert_eq!(index.next(), end.max(naive.first) as u64);
        let live = index.read(0..u64::MAX);
        prop_assert_eq!(live.len(), end.saturating_sub(naive.first));
        let mut unsynced = 0;
        for (at, found) in (naive.first..).zip(&live) {
            let Slot { term, shape, location, payload } = &found.slot;
            let (located, voter) = (location.is_some(), naive.entries[at].voter);
            let plain = Plain { term: *term, shape: *shape, voter, located };
            prop_assert_eq!((found.index, &plain), (at as u64, &naive.entries[at]));
            prop_assert!(location.is_none_or(|place| place == self::location(at as u64)));
            let cached = payload.as_ref().map_or(0, |payload| payload.head.len());
            if let Some(payload) = payload {
                prop_assert!(payload.head.iter().all(|byte| *byte == at as u8));
            }
            unsynced += if located { 0 } else { cached };
            prop_assert!(located || *shape != Shape::Command || payload.is_some(), "evicted too early");
            let in_force = naive.entries[..=at].iter().rev().find_map(|entry| entry.voter);
            let known = index.membership_at(at as u64);
            prop_assert_eq!(known.voter_ids().next(), in_force);
        }
        let cached: usize =
            live.iter().filter_map(|found| found.slot.payload.as_ref()).map(super::weight).sum();
        prop_assert_eq!(index.cached, cached);
        prop_assert!(cached - unsynced <= cached_max, "what is durable is cached within the bound");
        Ok(())
    }

    proptest! {
        #[test]
        fn the_index_is_a_list_of_entries(steps in proptest::collection::vec(step(), 1..120)) {
            const CACHED_MAX: usize = 200;
            let (mut index, mut naive, mut term) = (LogIndex::new(CACHED_MAX), Naive::default(), 1);
            for step in steps {
                let end = naive.entries.len();
                match step {
                    Step::Push { shape, bytes } => {
                        let voter = (shape == Shape::Membership).then_some(end as u64 + 7);
                        let membership = voter.map(|voter| {
                            Membership::new_with_defaults(vec![[voter].into()], [])
                        });
                        let payload = (shape == Shape::Command)
                            .then(|| Payload::of_head(Bytes::from(vec![end as u8; bytes])));
                        let at = index.push(Slot { term, shape, location: None, payload }, membership);
                        prop_assert_eq!(at, end as u64);
                        naive.entries.push(Plain { term, shape, voter, located: false });
                    }
                    Step::Located { part } => {
                        let upto = pick(part, naive.located, end + 1).max(naive.located);
                        let upto = upto.min(end);
                        let from = naive.located as u64;
                        let terms = naive.entries[naive.located..upto].iter().map(|entry| entry.term);
                        let locations = (from..).map(location);
                        index.located(from, terms.zip(locations));
                        naive.entries[naive.located..upto].iter_mut().for_each(|entry| entry.located = true);
                        naive.located = upto;
                        // A completion of entries that were cut meanwhile must change nothing.
                        index.located(from, [(term + 100, location(0))].into_iter());
                    }
                    Step::Truncate { part } => {
                        let from = pick(part, naive.first, end + 1).clamp(naive.first, end);
                        index.truncate(from as u64);
                        naive.entries.truncate(from);
                        naive.located = naive.located.min(from);
                        term += 1;
                    }
                    Step::Purge { part, beyond } => {
                        let upto = pick(part, naive.first, end.max(naive.first + 1)) as u64 + beyond;
                        index.purge(log_id(term, upto));
                        while naive.entries.len() <= upto as usize {
                            naive.entries.push(Plain { term, shape: Shape::Blank, voter: None, located: true });
                        }
                        naive.first = upto as usize + 1;
                        naive.located = naive.located.max(naive.first);
                    }
                    Step::Take { part } => {
                        let upto = pick(part, naive.first, end + 1).clamp(naive.first, end.max(naive.first));
                        let taken = index.take(naive.first as u64..upto as u64);
                        prop_assert_eq!(taken.is_some(), upto <= naive.located.max(naive.first));
                    }
                    Step::NewTerm => term += 1,
                }
                check(&index, &naive, CACHED_MAX)?;
            }
        }
    }
}
