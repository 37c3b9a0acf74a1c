//! DescribeCluster (key 60), versions 0 to 2.

use broker::Broker;
use wire::kafka::messages::{DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;

pub(super) const API: Offered = offered(ApiKey::DescribeCluster, 0, 2);

/// Kafka's numbers for who is asked.
const BROKERS: i8 = 1;
/// Kafka's number for an endpoint that is not served here.
const MISMATCHED_ENDPOINT_TYPE: i16 = 114;
/// Everything that may be done, as Kafka without an authorizer tells it.
const ALL_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// First version that may ask for controllers.
const ENDPOINT_TYPE_SINCE: i16 = 1;

pub(super) fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let mut response = DescribeClusterResponse::default();
    if version >= ENDPOINT_TYPE_SINCE && request.endpoint_type != BROKERS {
        response.error_code = MISMATCHED_ENDPOINT_TYPE;
        response.error_message = Some("this is a listener of a broker".into());
        return response;
    }
    response.error_code = ErrorCode::None.to_wire();
    response.cluster_id = context.broker().cluster_id().as_ref().into();
    response.controller_id = context.node_id();
    let mut broker = DescribeClusterBroker::default();
    broker.broker_id = context.node_id();
    broker.host = context.host.clone();
    broker.port = context.port;
    response.brokers.push(broker);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = ALL_OPERATIONS;
    }
    response
}
