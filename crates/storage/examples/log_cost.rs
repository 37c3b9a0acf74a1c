//! What the segment engine costs: apply and tail reads per batch, memory per shard, opening many shards. Prints figures
//! for `docs/benchmarks.md`; run with `--release`.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use model::batch::{BatchBuilder, BatchHeader};
use model::{EngineKind, GroupId, Offset, ShardId, TopicNumber};
use rt::{Disk, StdDisk};
use storage::journal::{Location, SegmentInfo};
use storage::{
    BatchFlags, BatchSource, CommittedBatch, Log, LogError, LogStore, LogStoreConfig, Position, Reach,
    Selection, StripeContents,
};

const GROUP: GroupId = GroupId(1);

/// A journal that can read any location: always the same batch.
struct OneBatch(Bytes);

impl BatchSource for OneBatch {
    fn read(&self, _: Location) -> Result<Bytes, LogError> {
        Ok(self.0.clone())
    }
}

fn shard(number: u64) -> ShardId {
    ShardId::new(EngineKind::Segment, GROUP, TopicNumber(number as u32), 0)
}

fn batch(producer: Option<i64>) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(256);
    if let Some(id) = producer {
        builder = builder.with_producer(id, 0, 0);
    }
    builder.push(1_700_000_000_000, None, Some(&[7; 128]), std::iter::empty()).expect("one small record");
    builder.finish()
}

fn committed(bytes: &Bytes, header: BatchHeader, index: u64, ordinal: u16, segment: u64) -> CommittedBatch {
    CommittedBatch {
        bytes: bytes.clone(),
        header,
        flags: BatchFlags::NONE,
        position: Position { index, ordinal },
        location: Location { segment, offset: (index % (1 << 26)) as u32, len: bytes.len() as u32 },
    }
}

fn open(dir: &std::path::Path, segments: &[SegmentInfo], tail_cache_bytes: usize) -> LogStore {
    let config = LogStoreConfig {
        index_dir: dir.to_path_buf(),
        tail_cache_bytes,
        memory_bytes: 0,
        memory_origin: Offset(0),
    };
    let disk: Arc<dyn Disk> = Arc::new(StdDisk);
    let source: Arc<dyn BatchSource> = Arc::new(OneBatch(batch(None)));
    let contents = StripeContents { source: &source, segments, purged: &|_| 0 };
    LogStore::open(config, &disk, None, contents, &mut |_, _| Ok(())).expect("open")
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Appends `total` batches to `shards` shards in entries of `per_entry`, a turn each; nanoseconds per batch.
fn apply(log: &dyn Log, shards: u64, total: u64, per_entry: u64, producer: bool) -> f64 {
    let bytes = batch(producer.then_some(5));
    let mut header = BatchHeader::parse(&bytes).expect("a sound batch");
    let mut sequences = vec![0_i32; if producer { shards as usize } else { 0 }];
    let started = Instant::now();
    for entry in 0..total / per_entry {
        for ordinal in 0..per_entry {
            let number = (entry * per_entry + ordinal) % shards;
            if producer {
                header.base_sequence = sequences[number as usize];
                sequences[number as usize] += 1;
            }
            let batch = committed(&bytes, header, 1 + entry, ordinal as u16, 1);
            std::hint::black_box(log.append(shard(number), batch).expect("append"));
        }
        log.turn_ended(1 + entry).expect("turn_ended");
    }
    started.elapsed().as_nanos() as f64 / total as f64
}

fn main() {
    let dir = std::env::temp_dir().join(format!("log-cost-{}", std::process::id()));
    for (shards, per_entry) in [(1, 1), (1, 64), (1000, 64), (100_000, 1000)] {
        let store = open(&dir, &[], 64 << 20);
        let log = store.group(GROUP).expect("group");
        let plain = apply(&*log, shards, 1_000_000, per_entry, false);
        let store = open(&dir, &[], 64 << 20);
        let log = store.group(GROUP).expect("group");
        let idempotent = apply(&*log, shards, 1_000_000, per_entry, true);
        println!(
            "apply, {shards} shards, {per_entry} batches per turn: {plain:.0} ns/batch, idempotent {idempotent:.0}"
        );
    }
    tail_reads(&dir);
    many_shards(&dir);
    drop(std::fs::remove_dir_all(dir));
}

fn tail_reads(dir: &std::path::Path) {
    let store = open(dir, &[], 256 << 20);
    let log = store.group(GROUP).expect("group");
    apply(&*log, 100, 100_000, 64, false);
    for (name, back, max) in
        [("1 batch at the tail", 1, 1), ("64 batches", 64, 64 * 210), ("1 batch, 500 back", 500, 1)]
    {
        let started = Instant::now();
        let rounds = 1_000_000 / back.min(64);
        for round in 0..rounds {
            let shard = shard(round % 100);
            let from = Offset(log.offsets(shard).expect("offsets").end.0 - back);
            std::hint::black_box(log.read_tail(shard, from, max).expect("read").expect("cached").len());
        }
        println!(
            "read_tail with offsets, {name}: {:.0} ns",
            started.elapsed().as_nanos() as f64 / rounds as f64
        );
    }
    let started = Instant::now();
    let mut after = Position::default();
    let mut batches = 0;
    loop {
        let some = log.scan(after, &Selection::All, 1000, Reach::Disk).expect("scan").expect("from the disk");
        let Some(last) = some.last() else { break };
        after = last.position;
        batches += some.len();
    }
    println!("scan of all shards: {:.0} ns/batch", started.elapsed().as_nanos() as f64 / batches as f64);
}

fn many_shards(dir: &std::path::Path) {
    const SHARDS: u64 = 1_000_000;
    let store = open(dir, &[], 0);
    let log = store.group(GROUP).expect("group");
    let before = resident_bytes();
    apply(&*log, SHARDS, SHARDS, 1000, false);
    let live = resident_bytes() - before;
    let segment = SegmentInfo { seq: 1, sealed: true, bytes: 0, groups: vec![(GROUP, 1, SHARDS / 1000)] };
    store.segment_sealed(segment.clone());
    let started = Instant::now();
    assert_eq!(store.write_footers().expect("write footers"), 1);
    let sealed = started.elapsed();
    let size = std::fs::metadata(dir.join("0000000000000001.idx")).map_or(0, |file| file.len());
    drop((store, log));
    let before = resident_bytes();
    let started = Instant::now();
    let store = open(dir, &[segment], 0);
    let log = store.group(GROUP).expect("group");
    let opened = started.elapsed();
    let memory = resident_bytes().saturating_sub(before);
    assert_eq!(log.offsets(shard(SHARDS - 1)).expect("offsets").end, Offset(1));
    println!(
        "{SHARDS} shards of one batch: live {} bytes per shard, footer {} bytes per shard",
        live as u64 / SHARDS,
        size / SHARDS
    );
    println!(
        "  sealed in {sealed:?}, opened in {opened:?}, then at least {} bytes per shard",
        memory as u64 / SHARDS
    );
}
