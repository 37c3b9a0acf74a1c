//! The 61 bytes in front of every batch: reading them, and patching the two fields that a read fills in.
//!
//! On the hot path of every append and every read. Spec: Kafka, "Record Batch", magic 2.

use std::fmt;

use super::BatchError;
use crate::Offset;

/// The bytes in front of the records.
pub const HEADER_LEN: usize = 61;

/// The bytes that the batch length does not count: the base offset and the length itself.
pub const LEN_PREFIX: usize = 12;

/// Where each field of the header starts.
pub mod field {
    /// `i64`: the offset of the first record; 0 on disk.
    pub const BASE_OFFSET: usize = 0;
    /// `i32`: the bytes after this field.
    pub const BATCH_LENGTH: usize = 8;
    /// `i32`: which leader appended it; filled in on reading.
    pub const PARTITION_LEADER_EPOCH: usize = 12;
    /// `i8`: the format, 2.
    pub const MAGIC: usize = 16;
    /// `u32`: CRC-32C of everything from [`ATTRIBUTES`] on.
    pub const CRC: usize = 17;
    /// `i16`: codec and flags.
    pub const ATTRIBUTES: usize = 21;
    /// `i32`: the last record's offset, less the base offset.
    pub const LAST_OFFSET_DELTA: usize = 23;
    /// `i64`: what timestamp deltas count from.
    pub const BASE_TIMESTAMP: usize = 27;
    /// `i64`: the latest timestamp.
    pub const MAX_TIMESTAMP: usize = 35;
    /// `i64`: the idempotent producer, or -1.
    pub const PRODUCER_ID: usize = 43;
    /// `i16`: the producer's epoch, or -1.
    pub const PRODUCER_EPOCH: usize = 51;
    /// `i32`: the sequence of the first record, or -1.
    pub const BASE_SEQUENCE: usize = 53;
    /// `i32`: how many records follow.
    pub const RECORD_COUNT: usize = 57;
}

/// The only format that is stored.
pub(crate) const MAGIC: i8 = 2;

