//! Retention: which shards are to be trimmed now, decided by age and size, made true by committed commands.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Command, Group};
use model::{GroupId, ShardId};
use storage::{Change, trim_to};
use tracing::warn;

use crate::node::Shared;
use crate::topic::Topic;

/// Trims of one command.
const TRIMS_MAX: usize = 1024;

impl Shared {
    /// Trims every shard of this node's topics that has records too old or too many. Answers whether anything was
    /// trimmed. Reads descriptions only; for a background thread.
    pub async fn trim_expired(&self) -> bool {
        let now = self.clock.wall_ms();
        let mut trimmed = false;
        for group in self.node.groups() {
            let due = self.due(group, now);
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

    fn due(&self, group: &Group, now: i64) -> Vec<Change> {
        let shards = self.directory.shards_of(group.id());
        shards.into_iter().filter_map(|(shard, topic)| trim_of(group, shard, &topic, now)).collect()
    }
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

/// The shards of a group that are known here, with their topics.
pub(crate) type ShardsOfGroup = Vec<(ShardId, Arc<Topic>)>;

impl crate::topics::Directory {
    pub(crate) fn shards_of(&self, group: GroupId) -> ShardsOfGroup {
        self.each_shard(|shard| shard.home() == group)
    }
}
