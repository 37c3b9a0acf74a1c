//! Fetch, versions 4 to 17. On the hot path: record data is shared with the output, never copied.
//!
//! From version 13 a topic goes by its id, before by its name; the other field is empty. Tagged fields are for
//! followers, and for hints that we do not give: none is written, all are passed over.

use bytes::Bytes;

use super::messages::{StrBytes, Uuid};
use super::reader::{Malformed, Reader};
use super::writer::{EncodeError, Writer};

/// First version that knows where the log starts.
const LOG_START_SINCE: i16 = 5;
/// First version with fetch sessions.
const SESSION_SINCE: i16 = 7;
/// First version in which the client tells the leader epoch it knows.
const LEADER_EPOCH_SINCE: i16 = 9;
/// First version in which a client names its rack.
const RACK_SINCE: i16 = 11;
/// First version in which the client tells the epoch of the last record it has.
const LAST_EPOCH_SINCE: i16 = 12;
/// First version in which topics go by id.
const TOPIC_ID_SINCE: i16 = 13;
/// First version without a plain replica id.
const REPLICA_ID_UNTIL: i16 = 15;

/// Reads records, waiting for them if there are too few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// Below 0 for a consumer. Always -1 from version 15, where followers say so in a tagged field.
    pub replica_id: i32,
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// Fewer bytes than this are waited for.
    pub min_bytes: i32,
    /// About how long the response may be. The first batch is returned whatever its length.
    pub max_bytes: i32,
    /// 0: everything committed. 1: without the records of open and aborted transactions.
    pub isolation_level: i8,
    /// Fetch session, 0 for none. From version 7.
    pub session_id: i32,
    /// Place in the session, 0 to open one, -1 for none. From version 7.
    pub session_epoch: i32,
    /// What to read, in the order in which the response should serve it.
    pub topics: Vec<FetchTopic>,
    /// What to drop from the session. From version 7.
    pub forgotten_topics: Vec<ForgottenTopic>,
    /// Rack of the client, or empty. From version 11.
    pub rack_id: StrBytes,
}

/// What to read of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchTopic {
    /// Kafka's spelling of the topic, empty from version 13 on.
    pub name: StrBytes,
    /// Id of the topic, zero before version 13.
    pub topic_id: Uuid,
    /// What to read of each partition.
    pub partitions: Vec<FetchPartition>,
}

/// What to read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// Number of the partition, as sent: may be negative.
    pub index: i32,
    /// Leader epoch the client knows, -1 for none. From version 9.
    pub current_leader_epoch: i32,
    /// First offset wanted.
    pub fetch_offset: i64,
    /// Leader epoch of the last record the client has, -1 for none. From version 12.
    pub last_fetched_epoch: i32,
    /// For followers; -1 from a consumer. From version 5.
    pub log_start_offset: i64,
    /// About how many bytes of this partition.
    pub partition_max_bytes: i32,
}

/// Partitions to drop from a fetch session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgottenTopic {
    /// Kafka's spelling of the topic, empty from version 13 on.
    pub name: StrBytes,
    /// Id of the topic, zero before version 13.
    pub topic_id: Uuid,
    /// Numbers of the partitions.
    pub partitions: Vec<i32>,
}

/// The records read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchResponse {
    /// How long the client should wait before its next request. Never the time that the fetch waited.
    pub throttle_time_ms: i32,
    /// An [`super::ErrorCode`] on the wire, for the request as a whole. From version 7.
    pub error_code: i16,
    /// 0: no session; the next request must be complete. From version 7.
    pub session_id: i32,
    /// Topics in the order of the request.
    pub topics: Vec<FetchTopicAnswer>,
}

/// The records read from one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchTopicAnswer {
    /// Kafka's spelling of the topic, empty from version 13 on.
    pub name: StrBytes,
    /// Id of the topic, zero before version 13.
    pub topic_id: Uuid,
    /// One answer for each partition.
    pub partitions: Vec<FetchPartitionAnswer>,
}

