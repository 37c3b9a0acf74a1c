//! Fetch (key 1), versions 4 to 17. Hot path: record data is never copied. Waiting costs nothing: readers are woken.

use std::time::Duration;

use broker::access::Action;
use broker::{Broker, Watch};
use bytes::Bytes;
use futures_util::future::select_all;
use model::{Offset, ShardId};
use tokio::time::Instant;
use wire::kafka::{
    ApiKey, ErrorCode, FetchPartition, FetchPartitionAnswer, FetchRequest, FetchResponse, FetchTopicAnswer,
};

use super::{Offered, offered};
use crate::context::{Context, check_epoch, shard};
use crate::convert;
use crate::error::code_of;
use crate::metrics::Metrics;

pub(super) const API: Offered = offered(ApiKey::Fetch, 4, 17);

/// First version in which topics go by id.
const TOPIC_ID_SINCE: i16 = 13;

/// One partition to be read.
struct Wanted {
    topic: usize,
    partition: FetchPartition,
    shard: Result<ShardId, ErrorCode>,
}

/// Limits of one round of reading.
struct Round {
    version: i16,
    /// Bytes that may still be returned.
    budget: usize,
    /// Bytes that are returned.
    bytes: usize,
    has_error: bool,
    watches: Vec<Watch>,
}

/// Spec: F51 to F62.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: FetchRequest,
) -> FetchResponse {
    if request.session_id != 0 {
        // Every fetch is complete in itself. Spec: F59.
        let error_code = ErrorCode::FetchSessionIdNotFound.to_wire();
        return FetchResponse { error_code, ..FetchResponse::default() };
    }
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(context.config().fetch_bytes_max);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0).min(bytes_max.max(1));
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + wait.min(context.config().fetch_wait_max);
    let wanted = resolve(context, version, &request).await;
    let names: Vec<_> = request.topics.into_iter().map(|topic| (topic.name, topic.topic_id)).collect();
    let is_committed_only = request.isolation_level == 1;
    let answers = loop {
        let mut round = Round { version, budget: bytes_max, bytes: 0, has_error: false, watches: Vec::new() };
        let answers = read_all(context, &wanted, &mut round, is_committed_only).await;
        let is_enough = round.bytes >= bytes_min || round.has_error || round.watches.is_empty();
        if is_enough || Instant::now() >= deadline {
            Metrics::add(&context.front.metrics.record_bytes_out, round.bytes);
            break answers;
        }
        // At the deadline, one more look: what came is sent even if it is less than was asked for. Spec: F52.
        let _ = tokio::time::timeout_at(deadline, select_all(round.watches)).await;
    };
    let mut topics: Vec<FetchTopicAnswer> = names
        .into_iter()
        .map(|(name, topic_id)| FetchTopicAnswer { name, topic_id, partitions: Vec::new() })
        .collect();
    for (wanted, answer) in wanted.iter().zip(answers) {
        topics[wanted.topic].partitions.push(answer);
    }
    FetchResponse { throttle_time_ms: 0, error_code: 0, session_id: 0, topics }
}

async fn resolve<B: Broker>(context: &Context<B>, version: i16, request: &FetchRequest) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for (nth, topic) in request.topics.iter().enumerate() {
        let found = if version >= TOPIC_ID_SINCE {
            context.topic_by_id(convert::topic_id(topic.topic_id)).await
        } else {
            context.topic(Action::Consume, &topic.name).await
        };
        let found = found.and_then(|topic| context.may_read(&topic).map(|()| topic));
        for partition in &topic.partitions {
            let shard = found.as_ref().map_err(|code| *code).and_then(|topic| shard(topic, partition.index));
            let shard = shard.and_then(|shard| check_epoch(partition.current_leader_epoch).map(|()| shard));
            wanted.push(Wanted { topic: nth, partition: *partition, shard });
        }
    }
    wanted
}

