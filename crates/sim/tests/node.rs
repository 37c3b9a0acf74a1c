//! A node without a broker: damage, lost index files, a full disk, the memory engine, and what replay makes of entries.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Command, Node, OpenError, SubmitError};
use model::{EngineKind, GroupId, Offset, ShardId, TopicNumber};
use rt::{Disk, Fault, Rng, SeededRng, SimDisk};
use sim::{Lives, each_seed, patiently, step};
use storage::journal::{Driver, Identity, Journal, JournalConfig, JournalState};
use storage::kv::{self, Operation};
use storage::{Append, Change};
use support::{Actor, append, batch, contents, read, shard, state};

/// What [`Lives`] sets.
const SEGMENT_BYTES: u64 = 64 << 10;
const STRIPE: &str = "/node/stripe-0";
const INDEX: &str = "/node/index";

/// Files of a directory that end so, with their bytes.
fn files(disk: &SimDisk, dir: &str, suffix: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let names = disk.list(Path::new(dir)).expect("the directory");
    let paths = names.iter().filter(|name| name.ends_with(suffix)).map(|name| Path::new(dir).join(name));
    paths.map(|path| (path.clone(), disk.contents(&path).expect("the file"))).collect()
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(usize),
    Cut(usize),
    Removed,
}

impl Damage {
    fn apply(self, disk: &SimDisk, path: &Path) {
        match self {
            Damage::Flip(at) => {
                disk.inject(Fault::BitFlip { path: path.into(), offset: at as u64, bit: 5 })
                    .expect("the file");
            }
            Damage::Cut(len) => disk.open_rw(path).expect("the file").set_len(len as u64).expect("the file"),
            Damage::Removed => disk.remove(path).expect("the file"),
        }
    }

    fn undo(self, disk: &SimDisk, path: &Path, bytes: &[u8]) {
        let file = match self {
            Damage::Removed => disk.create(path).expect("the file"),
            Damage::Flip(_) | Damage::Cut(_) => disk.open_rw(path).expect("the file"),
        };
        file.write_all_at(bytes, 0).expect("the file");
    }
}

/// A byte of the first frame at or behind `at`.
fn inside_frame(segment: &[u8], at: usize) -> usize {
    let mut blocks = (at..segment.len()).step_by(4096);
    blocks.find(|at| segment[*at..].starts_with(b"RMQF")).expect("frames reach beyond the middle") + 40
}

/// Appends batches of some 5 KB to three shards.
async fn fill(node: &Node, count: u64) {
    for n in 0..count {
        let outcome = append(node, shard(EngineKind::Segment, n as u32 % 3), batch(&[n], 5000, None)).await;
        assert!(matches!(outcome, Ok(Append::Stored { .. })), "{outcome:?}");
    }
}

/// Spec: storage 5, 6. With one replica there is nobody to repair from: the node says so, and spoils nothing.
#[test]
fn damage_in_front_of_what_is_durable_keeps_a_node_from_starting_and_the_files_as_they_are() {
    let mut lives = Lives::new(5);
    let written = lives.live(async |node| {
        fill(node, 40).await;
        contents(node)
    });
    let written = written.unwrap();
    lives.kill();
    let segments = files(&lives.disk(), STRIPE, ".seg");
    assert!(segments.len() > 3, "{} segments", segments.len());
    for (nth, (path, bytes)) in segments.iter().enumerate() {
        let mut damages = vec![Damage::Flip(4096 + 40)];
        if nth + 1 < segments.len() {
            let middle = inside_frame(bytes, bytes.len() / 2);
            damages.extend([Damage::Flip(middle), Damage::Cut(middle), Damage::Cut(0), Damage::Removed]);
        }
        for damage in damages {
            let mut node = lives.fork();
            damage.apply(&node.disk(), path);
            let before = files(&node.disk(), STRIPE, ".seg");
            let refused = node.live(async |_| ());
            assert!(
                matches!(refused, Err(Some(OpenError::Damaged { .. }))),
                "{damage:?} of {path:?}: {refused:?}"
            );
            assert!(
                files(&node.disk(), STRIPE, ".seg") == before,
                "{damage:?} of {path:?}: nothing is touched"
            );
            damage.undo(&node.disk(), path, bytes);
            node.kill();
            assert_eq!(node.live(async |node| contents(node)).unwrap(), written, "{damage:?} of {path:?}");
        }
    }
}

