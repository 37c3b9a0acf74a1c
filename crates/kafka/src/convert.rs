//! From Kafka's nouns to ours and back: names, ids, batches. Hot path: [`check_batch`] and [`records`].

use std::net::{IpAddr, SocketAddr};

use broker::StoredBatch;
use bytes::{BufMut, Bytes, BytesMut};
use model::batch::{BatchHeader, Codec, HEADER_LEN, field, patched_header, validate};
use model::{NodeId, TopicId, TopicName};
use wire::kafka::ErrorCode;
use wire::kafka::messages::Uuid;

use crate::error::Refusal;

/// The epoch of every leader: a single node never changes leaders. Spec: T20.
pub(crate) const LEADER_EPOCH: i32 = 0;
/// First version of Produce that may carry zstd. Spec: P32.
const ZSTD_SINCE_PRODUCE: i16 = 7;
/// First version of Fetch that may carry zstd. Spec: F61.
const ZSTD_SINCE_FETCH: i16 = 10;
/// How far ahead of our clock a record's timestamp may be. Spec: P34.
const AHEAD_MS_MAX: i64 = 60 * 60 * 1000;

/// What a batch must keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchRules {
    /// Version of the Produce request.
    pub(crate) version: i16,
    /// Largest batch of the topic.
    pub(crate) bytes_max: usize,
    /// Our clock.
    pub(crate) now_ms: i64,
}

/// Checks what a producer sent for one partition; it is stored as it is. Spec: P27 to P36.
pub(crate) fn check_batch(bytes: &[u8], rules: &BatchRules) -> Result<BatchHeader, Refusal> {
    if let Some(magic @ (0 | 1)) = bytes.get(field::MAGIC) {
        let message = format!("message format {magic} is not supported, only 2 is");
        return Err(Refusal::new(ErrorCode::UnsupportedForMessageFormat, message));
    }
    if bytes.len() > rules.bytes_max {
        let message =
            format!("a batch of {} bytes, when at most {} are allowed", bytes.len(), rules.bytes_max);
        return Err(Refusal::new(ErrorCode::MessageTooLarge, message));
    }
    let header = validate(bytes).map_err(|error| Refusal::from(&error))?;
    header.check_from_producer().map_err(|error| Refusal::from(&error))?;
    if header.attributes.is_transactional() {
        return Err(Refusal::new(ErrorCode::InvalidTxnState, "transactions are not supported"));
    }
    if header.codec() == Ok(Codec::Zstd) && rules.version < ZSTD_SINCE_PRODUCE {
        let message = "zstd needs Produce version 7 or later";
        return Err(Refusal::new(ErrorCode::UnsupportedCompressionType, message));
    }
    if header.max_timestamp > rules.now_ms.saturating_add(AHEAD_MS_MAX) {
        let message = "a timestamp is more than an hour ahead of the broker's clock";
        return Err(Refusal::new(ErrorCode::InvalidTimestamp, message));
    }
    Ok(header)
}

/// Stored batches as a Fetch response carries them: a header with the assigned offset, then the stored bytes, shared.
pub(crate) fn records(batches: &[StoredBatch], version: i16) -> Result<Vec<Bytes>, ErrorCode> {
    let mut heads = BytesMut::with_capacity(batches.len() * HEADER_LEN);
    for batch in batches {
        let head =
            patched_header(&batch.bytes, batch.base, LEADER_EPOCH).map_err(|_| ErrorCode::CorruptMessage)?;
        if version < ZSTD_SINCE_FETCH {
            let header = BatchHeader::parse(&head).map_err(|_| ErrorCode::CorruptMessage)?;
            if header.codec() == Ok(Codec::Zstd) {
                return Err(ErrorCode::UnsupportedCompressionType);
            }
        }
        heads.put_slice(&head);
    }
    let heads = heads.freeze();
    let mut chunks = Vec::with_capacity(batches.len() * 2);
    for (nth, batch) in batches.iter().enumerate() {
        chunks.push(heads.slice(nth * HEADER_LEN..(nth + 1) * HEADER_LEN));
        chunks.push(batch.bytes.slice(HEADER_LEN..));
    }
    Ok(chunks)
}

