//! Produce (key 0), versions 3 to 11; 0 to 2 are advertised and refused, because librdkafka turns compression off
//! otherwise. Hot path.

use std::collections::VecDeque;

use broker::access::Action;
use broker::{Append, Broker, Topic};
use bytes::Bytes;
use futures_util::future::join_all;
use model::ShardId;
use wire::kafka::{
    ApiKey, ErrorCode, ProducePartition, ProducePartitionAnswer, ProduceRequest, ProduceResponse,
    ProduceTopicAnswer,
};

use super::{Offered, offered};
use crate::context::{Context, shard};
use crate::convert::{self, BatchRules};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::resources::topic_config;

pub(super) const API: Offered = offered(ApiKey::Produce, 0, 11);

/// Whether every topic is known without waiting: then the batches are queued as soon as the request is begun.
pub(super) fn is_resolved<B: Broker>(context: &Context<B>, request: &ProduceRequest) -> bool {
    request.topics.iter().all(|topic| context.cached_topic(&topic.name).is_some())
}

/// Appends each partition's batch as it came; partitions fail on their own.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: ProduceRequest,
) -> ProduceResponse {
    let refused = check_request(&request);
    let mut rules = BatchRules {
        version,
        bytes_max: context.config().message_bytes_max,
        now_ms: context.broker().wall_ms(),
    };
    let mut answers = Vec::with_capacity(request.topics.len());
    let mut appends = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = match &refused {
            Some(refusal) => Err(refusal.clone()),
            None => context
                .topic(Action::Publish, &topic.name)
                .await
                .map_err(|code| Refusal::new(code, code.name())),
        };
        if let Ok(found) = &found {
            rules.bytes_max =
                topic_config::message_bytes_max(found).unwrap_or(context.config().message_bytes_max);
        }
        answers.push((topic.name, topic.partitions.len()));
        for partition in topic.partitions {
            let index = partition.index;
            let checked = found.as_ref().map_err(Clone::clone).and_then(|topic| {
                let checked = check(topic, partition, &rules)?;
                context.may_append(topic, &checked.1)?;
                Ok(checked)
            });
            appends.push(append(context, index, checked));
        }
    }
    let mut outcomes = VecDeque::from(join_all(appends).await);
    let topics = answers.into_iter().map(|(name, count)| {
        let partitions = outcomes.drain(..count).collect();
        ProduceTopicAnswer { name, partitions }
    });
    ProduceResponse { topics: topics.collect(), throttle_time_ms: 0 }
}

/// What is wrong with the request as a whole. Spec: P25.
fn check_request(request: &ProduceRequest) -> Option<Refusal> {
    if request.transactional_id.is_some() {
        return Some(Refusal::new(ErrorCode::InvalidRequest, "transactions are not supported"));
    }
    if !matches!(request.acks, -1..=1) {
        return Some(Refusal::new(ErrorCode::InvalidRequiredAcks, "acks is -1, 0 or 1"));
    }
    None
}

fn check(
    topic: &Topic,
    partition: ProducePartition,
    rules: &BatchRules,
) -> Result<(ShardId, Bytes), Refusal> {
    let shard = shard(topic, partition.index).map_err(|code| Refusal::new(code, "no such partition"))?;
    let Some(records) = partition.records else {
        return Err(Refusal::new(ErrorCode::InvalidRecord, "no records"));
    };
    convert::check_batch(&records, rules)?;
    Ok((shard, records))
}

async fn append<B: Broker>(
    context: &Context<B>,
    index: i32,
    checked: Result<(ShardId, Bytes), Refusal>,
) -> ProducePartitionAnswer {
    let (shard, batch) = match checked {
        Ok(checked) => checked,
        Err(refusal) => return refused(index, refusal),
    };
    Metrics::add(&context.front.metrics.batches_in, 1);
    Metrics::add(&context.front.metrics.batch_bytes_in, batch.len());
    match context.broker().append(shard, batch).await {
        Ok(appended) => appended_answer(context, index, shard, appended),
        Err(error) => refused(index, Refusal::from(&error)),
    }
}

/// Spec: I39 to I42: a duplicate is told with the offset that it got the first time.
fn appended_answer<B: Broker>(
    context: &Context<B>,
    index: i32,
    shard: ShardId,
    appended: Append,
) -> ProducePartitionAnswer {
    let base = match appended {
        Append::Stored { base } | Append::Duplicate { base } => base,
        Append::OutOfOrderSequence => {
            let message = "the sequence does not follow the producer's last batch";
            return refused(index, Refusal::new(ErrorCode::OutOfOrderSequenceNumber, message));
        }
        Append::FencedEpoch => {
            let message = "a newer epoch of this producer has written";
            return refused(index, Refusal::new(ErrorCode::InvalidProducerEpoch, message));
        }
        Append::ShardDropped => {
            return refused(index, Refusal::new(ErrorCode::UnknownTopicOrPartition, "the topic was deleted"));
        }
        Append::AlreadyApplied => {
            return refused(index, Refusal::new(ErrorCode::UnknownServerError, "the append was not decided"));
        }
    };
    let start = context.broker().offsets(shard).map_or(-1, |offsets| offsets.start.to_i64());
    ProducePartitionAnswer {
        index,
        base_offset: base.to_i64(),
        log_start_offset: start,
        ..ProducePartitionAnswer::default()
    }
}

fn refused(index: i32, refusal: Refusal) -> ProducePartitionAnswer {
    ProducePartitionAnswer {
        index,
        error_code: refusal.code.to_wire(),
        error_message: Some(refusal.message.into()),
        ..ProducePartitionAnswer::default()
    }
}
