//! CreateTopics (key 19), versions 2 to 7.

use std::sync::Arc;

use broker::access::Action;
use broker::{Broker, Origin, Topic, TopicSpec};
use wire::kafka::messages::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
    StrBytes,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;
use crate::convert;
use crate::error::Refusal;
use crate::resources::topic_config::{self, SETTINGS};

pub(super) const API: Offered = offered(ApiKey::CreateTopics, 2, 7);

/// First version in which -1 partitions and replicas mean the defaults.
const DEFAULTS_SINCE: i16 = 4;
/// First version that tells what was created.
const DETAILS_SINCE: i16 = 5;
/// First version that tells the topic's id.
const ID_SINCE: i16 = 7;
/// Kafka's number for a value that was set on the topic.
const SOURCE_TOPIC: i8 = 1;

/// Spec: T21. Topics fail on their own.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut response = CreateTopicsResponse::default();
    let names: Vec<StrBytes> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    for topic in &request.topics {
        if response.topics.iter().any(|told| told.name == topic.name) {
            continue;
        }
        let is_twice = names.iter().filter(|name| **name == topic.name).count() > 1;
        let created = if is_twice {
            Err(Refusal::new(ErrorCode::InvalidRequest, "the topic is named twice in the request"))
        } else {
            create(context, version, topic, request.validate_only).await
        };
        let mut told = CreatableTopicResult::default();
        told.name = topic.name.clone();
        match created {
            Ok(created) => describe(context, version, &created, request.validate_only, &mut told),
            Err(refusal) => {
                told.error_code = refusal.code.to_wire();
                told.error_message = Some(refusal.message.into());
            }
        }
        response.topics.push(told);
    }
    response
}

async fn create<B: Broker>(
    context: &Context<B>,
    version: i16,
    topic: &CreatableTopic,
    is_dry_run: bool,
) -> Result<Arc<Topic>, Refusal> {
    let name = convert::topic_name(&topic.name)?;
    context.may(Action::Create, &name).map_err(|code| Refusal::new(code, code.name()))?;
    let shards = partitions(version, topic, context.node_id())?;
    let mut spec = TopicSpec {
        tenant: context.front.tenant.clone(),
        name,
        shards,
        origin: Origin::Created,
        config: None,
        dry_run: is_dry_run,
    };
    if !topic.configs.is_empty() {
        // What is not given stays as the broker has it by default.
        let planned = context.broker().create_topic(TopicSpec { dry_run: true, ..spec.clone() }).await;
        let mut config = planned.map_err(|error| Refusal::from(&error))?.config.clone();
        let given = topic.configs.iter().map(|config| (&*config.name, config.value.as_deref()));
        topic_config::apply(&mut config, given)?;
        spec.config = Some(config);
    }
    context.broker().create_topic(spec).await.map_err(|error| Refusal::from(&error))
}

/// The number of partitions that is asked for; `None` for the default.
fn partitions(version: i16, topic: &CreatableTopic, node: i32) -> Result<Option<u16>, Refusal> {
    if !topic.assignments.is_empty() {
        return assigned(topic, node).map(Some);
    }
    let may_default = version >= DEFAULTS_SINCE;
    match topic.replication_factor {
        1 => {}
        -1 if may_default => {}
        factor => {
            let message = format!("replication factor {factor}, when there is 1 broker");
            return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
        }
    }
    match topic.num_partitions {
        -1 if may_default => Ok(None),
        count => match u16::try_from(count) {
            Ok(count @ 1..) => Ok(Some(count)),
            _ => {
                let message = format!("{count} partitions, when 1 to 65535 are possible");
                Err(Refusal::new(ErrorCode::InvalidPartitions, message))
            }
        },
    }
}

fn assigned(topic: &CreatableTopic, node: i32) -> Result<u16, Refusal> {
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message = "an assignment excludes numbers of partitions and replicas";
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let refuse =
        || Refusal::new(ErrorCode::InvalidReplicaAssignment, "each partition must be on the one broker");
    let mut indexes: Vec<i32> =
        topic.assignments.iter().map(|assignment| assignment.partition_index).collect();
    indexes.sort_unstable();
    let is_dense = indexes.iter().copied().eq(0..indexes.len() as i32);
    if !is_dense || topic.assignments.iter().any(|assignment| assignment.broker_ids != [node]) {
        return Err(refuse());
    }
    u16::try_from(indexes.len()).map_err(|_| refuse())
}

fn describe<B: Broker>(
    context: &Context<B>,
    version: i16,
    topic: &Topic,
    is_dry_run: bool,
    told: &mut CreatableTopicResult,
) {
    if version >= ID_SINCE && !is_dry_run {
        context.front.topic_ids.remember(topic);
        told.topic_id = convert::uuid(topic.id);
    }
    if version < DETAILS_SINCE {
        return;
    }
    told.num_partitions = topic.shards.len() as i32;
    told.replication_factor = 1;
    let shown = SETTINGS.iter().map(|setting| {
        let mut shown = CreatableTopicConfigs::default();
        shown.name = setting.name.into();
        shown.value = Some(setting.value(&topic.config, context.config().message_bytes_max).into());
        shown.config_source = SOURCE_TOPIC;
        shown
    });
    told.configs = Some(shown.collect());
}

#[cfg(test)]
mod tests {
    use wire::kafka::messages::CreatableReplicaAssignment;

    use super::*;

    fn asked(partitions: i32, replicas: i16, assignments: &[(i32, i32)]) -> CreatableTopic {
        let mut topic = CreatableTopic::default();
        topic.num_partitions = partitions;
        topic.replication_factor = replicas;
        topic.assignments = assignments
            .iter()
            .map(|(partition, node)| {
                let mut assignment = CreatableReplicaAssignment::default();
                assignment.partition_index = *partition;
                assignment.broker_ids = vec![*node];
                assignment
            })
            .collect();
        topic
    }

    #[test]
    fn numbers_of_partitions_and_replicas() {
        let code = |version, topic| partitions(version, &topic, 5).map_err(|refusal| refusal.code);
        assert_eq!(code(4, asked(-1, -1, &[])), Ok(None));
        assert_eq!(code(2, asked(3, 1, &[])), Ok(Some(3)));
        assert_eq!(code(2, asked(-1, 1, &[])), Err(ErrorCode::InvalidPartitions));
        assert_eq!(code(4, asked(0, 1, &[])), Err(ErrorCode::InvalidPartitions));
        assert_eq!(code(4, asked(-2, 1, &[])), Err(ErrorCode::InvalidPartitions));
        assert_eq!(code(4, asked(65_536, 1, &[])), Err(ErrorCode::InvalidPartitions));
        assert_eq!(code(4, asked(1, 2, &[])), Err(ErrorCode::InvalidReplicationFactor));
        assert_eq!(code(4, asked(1, 0, &[])), Err(ErrorCode::InvalidReplicationFactor));
        assert_eq!(code(4, asked(-1, -1, &[(1, 5), (0, 5)])), Ok(Some(2)));
        assert_eq!(code(4, asked(-1, -1, &[(0, 5), (0, 5)])), Err(ErrorCode::InvalidReplicaAssignment));
        assert_eq!(code(4, asked(-1, -1, &[(0, 6)])), Err(ErrorCode::InvalidReplicaAssignment));
        assert_eq!(code(4, asked(1, -1, &[(0, 5)])), Err(ErrorCode::InvalidRequest));
    }
}
