//! Any bytes as a record batch: no panic, bounded memory, and whatever is accepted reads consistently.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use model::Offset;
use model::batch::{BatchHeader, HEADER_LEN, Records, field, patched_header, validate};

const LIMIT: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let _ = validate(bytes);
    let _ = patched_header(bytes, Offset(7), 1);
    // A right length lets the fuzzer reach the records.
    let mut batch = bytes.to_vec();
    if batch.len() >= HEADER_LEN {
        let len = (batch.len() - field::PARTITION_LEADER_EPOCH) as i32;
        batch[field::BATCH_LENGTH..][..4].copy_from_slice(&len.to_be_bytes());
        batch[field::MAGIC] = 2;
        assert!(BatchHeader::parse(&batch).is_ok());
    }
    let Ok(records) = Records::decode(&Bytes::from(batch), LIMIT) else { return };
    let mut delta_min = 0;
    for (index, record) in records.iter().enumerate() {
        assert!(record.offset_delta() >= delta_min);
        delta_min = record.offset_delta() + 1;
        assert_eq!(records.index_of(record.offset_delta()), index);
        assert_eq!(record.to_record().headers.len(), record.header_count());
    }
});
