//! DescribeConfigs (key 32), versions 1 to 4.

use broker::Broker;
use broker::access::Action;
use wire::kafka::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, StrBytes,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;
use crate::error::Refusal;
use crate::resources::topic_config::{SETTINGS, ValueKind};

pub(super) const API: Offered = offered(ApiKey::DescribeConfigs, 1, 4);

/// First version that tells kinds and documentation.
const DOCUMENTED_SINCE: i16 = 3;
/// Kafka's numbers for resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Kafka's numbers for where a value comes from.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_BROKER: i8 = 4;

/// A setting with its value.
struct Shown {
    name: &'static str,
    value: String,
    kind: ValueKind,
    documentation: &'static str,
}

/// Spec: S82: every setting that we know, with its value.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let mut response = DescribeConfigsResponse::default();
    for resource in request.resources {
        let mut told = DescribeConfigsResult::default();
        told.resource_type = resource.resource_type;
        told.resource_name = resource.resource_name.clone();
        match shown(context, &resource).await {
            Ok(shown) => {
                let is_asked = |shown: &Shown| match &resource.configuration_keys {
                    Some(keys) => keys.iter().any(|key: &StrBytes| &**key == shown.name),
                    None => true,
                };
                let asked = shown.into_iter().filter(is_asked);
                let with_documentation = version >= DOCUMENTED_SINCE && request.include_documentation;
                told.configs =
                    asked.map(|shown| row(version, &resource, shown, with_documentation)).collect();
            }
            Err(refusal) => {
                told.error_code = refusal.code.to_wire();
                told.error_message = Some(refusal.message.into());
            }
        }
        response.results.push(told);
    }
    response
}

async fn shown<B: Broker>(
    context: &Context<B>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Shown>, Refusal> {
    let bytes_max = context.config().message_bytes_max;
    match resource.resource_type {
        TOPIC => {
            let topic = context.topic(Action::Describe, &resource.resource_name).await;
            let topic = topic.map_err(|code| Refusal::new(code, code.name()))?;
            let row = |setting: &crate::resources::topic_config::Setting| Shown {
                name: setting.name,
                value: setting.value(&topic.config, bytes_max),
                kind: setting.kind,
                documentation: setting.documentation,
            };
            Ok(SETTINGS.iter().map(row).collect())
        }
        BROKER if is_ours(context, &resource.resource_name) => Ok(vec![
            Shown {
                name: "auto.create.topics.enable",
                value: context.config().auto_create_topics.to_string(),
                kind: ValueKind::String,
                documentation: "Whether asking for an unknown topic creates it.",
            },
            Shown {
                name: "message.max.bytes",
                value: bytes_max.to_string(),
                kind: ValueKind::Int,
                documentation: "Largest record batch in bytes.",
            },
        ]),
        BROKER => Err(Refusal::new(ErrorCode::InvalidRequest, "no such broker")),
        _ => Err(Refusal::new(ErrorCode::InvalidRequest, "only topics and brokers have settings")),
    }
}

fn is_ours<B: Broker>(context: &Context<B>, name: &str) -> bool {
    name.is_empty() || name == context.node_id().to_string()
}

fn row(
    version: i16,
    resource: &DescribeConfigsResource,
    shown: Shown,
    with_documentation: bool,
) -> DescribeConfigsResourceResult {
    let mut row = DescribeConfigsResourceResult::default();
    row.name = shown.name.into();
    row.value = Some(shown.value.into());
    row.read_only = true;
    row.config_source = if resource.resource_type == TOPIC { SOURCE_TOPIC } else { SOURCE_BROKER };
    if version >= DOCUMENTED_SINCE {
        row.config_type = shown.kind as i8;
    }
    if with_documentation {
        row.documentation = Some(shown.documentation.into());
    }
    row
}
