//! What the journal writes about itself: the state of every group at the start of a segment, and which segments are gone.
//!
//! A checkpoint is the first entry of each segment's first frame, so that hard state never depends on an older segment.
//! The `index` of the entry says which of the two it is.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::GroupId;

use super::format::{u32_at, u64_at};
use super::{LogPosition, Payload};

/// `index` of an entry that holds a [`Checkpoint`].
pub(crate) const STATE: u64 = 0;
/// `index` of an entry that holds the recycled segments: pairs of number and [`Checkpoint::ends`] of the one before (0: not
/// there).
pub(crate) const RECYCLED: u64 = 1;

/// Bound: encoded bytes of one vote or committed hint, so that a checkpoint stays small.
pub(crate) const HARD_STATE_MAX: usize = 256;
/// Encoded size of a group without its vote and hint.
const GROUP_LEN: usize = 4 + 1 + 8 + 24 + 4 + 4;

const HAS_LAST: u8 = 1;
const HAS_PURGED: u8 = 2;
const HAS_VOTE: u8 = 4;
const HAS_COMMITTED: u8 = 8;

/// Per group, first and last index of what a segment holds.
pub(crate) type Ranges = BTreeMap<GroupId, (u64, u64)>;

/// What the journal remembers of a group besides its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GroupState {
    /// Index of the last log entry (or of the purge, if that is later).
    pub(crate) last: Option<u64>,
    pub(crate) purged: Option<LogPosition>,
    /// Encoded payloads.
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<Bytes>,
}

/// State at the start of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) groups: BTreeMap<GroupId, GroupState>,
    /// What the segment before this one holds.
    pub(crate) previous: Ranges,
    /// Runs (first, count) of the segments that exist besides this one.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Where segments end whose successor is recycled: number, and that of the first frame behind it.
    pub(crate) ends: Vec<(u64, u64)>,
}

impl Checkpoint {
    /// ```text
    /// | n u32 | n x (group u32, flags u8, last u64, purged 3 x u64, vote u32, committed u32, bytes, bytes)
    /// | n u32 | n x (group u32, first u64, last u64) | n u32 | n x (first u64, count u64)
    /// | n u32 | n x (segment u64, end u64)
    /// ```
    pub(crate) fn encode(&self) -> Payload {
        let mut out = Vec::new();
        out.extend_from_slice(&(self.groups.len() as u32).to_le_bytes());
        for (group, state) in &self.groups {
            encode_group(&mut out, *group, state);
        }
        out.extend_from_slice(&(self.previous.len() as u32).to_le_bytes());
        for (group, (first, last)) in &self.previous {
            out.extend_from_slice(&group.0.to_le_bytes());
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
        }
        for pairs in [&self.segments, &self.ends] {
            out.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
            out.extend(encode_pairs(pairs));
        }
        Payload::of_head(Bytes::from(out))
    }

    /// `None` if these are not the bytes of a checkpoint.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Checkpoint> {
        let mut cursor = Cursor { bytes, at: 0 };
        let mut checkpoint = Checkpoint::default();
        for _ in 0..cursor.count(GROUP_LEN)? {
            let (group, state) = decode_group(&mut cursor)?;
            checkpoint.groups.insert(group, state);
        }
        for _ in 0..cursor.count(20)? {
            let group = GroupId(cursor.u32()?);
            checkpoint.previous.insert(group, (cursor.u64()?, cursor.u64()?));
        }
        for pairs in [&mut checkpoint.segments, &mut checkpoint.ends] {
            for _ in 0..cursor.count(16)? {
                pairs.push((cursor.u64()?, cursor.u64()?));
            }
        }
        (cursor.at == bytes.len()).then_some(checkpoint)
    }

    /// Upper bound of the encoded size with this many groups.
    pub(crate) fn encoded_max(groups: usize) -> usize {
        groups * (GROUP_LEN + 2 * HARD_STATE_MAX + 20)
    }
}

/// Runs of consecutive numbers in rising `seqs`.
pub(crate) fn runs(seqs: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for seq in seqs {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == seq => *count += 1,
            _ => runs.push((seq, 1)),
        }
    }
    runs
}

/// The payload of a [`RECYCLED`] entry.
pub(crate) fn encode_recycled(recycled: &[(u64, u64)]) -> Payload {
    Payload::of_head(encode_pairs(recycled).collect())
}