/// The purged index of the first data group, as the journal alone tells it.
fn purged(lives: &Lives) -> u64 {
    let disk = lives.disk().fork();
    let text = String::from_utf8(disk.contents(Path::new("/node/identity")).expect("the identity"))
        .expect("it is text");
    let cluster =
        text.lines().find_map(|line| line.strip_prefix("cluster = ")).expect("it names the cluster");
    let identity = Identity { cluster: u128::from_str_radix(cluster, 16).expect("in hexadecimal"), node: 1 };
    let config =
        JournalConfig { segment_bytes: SEGMENT_BYTES as u32, ..JournalConfig::new("/node", identity) };
    let driver = Driver::Manual { wake: Arc::new(|| {}) };
    let opened = Journal::open(config, Arc::new(disk), Arc::new(SeededRng::new(1)), driver);
    opened.expect("the journal").1.groups[&GroupId(1)].purged.map_or(0, |purged| purged.index)
}

/// Spec: storage 8. The entries of a sealed segment are usually purged: only the segment itself can tell its index again.
#[test]
fn a_lost_index_file_is_rebuilt_from_its_segment() {
    each_seed(3, |seed| {
        let mut lives = Lives::new(seed);
        let mut actor = Actor::new(seed);
        let written = lives.live(async |node| {
            for round in 0..14 {
                for n in 0..20 {
                    actor.act(node).await;
                    // Every segment holds a record that is never trimmed: none is recycled.
                    append(node, shard(EngineKind::Segment, 8), batch(&[n], 10, None)).await.unwrap();
                }
                if round < 12 {
                    node.keep_house();
                }
                for _ in 0..50 {
                    step().await;
                }
            }
            state(node)
        });
        let written = written.unwrap();
        lives.kill();
        assert!(purged(&lives) > 50, "the log must have been purged: {}", purged(&lives));
        let footers = files(&lives.disk(), INDEX, ".idx");
        assert!(footers.len() > 3, "{} footers", footers.len());
        for (path, bytes) in &footers {
            for damage in
                [Damage::Removed, Damage::Flip(bytes.len() / 2), Damage::Cut(bytes.len() - 1), Damage::Cut(0)]
            {
                let mut node = lives.fork();
                damage.apply(&node.disk(), path);
                let found = node.live(async |node| {
                    let found = state(node);
                    let again = append(node, shard(EngineKind::Segment, 9), batch(&[1], 10, None)).await;
                    assert!(matches!(again, Ok(Append::Stored { .. })));
                    found
                });
                assert_eq!(found.unwrap(), written, "{damage:?} of {path:?}");
            }
        }
        // All of them at once.
        let mut node = lives.fork();
        footers.iter().for_each(|(path, _)| Damage::Removed.apply(&node.disk(), path));
        assert_eq!(node.live(async |node| state(node)).unwrap(), written);
    });
}

/// Spec: storage 33. Newcomers are refused, readers go on, and space brings everything back without a restart.
#[test]
fn a_full_disk_refuses_writers_serves_readers_and_ends_with_the_space() {
    let mut lives = Lives::new(33);
    let disk = lives.disk();
    let one = shard(EngineKind::Segment, 1);
    let (stored, refused) = lives
        .live(async |node| {
            let mut stored = Vec::new();
            for n in 0..5 {
                append(node, one, batch(&[n], 5000, None)).await.unwrap();
                stored.push(n);
            }
            disk.inject(Fault::Capacity { bytes: 0 }).unwrap();
            let (mut waiting, mut refused) = (Vec::new(), Vec::new());
            for n in 5..200 {
                match patiently(append(node, one, batch(&[n], 5000, None))).await {
                    Some(Ok(_)) => stored.push(n),
                    Some(Err(SubmitError::DiskFull)) => refused.push(n),
                    Some(Err(other)) => panic!("{other:?}"),
                    // Its entry is in the log already and waits for space.
                    None => waiting.push(n),
                }
                if refused.len() == 20 {
                    break;
                }
            }
            assert_eq!(refused.len(), 20, "whoever comes later is refused, and may try again");
            assert_eq!(read(node, one), stored, "readers are served, and shown nothing that waits");
            disk.inject(Fault::Capacity { bytes: u64::MAX }).unwrap();
            let mut more = patiently(append(node, one, batch(&[1000], 10, None))).await;
            while let Some(Err(SubmitError::DiskFull)) = more {
                step().await;
                more = patiently(append(node, one, batch(&[1000], 10, None))).await;
            }
            assert!(matches!(more, Some(Ok(Append::Stored { .. }))), "{more:?}");
            stored.append(&mut waiting);
            stored.push(1000);
            assert_eq!(read(node, one), stored, "what waited comes first");
            (stored, refused)
        })
        .unwrap();
    lives.crash(1);
    let found = lives.live(async |node| read(node, one)).unwrap();
    assert_eq!(found, stored);
    assert!(refused.iter().all(|n| !found.contains(n)), "what was refused is nowhere");
}

