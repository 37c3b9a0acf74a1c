//! What subscribers get: shared batches, and where a subscriber stands. Hot path.

use std::sync::{Arc, OnceLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::batch::{BatchError, RecordRef, Records};
use model::{
    EngineKind, GroupId, MAX_DECODED_BATCH_BYTES, Offset, ShardId, TenantId, TopicId, TopicName, TopicNumber,
    header_name,
};
use parking_lot::Mutex;
use storage::{BatchFlags, Position, StoredBatch};

use crate::topic::{Origin, Retention, Topic, TopicConfig};

pub use crate::subscriber::{CatchUp, Start, Subscriber};

/// A committed (or, for at-most-once messages, just published) batch, shared by everybody who gets it. It is decoded once, by
/// the first who looks.
pub struct Batch {
    /// The topic it is stored in.
    pub topic: Arc<Topic>,
    /// The shard.
    pub shard: ShardId,
    /// Group that committed it.
    pub group: GroupId,
    /// Where it stands in its group's log; `None` for one that is delivered live, before it is committed.
    pub position: Option<Position>,
    /// Offset of its first record; 0 while it is not committed.
    pub base: Offset,
    /// How it was published.
    pub flags: BatchFlags,
    /// The stored bytes (base offset 0).
    pub bytes: Bytes,
    records: OnceLock<Result<Records, BatchError>>,
    images: Mutex<Vec<(u32, Bytes)>>,
}

impl Batch {
    /// A batch that is not committed yet, for those who get it live.
    pub(crate) fn live(topic: Arc<Topic>, shard: ShardId, bytes: Bytes) -> Self {
        Self {
            topic,
            shard,
            group: shard.home(),
            position: None,
            base: Offset::ZERO,
            flags: BatchFlags::AT_MOST_ONCE,
            bytes,
            records: OnceLock::new(),
            images: Mutex::new(Vec::new()),
        }
    }

    /// A batch of one subject that is stored nowhere, or not as a record of a shard. None if the subject is no topic name.
    pub(crate) fn unstored(tenant: &TenantId, subject: &str, bytes: Bytes) -> Option<Self> {
        let topic = Arc::new(Topic {
            id: TopicId::from(0_u128),
            tenant: tenant.clone(),
            name: TopicName::new(subject).ok()?,
            shards: Vec::new(),
            origin: Origin::FirstUse,
            config: TopicConfig {
                engine: EngineKind::Rocksdb,
                retention: Retention { ms: None, bytes: None },
                captures: Vec::new(),
                extra: Vec::new(),
            },
        });
        let nowhere = ShardId::new(EngineKind::Rocksdb, GroupId(1), TopicNumber(0), 0);
        Some(Self::live(topic, nowhere, bytes))
    }

    /// A committed batch.
    pub(crate) fn committed(topic: Arc<Topic>, shard: ShardId, stored: StoredBatch) -> Self {
        Self {
            topic,
            shard,
            group: shard.home(),
            position: Some(stored.position),
            base: stored.base,
            flags: stored.flags,
            bytes: stored.bytes,
            records: OnceLock::new(),
            images: Mutex::new(Vec::new()),
        }
    }

    /// The subject that a record of this batch was published to: the topic's name, or for a topic that captures,
    /// what the record says (its `subject` header, else its key).
    pub fn subject<'a>(&'a self, record: &RecordRef<'a>) -> &'a str {
        subject_of(&self.topic, record)
    }

    /// The records, decompressed if need be. An error is a batch that no view but Kafka's can show; its offsets are
    /// passed over.
    pub fn records(&self) -> Result<&Records, BatchError> {
        self.records
            .get_or_init(|| Records::decode(&self.bytes, MAX_DECODED_BATCH_BYTES))
            .as_ref()
            .map_err(BatchError::clone)
    }

    /// The bytes that `encode` makes of this batch, made once per `form` and shared by every connection that wants the
    /// same form: fan-out costs one encoding. `form` is a number that the front chooses; it must tell everything that
    /// the encoding depends on.
    pub fn image(&self, form: u32, encode: impl FnOnce() -> Bytes) -> Bytes {
        let mut images = self.images.lock();
        if let Some((_, image)) = images.iter().find(|(known, _)| *known == form) {
            return image.clone();
        }
        let image = encode();
        images.push((form, image.clone()));
        image
    }
}

/// The subject of a record of a topic; see [`Batch::subject`].
pub fn subject_of<'a>(topic: &'a Topic, record: &RecordRef<'a>) -> &'a str {
    let name = topic.name.as_str();
    if topic.config.captures.is_empty() {
        return name;
    }
    let said = record.header(header_name::SUBJECT).flatten().or_else(|| record.key());
    said.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or(name)
}

/// Records for one subscriber, in offset order.
#[derive(Clone)]
pub struct Delivery {
    /// The batch they lie in.
    pub batch: Arc<Batch>,
    /// Which of them, and for which subscriptions.
    pub picked: Picked,
}

/// Which records of a batch a subscriber gets. Tags are those of its subscriptions that match, one for
/// each of them.
#[derive(Clone)]
pub enum Picked {
    /// All, each for the same tags.
    All(Arc<[u32]>),
    /// Some, by index, each with its own tags: a batch of a topic that captures many subjects.
    Some(Arc<[Pick]>),
}

/// A record of a batch by its index, with the tags it matches.
pub type Pick = (u32, Arc<[u32]>);

impl Delivery {
    /// The `nth` record that is picked: its index in the batch and its tags; `None` beyond the last.
    pub fn pick(&self, nth: usize) -> Option<(usize, &[u32])> {
        match &self.picked {
            Picked::All(tags) => {
                let count = self.batch.records().map_or(0, Records::len);
                (nth < count).then_some((nth, tags))
            }
            Picked::Some(records) => records.get(nth).map(|(index, tags)| (*index as usize, &tags[..])),
        }
    }
}

/// Where a subscriber stands: for each group, the position up to which it has everything. A group that is not named has
/// not been read at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    places: Vec<(GroupId, Position)>,
}

