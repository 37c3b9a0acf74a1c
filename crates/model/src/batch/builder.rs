//! Packs single records into one batch, each written exactly once.
//!
//! On the hot path of every publish that is not Kafka's own. The length of a record stands in front of it and is
//! itself of variable length, so all sizes are computed first; then the record is written where it stays. No
//! allocation per record, only the growth of the one buffer.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{self, Attributes};
use super::validate::checksum;
use super::{BatchError, BatchHeader, HEADER_LEN, LEN_PREFIX, varint};

/// The largest batch: its length is an `i32`.
const BATCH_LEN_MAX: usize = i32::MAX as usize;

/// Room for every number in front of a keyless record's value: length, attributes, timestamp delta, offset delta, key
/// length and value length.
const FRONT_LEN_MAX: usize = 4 * varint::LEN_MAX_I32 + 1 + varint::LEN_MAX_I64;

/// Builds one uncompressed batch, record by record.
///
/// Offset deltas count 0, 1, 2, … in the order of [`BatchBuilder::push`]. The base timestamp is the first record's.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: BytesMut,
    record_count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
}

/// Where a record went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record's offset, less the batch's base offset.
    pub offset_delta: u32,
    /// Where the value lies in the finished batch; empty for a tombstone.
    pub value: Range<usize>,
}

impl BatchBuilder {
    /// A builder whose buffer holds `capacity` bytes, the header included, before it grows.
    pub fn with_capacity(capacity: usize) -> BatchBuilder {
        let mut buffer = BytesMut::with_capacity(capacity.max(HEADER_LEN));
        buffer.put_bytes(0, HEADER_LEN);
        BatchBuilder {
            buffer,
            record_count: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        }
    }

    /// Marks the batch as an idempotent producer's, with the sequence number of its first record.
    pub fn with_producer(self, id: i64, epoch: i16, base_sequence: i32) -> BatchBuilder {
        BatchBuilder { producer_id: id, producer_epoch: epoch, base_sequence, ..self }
    }

    /// The finished batch's length so far, in bytes, header included.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no record has been pushed yet.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// How many records have been pushed.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Writes one record behind the others. `timestamp` is in milliseconds since the epoch; headers are pairs of name
    /// and value, kept in their order.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] if the batch would exceed 2 GiB; nothing has been written then.
    #[inline]
    pub fn push<'a, H>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<Appended, BatchError>
    where
        H: IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        H::IntoIter: Clone,
    {
        let headers = headers.into_iter();
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = self.record_count;
        let (header_count, headers_len) = headers_size(headers.clone());
        let body_len = 1
            + varint::len(timestamp_delta)
            + varint::len(i64::from(offset_delta))
            + nullable_len(key)
            + nullable_len(value)
            + varint::len(header_count)
            + headers_len;
        let record_len = varint::len(body_len as i64) + body_len;
        if record_len > BATCH_LEN_MAX - self.buffer.len() {
            return Err(BatchError::TooLarge { limit: BATCH_LEN_MAX });
        }
        self.buffer.reserve(record_len);

        let mut front = [0; FRONT_LEN_MAX];
        let mut at = varint::put(&mut front, 0, body_len as i64) + 1; // The attributes stay 0.
        at = varint::put(&mut front, at, timestamp_delta);
        at = varint::put(&mut front, at, i64::from(offset_delta));
        at = varint::put(&mut front, at, signed_len(key));
        if let Some(key) = key {
            self.buffer.put_slice(&front[..at]);
            self.buffer.put_slice(key);
            at = 0;
        }
        at = varint::put(&mut front, at, signed_len(value));
        self.buffer.put_slice(&front[..at]);
        let value_start = self.buffer.len();
        self.buffer.put_slice(value.unwrap_or_default());
        let value = value_start..self.buffer.len();
        self.put_headers(header_count, headers);

        self.record_count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        Ok(Appended { offset_delta, value })
    }

    /// Fills in the header and its checksum. The base offset and the leader epoch are 0: a reader gets them patched.
    ///
    /// A batch without records is of no use to anybody (`validate` refuses it); the caller pushes at least one.
    pub fn finish(mut self) -> Bytes {
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length: (self.buffer.len() - LEN_PREFIX) as i32,
            partition_leader_epoch: 0,
            magic: header::MAGIC,
            crc: 0,
            attributes: Attributes::default(),
            last_offset_delta: self.record_count as i32 - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.record_count as i32,
        };
        self.buffer[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        header.crc = checksum(&self.buffer);
        self.buffer[header::field::CRC..header::field::ATTRIBUTES].copy_from_slice(&header.crc.to_be_bytes());
        self.buffer.freeze()
    }

    #[inline]
    fn put_headers<'a>(&mut self, count: i64, headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) {
        self.put_number(count);
        for (name, value) in headers {
            self.put_number(name.len() as i64);
            self.buffer.put_slice(name);
            self.put_number(signed_len(value));
            self.buffer.put_slice(value.unwrap_or_default());
        }
    }

    #[inline]
    fn put_number(&mut self, number: i64) {
        let mut bytes = [0; varint::LEN_MAX_I64];
        let end = varint::put(&mut bytes, 0, number);
        self.buffer.put_slice(&bytes[..end]);
    }
}

impl Default for BatchBuilder {
    /// A builder with room for a few small records.
    fn default() -> BatchBuilder {
        BatchBuilder::with_capacity(512)
    }
}

/// The number of headers and the bytes that they take.
#[inline]
fn headers_size<'a>(headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> (i64, usize) {
    headers.fold((0, 0), |(count, len), (name, value)| {
        (count + 1, len + varint::len(name.len() as i64) + name.len() + nullable_len(value))
    })
}

#[inline]
fn nullable_len(bytes: Option<&[u8]>) -> usize {
    varint::len(signed_len(bytes)) + bytes.map_or(0, <[u8]>::len)
}

#[inline]
fn signed_len(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}
