//! Any bytes behind the checksums of an index file: opening never panics, and what it accepts can be read, scanned and
//! looked up.
//!
//! Random bytes would not get past a checksum, so the header around them is built here, as format version 1 describes it.

#![no_main]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use model::{EngineKind, GroupId, Offset, ShardId, TopicNumber};
use rt::{Disk, SimDisk};
use storage::journal::{Location, SegmentInfo};
use storage::{
    BatchSource, LogError, LogStore, LogStoreConfig, Position, Reach, Selection, StripeContents, TimeQuery,
};

struct Nothing;

impl BatchSource for Nothing {
    fn read(&self, _: Location) -> Result<Bytes, LogError> {
        Err(LogError::Damaged { what: "everything" })
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, body)) = input.split_first() else {
        return;
    };
    let dir = Path::new("/index");
    let disk = SimDisk::new();
    disk.create_dir_all(dir).unwrap();
    let (name, kind) = if choice % 2 == 0 { ("0000000000000001.idx", 1) } else { ("tails", 2) };
    disk.create(&dir.join(name)).unwrap().write_all_at(&file(kind, body), 0).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let source: Arc<dyn BatchSource> = Arc::new(Nothing);
    let config = LogStoreConfig {
        index_dir: dir.into(),
        tail_cache_bytes: 0,
        memory_bytes: 0,
        memory_origin: Offset(0),
    };
    let segments = [SegmentInfo { seq: 1, sealed: true, bytes: 0, groups: Vec::new() }];
    let journal = StripeContents { source: &source, segments: &segments, purged: &|_| 0 };
    let Ok(store) = LogStore::open(config, &disk, None, journal, &mut |_, _| Ok(())) else {
        return;
    };
    for group in 0..3 {
        let log = store.group(GroupId(group)).unwrap();
        let _ = log.scan(Position::default(), &Selection::All, 100, Reach::Disk);
        let shard = ShardId::new(EngineKind::Segment, GroupId(group), TopicNumber(u32::from(choice)), 0);
        let _ = log.describe(shard);
        let _ = log.offset_for_time(shard, TimeQuery::Largest);
        if let Ok(offsets) = log.offsets(shard) {
            assert!(offsets.start <= offsets.end);
            let _ = log.read(shard, offsets.start, 1000);
        }
    }
    let _ = store.dead_segments(|_| u64::MAX);
});

fn file(kind: u16, body: &[u8]) -> Vec<u8> {
    // A footer begins with its segment, which must be the one that its name says.
    let mut all = if kind == 1 { 1_u64.to_le_bytes().to_vec() } else { Vec::new() };
    all.extend_from_slice(body);
    let mut file = b"RMQX".to_vec();
    file.extend_from_slice(&1_u16.to_le_bytes());
    file.extend_from_slice(&kind.to_le_bytes());
    file.extend_from_slice(&(all.len() as u64).to_le_bytes());
    file.extend_from_slice(&crc(&all).to_le_bytes());
    let header_crc = crc(&file);
    file.extend_from_slice(&header_crc.to_le_bytes());
    file.extend_from_slice(&all);
    file
}

/// CRC32C, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, step)
}
