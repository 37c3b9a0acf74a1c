//! Batches for the tests of this folder: arbitrary records, and headers that lie.

use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;

use super::validate::checksum;
use super::{Attributes, BatchBuilder, BatchHeader, HEADER_LEN, LEN_PREFIX, field, header};
use crate::{Header, Record};

/// Records with every kind of null, empty and extreme field.
pub(super) fn records(count: Range<usize>) -> impl Strategy<Value = Vec<Record>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..70).prop_map(Bytes::from);
    let header = (".{0,9}", proptest::option::of(bytes()))
        .prop_map(|(name, value)| Header { name: name.into(), value });
    let timestamp =
        prop_oneof![any::<i64>(), 1_700_000_000_000..1_700_000_100_000i64, Just(-1), Just(i64::MIN)];
    let record = (
        proptest::option::of(bytes()),
        proptest::option::of(bytes()),
        proptest::collection::vec(header, 0..4),
        timestamp,
    )
        .prop_map(|(key, value, headers, timestamp)| Record { key, value, headers, timestamp });
    proptest::collection::vec(record, count)
}

pub(super) fn build(records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::default();
    for record in records {
        let headers = record.headers.iter().map(|header| (&header.name[..], header.value.as_deref()));
        builder
            .push(record.timestamp, record.key.as_deref(), record.value.as_deref(), headers)
            .expect("test batches are small");
    }
    builder.finish()
}

/// A batch with a right length and checksum around any body and any claims.
pub(super) fn raw_batch(body: &[u8], attributes: u16, record_count: i32, last_offset_delta: i32) -> Bytes {
    let header = BatchHeader {
        base_offset: 0,
        batch_length: (HEADER_LEN - LEN_PREFIX + body.len()) as i32,
        partition_leader_epoch: 0,
        magic: header::MAGIC,
        crc: 0,
        attributes: Attributes(attributes),
        last_offset_delta,
        base_timestamp: 1000,
        max_timestamp: 2000,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count,
    };
    let mut batch = [&header.to_bytes()[..], body].concat();
    let crc = checksum(&batch).to_be_bytes();
    batch[field::CRC..field::ATTRIBUTES].copy_from_slice(&crc);
    batch.into()
}
