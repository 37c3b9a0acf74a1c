//! Commands for a node without a broker, and a look at all that it holds.

use bytes::Bytes;
use cluster::{AppendCommand, Command, Node, Reply, SubmitError};
use model::batch::{BatchBuilder, Records};
use model::{EngineKind, GroupId, MAX_DECODED_BATCH_BYTES, Offset, ShardId, TopicNumber};
use rt::{Rng, SeededRng};
use storage::kv::{self, Expect, Operation};
use storage::{Append, BatchFlags, Change, LogError, Position, Reach, Selection};

/// A producer's id, epoch and next sequence number.
pub(crate) type Claim = (i64, i16, i32);

/// Shard `number` of an engine; they lie in two groups by turns.
pub(crate) fn shard(engine: EngineKind, number: u32) -> ShardId {
    ShardId::new(engine, GroupId(1 + number % 2), TopicNumber(number), 0)
}

/// A batch of one record per number, each followed by `filler` more bytes.
pub(crate) fn batch(numbers: &[u64], filler: usize, producer: Option<Claim>) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(64 + numbers.len() * (filler + 32));
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.with_producer(id, epoch, sequence);
    }
    for number in numbers {
        let value = [&number.to_be_bytes()[..], &vec![*number as u8; filler]].concat();
        builder.push(*number as i64, None, Some(&value), []).expect("a few records fit into a batch");
    }
    builder.finish()
}

/// The numbers of a batch.
pub(crate) fn numbers(batch: &Bytes) -> Vec<u64> {
    let records = Records::decode(batch, MAX_DECODED_BATCH_BYTES).expect("a sound batch");
    let number = |value: &[u8]| u64::from_be_bytes(value[..8].try_into().expect("eight bytes"));
    records.iter().map(|record| number(record.value().expect("a value"))).collect()
}

/// A command that appends one batch.
pub(crate) fn command(shard: ShardId, batch: Bytes) -> Command {
    let append = AppendCommand { shard, flags: BatchFlags::NONE, batch, rows: Vec::new() };
    Command { appends: vec![append], ..Command::default() }
}

/// Appends one batch.
pub(crate) async fn append(node: &Node, shard: ShardId, batch: Bytes) -> Result<Append, SubmitError> {
    let group = &node.groups()[shard.home().0 as usize - 1];
    Ok(group.commit(command(shard, batch)).await?.appends[0])
}

/// All readable numbers of a shard.
pub(crate) fn read(node: &Node, shard: ShardId) -> Vec<u64> {
    let log = node.groups()[shard.home().0 as usize - 1].log();
    let offsets = log.offsets(shard).expect("offsets");
    let mut found = Vec::new();
    let mut next = offsets.start;
    while next < offsets.end {
        for batch in log.read(shard, next, 20_000).expect("read") {
            // The start may lie inside of a batch; what follows is dense.
            let skipped = if next == offsets.start { next.0 - batch.base.0 } else { 0 };
            assert_eq!(batch.base.0 + skipped, next.0, "offsets are dense");
            found.extend(numbers(&batch.bytes).into_iter().skip(skipped as usize));
            next = batch.end();
        }
    }
    found
}

/// The numbers of all shards, by shard.
pub(crate) fn contents(node: &Node) -> Vec<(ShardId, Vec<u64>)> {
    let shards = node.groups().iter().flat_map(|group| group.log().shards().expect("shards"));
    shards.map(|shard| (shard, read(node, shard))).collect()
}

/// Everything that a node holds and that must not depend on how it came to hold it.
pub(crate) fn state(node: &Node) -> Vec<String> {
    let mut lines = Vec::new();
    for group in node.groups() {
        let (id, log) = (group.id(), group.log());
        for number in 0..Actor::SHARDS {
            let shard = shard(EngineKind::Segment, number);
            if shard.home() != id {
                continue;
            }
            let offsets = match log.offsets(shard) {
                Ok(offsets) => offsets,
                Err(LogError::Dropped) => {
                    lines.push(format!("{shard} dropped"));
                    continue;
                }
                Err(error) => panic!("{shard}: {error}"),
            };
            let producers = log.describe(shard).expect("describe").producers;
            lines.push(format!("{shard} {offsets:?} {producers} producers {:?}", read(node, shard)));
        }
        let scanned = log
            .scan(Position::default(), &Selection::All, usize::MAX, Reach::Disk)
            .expect("scan")
            .expect("from the disk");
        lines.extend(scanned.iter().map(|batch| format!("{id} {batch:?}")));
        let rows = group.kv().scan(b"", b"", usize::MAX).expect("scan rows");
        lines.extend(rows.iter().map(|row| format!("{id} {:?} {:?}", row.key, row.value)));
    }
    lines
}

