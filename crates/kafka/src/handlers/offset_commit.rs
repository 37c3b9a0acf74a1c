//! OffsetCommit (key 8), versions 2 to 9.

use broker::access::Action;
use broker::{Broker, RowWrite};
use wire::kafka::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::{Context, shard};
use crate::groups::{Claim, Commit, own};
use crate::resources::{self, CommittedOffset};

pub(super) const API: Offered = offered(ApiKey::OffsetCommit, 2, 9);

/// Bound: bytes that a client may keep beside an offset. Spec: G76.
const METADATA_MAX: usize = 4096;

/// Answers when the offsets are durable. Spec: G76.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let group = request.group_id.to_string();
    let mut writes = Vec::new();
    let mut response = OffsetCommitResponse::default();
    for topic in request.topics {
        response.topics.push(prepare(context, &group, topic, &mut writes).await);
    }
    let may = context.may_with_group(Action::Consume, &group);
    let claim = Claim {
        group,
        generation: request.generation_id_or_member_epoch,
        member_id: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
    };
    let code = match may {
        Ok(()) => context.front.groups.commit(Commit { claim, writes }).await,
        Err(code) => code,
    };
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions.filter(|partition| partition.error_code == 0) {
        partition.error_code = code.to_wire();
    }
    response
}

/// Says what is wrong with single partitions, and gathers the rows of the others.
async fn prepare<B: Broker>(
    context: &Context<B>,
    group: &str,
    asked: OffsetCommitRequestTopic,
    writes: &mut Vec<RowWrite>,
) -> OffsetCommitResponseTopic {
    let found = context.topic(Action::Consume, &asked.name).await;
    let mut told = OffsetCommitResponseTopic::default();
    for partition in &asked.partitions {
        let mut answer = OffsetCommitResponsePartition::default();
        answer.partition_index = partition.partition_index;
        let checked = found.as_ref().map_err(|code| *code).and_then(|topic| {
            shard(topic, partition.partition_index)?;
            let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
            if metadata.len() > METADATA_MAX {
                return Err(ErrorCode::OffsetMetadataTooLarge);
            }
            Ok(topic)
        });
        match checked {
            Ok(topic) => {
                let row = row(partition, topic.id, context.broker().wall_ms());
                let key = resources::offset_key(group, &topic.name, partition.partition_index as u32);
                writes.push(RowWrite::Put { key, value: row.encode() });
            }
            Err(code) => answer.error_code = code.to_wire(),
        }
        told.partitions.push(answer);
    }
    told.name = asked.name;
    told
}

fn row(partition: &OffsetCommitRequestPartition, topic: model::TopicId, time_ms: i64) -> CommittedOffset {
    let metadata = partition.committed_metadata.clone().unwrap_or_default();
    CommittedOffset {
        topic,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        time_ms,
        metadata: own(&metadata.into_bytes()),
    }
}
