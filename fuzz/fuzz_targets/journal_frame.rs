//! Any bytes behind the checksums of a journal frame: opening never panics, and what it accepts can be read and goes on.
//!
//! Random bytes would not get past a checksum, so the frame around them is built here, as format version 1 describes it.

#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rt::{Disk, SeededRng, SimDisk};
use storage::journal::{Driver, Identity, Journal, JournalConfig};

const SALT: u64 = 0x1234_5678_9abc_def0;
const SEGMENT: usize = 64 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, input)) = input.split_first() else {
        return;
    };
    let mut segment = header();
    // The input is cut into frames at a length that it chooses itself.
    let each = 1 + usize::from(choice) * 16;
    let mut prev_crc = 0;
    for (i, body) in input.chunks(each).enumerate() {
        let mut frame = frame(i as u64 + 1, prev_crc, body);
        prev_crc = u32::from_le_bytes([frame[28], frame[29], frame[30], frame[31]]);
        frame.resize(frame.len().next_multiple_of(4096), 0);
        segment.extend_from_slice(&frame);
    }
    segment.resize(segment.len().max(SEGMENT), 0);
    open(&segment);
});

fn open(segment: &[u8]) {
    let disk = SimDisk::new();
    let dir = Path::new("/data/stripe-0");
    disk.create_dir_all(dir).unwrap();
    disk.create(&dir.join("0000000000000001.seg")).unwrap().write_all_at(segment, 0).unwrap();
    for _ in 0..2 {
        let mut config = JournalConfig::new("/data", Identity { cluster: 1, node: 1 });
        config.segment_bytes = SEGMENT as u32;
        let driver = Driver::Manual { wake: Arc::new(|| {}) };
        let opened = Journal::open(config, Arc::new(disk.clone()), Arc::new(SeededRng::new(1)), driver);
        let Ok((journal, recovered)) = opened else { return };
        for entry in recovered.groups.values().flat_map(|group| &group.entries) {
            // The entry's own checksum, or the payload behind it, may still be wrong.
            let _ = journal.read_payload(entry.location);
            journal.read(entry.location).unwrap();
        }
    }
}

fn header() -> Vec<u8> {
    let mut bytes = b"RMQSEG\r\n".to_vec();
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&1u128.to_le_bytes());
    for number in [1, 1, SALT, 1] {
        bytes.extend_from_slice(&u64::to_le_bytes(number));
    }
    bytes.resize(4092, 0);
    let crc = crc(&bytes, &[]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The first byte of the body says how many entries the frame claims.
fn frame(number: u64, prev_crc: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"RMQF".to_vec();
    bytes.extend_from_slice(&(32 + body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&(SALT as u32).to_le_bytes());
    bytes.extend_from_slice(&prev_crc.to_le_bytes());
    bytes.extend_from_slice(&(u32::from(body[0] % 4) + 1 | 1 << 24).to_le_bytes());
    let crc = crc(&bytes, body);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// CRC32C, bit by bit.
fn crc(first: &[u8], second: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    };
    !first.iter().chain(second).fold(!0, step)
}
