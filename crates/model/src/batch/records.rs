//! A batch opened for reading: single records as slices of one shared buffer, by iteration or by index.
//!
//! On the delivery path of every front but Kafka's. Decoding walks the batch once and remembers where each record starts;
//! the result can be cached and shared, and a record costs a few instructions and no allocation.

use bytes::Bytes;

use super::validate::check_len;
use super::walk::{self, Deltas, Fields, RECORD_LEN_MIN};
use super::{BatchError, BatchHeader, HEADER_LEN, compression};
use crate::{Header, Record};

/// The records of one batch, decompressed, with the position of each.
///
/// Keys, values and headers are slices of one buffer: the stored batch itself where it was not compressed. A slice keeps
/// that whole buffer alive, so who keeps a small part for long copies it.
///
/// Invariant: every position is the start of a record that [`walk::check_body`] has found sound.
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    body: Bytes,
    positions: Vec<u32>,
}

impl Records {
    /// Opens a batch, decompressing it if it is compressed, and checks every record in it.
    ///
    /// Offset deltas must rise but may have gaps, as compaction leaves them; a batch may even be empty. The checksum is
    /// not looked at: whoever stored or read the batch has done that.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`] if a blob opens into more than `limit` bytes (at most 4 GiB): about that much is allocated
    /// at most, however small a bomb is. Otherwise what is wrong with the batch.
    pub fn decode(batch: &Bytes, limit: usize) -> Result<Records, BatchError> {
        let header = BatchHeader::parse(batch)?;
        check_len(&header, batch.len())?;
        if header.record_count < 0 {
            return Err(BatchError::RecordCount(header.record_count));
        }
        let stored = batch.slice(HEADER_LEN..);
        let codec = header.codec()?;
        // Compaction may leave an empty batch, with no blob to open.
        let body = if stored.is_empty() { stored } else { compression::decompress(codec, &stored, limit)? };
        // Bound: the count is the peer's word, the bytes are there.
        let capacity = (header.record_count as usize).min(body.len() / RECORD_LEN_MIN);
        let mut positions = Vec::with_capacity(capacity);
        walk::check_body(&body, &header, Deltas::Rising, |at| positions.push(at as u32))?;
        Ok(Records { header, body, positions })
    }

    /// The batch's header, as stored.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// About how much memory the decoded batch keeps alive, in bytes, for a cache's budget.
    pub fn memory(&self) -> usize {
        size_of::<Records>() + self.body.len() + self.positions.capacity() * size_of::<u32>()
    }

    /// The record at `index` (from 0, in offset order), or `None` beyond the last one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<RecordRef<'_>> {
        let at = *self.positions.get(index)? as usize;
        let fields = walk::fields(&self.body, at).ok()?;
        Some(RecordRef { records: self, fields })
    }

    /// The index of the first record whose offset delta is at least `offset_delta`; [`Records::len`] if there is none.
    pub fn index_of(&self, offset_delta: u32) -> usize {
        let dense = self.header.record_count as u64 == self.header.offset_count();
        if dense {
            return self.len().min(offset_delta as usize);
        }
        self.positions.partition_point(|&at| {
            walk::fields(&self.body, at as usize)
                .is_ok_and(|fields| (fields.offset_delta as u32) < offset_delta)
        })
    }

    /// All records, in offset order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> + '_ {
        (0..self.len()).map(|index| self.get(index).expect("the index is within the length"))
    }
}

/// One record of a [`Records`].
#[derive(Clone, Debug)]
pub struct RecordRef<'a> {
    records: &'a Records,
    fields: Fields,
}

impl<'a> RecordRef<'a> {
    /// The record's offset, less the batch's base offset.
    pub fn offset_delta(&self) -> u32 {
        self.fields.offset_delta as u32
    }

    /// Milliseconds since the epoch: the producer's, or the broker's where the batch says so.
    pub fn timestamp(&self) -> i64 {
        let header = &self.records.header;
        if header.attributes.is_append_time() {
            return header.max_timestamp;
        }
        header.base_timestamp.wrapping_add(self.fields.timestamp_delta)
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.fields.key.clone().map(|range| &self.records.body[range])
    }

    /// The value; `None` for a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.fields.value.clone().map(|range| &self.records.body[range])
    }

    /// The key, sharing the batch's buffer.
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.fields.key.clone().map(|range| self.records.body.slice(range))
    }

    /// The value, sharing the batch's buffer.
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.fields.value.clone().map(|range| self.records.body.slice(range))
    }

    /// How many headers there are.
    pub fn header_count(&self) -> usize {
        self.fields.header_count as usize
    }

    /// Name and value of each header, in order, decoded as they are asked for.
    pub fn headers(&self) -> HeaderRefs<'a> {
        HeaderRefs {
            record: &self.records.body[..self.fields.headers.end],
            at: self.fields.headers.start,
            remaining: self.header_count(),
        }
    }

    /// The value of the first header of that name. The outer `None` says that there is no such header, the inner one that its
    /// value is null.
    pub fn header(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.headers().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// The whole record, sharing the batch's buffer.
    pub fn to_record(&self) -> Record {
        let body = &self.records.body;
        let headers = self
            .headers()
            .map(|(name, value)| Header {
                name: body.slice_ref(name),
                value: value.map(|value| body.slice_ref(value)),
            })
            .collect();
        Record { key: self.key_bytes(), value: self.value_bytes(), headers, timestamp: self.timestamp() }
    }
}

