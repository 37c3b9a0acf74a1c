//! OffsetFetch (key 9), versions 1 to 9.

use std::collections::BTreeMap;

use broker::access::Action;
use broker::{Broker, Row};
use bytes::{BufMut, Bytes, BytesMut};
use model::TopicName;
use wire::kafka::messages::{
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics, StrBytes,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;
use crate::error::coordinator_code;
use crate::resources::{self, CommittedOffset};

pub(super) const API: Offered = offered(ApiKey::OffsetFetch, 1, 9);

/// First version that tells an error of the group as a whole.
const GROUP_ERROR_SINCE: i16 = 2;
/// First version that tells leader epochs.
const LEADER_EPOCH_SINCE: i16 = 5;
/// First version that asks about several groups.
const SEVERAL_SINCE: i16 = 8;
/// Rows that one scan asks for.
const PAGE: usize = 1000;

/// What is asked for: all topics, or these with their partitions.
type Asked = Option<Vec<(StrBytes, Vec<i32>)>>;
/// Committed offsets of one topic.
type Found = (StrBytes, Vec<(i32, Option<CommittedOffset>)>);

/// What was never committed is told as -1 without an error. Spec: G77.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let mut response = OffsetFetchResponse::default();
    if version >= SEVERAL_SINCE {
        for group in request.groups {
            let asked = group.topics.map(|topics| {
                topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
            });
            let mut told = OffsetFetchResponseGroup::default();
            match fetch(context, &group.group_id, asked).await {
                Ok(found) => told.topics = found.into_iter().map(topics).collect(),
                Err(code) => told.error_code = code.to_wire(),
            }
            told.group_id = group.group_id;
            response.groups.push(told);
        }
        return response;
    }
    let asked: Asked = request
        .topics
        .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect());
    match fetch(context, &request.group_id, asked.clone()).await {
        Ok(found) => {
            response.topics = found.into_iter().map(|found| topic(version, found, ErrorCode::None)).collect()
        }
        Err(code) if version >= GROUP_ERROR_SINCE => response.error_code = code.to_wire(),
        Err(code) => {
            let unknown = |(name, indexes): (StrBytes, Vec<i32>)| {
                topic(version, (name, indexes.into_iter().map(|index| (index, None)).collect()), code)
            };
            response.topics = asked.unwrap_or_default().into_iter().map(unknown).collect();
        }
    }
    response
}

async fn fetch<B: Broker>(context: &Context<B>, group: &str, asked: Asked) -> Result<Vec<Found>, ErrorCode> {
    if group.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    context.may_with_group(Action::Consume, group)?;
    let Some(asked) = asked else { return fetch_all(context, group).await };
    let mut found = Vec::with_capacity(asked.len());
    for (name, indexes) in asked {
        let mut committed = match TopicName::from_kafka(&name) {
            Ok(topic) => fetch_topic(context, group, &topic).await?,
            Err(_) => BTreeMap::new(),
        };
        let told = |index: i32| (index, u32::try_from(index).ok().and_then(|index| committed.remove(&index)));
        let told = indexes.into_iter().map(told).collect();
        found.push((name, told));
    }
    Ok(found)
}

async fn fetch_all<B: Broker>(context: &Context<B>, group: &str) -> Result<Vec<Found>, ErrorCode> {
    let mut topics: BTreeMap<TopicName, Vec<(i32, Option<CommittedOffset>)>> = BTreeMap::new();
    for row in scan(context, group, resources::offsets_prefix(group)).await? {
        let Some((topic, partition)) = resources::topic_of_key(&row.key, group) else { continue };
        let Some(committed) = CommittedOffset::decode(row.value) else { continue };
        topics.entry(topic).or_default().push((partition as i32, Some(committed)));
    }
    let mut found = Vec::with_capacity(topics.len());
    for (name, mut partitions) in topics {
        let id = match context.topic_of(&name).await {
            Ok(topic) => topic.id,
            Err(ErrorCode::UnknownTopicOrPartition) => continue,
            Err(_) => return Err(ErrorCode::CoordinatorNotAvailable),
        };
        partitions.retain(|(_, committed)| committed.as_ref().is_some_and(|committed| committed.topic == id));
        if let (Ok(name), false) = (name.to_kafka(), partitions.is_empty()) {
            found.push((name.into(), partitions));
        }
    }
    Ok(found)
}

