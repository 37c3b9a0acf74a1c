//! SyncGroup (key 14), versions 0 to 5.

use broker::Broker;
use broker::access::Action;
use wire::kafka::ApiKey;
use wire::kafka::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{Offered, offered};
use crate::context::Context;
use crate::groups::{Sync, own};

pub(super) const API: Offered = offered(ApiKey::SyncGroup, 0, 5);

/// First version that tells the protocol.
const PROTOCOL_SINCE: i16 = 5;

/// Waits for the leader's assignment. Spec: G72.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let assignment = |each: &wire::kafka::messages::SyncGroupRequestAssignment| {
        (each.member_id.to_string(), own(&each.assignment))
    };
    let sync = Sync {
        token: 0,
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
        protocol_type: request.protocol_type.map(|name| name.to_string()),
        protocol: request.protocol_name.map(|name| name.to_string()),
        assignments: request.assignments.iter().map(assignment).collect(),
    };
    let mut response = SyncGroupResponse::default();
    if let Err(code) = context.may_with_group(Action::Consume, &sync.group) {
        response.error_code = code.to_wire();
        return response;
    }
    let answer = context.front.groups.sync(sync).await;
    response.error_code = answer.error.to_wire();
    if version >= PROTOCOL_SINCE {
        response.protocol_type = answer.protocol_type.map(Into::into);
        response.protocol_name = answer.protocol.map(Into::into);
    }
    response.assignment = answer.assignment;
    response
}
