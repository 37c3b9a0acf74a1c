//! Heartbeat (key 12), versions 0 to 4.

use broker::Broker;
use broker::access::Action;
use wire::kafka::ApiKey;
use wire::kafka::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Offered, offered};
use crate::context::Context;
use crate::groups::Claim;

pub(super) const API: Offered = offered(ApiKey::Heartbeat, 0, 4);

/// Spec: G73.
pub(super) async fn handle<B: Broker>(context: &Context<B>, request: HeartbeatRequest) -> HeartbeatResponse {
    let claim = Claim {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
    };
    let code = match context.may_with_group(Action::Consume, &claim.group) {
        Ok(()) => context.front.groups.heartbeat(claim).await,
        Err(code) => code,
    };
    let mut response = HeartbeatResponse::default();
    response.error_code = code.to_wire();
    response
}