/// Reads each partition once, within the budget. The first batch is returned whatever its size. Spec: F55.
///
/// Where the reading begins moves on with the offsets that were read, so that a partition with much to read does not keep
/// the last one from its turn.
async fn read_all<B: Broker>(
    context: &Context<B>,
    wanted: &[Wanted],
    round: &mut Round,
    is_committed_only: bool,
) -> Vec<FetchPartitionAnswer> {
    let sum = wanted.iter().fold(0_u64, |sum, wanted| sum.wrapping_add(wanted.partition.fetch_offset as u64));
    let first = if wanted.is_empty() { 0 } else { (sum % wanted.len() as u64) as usize };
    let mut answers = vec![FetchPartitionAnswer::default(); wanted.len()];
    for nth in (first..wanted.len()).chain(0..first) {
        let read = match wanted[nth].shard {
            Ok(shard) => read(context, shard, &wanted[nth].partition, round).await,
            Err(code) => Err((code, FetchPartitionAnswer::default())),
        };
        let mut answer = read.unwrap_or_else(|(code, answer)| {
            round.has_error = true;
            FetchPartitionAnswer { error_code: gone_code(code, round.version), ..answer }
        });
        answer.index = wanted[nth].partition.index;
        answer.aborted_transactions = is_committed_only.then(Vec::new);
        answers[nth] = answer;
    }
    answers
}

/// A shard that is gone, as the version names topics. Spec: F60, F62.
fn gone_code(code: ErrorCode, version: i16) -> i16 {
    let is_by_id = version >= TOPIC_ID_SINCE && code == ErrorCode::UnknownTopicOrPartition;
    if is_by_id { ErrorCode::UnknownTopicId.to_wire() } else { code.to_wire() }
}

async fn read<B: Broker>(
    context: &Context<B>,
    shard: ShardId,
    partition: &FetchPartition,
    round: &mut Round,
) -> Result<FetchPartitionAnswer, (ErrorCode, FetchPartitionAnswer)> {
    let mut answer = FetchPartitionAnswer::default();
    let refuse = |code: ErrorCode, answer: &FetchPartitionAnswer| (code, answer.clone());
    let offsets = context.broker().offsets(shard).map_err(|error| refuse(code_of(error.kind()), &answer))?;
    answer.high_watermark = offsets.end.to_i64();
    answer.last_stable_offset = offsets.end.to_i64();
    answer.log_start_offset = offsets.start.to_i64();
    let from = Offset::from_i64(partition.fetch_offset)
        .filter(|from| (offsets.start..=offsets.end).contains(from))
        .ok_or_else(|| refuse(ErrorCode::OffsetOutOfRange, &answer))?;
    if from < offsets.end && (round.budget > 0 || round.bytes == 0) {
        let records = read_records(context, shard, from, partition, round).await;
        answer.records = records.map_err(|code| refuse(code, &answer))?;
        // More may have been committed while we read: a reader is never told less than it gets.
        let end = context.broker().offsets(shard).map_or(offsets.end, |offsets| offsets.end);
        answer.high_watermark = end.to_i64();
        answer.last_stable_offset = end.to_i64();
    }
    let watch = context.broker().watch(shard, offsets.end);
    round.watches.push(watch.map_err(|error| refuse(code_of(error.kind()), &answer))?);
    Ok(answer)
}

async fn read_records<B: Broker>(
    context: &Context<B>,
    shard: ShardId,
    from: Offset,
    partition: &FetchPartition,
    round: &mut Round,
) -> Result<Vec<Bytes>, ErrorCode> {
    let bytes_max = usize::try_from(partition.partition_max_bytes).unwrap_or(0).min(round.budget);
    let batches = context.broker().read(shard, from, bytes_max).await;
    let batches = batches.map_err(|error| code_of(error.kind()))?;
    let size: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
    if size > round.budget && round.bytes > 0 {
        // Its turn comes in a later request.
        round.budget = 0;
        return Ok(Vec::new());
    }
    let records = convert::records(&batches, round.version)?;
    round.bytes += size;
    round.budget = round.budget.saturating_sub(size);
    Ok(records)
}