/// The headers of one record: pairs of name and value, names not unique, order kept.
#[derive(Clone, Debug)]
pub struct HeaderRefs<'a> {
    record: &'a [u8],
    at: usize,
    remaining: usize,
}

impl<'a> Iterator for HeaderRefs<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        let fields = walk::header_fields(self.record, &mut self.at).ok()?;
        Some((&self.record[fields.name], fields.value.map(|range| &self.record[range])))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Codec, RecordFault, compress_batch, testing, validate};
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    proptest! {
        #[test]
        fn what_is_built_is_read(records in testing::records(1..40)) {
            let batch = testing::build(&records);
            let header = validate(&batch).unwrap();
            prop_assert_eq!(header.max_timestamp, records.iter().map(|r| r.timestamp).max().unwrap());
            let decoded = Records::decode(&batch, LIMIT).unwrap();
            let read: Vec<Record> = decoded.iter().map(|record| record.to_record()).collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn every_codec_gives_the_same_records(records in testing::records(1..40), number in 1u8..=4) {
            let codec = Codec::from_number(number).unwrap();
            let batch = compress_batch(&testing::build(&records), codec);
            prop_assert_eq!(validate(&batch).unwrap().codec(), Ok(codec));
            let decoded = Records::decode(&batch, LIMIT).unwrap();
            let read: Vec<Record> = decoded.iter().map(|record| record.to_record()).collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn arbitrary_bytes_behind_a_plausible_header_never_panic(
            body in proptest::collection::vec(any::<u8>(), 0..200), codec in 0u8..8, count in -1i32..40,
            last_offset_delta in -1i32..60,
        ) {
            let batch = testing::raw_batch(&body, u16::from(codec), count, last_offset_delta);
            if let Ok(records) = Records::decode(&batch, 4096) {
                prop_assert_eq!(records.len(), count as usize);
                prop_assert!(records.iter().all(|record| record.headers().count() == record.header_count()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let batch = Bytes::from(bytes);
            prop_assert!(Records::decode(&batch, 4096).is_err());
            prop_assert!(validate(&batch).is_err());
        }

        #[test]
        fn a_damaged_body_never_panics(
            records in testing::records(1..10), number in 0u8..=4, at: prop::sample::Index, to: u8,
        ) {
            let codec = Codec::from_number(number).unwrap();
            let mut batch = compress_batch(&testing::build(&records), codec).to_vec();
            let at = HEADER_LEN + at.index(batch.len() - HEADER_LEN);
            batch[at] = to;
            if let Ok(decoded) = Records::decode(&batch.into(), LIMIT) {
                prop_assert_eq!(decoded.iter().count(), decoded.len());
            }
        }
    }

    #[test]
    fn a_count_that_no_bytes_follow_reserves_nothing() {
        let batch = testing::raw_batch(&[], 0, i32::MAX, i32::MAX - 1);
        let error = Records::decode(&batch, LIMIT).unwrap_err();
        assert_eq!(error, BatchError::Record { index: 0, fault: RecordFault::Missing });
    }

    #[test]
    fn gaps_that_compaction_left_are_read_and_searched() {
        // Two records with the deltas 3 and 9 (zigzag 6 and 18), key and value null, in a batch of ten offsets.
        let body = [12, 0, 0, 6, 1, 1, 0, 12, 0, 0, 18, 1, 1, 0];
        let batch = testing::raw_batch(&body, 0, 2, 9);
        let records = Records::decode(&batch, LIMIT).unwrap();
        assert_eq!(records.iter().map(|record| record.offset_delta()).collect::<Vec<_>>(), [3, 9]);
        let found: Vec<usize> = (0..=10).map(|delta| records.index_of(delta)).collect();
        assert_eq!(found, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2]);
        assert!(Records::decode(&testing::raw_batch(&body, 0, 2, 8), LIMIT).is_err());
    }

    #[test]
    fn an_emptied_batch_reads_as_nothing() {
        for attributes in 0..5 {
            let records = Records::decode(&testing::raw_batch(&[], attributes, 0, 4), LIMIT).unwrap();
            assert!(records.is_empty());
            assert_eq!(records.index_of(2), 0);
        }
    }

    #[test]
    fn append_time_replaces_every_timestamp() {
        let batch = testing::raw_batch(&[12, 0, 8, 0, 1, 1, 0], 1 << 3, 1, 0);
        let records = Records::decode(&batch, LIMIT).unwrap();
        assert_eq!(records.get(0).unwrap().timestamp(), records.header().max_timestamp);
        assert!(records.get(1).is_none());
    }

    #[test]
    fn a_value_is_shared_with_an_uncompressed_batch() {
        let mut builder = BatchBuilder::default();
        let appended = builder.push(5, Some(b"k"), Some(b"value"), []).unwrap();
        let batch = builder.finish();
        let decoded = Records::decode(&batch, LIMIT).unwrap();
        let value = decoded.get(0).unwrap().value_bytes().unwrap();
        assert_eq!(value.as_ptr(), batch[appended.value].as_ptr());
    }
}
