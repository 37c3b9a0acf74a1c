//! What this front keeps in replicated rows: committed offsets, the names of groups that have them, and the next
//! producer id. Keys begin with `k`.
//!
//! ```text
//! ko | u16 length, group | topic name | 00 | partition u32  -> a committed offset    (placed by `k`, group)
//! kg | group                                                -> nothing               (placed by `k`, group)
//! kp                                                        -> next producer id u64  (placed by `kp`)
//!
//! committed offset  | version 1 u8 | topic id 16 | offset i64 | leader epoch i32 | time ms i64 | metadata |
//! ```
//!
//! A committed offset names the incarnation of its topic: what a deleted topic's readers committed says nothing about a new
//! topic of that name.

pub(crate) mod topic_config;

use broker::{Place, RowWrite};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{TopicId, TopicName};

/// Version of a committed offset's row.
const VERSION: u8 = 1;
/// Key, and place, of the next producer id.
const PRODUCER_IDS: &[u8] = b"kp";
/// What the keys of groups begin with.
pub(crate) const GROUPS_PREFIX: &[u8] = b"kg";

/// Where a group is, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) topic: TopicId,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) time_ms: i64,
    pub(crate) metadata: Bytes,
}

impl CommittedOffset {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(37 + self.metadata.len());
        out.put_u8(VERSION);
        out.put_u128(self.topic.0);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        out.put_i64(self.time_ms);
        out.put_slice(&self.metadata);
        out.freeze()
    }

    /// `None` for a row that is damaged or of a version that we do not know.
    pub(crate) fn decode(mut row: Bytes) -> Option<Self> {
        if row.try_get_u8().ok()? != VERSION {
            return None;
        }
        Some(Self {
            topic: TopicId(row.try_get_u128().ok()?),
            offset: row.try_get_i64().ok()?,
            leader_epoch: row.try_get_i32().ok()?,
            time_ms: row.try_get_i64().ok()?,
            metadata: row,
        })
    }
}

/// Where a group's rows are.
pub(crate) fn place(group: &str) -> Place {
    Place::ByKey([b"k", group.as_bytes()].concat().into())
}

/// Key of the row that says that a group has committed offsets.
pub(crate) fn group_key(group: &str) -> Bytes {
    [GROUPS_PREFIX, group.as_bytes()].concat().into()
}

/// That row.
pub(crate) fn group_row(group: &str) -> RowWrite {
    RowWrite::Put { key: group_key(group), value: Bytes::new() }
}

/// The group that such a row is about.
pub(crate) fn group_of_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(GROUPS_PREFIX)?).ok()
}

/// What the keys of all offsets of a group begin with.
pub(crate) fn offsets_prefix(group: &str) -> Bytes {
    offsets_key(group, 0).freeze()
}

/// What the keys of a group's offsets in one topic begin with.
pub(crate) fn topic_prefix(group: &str, topic: &TopicName) -> Bytes {
    topic_key(group, topic).freeze()
}

/// Key of one committed offset.
pub(crate) fn offset_key(group: &str, topic: &TopicName, partition: u32) -> Bytes {
    let mut key = topic_key(group, topic);
    key.put_u32(partition);
    key.freeze()
}

/// Topic and partition that a key of [`offsets_prefix`] is about.
pub(crate) fn topic_of_key(key: &[u8], group: &str) -> Option<(TopicName, u32)> {
    let rest = key.get(4 + group.len()..)?;
    let (name, partition) = rest.split_at_checked(rest.len().checked_sub(5)?)?;
    let name = TopicName::new(std::str::from_utf8(name).ok()?).ok()?;
    Some((name, u32::from_be_bytes(partition.get(1..)?.try_into().ok()?)))
}

fn offsets_key(group: &str, more: usize) -> BytesMut {
    let mut key = BytesMut::with_capacity(4 + group.len() + more);
    key.put_slice(b"ko");
    // Invariant: strings of the protocol are at most 32,767 bytes long.
    key.put_u16(group.len() as u16);
    key.put_slice(group.as_bytes());
    key
}

fn topic_key(group: &str, topic: &TopicName) -> BytesMut {
    let mut key = offsets_key(group, topic.as_str().len() + 5);
    key.put_slice(topic.as_str().as_bytes());
    key.put_u8(0);
    key
}

/// Key of the next producer id.
pub(crate) fn producer_ids_key() -> Bytes {
    Bytes::from_static(PRODUCER_IDS)
}

/// Its place.
pub(crate) fn producer_ids_place() -> Place {
    Place::ByKey(producer_ids_key())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_committed_offset_comes_back_and_cuts_are_refused(
            topic: u128, (offset, time_ms) in any::<(i64, i64)>(), leader_epoch: i32, metadata: Vec<u8>, cut in 0usize..37,
        ) {
            let row = CommittedOffset {
                topic: TopicId(topic), offset, leader_epoch, time_ms, metadata: metadata.into(),
            };
            let bytes = row.encode();
            prop_assert_eq!(CommittedOffset::decode(bytes.clone()), Some(row));
            prop_assert_eq!(CommittedOffset::decode(bytes.slice(..cut)), None);
        }

        #[test]
        fn keys_tell_topic_and_partition_and_groups_do_not_meet(
            group in "[a-c]{0,3}", other in "[a-c]{0,3}", name in "[a-c/]{1,4}", partition: u32,
        ) {
            let name = TopicName::new(&name).expect("legal");
            let key = offset_key(&group, &name, partition);
            prop_assert_eq!(topic_of_key(&key, &group), Some((name.clone(), partition)));
            prop_assert!(key.starts_with(&topic_prefix(&group, &name)));
            prop_assert_eq!(key.starts_with(&offsets_prefix(&other)), group == other);
        }
    }
}