/// The offsets of one topic, without those of an earlier topic of that name.
async fn fetch_topic<B: Broker>(
    context: &Context<B>,
    group: &str,
    name: &TopicName,
) -> Result<BTreeMap<u32, CommittedOffset>, ErrorCode> {
    let topic = match context.topic_of(name).await {
        Ok(topic) => topic,
        Err(ErrorCode::UnknownTopicOrPartition) => return Ok(BTreeMap::new()),
        // Never -1 for what may only be unreachable: a client would start all over.
        Err(_) => return Err(ErrorCode::CoordinatorNotAvailable),
    };
    let rows = scan(context, group, resources::topic_prefix(group, name)).await?;
    let committed = rows.into_iter().filter_map(|row| {
        let (_, partition) = resources::topic_of_key(&row.key, group)?;
        let committed = CommittedOffset::decode(row.value)?;
        (committed.topic == topic.id).then_some((partition, committed))
    });
    Ok(committed.collect())
}

async fn scan<B: Broker>(context: &Context<B>, group: &str, prefix: Bytes) -> Result<Vec<Row>, ErrorCode> {
    let (rows, place) = (context.broker().rows(), resources::place(group));
    let mut found: Vec<Row> = Vec::new();
    loop {
        let from = found.last().map_or_else(Bytes::new, |last| {
            let mut from = BytesMut::from(&last.key[..]);
            from.put_u8(0);
            from.freeze()
        });
        let page = rows.scan(&place, prefix.clone(), from, PAGE).await;
        let page = page.map_err(|error| coordinator_code(&error))?;
        let is_last = page.len() < PAGE;
        found.extend(page);
        if is_last {
            return Ok(found);
        }
    }
}

/// Offset, leader epoch and metadata as they are told.
fn told(committed: Option<CommittedOffset>) -> (i64, i32, StrBytes) {
    committed.map_or((-1, -1, StrBytes::default()), |committed| {
        let metadata = StrBytes::try_from(committed.metadata).unwrap_or_default();
        (committed.offset, committed.leader_epoch, metadata)
    })
}

fn topic(version: i16, (name, partitions): Found, code: ErrorCode) -> OffsetFetchResponseTopic {
    let mut answer = OffsetFetchResponseTopic::default();
    answer.name = name;
    let partition = |(index, committed): (i32, Option<CommittedOffset>)| {
        let (offset, leader_epoch, metadata) = told(committed);
        let mut partition = OffsetFetchResponsePartition::default();
        partition.partition_index = index;
        partition.committed_offset = offset;
        if version >= LEADER_EPOCH_SINCE {
            partition.committed_leader_epoch = leader_epoch;
        }
        partition.metadata = Some(metadata);
        partition.error_code = code.to_wire();
        partition
    };
    answer.partitions = partitions.into_iter().map(partition).collect();
    answer
}

fn topics((name, partitions): Found) -> OffsetFetchResponseTopics {
    let mut answer = OffsetFetchResponseTopics::default();
    answer.name = name;
    let partition = |(index, committed): (i32, Option<CommittedOffset>)| {
        let (offset, leader_epoch, metadata) = told(committed);
        let mut partition = OffsetFetchResponsePartitions::default();
        partition.partition_index = index;
        partition.committed_offset = offset;
        partition.committed_leader_epoch = leader_epoch;
        partition.metadata = Some(metadata);
        partition
    };
    answer.partitions = partitions.into_iter().map(partition).collect();
    answer
}
