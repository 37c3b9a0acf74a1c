//! OffsetForLeaderEpoch (key 23), versions 2 to 4. Asked because Metadata tells an epoch.

use broker::Broker;
use broker::access::Action;
use wire::kafka::messages::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::{Context, check_epoch, shard};
use crate::convert::LEADER_EPOCH;
use crate::error::code_of;

pub(super) const API: Offered = offered(ApiKey::OffsetForLeaderEpoch, 2, 4);

/// Spec: T20.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in request.topics {
        let found = context.topic(Action::Describe, &topic.topic).await;
        let mut told = OffsetForLeaderTopicResult::default();
        for partition in &topic.partitions {
            let shard =
                found.as_ref().map_err(|code| *code).and_then(|topic| shard(topic, partition.partition));
            let end = shard.and_then(|shard| {
                check_epoch(partition.current_leader_epoch)?;
                context.broker().offsets(shard).map_err(|error| code_of(error.kind()))
            });
            told.partitions.push(answer(partition, end.map(|offsets| offsets.end.to_i64())));
        }
        told.topic = topic.topic;
        response.topics.push(told);
    }
    response
}

fn answer(partition: &OffsetForLeaderPartition, end: Result<i64, ErrorCode>) -> EpochEndOffset {
    let mut answer = EpochEndOffset::default();
    answer.partition = partition.partition;
    (answer.leader_epoch, answer.end_offset) = (-1, -1);
    match end {
        Ok(end) if partition.leader_epoch == LEADER_EPOCH => {
            (answer.leader_epoch, answer.end_offset) = (LEADER_EPOCH, end);
        }
        // Nothing was ever written in another epoch.
        Ok(_) => {}
        Err(code) => answer.error_code = code.to_wire(),
    }
    answer
}