/// Somebody who sends commands of every kind. What it sends follows from its seed alone.
pub(crate) struct Actor {
    rng: SeededRng,
    sent: u64,
}

impl Actor {
    /// Shards that it writes to.
    pub(crate) const SHARDS: u32 = 6;

    /// Its choices follow from `seed`.
    pub(crate) fn new(seed: u64) -> Actor {
        Actor { rng: SeededRng::new(seed), sent: 0 }
    }

    /// Sends one command and answers what became of it.
    pub(crate) async fn act(&mut self, node: &Node) -> Reply {
        let home = self.rng.below(2) as u32;
        let command = Command {
            appends: (0..self.rng.below(4)).map(|_| self.append(home)).collect(),
            changes: (0..self.rng.below(8) / 7).map(|_| self.change(home)).collect(),
            rows: None,
        };
        // A command that appends has no preconditions, and this one may have some.
        let rows = (self.rng.below(3) == 0).then(|| self.rows());
        let command = if rows.is_some() { Command { rows, ..Command::default() } } else { command };
        node.groups()[home as usize].commit(command).await.expect("nothing is in its way")
    }

    fn shard(&mut self, home: u32) -> ShardId {
        shard(EngineKind::Segment, home + 2 * self.rng.below(u64::from(Actor::SHARDS) / 2) as u32)
    }

    fn append(&mut self, home: u32) -> AppendCommand {
        let shard = self.shard(home);
        let numbers: Vec<u64> = (0..1 + self.rng.below(3)).map(|n| self.sent + n).collect();
        self.sent += numbers.len() as u64;
        // Sequences that fit, repeat, leave gaps, and epochs that rise and fall: as chance has it.
        let claim = (self.rng.below(3) as i64, self.rng.below(8) as i16 / 7, self.rng.below(6) as i32);
        let producer = (self.rng.below(3) == 0).then_some(claim);
        let flags = if self.rng.below(5) == 0 { BatchFlags::AT_MOST_ONCE } else { BatchFlags::NONE };
        let filler = 200 + self.rng.below(1200) as usize;
        let note = |key| Operation::Put { key, value: Bytes::from(self.sent.to_string()) };
        let rows = (self.rng.below(3) == 0).then(|| note(Bytes::from(format!("noted {shard}"))));
        let batch = batch(&numbers, filler, producer);
        AppendCommand { shard, flags, batch, rows: rows.into_iter().collect() }
    }

    fn change(&mut self, home: u32) -> Change {
        let shard = self.shard(home);
        match self.rng.below(12) {
            0 => Change::Drop { shard },
            1..=3 => Change::ExpireProducers { before: self.sent as i64 - self.rng.below(100) as i64 },
            _ => Change::Trim { shard, to: Offset(self.rng.below(20)) },
        }
    }

    fn rows(&mut self) -> kv::Command {
        let mut operations = Vec::new();
        for _ in 0..1 + self.rng.below(3) {
            let key = || Bytes::from(vec![b'a' + self.rng.below(6) as u8]);
            let (key, other) = (key(), key());
            let value = Bytes::from(self.sent.to_string());
            let expect = match self.rng.below(2) {
                0 => Expect::Absent,
                _ => Expect::Version(self.rng.below(40)),
            };
            operations.push(match self.rng.below(8) {
                0 => Operation::Delete { key },
                1 => Operation::DeleteRange { from: key, to: other },
                2 => Operation::CompareAndSet { key, expect, value: Some(value) },
                3 => Operation::Check { key, expect },
                _ => Operation::Put { key, value },
            });
        }
        kv::Command { operations }
    }
}