/// A command that puts a row of some 5 KB.
fn put(key: u64) -> Command {
    let (key, value) = (Bytes::copy_from_slice(&key.to_be_bytes()), Bytes::from(vec![0; 5000]));
    let operations = vec![Operation::Put { key, value }];
    Command { rows: Some(kv::Command { operations }), ..Command::default() }
}

/// Spec: storage 33. Many writers at once, of rows, which are taken for longer than records: whoever has no entry in the log yet
/// is refused, and not left to wait behind those that have.
#[test]
fn of_many_writers_that_meet_a_full_disk_few_wait_and_the_others_are_refused() {
    let mut lives = Lives::new(34);
    let disk = lives.disk();
    let outcome = lives.live(async |node| {
        let group = node.groups()[0].clone();
        group.commit(put(0)).await.unwrap();
        disk.inject(Fault::Capacity { bytes: 0 }).unwrap();
        let commits: Vec<_> = (1..400)
            .map(|n| {
                let group = group.clone();
                tokio::spawn(async move { (n, group.commit(put(n)).await) })
            })
            .collect();
        for _ in 0..3000 {
            step().await;
        }
        let waiting = commits.iter().filter(|commit| !commit.is_finished()).count();
        assert!((1..50).contains(&waiting), "{waiting} of 399 wait");
        disk.inject(Fault::Capacity { bytes: u64::MAX }).unwrap();
        let (mut stored, mut refused) = (0, 0);
        for commit in commits {
            let (n, outcome) = patiently(commit).await.expect("everybody hears").unwrap();
            let is_there = group.kv().get(&u64::to_be_bytes(n)).unwrap().is_some();
            match outcome {
                Ok(_) => stored += 1,
                Err(SubmitError::DiskFull) => refused += 1,
                Err(other) => panic!("{n}: {other:?}"),
            }
            assert_eq!(is_there, outcome.is_ok(), "{n}");
        }
        assert!(stored >= waiting && refused > 300, "{stored} stored, {refused} refused");
    });
    outcome.unwrap();
}

/// Appends batches of 5 KB, numbered from `first`, until one is refused because the disk is full. Answers the next number.
async fn fill_until_refused(node: &Node, shard: ShardId, first: u64) -> u64 {
    for n in first..first + 2000 {
        match patiently(append(node, shard, batch(&[n], 5000, None))).await {
            Some(Ok(_)) => {}
            Some(Err(SubmitError::DiskFull)) => return n,
            Some(Err(other)) => panic!("{other:?}"),
            None => panic!("batch {n} waits for space, and whatever would make some has to wait behind it"),
        }
    }
    panic!("the disk never ran full");
}

/// Trims a shard as retention does.
async fn trim(node: &Node, shard: ShardId, to: u64) {
    let command = Command { changes: vec![Change::Trim { shard, to: Offset(to) }], ..Command::default() };
    let group = &node.groups()[shard.home().0 as usize - 1];
    let trimmed = patiently(group.commit(command)).await;
    assert!(matches!(trimmed, Some(Ok(_))), "{trimmed:?}");
}

/// Spec: storage 33. A trim is an entry as well: it was refused on a full disk like any other, and the disk stayed full.
#[test]
fn a_disk_that_its_own_records_fill_keeps_room_for_the_trim_that_empties_it() {
    let mut lives = Lives::new(36);
    let disk = lives.disk();
    let one = shard(EngineKind::Segment, 1);
    let outcome = lives.live(async |node| {
        disk.inject(Fault::Capacity { bytes: 24 * SEGMENT_BYTES }).unwrap();
        let mut next = 0;
        for round in 0..3 {
            let first = next;
            next = fill_until_refused(node, one, first).await;
            assert!(next - first > 40, "round {round}: {first} to {next}");
            assert_eq!(node.journal_state(), JournalState::Open, "it has refused nothing itself");
            assert!(node.is_space_low());
            trim(node, one, next).await;
            for _ in 0..20 {
                node.keep_house();
                for _ in 0..20 {
                    step().await;
                }
            }
            assert!(!node.is_space_low(), "round {round}: the space of what was trimmed is there again");
        }
        let again = append(node, one, batch(&[next], 10, None)).await;
        assert!(matches!(again, Ok(Append::Stored { .. })), "{again:?}");
        assert_eq!(read(node, one), [next]);
    });
    outcome.unwrap();
}

