//! What subscribers get: shared batches, and where a subscriber stands. Hot path.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::batch::{BatchError, Records};
use model::{GroupId, MAX_DECODED_BYTES, Offset, ShardId};
use storage::{BatchFlags, Position};

use crate::topic::Topic;

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
    images: RefCellImages,
}

type RefCellImages = parking_lot::Mutex<Vec<(u32, Bytes)>>;

impl Batch {
    pub(crate) fn new(topic: Arc<Topic>, shard: ShardId, group: GroupId, bytes: Bytes) -> Self {
        Self {
            topic,
            shard,
            group,
            position: None,
            base: Offset::ZERO,
            flags: BatchFlags::NONE,
            bytes,
            records: OnceLock::new(),
            images: parking_lot::Mutex::new(Vec::new()),
        }
    }

    /// The records, decompressed if need be. An error is a batch that no view but Kafka's can show; its offsets are
    /// passed over.
    pub fn records(&self) -> Result<&Records, BatchError> {
        self.records
            .get_or_init(|| Records::decode(&self.bytes, MAX_DECODED_BYTES))
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

/// Records for one subscriber.
#[derive(Clone)]
pub struct Delivery {
    /// The batch they lie in.
    pub batch: Arc<Batch>,
    /// Which records of the batch, by index; `None`: all of them.
    pub records: Option<Rc<[u32]>>,
    /// The tags of this subscriber's subscriptions that match, in no order, without duplicates.
    pub tags: Rc<[u32]>,
}

/// Where a subscriber stands: for each group, the position up to which it has everything. A group that is not named has
/// not been read at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    places: Vec<(GroupId, Position)>,
}

impl Cursor {
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

/// The subscriptions of a core by slot; shared by the core's dispatcher and its subscribers.
pub(crate) type Shared<T> = Rc<RefCell<T>>;