/// The pairs of a [`RECYCLED`] entry.
pub(crate) fn decode_recycled(bytes: &[u8]) -> Vec<(u64, u64)> {
    bytes.chunks_exact(16).map(|pair| (u64_at(pair, 0), u64_at(pair, 8))).collect()
}

fn encode_pairs(pairs: &[(u64, u64)]) -> impl Iterator<Item = u8> + '_ {
    pairs.iter().flat_map(|(first, second)| [first.to_le_bytes(), second.to_le_bytes()]).flatten()
}

fn encode_group(out: &mut Vec<u8>, group: GroupId, state: &GroupState) {
    let mut flags = 0;
    for (bit, present) in [
        (HAS_LAST, state.last.is_some()),
        (HAS_PURGED, state.purged.is_some()),
        (HAS_VOTE, state.vote.is_some()),
        (HAS_COMMITTED, state.committed.is_some()),
    ] {
        if present {
            flags |= bit;
        }
    }
    let purged = state.purged.unwrap_or_default();
    let vote = state.vote.as_deref().unwrap_or_default();
    let committed = state.committed.as_deref().unwrap_or_default();
    out.extend_from_slice(&group.0.to_le_bytes());
    out.push(flags);
    for number in [state.last.unwrap_or(0), purged.index, purged.term, purged.node] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(vote.len() as u32).to_le_bytes());
    out.extend_from_slice(&(committed.len() as u32).to_le_bytes());
    out.extend_from_slice(vote);
    out.extend_from_slice(committed);
}

fn decode_group(cursor: &mut Cursor<'_>) -> Option<(GroupId, GroupState)> {
    let group = GroupId(cursor.u32()?);
    let flags = cursor.take(1)?[0];
    let last = cursor.u64()?;
    let purged = LogPosition { index: cursor.u64()?, term: cursor.u64()?, node: cursor.u64()? };
    let (vote_len, committed_len) = (cursor.u32()? as usize, cursor.u32()? as usize);
    let vote = cursor.take(vote_len)?;
    let committed = cursor.take(committed_len)?;
    let state = GroupState {
        last: (flags & HAS_LAST != 0).then_some(last),
        purged: (flags & HAS_PURGED != 0).then_some(purged),
        vote: (flags & HAS_VOTE != 0).then_some(vote),
        committed: (flags & HAS_COMMITTED != 0).then_some(committed),
    };
    Some((group, state))
}

struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, len: usize) -> Option<Bytes> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len())?;
        let slice = self.bytes.slice(self.at..end);
        self.at = end;
        Some(slice)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32_at(&self.take(4)?, 0))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64_at(&self.take(8)?, 0))
    }

    /// A count of things that take at least `each` bytes; refused if they cannot be there.
    fn count(&mut self, each: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count <= (self.bytes.len() - self.at) / each).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group_state() -> impl Strategy<Value = GroupState> {
        let bytes =
            || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from));
        let purged = proptest::option::of(any::<(u64, u64, u64)>());
        (proptest::option::of(any::<u64>()), purged, bytes(), bytes()).prop_map(
            |(last, purged, vote, committed)| GroupState {
                last,
                purged: purged.map(|(index, term, node)| LogPosition { index, term, node }),
                vote,
                committed,
            },
        )
    }

    proptest! {
        #[test]
        fn a_checkpoint_round_trips_and_no_cut_of_it_decodes(
            groups in proptest::collection::btree_map(any::<u32>().prop_map(GroupId), group_state(), 0..5),
            previous in proptest::collection::btree_map(any::<u32>().prop_map(GroupId), any::<(u64, u64)>(), 0..5),
            seqs in proptest::collection::btree_set(0u64..50, 0..20),
            cut in any::<u16>(),
        ) {
            let checkpoint = Checkpoint { groups, previous, segments: runs(seqs.iter().copied()), ends: vec![(3, 4)] };
            let bytes = checkpoint.encode().head;
            prop_assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint.clone()));
            let listed: Vec<u64> = checkpoint.segments.iter().flat_map(|(first, count)| *first..first + count).collect();
            prop_assert_eq!(listed, seqs.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Checkpoint::decode(&bytes.slice(..cut as usize % bytes.len())), None);
        }

        #[test]
        fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Checkpoint::decode(&Bytes::from(bytes));
        }
    }
}