/// The header's fields as they stand; [`BatchHeader::parse`] says which of them have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record; 0 on disk and from producers.
    pub base_offset: i64,
    /// The batch's bytes less [`LEN_PREFIX`].
    pub batch_length: i32,
    /// Which leader appended it; without meaning on disk.
    pub partition_leader_epoch: i32,
    /// The format: 2.
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// The last record's offset, less the base offset.
    pub last_offset_delta: i32,
    /// What timestamp deltas count from, in milliseconds since the epoch.
    pub base_timestamp: i64,
    /// The latest timestamp, in milliseconds since the epoch.
    pub max_timestamp: i64,
    /// The idempotent producer, or -1.
    pub producer_id: i64,
    /// The producer's epoch, or -1.
    pub producer_epoch: i16,
    /// The sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// How many records follow.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may end before the batch does or go on behind it.
    ///
    /// Checked on return: magic is 2, and the batch length is at least that of a header. Nothing else.
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::Magic`] or [`BatchError::Length`].
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { needed: HEADER_LEN, have: bytes.len() });
        };
        let header = BatchHeader::from_fields(head);
        if header.magic != MAGIC {
            return Err(BatchError::Magic(header.magic));
        }
        if header.batch_length < (HEADER_LEN - LEN_PREFIX) as i32 {
            return Err(BatchError::Length(header.batch_length));
        }
        Ok(header)
    }

    /// The whole batch's length in bytes, header included.
    pub const fn total_len(&self) -> usize {
        self.batch_length as usize + LEN_PREFIX
    }

    /// How many offsets the batch takes: 1 more than the last offset delta (0 for a negative one).
    pub const fn offset_count(&self) -> u64 {
        if self.last_offset_delta < 0 { 0 } else { self.last_offset_delta as u64 + 1 }
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`] for the numbers 5 to 7.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        self.attributes.codec()
    }

    /// Whether an idempotent producer wrote the batch, so that epoch and sequence mean something.
    pub const fn is_idempotent(&self) -> bool {
        self.producer_id >= 0
    }

    /// Checks what a producer may not say, beyond what makes a batch well formed.
    ///
    /// # Errors
    /// [`BatchError::BaseOffset`], [`BatchError::Control`], [`BatchError::AppendTime`] or [`BatchError::Sequence`].
    pub fn check_from_producer(&self) -> Result<(), BatchError> {
        if self.base_offset != 0 {
            return Err(BatchError::BaseOffset(self.base_offset));
        }
        if self.attributes.is_control() {
            return Err(BatchError::Control);
        }
        if self.attributes.is_append_time() {
            return Err(BatchError::AppendTime);
        }
        if self.is_idempotent() && (self.base_sequence < 0 || self.producer_epoch < 0) {
            return Err(BatchError::Sequence {
                producer_id: self.producer_id,
                producer_epoch: self.producer_epoch,
                base_sequence: self.base_sequence,
            });
        }
        Ok(())
    }

    fn from_fields(head: &[u8; HEADER_LEN]) -> BatchHeader {
        BatchHeader {
            base_offset: i64::from_be_bytes(bytes_at(head, field::BASE_OFFSET)),
            batch_length: i32::from_be_bytes(bytes_at(head, field::BATCH_LENGTH)),
            partition_leader_epoch: i32::from_be_bytes(bytes_at(head, field::PARTITION_LEADER_EPOCH)),
            magic: i8::from_be_bytes(bytes_at(head, field::MAGIC)),
            crc: u32::from_be_bytes(bytes_at(head, field::CRC)),
            attributes: Attributes(u16::from_be_bytes(bytes_at(head, field::ATTRIBUTES))),
            last_offset_delta: i32::from_be_bytes(bytes_at(head, field::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(bytes_at(head, field::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(bytes_at(head, field::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(bytes_at(head, field::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(bytes_at(head, field::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(bytes_at(head, field::BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(bytes_at(head, field::RECORD_COUNT)),
        }
    }

    /// The header's bytes, with these very fields.
    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut head = [0; HEADER_LEN];
        put(&mut head, field::BASE_OFFSET, self.base_offset.to_be_bytes());
        put(&mut head, field::BATCH_LENGTH, self.batch_length.to_be_bytes());
        put(&mut head, field::PARTITION_LEADER_EPOCH, self.partition_leader_epoch.to_be_bytes());
        put(&mut head, field::MAGIC, self.magic.to_be_bytes());
        put(&mut head, field::CRC, self.crc.to_be_bytes());
        put(&mut head, field::ATTRIBUTES, self.attributes.0.to_be_bytes());
        put(&mut head, field::LAST_OFFSET_DELTA, self.last_offset_delta.to_be_bytes());
        put(&mut head, field::BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        put(&mut head, field::MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        put(&mut head, field::PRODUCER_ID, self.producer_id.to_be_bytes());
        put(&mut head, field::PRODUCER_EPOCH, self.producer_epoch.to_be_bytes());
        put(&mut head, field::BASE_SEQUENCE, self.base_sequence.to_be_bytes());
        put(&mut head, field::RECORD_COUNT, self.record_count.to_be_bytes());
        head
    }
}

/// The header of a stored batch as a reader gets it: a copy with the assigned base offset and the leader's epoch, both
/// outside the checksum. Every other byte is the stored one.
///
/// # Errors
/// [`BatchError::Truncated`] if `bytes` does not even hold a header. Nothing else is checked.
pub fn patched_header(bytes: &[u8], base: Offset, leader_epoch: i32) -> Result<[u8; HEADER_LEN], BatchError> {
    let Some(stored) = bytes.first_chunk::<HEADER_LEN>() else {
        return Err(BatchError::Truncated { needed: HEADER_LEN, have: bytes.len() });
    };
    let mut head = *stored;
    put(&mut head, field::BASE_OFFSET, base.to_i64().to_be_bytes());
    put(&mut head, field::PARTITION_LEADER_EPOCH, leader_epoch.to_be_bytes());
    Ok(head)
}

/// The attributes of a batch: bits 0-2 codec, 3 append time, 4 transactional, 5 control, 6 delete horizon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub u16);

impl Attributes {
    /// The codec of the records.
    ///
    /// # Errors
    /// [`BatchError::UnknownCodec`] for the numbers 5 to 7.
    pub fn codec(self) -> Result<Codec, BatchError> {
        let number = (self.0 & 0b111) as u8;
        Codec::from_number(number).ok_or(BatchError::UnknownCodec(number))
    }

    /// Whether every record's timestamp is the batch's max timestamp, set by the broker.
    pub const fn is_append_time(self) -> bool {
        self.0 & 1 << 3 != 0
    }

    /// Whether the batch belongs to a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & 1 << 4 != 0
    }

    /// Whether the batch holds a transaction marker and no data.
    pub const fn is_control(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Records as they are.
    None = 0,
    /// A gzip stream.
    Gzip = 1,
    /// One raw snappy block, or blocks in the framing of Java's snappy library.
    Snappy = 2,
    /// An LZ4 frame.
    Lz4 = 3,
    /// A zstd frame.
    Zstd = 4,
}

impl Codec {
    /// The name in Kafka's configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// The codec of that number, or `None` for 5 and above.
    pub const fn from_number(number: u8) -> Option<Codec> {
        match number {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Copies a field out of the header; `at` is always one of the constants above, so the indexing cannot fail.
fn bytes_at<const N: usize>(head: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut copied = [0; N];
    copied.copy_from_slice(&head[at..at + N]);
    copied
}

/// Writes a field into the header; `at` is always one of the constants above, so the indexing cannot fail.
fn put<const N: usize>(head: &mut [u8; HEADER_LEN], at: usize, bytes: [u8; N]) {
    head[at..at + N].copy_from_slice(&bytes);
}
