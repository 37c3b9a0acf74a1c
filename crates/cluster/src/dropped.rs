//! Which shards were dropped, as the rows of a group know it: a batch that comes too late is refused by the log, and so are
//! the rows that came with it.
//!
//! ```text
//! x <shard u64>  ->  nothing      version: index of the entry that dropped the shard
//! ```
//!
//! Invariant: what is kept here follows from the entries that the rows have, as the log's own memory follows from those of the
//! log; both remember a drop for the same number of entries (the log of the RocksDB engine for longer, which nobody sees: no
//! batch is that late), so that they refuse the same batches.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use model::ShardId;
use storage::DROPPED_ENTRIES;
use storage::kv::{Kv, KvError, Operation, decode_value};

const PREFIX: &[u8] = b"x";

/// Dropped shards.
#[derive(Default)]
pub(crate) struct Dropped {
    /// With the index of the last drop.
    shards: BTreeMap<ShardId, u64>,
    /// Every drop, in log order.
    order: VecDeque<(u64, ShardId)>,
}

impl Dropped {
    /// What the rows tell. Blocks on them.
    pub(crate) fn load(kv: &dyn Kv) -> Result<Self, KvError> {
        const DAMAGED: KvError = KvError::Damaged { what: "the note of a dropped shard" };
        let mut shards = BTreeMap::new();
        for row in kv.scan(PREFIX, b"", usize::MAX)? {
            let number = row.key[PREFIX.len()..].try_into().map_err(|_| DAMAGED)?;
            let shard = ShardId::from_u64(u64::from_be_bytes(number)).map_err(|_| DAMAGED)?;
            shards.insert(shard, decode_value(&row.value)?.version);
        }
        let mut order: Vec<_> = shards.iter().map(|(shard, index)| (*index, *shard)).collect();
        order.sort_unstable();
        Ok(Self { shards, order: order.into() })
    }

    /// Whether a batch of the entry `index` comes too late. Hot path: nearly always there is nothing to look up.
    #[inline]
    pub(crate) fn refuses(&self, shard: ShardId, index: u64) -> bool {
        !self.shards.is_empty()
            && self.shards.get(&shard).is_some_and(|dropped| index <= dropped.saturating_add(DROPPED_ENTRIES))
    }

    /// The entry `index` drops a shard: notes it, and forgets what was dropped so long ago that nothing comes any more. `rows` gets
    /// what makes that durable.
    pub(crate) fn note(&mut self, shard: ShardId, index: u64, rows: &mut Vec<Operation>) {
        let horizon = index.saturating_sub(DROPPED_ENTRIES);
        while let Some((dropped, old)) = self.order.pop_front_if(|(dropped, _)| *dropped < horizon) {
            // It may have been dropped again: dropping is begun anew after a crash.
            if self.shards.get(&old) == Some(&dropped) {
                self.shards.remove(&old);
                rows.push(Operation::Delete { key: key(old) });
            }
        }
        self.shards.insert(shard, index);
        self.order.push_back((index, shard));
        rows.push(Operation::Put { key: key(shard), value: Bytes::new() });
    }
}

fn key(shard: ShardId) -> Bytes {
    let mut key = BytesMut::with_capacity(PREFIX.len() + 8);
    key.put_slice(PREFIX);
    key.put_u64(shard.to_u64());
    key.freeze()
}

#[cfg(test)]
mod tests {
    use model::{EngineKind, GroupId, TopicNumber};

    use super::*;

    fn shard(number: u32) -> ShardId {
        ShardId::new(EngineKind::Segment, GroupId(1), TopicNumber(number), 0)
    }

    #[test]
    fn a_drop_is_known_as_long_as_the_log_knows_it_and_then_its_row_goes() {
        let mut dropped = Dropped::default();
        let mut rows = Vec::new();
        dropped.note(shard(1), 10, &mut rows);
        assert_eq!(rows, [Operation::Put { key: key(shard(1)), value: Bytes::new() }]);
        assert!(dropped.refuses(shard(1), 10 + DROPPED_ENTRIES));
        assert!(!dropped.refuses(shard(1), 11 + DROPPED_ENTRIES));
        assert!(!dropped.refuses(shard(2), 11));
        rows.clear();
        dropped.note(shard(2), 11 + DROPPED_ENTRIES, &mut rows);
        let wanted = [
            Operation::Delete { key: key(shard(1)) },
            Operation::Put { key: key(shard(2)), value: Bytes::new() },
        ];
        assert_eq!(rows, wanted);
    }
}
