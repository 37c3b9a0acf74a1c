//! An idempotent producer that outlives the node it sends to: a batch without an answer is sent again after a restart, and
//! now and then one that was answered.

use broker::{Append, Broker, Core};
use bytes::Bytes;
use model::batch::BatchBuilder;
use model::{ShardId, TenantId, TopicName};
use rt::{Rng, SeededRng};

use crate::broker_load::read_numbers;
use crate::turns::patiently;

/// Its topic, which nobody else writes to.
const TOPIC: &str = "produced";
/// Its producer id.
const ID: i64 = 77;
/// Batches that a shard remembers of a producer.
const WINDOW: usize = 5;

/// What it sent, in order, one batch at a time.
#[derive(Default)]
pub(crate) struct Producer {
    sent: Vec<Sent>,
}

/// One batch.
struct Sent {
    /// Sequence number, and so the value and the offset, of its first record.
    first: u64,
    records: u64,
    is_answered: bool,
}

impl Producer {
    /// Batches that were answered.
    pub(crate) fn acknowledged(&self) -> usize {
        self.sent.iter().filter(|sent| sent.is_answered).count()
    }

    /// Sends the batch that has no answer; else a new one, or one of the last again. Answers false if the power went.
    pub(crate) async fn send(&mut self, core: &Core, choices: &SeededRng) -> bool {
        let Some(shard) = self.shard(core).await else { return false };
        let newest = self.sent.len().wrapping_sub(1);
        let at = match self.sent.last() {
            Some(last) if !last.is_answered => newest,
            Some(_) if choices.below(4) == 0 => {
                newest - choices.below(self.sent.len().min(WINDOW) as u64) as usize
            }
            last => {
                let first = last.map_or(0, |last| last.first + last.records);
                let records = 1 + choices.below(4);
                self.sent.push(Sent { first, records, is_answered: false });
                self.sent.len() - 1
            }
        };
        let sent = &mut self.sent[at];
        let outcome = match patiently(core.append(shard, batch(sent))).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) | None => return false,
        };
        let base = match outcome {
            Append::Stored { base } if !sent.is_answered => base,
            Append::Duplicate { base } => base,
            other => panic!("batch {at} of an orderly producer: {other:?}"),
        };
        assert_eq!(base.0, sent.first, "batch {at} has its one place, however often it is sent");
        sent.is_answered = true;
        true
    }

    /// Every batch that was answered is stored once, at its place; the last one, if it was not answered, once or not at all.
    /// Answers false if the power went meanwhile.
    pub(crate) async fn check(&self, core: &Core) -> bool {
        let Some(last) = self.sent.last() else { return true };
        let Some(shard) = self.shard(core).await else { return false };
        let Some(found) = read_numbers(core, shard).await else { return false };
        let whole = last.first + last.records;
        let end = found.len() as u64;
        assert!(end == whole || (!last.is_answered && end == last.first), "{end} records of {whole}");
        assert!(found.iter().copied().eq(0..end), "each once, in order: {found:?}");
        true
    }

    async fn shard(&self, core: &Core) -> Option<ShardId> {
        let name = TopicName::new(TOPIC).expect("legal");
        let topic = patiently(core.open_topic(&TenantId::default(), &name)).await?.ok()?;
        Some(topic.shards[0])
    }
}

fn batch(sent: &Sent) -> Bytes {
    let first = i32::try_from(sent.first).expect("a simulation is short");
    let mut builder = BatchBuilder::with_capacity(256).with_producer(ID, 0, first);
    for number in sent.first..sent.first + sent.records {
        builder.push(1, None, Some(&number.to_be_bytes()), []).expect("a few small records fit into a batch");
    }
    builder.finish()
}
