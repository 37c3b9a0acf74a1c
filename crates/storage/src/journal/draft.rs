//! What a frame will change, decided before any byte is written, so that a refused append leaves no trace.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::GroupId;

use super::checkpoint::{Checkpoint, GroupState, HARD_STATE_MAX, Ranges, encode_recycled};
use super::format::ENTRY_HEADER_LEN;
use super::queue::Append;
use super::{Durability, Entry, EntryKind, JournalError, LogPosition};

/// The states of all groups.
pub(crate) type Groups = BTreeMap<GroupId, GroupState>;

/// Limits that follow from the segment size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Encoded bytes of one append.
    pub(crate) append_bytes_max: usize,
    /// Groups per stripe, so that a checkpoint fits a quarter of a segment.
    pub(crate) groups_max: usize,
}

impl Limits {
    pub(crate) fn of(segment_bytes: u32) -> Limits {
        Limits {
            append_bytes_max: segment_bytes as usize / 2,
            groups_max: segment_bytes as usize / 4 / Checkpoint::encoded_max(1),
        }
    }
}

/// The frame in the making, over the states that are on disk.
#[derive(Default)]
pub(crate) struct Draft {
    /// States of the groups that it touches, as they will be.
    pub(crate) touched: Groups,
    /// What it appends.
    pub(crate) ranges: Ranges,
    /// Encoded bytes and number of its entries.
    pub(crate) bytes: usize,
    pub(crate) entries: usize,
    /// Segments that go, with the end of the one before each.
    pub(crate) recycled: Vec<(u64, u64)>,
    /// Whether somebody waits for a sync.
    pub(crate) sync: bool,
    /// Whether it holds log entries, which do not touch the reserve.
    pub(crate) appends: bool,
    /// Last indexes while an append is checked; kept to spare the allocation.
    lasts: Vec<(GroupId, Option<u64>)>,
}

impl Draft {
    /// Adds an append, or says why it cannot be written; then nothing of it is added.
    pub(crate) fn admit(
        &mut self,
        groups: &Groups,
        limits: Limits,
        append: &Append,
    ) -> Result<(), JournalError> {
        if append.bytes > limits.append_bytes_max {
            let (bytes, max) = (append.bytes as u64, limits.append_bytes_max as u64);
            return Err(JournalError::TooLarge { bytes, max });
        }
        self.check(groups, limits, &append.entries)?;
        for entry in &append.entries {
            self.apply(groups, entry);
        }
        self.bytes += append.bytes;
        self.entries += append.entries.len();
        self.sync |= append.durability == Durability::Sync;
        Ok(())
    }

    /// Adds the note that these segments are gone.
    pub(crate) fn admit_recycled(&mut self, recycled: Vec<(u64, u64)>) {
        if !recycled.is_empty() {
            self.bytes += ENTRY_HEADER_LEN + encode_recycled(&recycled).encoded_len();
            self.entries += 1;
            self.sync = true;
            self.recycled = recycled;
        }
    }

    fn check(&mut self, groups: &Groups, limits: Limits, entries: &[Entry]) -> Result<(), JournalError> {
        // Nearly always one group, so a list is quicker than a map.
        let lasts = &mut self.lasts;
        lasts.clear();
        for entry in entries {
            let known = match lasts.iter().position(|(group, _)| *group == entry.group) {
                Some(known) => known,
                None => {
                    let state = self.touched.get(&entry.group).or_else(|| groups.get(&entry.group));
                    let count = groups.len() + self.touched.len() + lasts.len();
                    if state.is_none() && count >= limits.groups_max {
                        return Err(JournalError::Refused { reason: "too many groups for the segment size" });
                    }
                    lasts.push((entry.group, state.and_then(|state| state.last)));
                    lasts.len() - 1
                }
            };
            let last = &mut lasts[known].1;
            *last = next_last(entry, *last)?;
        }
        Ok(())
    }

    fn apply(&mut self, groups: &Groups, entry: &Entry) {
        let state = self
            .touched
            .entry(entry.group)
            .or_insert_with(|| groups.get(&entry.group).cloned().unwrap_or_default());
        match entry.kind {
            EntryKind::Append => {
                state.last = Some(entry.index);
                let range = self.ranges.entry(entry.group).or_insert((entry.index, entry.index));
                range.0 = range.0.min(entry.index);
                range.1 = range.1.max(entry.index);
                self.appends = true;
            }
            EntryKind::Truncate => state.truncate(entry.index),
            EntryKind::Purge => {
                state.purge(LogPosition { index: entry.index, term: entry.term, node: entry.node });
            }
            EntryKind::Vote => state.vote = Some(encoded(entry)),
            EntryKind::Committed => state.committed = Some(encoded(entry)),
            EntryKind::Checkpoint => unreachable!("check refused it"),
        }
    }
}

impl GroupState {
    pub(crate) fn truncate(&mut self, from: u64) {
        if self.last.is_some_and(|last| last >= from) {
            self.last = from.checked_sub(1);
        }
    }

    pub(crate) fn purge(&mut self, upto: LogPosition) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
        }
        self.last = self.last.max(Some(upto.index));
    }
}

/// The group's last index after `entry`, or why the entry is refused.
fn next_last(entry: &Entry, last: Option<u64>) -> Result<Option<u64>, JournalError> {
    match entry.kind {
        EntryKind::Append => match last {
            Some(last) if entry.index > last.saturating_add(1) => {
                Err(JournalError::Gap { group: entry.group, index: entry.index, last })
            }
            Some(_) | None => Ok(Some(entry.index)),
        },
        EntryKind::Truncate if last.is_some_and(|last| last >= entry.index) => Ok(entry.index.checked_sub(1)),
        EntryKind::Truncate => Ok(last),
        EntryKind::Purge => Ok(last.max(Some(entry.index))),
        EntryKind::Vote | EntryKind::Committed if entry.payload.encoded_len() > HARD_STATE_MAX => {
            Err(JournalError::Refused { reason: "a vote or committed hint above 256 bytes" })
        }
        EntryKind::Vote | EntryKind::Committed => Ok(last),
        EntryKind::Checkpoint => Err(JournalError::Refused { reason: "checkpoints are the journal's own" }),
    }
}

fn encoded(entry: &Entry) -> Bytes {
    let mut out = Vec::with_capacity(entry.payload.encoded_len());
    entry.payload.encode_into(&mut out);
    Bytes::from(out)
}
