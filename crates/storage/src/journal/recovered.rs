//! What opening a journal found.

use std::collections::{BTreeMap, VecDeque};

use model::GroupId;

use super::{Location, Payload};

/// A log position as Raft names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPosition {
    /// Log index.
    pub index: u64,
    /// Term of the entry.
    pub term: u64,
    /// Leader node of the entry.
    pub node: u64,
}

/// Everything that was found, per group, and what was wrong with the files.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Groups that ever wrote to this stripe.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Byte ranges that hold damage: their entries are lost here, those behind them were kept. While this is not
    /// empty, hard state and log entries of **any** group of the stripe may be missing: the owner repairs from a
    /// replica, or refuses to serve what is missing (see [`RecoveredGroup::gaps`]).
    pub quarantined: Vec<Quarantined>,
    /// Segments that should be there and are not.
    pub missing_segments: Vec<u64>,
    /// Bytes of an unfinished last frame that were cut (0 after a clean stop). Nothing in them was ever acknowledged.
    pub cut_bytes: u64,
}

/// A damaged range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantined {
    /// Segment sequence number.
    pub segment: u64,
    /// First damaged byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The state of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// Payload of the last Vote.
    pub vote: Option<Payload>,
    /// Payload of the last Committed hint.
    pub committed: Option<Payload>,
    /// The last Purge.
    pub purged: Option<LogPosition>,
    /// Live log entries above `purged`, by rising index, after all Truncates.
    pub entries: VecDeque<RecoveredEntry>,
}

/// A live log entry; its payload is read when wanted, by [`Journal::read_payload`](super::Journal::read_payload).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// Index, term and leader.
    pub position: LogPosition,
    /// Where the payload lies.
    pub location: Location,
}

impl RecoveredGroup {
    /// Ranges of indexes (first, last) that are missing between the purged index and the last entry. Empty unless files
    /// were damaged.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut next = self.purged.map(|p| p.index + 1).or(self.entries.front().map(|e| e.position.index));
        for entry in &self.entries {
            let index = entry.position.index;
            if let Some(next) = next.filter(|next| *next < index) {
                gaps.push((next, index - 1));
            }
            next = Some(index + 1);
        }
        gaps
    }

    pub(crate) fn append(&mut self, entry: RecoveredEntry) {
        self.truncate(entry.position.index);
        if self.purged.is_none_or(|p| entry.position.index > p.index) {
            self.entries.push_back(entry);
        }
    }

    pub(crate) fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|e| e.position.index >= from) {
            self.entries.pop_back();
        }
    }

    pub(crate) fn purge(&mut self, upto: LogPosition) {
        if self.purged.is_none_or(|p| p.index < upto.index) {
            self.purged = Some(upto);
        }
        while self.entries.front().is_some_and(|e| e.position.index <= upto.index) {
            self.entries.pop_front();
        }
    }
}
