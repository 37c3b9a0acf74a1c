//! Produce, versions 3 to 12. On the hot path: records are slices of the frame, never copied.

use bytes::Bytes;

use super::messages::StrBytes;
use super::reader::{Malformed, Reader};
use super::writer::{EncodeError, Writer};

/// First version whose response tells where the log starts.
const LOG_START_SINCE: i16 = 5;
/// First version whose response names single bad records.
const RECORD_ERRORS_SINCE: i16 = 8;

/// Appends batches to partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceRequest {
    /// The transaction, if the producer is in one.
    pub transactional_id: Option<StrBytes>,
    /// 0: no response at all. 1: once the leader has it. -1: once it is safe. Anything else is to be refused with 21.
    pub acks: i16,
    /// How long the client is ready to wait for `acks`.
    pub timeout_ms: i32,
    /// Topics in the order of the request. One topic may come twice.
    pub topics: Vec<ProduceTopic>,
}

/// Batches for one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceTopic {
    /// Kafka's spelling of the topic.
    pub name: StrBytes,
    /// Batches for each partition.
    pub partitions: Vec<ProducePartition>,
}

/// Batches for one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducePartition {
    /// Number of the partition, as sent: may be negative.
    pub index: i32,
    /// Record batches as the client made them, not looked into. A slice of the frame.
    pub records: Option<Bytes>,
}

/// What became of the batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceResponse {
    /// Topics in the order of the request.
    pub topics: Vec<ProduceTopicAnswer>,
    /// How long the client should wait before its next request.
    pub throttle_time_ms: i32,
}

/// What became of the batches for one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceTopicAnswer {
    /// Kafka's spelling of the topic.
    pub name: StrBytes,
    /// One answer for each partition.
    pub partitions: Vec<ProducePartitionAnswer>,
}

/// What became of the batches for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartitionAnswer {
    /// Number of the partition.
    pub index: i32,
    /// An [`super::ErrorCode`] on the wire.
    pub error_code: i16,
    /// Offset of the first record, -1 after an error.
    pub base_offset: i64,
    /// Time in ms that replaced the producer's, -1 if the producer's was kept.
    pub log_append_time_ms: i64,
    /// First offset that is still there. From version 5.
    pub log_start_offset: i64,
    /// Records that made the batch be refused. From version 8.
    pub record_errors: Vec<RecordError>,
    /// Why, in words. From version 8.
    pub error_message: Option<StrBytes>,
}

/// One record that made its batch be refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordError {
    /// Place of the record in its batch.
    pub batch_index: i32,
    /// Why, in words.
    pub message: Option<StrBytes>,
}

impl Default for ProducePartitionAnswer {
    fn default() -> Self {
        Self {
            index: 0,
            error_code: 0,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
        }
    }
}

impl ProduceRequest {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let transactional_id = reader.nullable_string()?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let topics = reader.array(3, ProduceTopic::decode)?;
        reader.skip_tags()?;
        Ok(Self { transactional_id, acks, timeout_ms, topics })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.nullable_string(self.transactional_id.as_ref())?;
        writer.i16(self.acks);
        writer.i32(self.timeout_ms);
        writer.array(&self.topics, |writer, topic| {
            writer.string(&topic.name)?;
            writer.array(&topic.partitions, |writer, partition| {
                writer.i32(partition.index);
                writer.nullable_bytes(partition.records.as_ref().map(std::slice::from_ref))?;
                writer.no_tags();
                Ok(())
            })?;
            writer.no_tags();
            Ok(())
        })?;
        writer.no_tags();
        Ok(())
    }
}

impl ProduceTopic {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let name = reader.string()?;
        let partitions = reader.array(5, |reader| {
            let partition = ProducePartition { index: reader.i32()?, records: reader.nullable_bytes()? };
            reader.skip_tags()?;
            Ok(partition)
        })?;
        reader.skip_tags()?;
        Ok(Self { name, partitions })
    }
}

impl ProduceResponse {
    pub(super) fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let topics = reader.array(3, |reader| {
            let name = reader.string()?;
            let partitions = reader.array(22, |reader| ProducePartitionAnswer::decode(reader, version))?;
            reader.skip_tags()?;
            Ok(ProduceTopicAnswer { name, partitions })
        })?;
        let throttle_time_ms = reader.i32()?;
        reader.skip_tags()?;
        Ok(Self { topics, throttle_time_ms })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: i16) -> Result<(), EncodeError> {
        writer.array(&self.topics, |writer, topic| {
            writer.string(&topic.name)?;
            writer.array(&topic.partitions, |writer, partition| partition.encode(writer, version))?;
            writer.no_tags();
            Ok(())
        })?;
        writer.i32(self.throttle_time_ms);
        writer.no_tags();
        Ok(())
    }
}

impl ProducePartitionAnswer {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let mut answer = Self {
            index: reader.i32()?,
            error_code: reader.i16()?,
            base_offset: reader.i64()?,
            log_append_time_ms: reader.i64()?,
            ..Self::default()
        };
        if version >= LOG_START_SINCE {
            answer.log_start_offset = reader.i64()?;
        }
        if version >= RECORD_ERRORS_SINCE {
            answer.record_errors = reader.array(5, |reader| {
                let error = RecordError { batch_index: reader.i32()?, message: reader.nullable_string()? };
                reader.skip_tags()?;
                Ok(error)
            })?;
            answer.error_message = reader.nullable_string()?;
        }
        reader.skip_tags()?;
        Ok(answer)
    }

    fn encode(&self, writer: &mut Writer<'_>, version: i16) -> Result<(), EncodeError> {
        writer.i32(self.index);
        writer.i16(self.error_code);
        writer.i64(self.base_offset);
        writer.i64(self.log_append_time_ms);
        if version >= LOG_START_SINCE {
            writer.i64(self.log_start_offset);
        }
        if version >= RECORD_ERRORS_SINCE {
            writer.array(&self.record_errors, |writer, error| {
                writer.i32(error.batch_index);
                writer.nullable_string(error.message.as_ref())?;
                writer.no_tags();
                Ok(())
            })?;
            writer.nullable_string(self.error_message.as_ref())?;
        }
        writer.no_tags();
        Ok(())
    }
}
