//! Metadata (key 3), versions 0 to 13. Creates topics when the client and the configuration allow it.

use std::collections::BinaryHeap;
use std::sync::Arc;

use broker::access::Action;
use broker::{Broker, Origin, Topic, TopicSpec};
use model::{ErrorKind, TopicName};
use wire::kafka::messages::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::{Context, LIST_PAGE};
use crate::convert::{self, LEADER_EPOCH};
use crate::error::code_of;

pub(super) const API: Offered = offered(ApiKey::Metadata, 0, 13);

/// First version that may forbid the creation of topics.
const MAY_FORBID_SINCE: i16 = 4;
/// Versions that tell what may be done with the cluster.
const CLUSTER_OPERATIONS: std::ops::RangeInclusive<i16> = 8..=10;
/// First version in which an empty list means no topics; before, it means all. Spec: T14.
const EMPTY_IS_NONE_SINCE: i16 = 1;
/// First version that may leave a topic's name out.
const ID_ONLY_SINCE: i16 = 12;
/// Bound: topics made by first use that an answer about all topics lists.
const FIRST_USE_MAX: usize = 1000;
/// Everything that may be done, as Kafka without an authorizer tells it. Spec: S81.
const ALL_TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
const ALL_CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let mut response = MetadataResponse::default();
    let mut broker = MetadataResponseBroker::default();
    broker.node_id = context.node_id();
    broker.host = context.host.clone();
    broker.port = context.port;
    response.brokers.push(broker);
    response.cluster_id = Some(context.broker().cluster_id().as_ref().into());
    response.controller_id = context.node_id();
    if request.include_cluster_authorized_operations && CLUSTER_OPERATIONS.contains(&version) {
        response.cluster_authorized_operations = ALL_CLUSTER_OPERATIONS;
    }
    let may_create = context.config().auto_create_topics
        && (version < MAY_FORBID_SINCE || request.allow_auto_topic_creation);
    let named = request.topics.filter(|topics| version >= EMPTY_IS_NONE_SINCE || !topics.is_empty());
    match named {
        Some(topics) => {
            for topic in topics {
                response.topics.push(one(context, version, topic, may_create).await);
            }
        }
        None => match all(context).await {
            Ok(topics) => {
                // What may not be seen is not there. Spec: S81.
                let seen = topics.iter().filter(|topic| context.may(Action::Describe, &topic.name).is_ok());
                response.topics = seen.filter_map(|topic| describe_named(context, topic)).collect()
            }
            Err(code) => {
                tracing::warn!(err = code.name(), "topics cannot be listed");
                response.error_code = code.to_wire();
            }
        },
    }
    if request.include_topic_authorized_operations {
        for topic in &mut response.topics {
            topic.topic_authorized_operations = ALL_TOPIC_OPERATIONS;
        }
    }
    response
}

async fn one<B: Broker>(
    context: &Context<B>,
    version: i16,
    asked: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let found = match &asked.name {
        Some(name) => by_name(context, name, may_create).await,
        None => context.search_topic_by_id(convert::topic_id(asked.topic_id)).await,
    };
    let found = found.and_then(|topic| context.may(Action::Describe, &topic.name).map(|()| topic));
    match found {
        Ok(topic) => {
            let mut told = describe(context, &topic);
            told.name = asked.name.or_else(|| topic.name.to_kafka().ok().map(Into::into));
            told
        }
        Err(code) => {
            let mut told = MetadataResponseTopic::default();
            told.error_code = code.to_wire();
            told.topic_id = asked.topic_id;
            // Only these versions can leave the name out.
            told.name = asked.name.or_else(|| (version < ID_ONLY_SINCE).then(Default::default));
            told
        }
    }
}

/// Spec: T15, T16.
async fn by_name<B: Broker>(
    context: &Context<B>,
    name: &str,
    may_create: bool,
) -> Result<Arc<Topic>, ErrorCode> {
    let name = convert::topic_name(name).map_err(|refusal| refusal.code)?;
    context.may(Action::Describe, &name)?;
    let may_create = may_create && context.may(Action::Publish, &name).is_ok();
    match context.topic_of(&name).await {
        Err(ErrorCode::UnknownTopicOrPartition) if may_create => create(context, &name).await,
        found => found,
    }
}

async fn create<B: Broker>(context: &Context<B>, name: &TopicName) -> Result<Arc<Topic>, ErrorCode> {
    let spec = TopicSpec {
        tenant: context.front.tenant.clone(),
        name: name.clone(),
        shards: None,
        origin: Origin::Created,
        config: None,
        dry_run: false,
    };
    match context.broker().create_topic(spec).await {
        Ok(topic) => Ok(topic),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => context.topic_of(name).await,
        // Clients ask again.
        Err(error) if error.kind().is_retryable() => Err(ErrorCode::LeaderNotAvailable),
        Err(error) => Err(code_of(error.kind())),
    }
}

/// What was created on purpose, and the newest of what first use made.
async fn all<B: Broker>(context: &Context<B>) -> Result<Vec<Arc<Topic>>, ErrorCode> {
    let mut listed = Vec::new();
    let mut newest = BinaryHeap::new();
    let mut after: Option<TopicName> = None;
    loop {
        let page = context.broker().list_topics(&context.front.tenant, after.as_ref(), LIST_PAGE).await;
        let page = page.map_err(|error| code_of(error.kind()))?;
        let is_last = page.len() < LIST_PAGE;
        after = page.last().map(|topic| topic.name.clone());
        for topic in page {
            match topic.origin {
                Origin::Created => listed.push(topic),
                Origin::FirstUse => newest.push(ByAge(topic)),
            }
            if newest.len() > FIRST_USE_MAX {
                newest.pop();
            }
        }
        if is_last {
            listed.extend(newest.into_iter().map(|ByAge(topic)| topic));
            listed.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok(listed);
        }
    }
}

/// The oldest topic is the greatest. Numbers are given out in rising order within a group.
struct ByAge(Arc<Topic>);

impl ByAge {
    fn number(&self) -> u32 {
        self.0.shards.first().map_or(0, |shard| shard.topic().0)
    }
}

impl Ord for ByAge {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.number().cmp(&self.number()).then_with(|| self.0.name.cmp(&other.0.name))
    }
}

impl PartialOrd for ByAge {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByAge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByAge {}

/// `None` for a topic that Kafka cannot spell: it is reached through a capture.
fn describe_named<B: Broker>(context: &Context<B>, topic: &Topic) -> Option<MetadataResponseTopic> {
    let mut told = describe(context, topic);
    told.name = Some(topic.name.to_kafka().ok()?.into());
    Some(told)
}

fn describe<B: Broker>(context: &Context<B>, topic: &Topic) -> MetadataResponseTopic {
    context.front.topic_ids.remember(topic);
    let mut told = MetadataResponseTopic::default();
    told.topic_id = convert::uuid(topic.id);
    let node = context.node_id();
    told.partitions = (0..topic.shards.len())
        .map(|index| {
            let mut partition = MetadataResponsePartition::default();
            partition.partition_index = index as i32;
            partition.leader_id = node;
            partition.leader_epoch = LEADER_EPOCH;
            partition.replica_nodes = vec![node];
            partition.isr_nodes = vec![node];
            partition
        })
        .collect();
    told
}