impl Cursor {
    /// One that has read nothing, with room for so many groups.
    pub(crate) fn with_capacity(groups: usize) -> Self {
        Self { places: Vec::with_capacity(groups) }
    }

    /// The position in `group`.
    pub fn get(&self, group: GroupId) -> Position {
        self.places.iter().find(|(known, _)| *known == group).map_or(Position::default(), |(_, at)| *at)
    }

    /// Moves the position in `group` (also back, for what is to be delivered again).
    pub fn set(&mut self, group: GroupId, position: Position) {
        match self.places.iter_mut().find(|(known, _)| *known == group) {
            Some((_, at)) => *at = position,
            None => self.places.push((group, position)),
        }
    }

    /// Moves it to where another one stands, in each group in which that is further.
    pub(crate) fn advance_to(&mut self, other: &Cursor) {
        for (group, at) in &other.places {
            if *at > self.get(*group) {
                self.set(*group, *at);
            }
        }
    }

    /// Whether it has more of some group than another one.
    pub(crate) fn is_ahead_of(&self, other: &Cursor) -> bool {
        self.places.iter().any(|(group, at)| *at > other.get(*group))
    }

    /// Groups and positions.
    pub fn places(&self) -> &[(GroupId, Position)] {
        &self.places
    }

    /// Appends the encoding: `count u16 | count x (group u32, index u64, ordinal u16)`, big-endian.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.places.len() as u16);
        for (group, at) in &self.places {
            out.put_u32(group.0);
            out.put_u64(at.index);
            out.put_u16(at.ordinal);
        }
    }

    /// Takes an encoding from the front of `input`; `None` if it is cut or damaged.
    pub fn decode(input: &mut impl Buf) -> Option<Self> {
        if input.remaining() < 2 {
            return None;
        }
        let count = usize::from(input.get_u16());
        if input.remaining() < count * 14 {
            return None;
        }
        let places = (0..count)
            .map(|_| {
                let group = GroupId(input.get_u32());
                (group, Position { index: input.get_u64(), ordinal: input.get_u16() })
            })
            .collect();
        Some(Self { places })
    }
}
