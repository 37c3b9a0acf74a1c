//! Retention: which shards are to be trimmed now, decided by age and size, made true by committed commands; and what else is over
//! without anybody saying so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::{Command, Group};
use model::ShardId;
use storage::{Change, kv, trim_to};
use tracing::warn;

use crate::node::Shared;
use crate::retained::{self, Round};
use crate::rows::Rows;
use crate::topic::Topic;
use crate::topics;

const HOUR_MS: i64 = 60 * 60 * 1000;
/// How long a producer without new batches is remembered (Spec: kafka 43).
const PRODUCERS_KEPT_MS: i64 = 24 * HOUR_MS;
/// Trims of one command.
const TRIMS_MAX: usize = 1024;

impl Shared {
    /// Trims every shard that has records too old or too many, and once an hour forgets producers that have gone and begins to
    /// remove retained messages that have expired, some thousands with each call.
    /// Answers whether anything was trimmed. Blocks on the rows; for a background thread.
    pub async fn trim_expired(self: &Arc<Self>) -> bool {
        let now = self.clock.wall_ms();
        let hour = now / HOUR_MS;
        let is_new_hour = self.expired_hour.swap(hour, Ordering::Relaxed) != hour;
        let trimmed = self.trim(now, is_new_hour).await;
        // After what makes space.
        self.remove_expired_retained(now, is_new_hour).await;
        trimmed
    }

    async fn trim(&self, now: i64, is_new_hour: bool) -> bool {
        let mut trimmed = false;
        for group in self.node.groups() {
            let due = self.due(group, now, is_new_hour);
            for changes in due.chunks(TRIMS_MAX) {
                let command = Command { changes: changes.to_vec(), ..Command::default() };
                match group.commit(command).await {
                    Ok(_) => trimmed = true,
                    Err(error) => {
                        warn!(group = group.id().0, err = %error, "expired records could not be trimmed");
                        return trimmed;
                    }
                }
            }
        }
        trimmed
    }

    async fn remove_expired_retained(self: &Arc<Self>, now: i64, is_new_hour: bool) {
        let round = self.retained_round.lock().take().or_else(|| is_new_hour.then(Round::default));
        let Some(round) = round else { return };
        match retained::remove_expired(&Rows::new(Arc::clone(self)), now, round).await {
            Ok(next) => *self.retained_round.lock() = next,
            Err(error) => warn!(err = %error, "expired retained messages could not be removed"),
        }
    }

    fn due(&self, group: &Group, now: i64, is_new_hour: bool) -> Vec<Change> {
        let shards = group.log().shards().unwrap_or_else(|error| {
            warn!(group = group.id().0, err = %error, "shards could not be listed for retention");
            Vec::new()
        });
        let trim = |shard| trim_of(group, shard, &*self.topic_of(shard)?, now);
        let mut due: Vec<Change> = shards.into_iter().filter_map(trim).collect();
        let before = now.saturating_sub(PRODUCERS_KEPT_MS);
        if is_new_hour && group.log().applied() > 0 {
            due.push(Change::ExpireProducers { before });
        }
        due
    }

    /// The topic of a shard, from the rows if this node has not met it since it was started. Blocks.
    fn topic_of(&self, shard: ShardId) -> Option<Arc<Topic>> {
        if let Some(topic) = self.directory.by_shard(shard) {
            return Some(topic);
        }
        let reading = self.directory.reading();
        let groups = self.node.groups();
        let home = groups.get(home_index(shard, groups.len()))?;
        let value = |key: &[u8]| Some(kv::decode_value(&home.kv().get(key).ok()??).ok()?.value);
        let name = value(&topics::number_key(b'n', shard.topic().0))?;
        let topic = topics::decode(value(&[b"t", &name[..]].concat())?)?;
        reading.remember(&Arc::new(topic))
    }
}

/// The place, among `groups` groups, of the home of a shard's topic: partitions follow it round the groups.
pub(crate) fn home_index(shard: ShardId, groups: usize) -> usize {
    (shard.home().0 as usize - 1 + groups - usize::from(shard.partition()) % groups) % groups
}

fn trim_of(group: &Group, shard: ShardId, topic: &Topic, now: i64) -> Option<Change> {
    let limits = storage::Retention {
        age_max: topic.config.retention.ms.map(Duration::from_millis),
        bytes_max: topic.config.retention.bytes,
    };
    if limits.age_max.is_none() && limits.bytes_max.is_none() {
        return None;
    }
    let pieces = group.log().describe(shard).ok()?.pieces;
    trim_to(&pieces, &limits, now).map(|to| Change::Trim { shard, to })
}
