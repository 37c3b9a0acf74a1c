//! ListOffsets (key 2), versions 1 to 7.

use broker::access::Action;
use broker::{Broker, TimeHit, TimeQuery};
use model::ShardId;
use wire::kafka::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::{Context, check_epoch, shard};
use crate::convert::LEADER_EPOCH;
use crate::error::code_of;

pub(super) const API: Offered = offered(ApiKey::ListOffsets, 1, 7);

/// First version that tells a leader epoch.
const LEADER_EPOCH_SINCE: i16 = 4;
/// First version that may ask for the record with the largest timestamp.
const LARGEST_SINCE: i16 = 7;

/// Times that mean something else. Spec: L63.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const LARGEST: i64 = -3;

pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let found = context.topic(Action::Describe, &topic.name).await;
        let mut told = ListOffsetsTopicResponse::default();
        for partition in topic.partitions {
            let shard = found
                .as_ref()
                .map_err(|code| *code)
                .and_then(|topic| shard(topic, partition.partition_index));
            let hit =
                match shard.and_then(|shard| check_epoch(partition.current_leader_epoch).map(|()| shard)) {
                    Ok(shard) => find(context, version, shard, &partition).await,
                    Err(code) => Err(code),
                };
            told.partitions.push(answer(version, &partition, hit));
        }
        told.name = topic.name;
        response.topics.push(told);
    }
    response
}

/// Offset and timestamp; -1 for what is not there.
async fn find<B: Broker>(
    context: &Context<B>,
    version: i16,
    shard: ShardId,
    partition: &ListOffsetsPartition,
) -> Result<(i64, i64), ErrorCode> {
    let query = match partition.timestamp {
        LATEST | EARLIEST => {
            let offsets = context.broker().offsets(shard).map_err(|error| code_of(error.kind()))?;
            let offset = if partition.timestamp == LATEST { offsets.end } else { offsets.start };
            return Ok((offset.to_i64(), -1));
        }
        LARGEST if version >= LARGEST_SINCE => TimeQuery::Largest,
        time if time >= 0 => TimeQuery::AtOrAfter(time),
        _ => return Err(ErrorCode::InvalidRequest),
    };
    let hit = context.broker().offset_for_time(shard, query).await.map_err(|error| code_of(error.kind()))?;
    Ok(hit.map_or((-1, -1), |TimeHit { offset, timestamp }| (offset.to_i64(), timestamp)))
}

fn answer(
    version: i16,
    partition: &ListOffsetsPartition,
    hit: Result<(i64, i64), ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let mut answer = ListOffsetsPartitionResponse::default();
    answer.partition_index = partition.partition_index;
    match hit {
        Ok((offset, timestamp)) => {
            answer.offset = offset;
            answer.timestamp = timestamp;
            if version >= LEADER_EPOCH_SINCE && offset >= 0 {
                answer.leader_epoch = LEADER_EPOCH;
            }
        }
        Err(code) => {
            answer.error_code = code.to_wire();
            (answer.offset, answer.timestamp) = (-1, -1);
        }
    }
    answer
}
