//! A byte budget for the whole node, first in, first out across groups and shards. The bytes themselves lie with their
//! holders. Performance critical: touched once per turn, not once per batch.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use model::ShardId;
use parking_lot::Mutex;

/// Gives up what it holds in memory.
pub(crate) trait Evict: Send + Sync {
    /// Gives up the batches that are named, if they are still held, and whatever is older in their shards.
    fn evict(&self, batches: &[(ShardId, u64)]);
}

/// A batch held in memory: shard, base offset, and what it costs in bytes.
pub(crate) type Holding = (ShardId, u64, u32);

/// What one holder is to give up: shards and base offsets.
type Evicted = Vec<(ShardId, u64)>;

/// Who holds batches in memory, in the order in which they came. What a holder gave up by itself counts on until its turn comes.
pub(crate) struct Budget {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    holders: Vec<Weak<dyn Evict>>,
    queue: VecDeque<Entry>,
    bytes: usize,
}

struct Entry {
    shard: ShardId,
    base: u64,
    cost: u32,
    holder: u32,
}

/// A holder's name.
#[derive(Clone, Copy)]
pub(crate) struct HolderId(u32);

impl Budget {
    /// A budget of about `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, held: Mutex::default() }
    }

    /// Makes a holder known. Holders are as many as groups and live as long as the node.
    pub(crate) fn register(&self, holder: Weak<dyn Evict>) -> HolderId {
        let mut held = self.held.lock();
        held.holders.push(holder);
        HolderId(u32::try_from(held.holders.len() - 1).expect("groups are numbered in 12 bits"))
    }

    /// Accounts what a holder took in, in order, and has the oldest given up where the budget is exceeded. The caller holds
    /// no lock that `evict` takes.
    pub(crate) fn add(&self, holder: HolderId, holdings: &[Holding]) {
        let mut evicted: Vec<(Arc<dyn Evict>, Evicted)> = Vec::new();
        {
            let mut held = self.held.lock();
            for (shard, base, cost) in holdings {
                held.bytes += *cost as usize;
                held.queue.push_back(Entry { shard: *shard, base: *base, cost: *cost, holder: holder.0 });
            }
            let mut by_holder: Vec<Evicted> = Vec::new();
            while held.bytes > self.bytes_max {
                let Some(oldest) = held.queue.pop_front() else { break };
                held.bytes -= oldest.cost as usize;
                let holder = oldest.holder as usize;
                by_holder.resize_with(by_holder.len().max(holder + 1), Vec::new);
                by_holder[holder].push((oldest.shard, oldest.base));
            }
            for (holder, batches) in by_holder.into_iter().enumerate() {
                if let Some(holder) = held.holders[holder].upgrade().filter(|_| !batches.is_empty()) {
                    evicted.push((holder, batches));
                }
            }
        }
        evicted.into_iter().for_each(|(holder, batches)| holder.evict(&batches));
    }

    /// Bytes accounted now.
    pub(crate) fn bytes(&self) -> usize {
        self.held.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use model::{EngineKind, GroupId, TopicNumber};

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<u64>>);

    impl Evict for Recorder {
        fn evict(&self, batches: &[(ShardId, u64)]) {
            self.0.lock().extend(batches.iter().map(|(_, base)| *base));
        }
    }

    #[test]
    fn the_oldest_goes_first_whoever_holds_it() {
        let shard = ShardId::new(EngineKind::Segment, GroupId(1), TopicNumber(1), 0);
        let (budget, quiet, busy) =
            (Budget::new(100), Arc::<Recorder>::default(), Arc::<Recorder>::default());
        let first = budget.register(Arc::downgrade(&quiet) as Weak<dyn Evict>);
        let second = budget.register(Arc::downgrade(&busy) as Weak<dyn Evict>);
        budget.add(first, &[(shard, 0, 40)]);
        budget.add(second, &[(shard, 1, 40), (shard, 2, 20)]);
        assert!(quiet.0.lock().is_empty());
        budget.add(second, &[(shard, 3, 60)]);
        assert_eq!((&*quiet.0.lock(), &*busy.0.lock()), (&vec![0], &vec![1]));
        assert_eq!(budget.bytes(), 80);
    }
}
