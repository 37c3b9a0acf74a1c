//! Identities: small copyable newtypes, so that two numbers of different meaning cannot be swapped.
//!
//! Which node, group or shard an id belongs to is decided elsewhere; this file only fixes widths and layouts.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Declares a newtype over an unsigned number with the conversions every id has.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$number> for $name {
            fn from(number: $number) -> $name {
                $name(number)
            }
        }

        impl From<$name> for $number {
            fn from(id: $name) -> $number {
                id.0
            }
        }
    };
}

number_id! {
    /// One broker process of the cluster, for the life of its data directory.
    NodeId(u64)
}

number_id! {
    /// One Raft group: [`GroupId::META`] is the Meta Service, 1 and above are data groups.
    ///
    /// Bound: [`GroupId::MAX`], because a [`ShardId`] holds its home group in 12 bits.
    GroupId(u32)
}

number_id! {
    /// The number that a topic's home group gave it; unique within that group and never used again.
    TopicNumber(u32)
}

number_id! {
    /// The position of a record in its shard: dense, from 0, never used again with other content.
    Offset(u64)
}

impl GroupId {
    /// The group of the Meta Service.
    pub const META: GroupId = GroupId(0);
    /// The largest group that a shard can live in.
    pub const MAX: GroupId = GroupId(0xfff);
}

impl Offset {
    /// The first offset of every shard.
    pub const ZERO: Offset = Offset(0);
    /// Beyond the last offset that any shard can reach.
    pub const MAX: Offset = Offset(u64::MAX);

    /// The offset `records` further on, or `None` where that does not fit.
    pub const fn checked_add(self, records: u64) -> Option<Offset> {
        match self.0.checked_add(records) {
            Some(offset) => Some(Offset(offset)),
            None => None,
        }
    }

    /// The offset `records` further on, at most [`Offset::MAX`].
    pub const fn saturating_add(self, records: u64) -> Offset {
        Offset(self.0.saturating_add(records))
    }

    /// The offset `records` before, at least [`Offset::ZERO`].
    pub const fn saturating_sub(self, records: u64) -> Offset {
        Offset(self.0.saturating_sub(records))
    }

    /// The number of offsets from `earlier` up to this one, or `None` if `earlier` is in fact later.
    pub const fn checked_since(self, earlier: Offset) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The number of offsets from `earlier` up to this one; 0 if `earlier` is in fact later.
    pub const fn saturating_since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The offset after this one, at most [`Offset::MAX`].
    pub const fn next(self) -> Offset {
        self.saturating_add(1)
    }

    /// The offset as the signed number of Kafka's protocol; beyond its range, the largest one.
    pub const fn to_i64(self) -> i64 {
        if self.0 > i64::MAX as u64 { i64::MAX } else { self.0 as i64 }
    }

    /// The offset that Kafka's signed number stands for, or `None` for the negative ones (they are sentinels there).
    pub const fn from_i64(number: i64) -> Option<Offset> {
        if number < 0 { None } else { Some(Offset(number as u64)) }
    }
}

/// Which log engine holds a shard. Plain data: what an engine does is known to `storage` alone.
///
/// The numbers are written to disk and into [`ShardId`]; a number is never given to another engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EngineKind {
    /// The journal and an index over it; the default.
    Segment = 1,
    /// A bounded ring in the leader's memory.
    Memory = 2,
    /// Records keyed by shard and offset in the key/value store.
    Rocksdb = 3,
}

impl EngineKind {
    /// Every engine, in the order of their numbers.
    pub const ALL: [EngineKind; 3] = [EngineKind::Segment, EngineKind::Memory, EngineKind::Rocksdb];

