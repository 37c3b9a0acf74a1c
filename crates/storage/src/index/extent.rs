//! The extent: what the index knows of one stored batch, in 48 bytes. Performance critical: one per batch in memory.

use crate::journal::Location;
use crate::log::{BatchFlags, CommittedBatch, Position};
use crate::producer::Claim;

/// One stored batch of a shard. Narrow fields, no padding to speak of; the shard is known from where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) base: u64,
    pub(crate) index: u64,
    pub(crate) timestamp_max: i64,
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) count: u32,
    pub(crate) ordinal: u16,
    pub(crate) flags: BatchFlags,
}

const _: () = assert!(size_of::<Extent>() == 48);

impl Extent {
    pub(crate) fn new(base: u64, count: u32, batch: &CommittedBatch) -> Extent {
        Extent {
            base,
            index: batch.position.index,
            timestamp_max: batch.header.max_timestamp,
            segment: batch.location.segment,
            offset: batch.location.offset,
            len: batch.location.len,
            count,
            ordinal: batch.position.ordinal,
            flags: batch.flags,
        }
    }

    /// The offset after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.base + u64::from(self.count)
    }

    pub(crate) fn position(&self) -> Position {
        Position { index: self.index, ordinal: self.ordinal }
    }

    pub(crate) fn location(&self) -> Location {
        Location { segment: self.segment, offset: self.offset, len: self.len }
    }
}

/// What an idempotent producer said in the batch at `base`: kept beside the extent, because few batches have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) base: u64,
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
}

impl Mark {
    pub(crate) fn claim(&self, records: u32) -> Claim {
        Claim { producer: self.producer, epoch: self.epoch, sequence: self.sequence, records }
    }
}

/// An extent with its producer, as footers hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) extent: Extent,
    pub(crate) mark: Option<Mark>,
}
