//! Whether bytes are exactly one sound batch: asked once, before a batch is appended.

use super::header::field;
use super::walk::{self, Deltas};
use super::{BatchError, BatchHeader, Codec, HEADER_LEN};

/// Checks that `bytes` are exactly one well-formed batch, and returns its header.
///
/// Checked: the exact length, magic 2, the checksum, a legal codec, at least one record, and that the last offset
/// delta is one less than the record count. If the records are not compressed, also that each of them is whole, that
/// their offset deltas count 0, 1, 2, …, and that nothing follows the last one. A compressed blob is not opened (that
/// would cost more than all the rest): a damaged one shows when a reader decodes it. What a *producer* may not say is
/// [`BatchHeader::check_from_producer`].
///
/// # Errors
/// The first thing that is wrong, in the order above.
pub fn validate(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    check_len(&header, bytes.len())?;
    let computed = checksum(bytes);
    if computed != header.crc {
        return Err(BatchError::Checksum { stored: header.crc, computed });
    }
    let codec = header.codec()?;
    if header.record_count <= 0 {
        return Err(BatchError::RecordCount(header.record_count));
    }
    if header.last_offset_delta != header.record_count - 1 {
        return Err(BatchError::OffsetDelta {
            last_offset_delta: header.last_offset_delta,
            record_count: header.record_count,
        });
    }
    match codec {
        Codec::None => walk::check_body(&bytes[HEADER_LEN..], &header, Deltas::Dense, |_| ())?,
        Codec::Gzip | Codec::Snappy | Codec::Lz4 | Codec::Zstd => {}
    }
    Ok(header)
}

/// CRC-32C of everything from the attributes on. `batch` is at least a header long.
pub(super) fn checksum(batch: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(&batch[field::ATTRIBUTES..])
}

/// Checks that the batch ends exactly where the bytes do.
pub(super) fn check_len(header: &BatchHeader, have: usize) -> Result<(), BatchError> {
    let needed = header.total_len();
    match have.checked_sub(needed) {
        None => Err(BatchError::Truncated { needed, have }),
        Some(0) => Ok(()),
        Some(surplus) => Err(BatchError::Surplus(surplus)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{RecordFault, patched_header, testing};
    use crate::{Offset, Record};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let record = Record { value: Some(Bytes::from_static(b"hello")), timestamp: 7, ..Record::default() };
        testing::build(&[record.clone(), record]).to_vec()
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let batch = sample();
        validate(&batch).unwrap();
        for len in 0..batch.len() {
            assert!(matches!(validate(&batch[..len]), Err(BatchError::Truncated { .. })), "cut to {len}");
        }
        for at in 0..batch.len() {
            let mut damaged = batch.clone();
            damaged[at] ^= 0x10;
            let outside =
                at < field::BATCH_LENGTH || (field::PARTITION_LEADER_EPOCH..field::MAGIC).contains(&at);
            assert_eq!(validate(&damaged).is_ok(), outside, "byte {at}");
        }
    }

    #[test]
    fn each_lie_has_its_own_error() {
        let record = [12, 0, 0, 0, 1, 1, 0];
        let with = |body: &[u8], attributes, count, last| {
            validate(&testing::raw_batch(body, attributes, count, last))
        };
        let fault = |index, fault| Err(BatchError::Record { index, fault });
        assert!(with(&record, 0, 1, 0).is_ok());
        assert_eq!(with(&record, 5, 1, 0), Err(BatchError::UnknownCodec(5)));
        assert_eq!(with(&[], 0, 0, -1), Err(BatchError::RecordCount(0)));
        let deltas = BatchError::OffsetDelta { last_offset_delta: 1, record_count: 1 };
        assert_eq!(with(&record, 0, 1, 1), Err(deltas));
        assert_eq!(with(&record, 0, 2, 1), fault(1, RecordFault::Missing));
        assert_eq!(with(&[12, 0, 0, 2, 1, 1, 0], 0, 1, 0), fault(0, RecordFault::OffsetDelta));
        assert_eq!(with(&[&record[..], &[9, 9]].concat(), 0, 1, 0), Err(BatchError::TrailingBytes(2)));
        assert_eq!(with(&[14, 0, 0, 0, 1, 1, 0, 0], 0, 1, 0), fault(0, RecordFault::Extent));
        assert_eq!(with(&[12, 0, 0, 0, 3, 1, 0], 0, 1, 0), fault(0, RecordFault::Length));
        assert_eq!(with(&[12, 0, 0, 0, 1, 1, 0x80], 0, 1, 0), fault(0, RecordFault::Number));
        assert_eq!(with(&[13, 0, 0, 0, 1, 1, 0], 0, 1, 0), fault(0, RecordFault::Length));

        let mut batch = sample();
        batch.push(0);
        assert_eq!(validate(&batch), Err(BatchError::Surplus(1)));
        batch[field::MAGIC] = 1;
        assert_eq!(validate(&batch), Err(BatchError::Magic(1)));
        batch[field::MAGIC] = 2;
        batch[field::BATCH_LENGTH..][..4].copy_from_slice(&48i32.to_be_bytes());
        assert_eq!(validate(&batch), Err(BatchError::Length(48)));
    }

    #[test]
    fn what_only_a_broker_may_say_is_refused_from_a_producer() {
        let honest = validate(&sample()).unwrap();
        let with = |change: fn(&mut BatchHeader)| {
            let mut header = honest;
            change(&mut header);
            header.check_from_producer()
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|header| header.base_offset = 3), Err(BatchError::BaseOffset(3)));
        assert_eq!(with(|header| header.attributes.0 |= 1 << 5), Err(BatchError::Control));
        assert_eq!(with(|header| header.attributes.0 |= 1 << 3), Err(BatchError::AppendTime));
        let sequence = BatchError::Sequence { producer_id: 4, producer_epoch: -1, base_sequence: -1 };
        assert_eq!(with(|header| header.producer_id = 4), Err(sequence));
    }

    proptest! {
        #[test]
        fn a_patched_header_differs_in_offset_and_epoch_alone(
            records in testing::records(1..4), base in 0..=i64::MAX as u64, epoch: i32,
        ) {
            let stored = testing::build(&records);
            let patched = patched_header(&stored, Offset(base), epoch).unwrap();
            let whole = [&patched[..], &stored[HEADER_LEN..]].concat();
            let expected = BatchHeader {
                base_offset: base as i64,
                partition_leader_epoch: epoch,
                ..BatchHeader::parse(&stored).unwrap()
            };
            prop_assert_eq!(validate(&whole), Ok(expected));
        }
    }
}
