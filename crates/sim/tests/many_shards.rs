//! A hundred thousand shards on a real disk: files, threads and memory stay bounded, and a restart is quick. Alone in its
//! binary, because it counts what the whole process has.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::{AppendCommand, Command, Node};
use model::batch::BatchBuilder;
use model::{EngineKind, Offset, ShardId, TopicNumber};
use storage::BatchFlags;
use testkit::{TestNode, on_core};

const SHARDS: u32 = 100_000;
/// Shards that are made by one command.
const AT_ONCE: u32 = 1000;
/// Bound: open files beyond those of an empty node. Segments are of 1 MiB, and RocksDB opens some of its tables.
const FILES_MAX: usize = 100;
/// Bound: threads beyond those of an empty node.
const THREADS_MAX: usize = 4;
/// Bound: resident bytes of a shard with one small record, its cached batch included.
const BYTES_EACH_MAX: u64 = 1500;
const RESTART_MAX: Duration = Duration::from_secs(10);

/// Entries of a directory that tells about this process.
fn count(dir: &str) -> usize {
    std::fs::read_dir(dir).expect("Linux tells about a process").count()
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux tells about a process");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("and its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn shard(node: &Node, number: u32) -> ShardId {
    let home = node.groups()[number as usize % node.groups().len()].id();
    ShardId::new(EngineKind::Segment, home, TopicNumber(number), 0)
}

fn batch(number: u32) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(128);
    builder.push(1, None, Some(&number.to_be_bytes()), []).expect("a small record");
    builder.finish()
}

async fn create(node: &Node) {
    for first in (0..SHARDS).step_by(AT_ONCE as usize) {
        for (home, group) in node.groups().iter().enumerate() {
            let numbers =
                (first..first + AT_ONCE).filter(|number| *number as usize % node.groups().len() == home);
            let appends = numbers.map(|number| AppendCommand {
                shard: shard(node, number),
                flags: BatchFlags::NONE,
                batch: batch(number),
                rows: Vec::new(),
            });
            let command = Command { appends: appends.collect(), ..Command::default() };
            group.commit(command).await.expect("it is committed");
        }
        if first % 10_000 == 0 {
            node.keep_house();
        }
    }
    node.keep_house();
}

/// Every shard is there, and a sample of them holds its record.
fn check(node: &Node) {
    let shards: usize = node.groups().iter().map(|group| group.log().shards().expect("shards").len()).sum();
    assert_eq!(shards, SHARDS as usize);
    for number in (0..SHARDS).step_by(97) {
        let shard = shard(node, number);
        let log = node.groups()[number as usize % node.groups().len()].log();
        let found = log.read(shard, Offset::ZERO, 1000).expect("read");
        assert_eq!(found.iter().map(|found| &found.bytes[..]).collect::<Vec<_>>(), [&batch(number)[..]]);
    }
}

#[test]
fn storage_51_a_hundred_thousand_shards_cost_little_and_restart_in_time() {
    on_core(async {
        let node = TestNode::start().await;
        let (files, threads, bytes) = (count("/proc/self/fd"), count("/proc/self/task"), resident_bytes());
        create(node.node()).await;
        check(node.node());
        let files = count("/proc/self/fd").saturating_sub(files);
        let threads = count("/proc/self/task").saturating_sub(threads);
        let each = resident_bytes().saturating_sub(bytes) / u64::from(SHARDS);
        assert!(files <= FILES_MAX, "{files} more files");
        assert!(threads <= THREADS_MAX, "{threads} more threads");
        assert!(each <= BYTES_EACH_MAX, "{each} bytes for each shard");

        let dir = node.stop().await;
        let begun = Instant::now();
        let node = TestNode::start_on(dir).await;
        let took = begun.elapsed();
        check(node.node());
        assert!(took < RESTART_MAX, "the restart took {took:?}");
        drop(node.stop().await);
    });
}