/// Spec: storage 33. Others fill the disk too, while few records come.
#[test]
fn a_disk_that_others_fill_is_noticed_before_a_record_has_to_wait_for_it() {
    let mut lives = Lives::new(37);
    let disk = lives.disk();
    let one = shard(EngineKind::Segment, 1);
    let outcome = lives.live(async |node| {
        append(node, one, batch(&[0], 10, None)).await.unwrap();
        disk.inject(Fault::Capacity { bytes: 0 }).unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        let refused = append(node, one, batch(&[1], 10, None)).await;
        assert_eq!(refused, Err(SubmitError::DiskFull), "though there is room for it in the open segment");
        trim(node, one, 1).await;
        disk.inject(Fault::Capacity { bytes: u64::MAX }).unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        append(node, one, batch(&[2], 10, None)).await.unwrap();
        assert_eq!(read(node, one), [2]);
    });
    outcome.unwrap();
}

/// Spec: storage 50. Its records may go with the process; an offset that somebody saw never names another record.
#[test]
fn the_memory_engine_never_uses_an_offset_twice() {
    let mut lost = 0;
    each_seed(40, |seed| {
        let choices = SeededRng::new(!seed);
        let mut lives = Lives::new(seed);
        let (mut next, mut seen) = (0, BTreeMap::new());
        for _ in 0..8 {
            lives.disk().inject(Fault::PowerCut { after: choices.below(400) }).unwrap();
            let one = shard(EngineKind::Memory, 1);
            let lived = lives.live(async |node| {
                for _ in 0..choices.below(60) {
                    // Only what no index file tells of is replayed: without housekeeping, little is lost.
                    if choices.below(8) == 0 {
                        node.keep_house();
                    }
                    let value = next;
                    next += 1;
                    match patiently(append(node, one, batch(&[value], 5000, None))).await {
                        Some(Ok(Append::Stored { base })) => {
                            let before = seen.insert(base, value);
                            assert!(
                                before.is_none_or(|before| before == value),
                                "offset {base} had {before:?}"
                            );
                        }
                        Some(Ok(other)) => panic!("{other:?}"),
                        Some(Err(_)) | None => return,
                    }
                    let log = node.groups()[one.home().0 as usize - 1].log();
                    let start = log.offsets(one).unwrap().start;
                    for found in log.read(one, start, usize::MAX).unwrap() {
                        let value = support::numbers(&found.bytes)[0];
                        let before = seen.insert(found.base, value);
                        assert!(
                            before.is_none_or(|before| before == value),
                            "offset {} had {before:?}",
                            found.base
                        );
                    }
                    let first = seen.keys().next().copied().unwrap_or(Offset::ZERO);
                    lost += usize::from(first < start);
                }
            });
            let is_off = lives.disk().create_dir_all(Path::new("/any")).is_err();
            assert!(lived.is_ok() || is_off, "the node must open after any crash: {lived:?}");
            lives.crash(choices.next_u64());
        }
    });
    assert!(lost > 100, "restarts must have lost something: {lost}");
}

/// Spec: storage 56. The same commands, on nodes of other identity, housekeeping and life, have the same replies and leave the
/// same shards, producers and rows, positions and versions included; and replay makes the same of them once more.
#[test]
fn the_same_entries_make_the_same_state_on_every_node_and_in_every_replay() {
    each_seed(25, |seed| {
        let mut ended = Vec::new();
        for (number, house) in [(seed, u64::MAX), (!seed, 7), (seed << 8, 40)] {
            let mut lives = Lives::new(number);
            let mut actor = Actor::new(seed);
            let told = lives.live(async |node| {
                let mut replies = Vec::new();
                for n in 1..=150 {
                    replies.push(actor.act(node).await);
                    if n % house == 0 {
                        node.keep_house();
                    }
                }
                (replies, state(node))
            });
            let (replies, before) = told.unwrap();
            for round in 0..2 {
                if round == 0 {
                    lives.kill()
                } else {
                    lives.crash(seed)
                }
                let after = lives.live(async |node| {
                    let after = state(node);
                    if round == 0 {
                        node.keep_house();
                    }
                    after
                });
                assert_eq!(after.unwrap(), before, "replay {round}, house every {house}");
            }
            ended.push((replies, before));
        }
        assert_eq!(ended[0], ended[1], "another identity, another housekeeping");
        assert_eq!(ended[0], ended[2]);
    });
}

/// Each group has shards of its own, so that the tests above are about more than one.
#[test]
fn shards_of_the_tests_lie_in_both_groups() {
    let homes: Vec<_> =
        (0..4).map(|n| shard(EngineKind::Segment, n)).map(|id| (id.home(), id.topic())).collect();
    let expected = [(1, 0), (2, 1), (1, 2), (2, 3)].map(|(home, topic)| (GroupId(home), TopicNumber(topic)));
    assert_eq!(homes, expected);
}