/// The topic that a client names. Spec: T16.
pub(crate) fn topic_name(name: &str) -> Result<TopicName, Refusal> {
    TopicName::from_kafka(name).map_err(|error| Refusal::new(ErrorCode::InvalidTopic, error.to_string()))
}

/// A topic's id as Kafka sends it.
pub(crate) fn uuid(id: TopicId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

/// The id that a client sent.
pub(crate) fn topic_id(uuid: Uuid) -> TopicId {
    TopicId::from_bytes(uuid.to_bytes())
}

/// A node's number as Kafka sends it: never negative.
pub(crate) fn broker_id(node: NodeId) -> i32 {
    (node.0 & 0x7fff_ffff) as i32
}

/// The host and port that a client is told to come back to: the address that it used. Spec: T18.
pub(crate) fn advertised(local: SocketAddr) -> (String, u16) {
    let ip = match local.ip() {
        IpAddr::V6(ip) => ip.to_canonical(),
        ip @ IpAddr::V4(_) => ip,
    };
    (ip.to_string(), local.port())
}

#[cfg(test)]
mod tests {
    use broker::{BatchFlags, Position};
    use model::Offset;
    use model::batch::BatchBuilder;

    use super::*;

    const RULES: BatchRules = BatchRules { version: 9, bytes_max: 1000, now_ms: 1_000_000 };

    fn batch(timestamp: i64) -> BytesMut {
        let mut builder = BatchBuilder::default();
        for value in [&b"one"[..], b"two"] {
            builder.push(timestamp, None, Some(value), []).expect("fits");
        }
        BytesMut::from(&builder.finish()[..])
    }

    fn refusal(bytes: &[u8], rules: &BatchRules) -> Option<ErrorCode> {
        check_batch(bytes, rules).err().map(|refusal| refusal.code)
    }

    #[test]
    fn each_kind_of_bad_batch_has_its_code() {
        let good = batch(0);
        assert_eq!(refusal(&good, &RULES), None);
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        for (bytes, expected) in [
            (changed(good.len() - 1, 9), ErrorCode::CorruptMessage),
            (changed(field::MAGIC, 0), ErrorCode::UnsupportedForMessageFormat),
            (changed(field::MAGIC, 1), ErrorCode::UnsupportedForMessageFormat),
            (changed(7, 1), ErrorCode::InvalidRecord),
            (BytesMut::from(&[&good[..], &good[..]].concat()[..]), ErrorCode::InvalidRecord),
            (BytesMut::from(&good[..70]), ErrorCode::CorruptMessage),
            (BytesMut::new(), ErrorCode::CorruptMessage),
            (batch(1_000_000 + AHEAD_MS_MAX + 1), ErrorCode::InvalidTimestamp),
        ] {
            assert_eq!(refusal(&bytes, &RULES), Some(expected), "{bytes:?}");
        }
        let small = BatchRules { bytes_max: good.len() - 1, ..RULES };
        assert_eq!(refusal(&good, &small), Some(ErrorCode::MessageTooLarge));
        assert_eq!(refusal(&batch(1_000_000 + AHEAD_MS_MAX), &RULES), None);
        assert_eq!(refusal(&batch(-1), &RULES), None);
    }

    #[test]
    fn records_go_out_behind_a_patched_head_without_a_copy() {
        let stored = StoredBatch {
            base: Offset(77),
            count: 2,
            flags: BatchFlags::NONE,
            position: Position::default(),
            timestamp_max: 5,
            bytes: batch(5).freeze(),
        };
        let chunks = records(std::slice::from_ref(&stored), 12).expect("sound");
        assert_eq!(chunks[1].as_ptr(), stored.bytes[HEADER_LEN..].as_ptr());
        let whole = chunks.concat();
        let header = validate(&whole).expect("the checksum still holds");
        assert_eq!((header.base_offset, header.partition_leader_epoch), (77, LEADER_EPOCH));
    }

    #[test]
    fn a_mapped_address_is_told_as_ipv4() {
        let told = |text: &str| advertised(text.parse().expect("an address"));
        assert_eq!(told("[::ffff:127.0.0.1]:9092"), ("127.0.0.1".into(), 9092));
        assert_eq!(told("[::1]:9092"), ("::1".into(), 9092));
        assert_eq!(told("10.1.2.3:1"), ("10.1.2.3".into(), 1));
    }
}