/// The records read from one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPartitionAnswer {
    /// Number of the partition.
    pub index: i32,
    /// An [`super::ErrorCode`] on the wire.
    pub error_code: i16,
    /// End of what is committed, -1 if unknown.
    pub high_watermark: i64,
    /// End of what no open transaction may still change, -1 if unknown.
    pub last_stable_offset: i64,
    /// First offset that is still there, -1 if unknown. From version 5.
    pub log_start_offset: i64,
    /// Aborted transactions among the records. `None` unless the client reads committed records only.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Replica the client should read from instead, -1 for none. From version 11.
    pub preferred_read_replica: i32,
    /// Whole batches in order, each in as many parts as is handy: they are written one after the other. Never null
    /// on the wire. After decoding it is one slice of the frame, or nothing.
    pub records: Vec<Bytes>,
}

/// An aborted transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Producer id of the transaction.
    pub producer_id: i64,
    /// First offset of the transaction.
    pub first_offset: i64,
}

impl Default for FetchRequest {
    fn default() -> Self {
        Self {
            replica_id: -1,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: i32::MAX,
            isolation_level: 0,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten_topics: Vec::new(),
            rack_id: StrBytes::default(),
        }
    }
}

impl Default for FetchPartition {
    fn default() -> Self {
        Self {
            index: 0,
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 0,
        }
    }
}

impl Default for FetchPartitionAnswer {
    fn default() -> Self {
        Self {
            index: 0,
            error_code: 0,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

impl FetchRequest {
    pub(super) fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let mut request = Self::default();
        if version < REPLICA_ID_UNTIL {
            request.replica_id = reader.i32()?;
        }
        request.max_wait_ms = reader.i32()?;
        request.min_bytes = reader.i32()?;
        request.max_bytes = reader.i32()?;
        request.isolation_level = reader.i8()?;
        if version >= SESSION_SINCE {
            request.session_id = reader.i32()?;
            request.session_epoch = reader.i32()?;
        }
        request.topics = reader.array(3, |reader| FetchTopic::decode(reader, version))?;
        if version >= SESSION_SINCE {
            request.forgotten_topics = reader.array(3, |reader| ForgottenTopic::decode(reader, version))?;
        }
        if version >= RACK_SINCE {
            request.rack_id = reader.string()?;
        }
        reader.skip_tags()?;
        Ok(request)
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: i16) -> Result<(), EncodeError> {
        if version < REPLICA_ID_UNTIL {
            writer.i32(self.replica_id);
        }
        writer.i32(self.max_wait_ms);
        writer.i32(self.min_bytes);
        writer.i32(self.max_bytes);
        writer.i8(self.isolation_level);
        if version >= SESSION_SINCE {
            writer.i32(self.session_id);
            writer.i32(self.session_epoch);
        }
        writer.array(&self.topics, |writer, topic| {
            write_topic(writer, (&topic.name, &topic.topic_id), version)?;
            writer.array(&topic.partitions, |writer, partition| partition.encode(writer, version))?;
            writer.no_tags();
            Ok(())
        })?;
        if version >= SESSION_SINCE {
            writer.array(&self.forgotten_topics, |writer, topic| topic.encode(writer, version))?;
        }
        if version >= RACK_SINCE {
            writer.string(&self.rack_id)?;
        }
        writer.no_tags();
        Ok(())
    }
}

/// The name or the id of a topic; the other is empty.
fn read_topic(reader: &mut Reader<'_>, version: i16) -> Result<(StrBytes, Uuid), Malformed> {
    if version >= TOPIC_ID_SINCE {
        Ok((StrBytes::default(), reader.uuid()?))
    } else {
        Ok((reader.string()?, Uuid::ZERO))
    }
}

fn write_topic(writer: &mut Writer<'_>, topic: (&StrBytes, &Uuid), version: i16) -> Result<(), EncodeError> {
    let (name, topic_id) = topic;
    if version >= TOPIC_ID_SINCE {
        writer.uuid(topic_id);
        Ok(())
    } else {
        writer.string(name)
    }
}

impl FetchTopic {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let (name, topic_id) = read_topic(reader, version)?;
        let partitions = reader.array(16, |reader| FetchPartition::decode(reader, version))?;
        reader.skip_tags()?;
        Ok(Self { name, topic_id, partitions })
    }
}

impl FetchPartition {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let mut partition = Self { index: reader.i32()?, ..Self::default() };
        if version >= LEADER_EPOCH_SINCE {
            partition.current_leader_epoch = reader.i32()?;
        }
        partition.fetch_offset = reader.i64()?;
        if version >= LAST_EPOCH_SINCE {
            partition.last_fetched_epoch = reader.i32()?;
        }
        if version >= LOG_START_SINCE {
            partition.log_start_offset = reader.i64()?;
        }
        partition.partition_max_bytes = reader.i32()?;
        reader.skip_tags()?;
        Ok(partition)
    }