    /// The name in configuration and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            EngineKind::Segment => "segment",
            EngineKind::Memory => "memory",
            EngineKind::Rocksdb => "rocksdb",
        }
    }

    /// The number on disk, 1..=15.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The engine of that name, or `None` for an unknown one.
    pub fn from_name(name: &str) -> Option<EngineKind> {
        EngineKind::ALL.into_iter().find(|engine| engine.name() == name)
    }

    /// The engine of that number, or `None` for an unknown one.
    pub const fn from_number(number: u8) -> Option<EngineKind> {
        match number {
            1 => Some(EngineKind::Segment),
            2 => Some(EngineKind::Memory),
            3 => Some(EngineKind::Rocksdb),
            _ => None,
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One shard of one topic, cluster-wide, packed into 64 bits so that an index row stays small.
///
/// ```text
///  63    60 59        48 47                              16 15            0
/// +--------+------------+----------------------------------+---------------+
/// | engine | home group |           topic number           |   partition   |
/// |   4    |     12     |                32                |      16       |
/// +--------+------------+----------------------------------+---------------+
/// ```
///
/// The order is that of the packed number: by engine, then group, topic, partition. The home group is where the topic
/// was created and never changes, even where the shard's history later goes on in another group.
///
/// Invariant: the engine bits are the number of an [`EngineKind`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u64);

/// A number that no [`ShardId`] has: its engine bits name no engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0:#018x} names no shard: unknown engine")]
pub struct InvalidShardId(pub u64);

impl ShardId {
    /// Packs a shard's identity.
    ///
    /// # Panics
    /// If `home` is beyond [`GroupId::MAX`]: groups are numbered by the cluster's own configuration, never by a peer.
    pub const fn new(engine: EngineKind, home: GroupId, topic: TopicNumber, partition: u16) -> ShardId {
        assert!(home.0 <= GroupId::MAX.0, "a home group has 12 bits");
        ShardId((engine as u64) << 60 | (home.0 as u64) << 48 | (topic.0 as u64) << 16 | partition as u64)
    }

    /// The engine that holds the shard's records.
    pub const fn engine(self) -> EngineKind {
        EngineKind::from_number((self.0 >> 60) as u8).expect("no constructor lets an unknown engine through")
    }

    /// The group that created the topic.
    pub const fn home(self) -> GroupId {
        GroupId((self.0 >> 48) as u32 & GroupId::MAX.0)
    }

    /// The topic's number in its home group.
    pub const fn topic(self) -> TopicNumber {
        TopicNumber((self.0 >> 16) as u32)
    }

    /// Which of the topic's shards this is, from 0.
    pub const fn partition(self) -> u16 {
        self.0 as u16
    }

    /// The packed number, as it stands on disk.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// Reads a packed number back.
    ///
    /// # Errors
    /// If its engine bits name no engine.
    pub const fn from_u64(packed: u64) -> Result<ShardId, InvalidShardId> {
        match EngineKind::from_number((packed >> 60) as u8) {
            Some(_) => Ok(ShardId(packed)),
            None => Err(InvalidShardId(packed)),
        }
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.engine(), self.home(), self.topic(), self.partition())
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardId({self})")
    }
}

impl From<ShardId> for u64 {
    fn from(shard: ShardId) -> u64 {
        shard.0
    }
}

impl TryFrom<u64> for ShardId {
    type Error = InvalidShardId;

    fn try_from(packed: u64) -> Result<ShardId, InvalidShardId> {
        ShardId::from_u64(packed)
    }
}

/// The identity of one incarnation of a topic: deleting and re-creating a name gives another id.
///
/// 128 random bits, spelled as a UUID. Zero means "none" in Kafka's protocol and is never given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u128);

impl TopicId {
    /// The 16 bytes, most significant first, as UUIDs are sent.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads what [`TopicId::to_bytes`] wrote.
    pub const fn from_bytes(bytes: [u8; 16]) -> TopicId {
        TopicId(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0;
        let (time_low, time_mid, time_high) = ((id >> 96) as u32, (id >> 80) as u16, (id >> 64) as u16);
        let (clock, node) = ((id >> 48) as u16, id as u64 & 0xffff_ffff_ffff);
        write!(f, "{time_low:08x}-{time_mid:04x}-{time_high:04x}-{clock:04x}-{node:012x}")
    }
}

impl From<u128> for TopicId {
    fn from(id: u128) -> TopicId {
        TopicId(id)
    }
}

/// A tenant: the outermost isolation of names, users, permissions and quotas. Cheap to clone.
///
/// Bound: 1 to [`TenantId::LEN_MAX`] bytes of ASCII letters, digits, `-`, `_` and `.`, so that every protocol can carry
/// it inside a user name or a host name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// A text that cannot name a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a tenant is named by 1 to {} ASCII letters, digits, '-', '_' or '.'", TenantId::LEN_MAX)]
pub struct InvalidTenantId;

impl TenantId {
    /// The longest tenant name, in bytes.
    pub const LEN_MAX: usize = 64;
    /// The tenant of every connection that does not say otherwise.
    pub const DEFAULT: &'static str = "default";

    /// Checks and keeps a tenant's name.
    ///
    /// # Errors
    /// If the text is empty, too long or holds another character than the documented ones.
    pub fn new(name: &str) -> Result<TenantId, InvalidTenantId> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > TenantId::LEN_MAX || !name.bytes().all(legal) {
            return Err(InvalidTenantId);
        }
        Ok(TenantId(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> TenantId {
        TenantId(TenantId::DEFAULT.into())
    }
}

impl std::borrow::Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_shard_id_gives_back_its_parts_and_keeps_their_order(
            engines in proptest::array::uniform2(0usize..3), homes in proptest::array::uniform2(0u32..=0xfff),
            topics: [u32; 2], partitions: [u16; 2],
        ) {
            let parts = |i: usize| {
                (EngineKind::ALL[engines[i]], GroupId(homes[i]), TopicNumber(topics[i]), partitions[i])
            };
            let shard = |i: usize| {
                let (engine, home, topic, partition) = parts(i);
                ShardId::new(engine, home, topic, partition)
            };
            let first = shard(0);
            prop_assert_eq!((first.engine(), first.home(), first.topic(), first.partition()), parts(0));
            prop_assert_eq!(ShardId::from_u64(first.to_u64()), Ok(first));
            prop_assert_eq!(shard(0).cmp(&shard(1)), parts(0).cmp(&parts(1)));
        }

        #[test]
        fn any_number_is_a_shard_or_refused(packed: u64) {
            match ShardId::from_u64(packed) {
                Ok(shard) => prop_assert_eq!(
                    ShardId::new(shard.engine(), shard.home(), shard.topic(), shard.partition()).to_u64(),
                    packed
                ),
                Err(refused) => {
                    prop_assert_eq!(refused.0, packed);
                    prop_assert!(!(1..=3).contains(&(packed >> 60)));
                }
            }
        }
    }

    #[test]
    fn the_packed_layout_is_the_drawn_one() {
        let shard = ShardId::new(EngineKind::Memory, GroupId(0xabc), TopicNumber(0x1234_5678), 0x9def);
        assert_eq!(shard.to_u64(), 0x2abc_1234_5678_9def);
        assert_eq!(shard.to_string(), "memory-2748-305419896-40431");
    }

    #[test]
    fn offsets_stop_at_their_ends() {
        assert_eq!(Offset::MAX.checked_add(1), None);
        assert_eq!(Offset::MAX.next(), Offset::MAX);
        assert_eq!(Offset(3).saturating_sub(4), Offset::ZERO);
        assert_eq!(Offset(3).checked_since(Offset(4)), None);
        assert_eq!(Offset(7).saturating_since(Offset(4)), 3);
        assert_eq!(Offset(u64::MAX).to_i64(), i64::MAX);
        assert_eq!(Offset::from_i64(-1), None);
    }

    #[test]
    fn a_topic_id_is_spelled_as_a_uuid() {
        let id = TopicId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(id.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(TopicId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn tenants_are_short_and_plain() {
        assert_eq!(TenantId::new("acme-1.eu").map(|t| t.to_string()), Ok("acme-1.eu".to_owned()));
        for refused in ["", "a b", "a/b", "ü", &"x".repeat(65)] {
            assert_eq!(TenantId::new(refused), Err(InvalidTenantId), "{refused:?}");
        }
    }
}
