//! What can be wrong with a batch, finely enough for a front to choose its protocol's error code.

use thiserror::Error;

use super::Codec;

/// Why bytes are not a batch that we keep, or cannot be read as records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The bytes end before the batch does, by its own length (Kafka: CORRUPT_MESSAGE).
    #[error("batch cut short: {needed} bytes needed, {have} present")]
    Truncated {
        /// How long the batch says that it is, or the length of a header.
        needed: usize,
        /// How many bytes there were.
        have: usize,
    },
    /// The declared length cannot even hold a header (Kafka: CORRUPT_MESSAGE).
    #[error("batch length {0} is too small for a header")]
    Length(i32),
    /// Bytes follow the batch, such as a second one (Kafka: INVALID_RECORD).
    #[error("{0} bytes follow the batch")]
    Surplus(usize),
    /// Another format than record batch v2 (Kafka: UNSUPPORTED_FOR_MESSAGE_FORMAT).
    #[error("magic {0} is not supported, only 2 is")]
    Magic(i8),
    /// The checksum does not match (Kafka: CORRUPT_MESSAGE).
    #[error("checksum {stored:08x} stored, {computed:08x} computed")]
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A codec number without a codec (Kafka: UNSUPPORTED_COMPRESSION_TYPE).
    #[error("codec {0} is unknown")]
    UnknownCodec(u8),
    /// A batch must hold at least one record (Kafka: INVALID_RECORD).
    #[error("record count {0} is not positive")]
    RecordCount(i32),
    /// The last offset delta and the record count disagree (Kafka: INVALID_RECORD).
    #[error("last offset delta {last_offset_delta} does not fit {record_count} records")]
    OffsetDelta {
        /// As in the header.
        last_offset_delta: i32,
        /// As in the header.
        record_count: i32,
    },
    /// A producer must leave the base offset at 0 (Kafka: INVALID_RECORD).
    #[error("base offset {0} given by a producer")]
    BaseOffset(i64),
    /// Only brokers write control batches (Kafka: INVALID_RECORD).
    #[error("control batch given by a producer")]
    Control,
    /// Only brokers write append times (Kafka: INVALID_TIMESTAMP).
    #[error("append time given by a producer")]
    AppendTime,
    /// A producer id without an epoch and a sequence (Kafka: INVALID_RECORD).
    #[error("producer {producer_id} gave epoch {producer_epoch} and sequence {base_sequence}")]
    Sequence {
        /// As in the header.
        producer_id: i64,
        /// As in the header.
        producer_epoch: i16,
        /// As in the header.
        base_sequence: i32,
    },
    /// One record is malformed (Kafka: INVALID_RECORD, with the index among the record errors).
    #[error("record {index}: {fault}")]
    Record {
        /// Which record, from 0.
        index: u32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// Bytes follow the last record inside the batch (Kafka: INVALID_RECORD).
    #[error("{0} bytes follow the last record")]
    TrailingBytes(usize),
    /// The compressed blob is damaged (Kafka: CORRUPT_MESSAGE).
    #[error("{0} blob cannot be decompressed")]
    Decompress(Codec),
    /// More bytes than allowed, after decompression or while building (Kafka: MESSAGE_TOO_LARGE).
    #[error("records exceed {limit} bytes")]
    TooLarge {
        /// The bound that was given.
        limit: usize,
    },
}

/// What is wrong with a single record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// The batch ends before its promised number of records.
    #[error("missing")]
    Missing,
    /// A variable-length number runs on for too long or out of the record.
    #[error("malformed number")]
    Number,
    /// A length is negative where it must not be, or points out of the record or the batch.
    #[error("length out of bounds")]
    Length,
    /// The fields end before or after the record does.
    #[error("fields do not fill the record")]
    Extent,
    /// Offset deltas do not count up as they must.
    #[error("offset delta out of order")]
    OffsetDelta,
}