    fn encode(&self, writer: &mut Writer<'_>, version: i16) -> Result<(), EncodeError> {
        writer.i32(self.index);
        if version >= LEADER_EPOCH_SINCE {
            writer.i32(self.current_leader_epoch);
        }
        writer.i64(self.fetch_offset);
        if version >= LAST_EPOCH_SINCE {
            writer.i32(self.last_fetched_epoch);
        }
        if version >= LOG_START_SINCE {
            writer.i64(self.log_start_offset);
        }
        writer.i32(self.partition_max_bytes);
        writer.no_tags();
        Ok(())
    }
}

impl ForgottenTopic {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let (name, topic_id) = read_topic(reader, version)?;
        let partitions = reader.array(4, Reader::i32)?;
        reader.skip_tags()?;
        Ok(Self { name, topic_id, partitions })
    }

    fn encode(&self, writer: &mut Writer<'_>, version: i16) -> Result<(), EncodeError> {
        write_topic(writer, (&self.name, &self.topic_id), version)?;
        writer.array(&self.partitions, |writer, index| {
            writer.i32(*index);
            Ok(())
        })?;
        writer.no_tags();
        Ok(())
    }
}

impl FetchResponse {
    pub(super) fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let mut response = Self { throttle_time_ms: reader.i32()?, ..Self::default() };
        if version >= SESSION_SINCE {
            response.error_code = reader.i16()?;
            response.session_id = reader.i32()?;
        }
        response.topics = reader.array(3, |reader| {
            let (name, topic_id) = read_topic(reader, version)?;
            let partitions = reader.array(24, |reader| FetchPartitionAnswer::decode(reader, version))?;
            reader.skip_tags()?;
            Ok(FetchTopicAnswer { name, topic_id, partitions })
        })?;
        reader.skip_tags()?;
        Ok(response)
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>, version: i16) -> Result<(), EncodeError> {
        writer.i32(self.throttle_time_ms);
        if version >= SESSION_SINCE {
            writer.i16(self.error_code);
            writer.i32(self.session_id);
        }
        writer.array(&self.topics, |writer, topic| {
            write_topic(writer, (&topic.name, &topic.topic_id), version)?;
            writer.array(&topic.partitions, |writer, partition| partition.encode(writer, version))?;
            writer.no_tags();
            Ok(())
        })?;
        writer.no_tags();
        Ok(())
    }
}

impl FetchPartitionAnswer {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let mut answer = Self {
            index: reader.i32()?,
            error_code: reader.i16()?,
            high_watermark: reader.i64()?,
            last_stable_offset: reader.i64()?,
            ..Self::default()
        };
        if version >= LOG_START_SINCE {
            answer.log_start_offset = reader.i64()?;
        }
        answer.aborted_transactions = reader.nullable_array(16, |reader| {
            let aborted = AbortedTransaction { producer_id: reader.i64()?, first_offset: reader.i64()? };
            reader.skip_tags()?;
            Ok(aborted)
        })?;
        if version >= RACK_SINCE {
            answer.preferred_read_replica = reader.i32()?;
        }
        let records = reader.nullable_bytes()?.filter(|records| !records.is_empty());
        answer.records.extend(records);
        reader.skip_tags()?;
        Ok(answer)
    }

    fn encode(&self, writer: &mut Writer<'_>, version: i16) -> Result<(), EncodeError> {
        writer.i32(self.index);
        writer.i16(self.error_code);
        writer.i64(self.high_watermark);
        writer.i64(self.last_stable_offset);
        if version >= LOG_START_SINCE {
            writer.i64(self.log_start_offset);
        }
        writer.nullable_array(self.aborted_transactions.as_deref(), |writer, aborted| {
            writer.i64(aborted.producer_id);
            writer.i64(aborted.first_offset);
            writer.no_tags();
            Ok(())
        })?;
        if version >= RACK_SINCE {
            writer.i32(self.preferred_read_replica);
        }
        writer.nullable_bytes(Some(&self.records))?;
        writer.no_tags();
        Ok(())
    }
}
