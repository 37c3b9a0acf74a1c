//! LeaveGroup (key 13), versions 0 to 5.

use broker::Broker;
use broker::access::Action;
use wire::kafka::messages::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;
use crate::groups::Leave;

pub(super) const API: Offered = offered(ApiKey::LeaveGroup, 0, 5);

/// First version in which several members leave at once.
const SEVERAL_SINCE: i16 = 3;

/// Spec: G74.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let members = if version >= SEVERAL_SINCE {
        let member = |member: &wire::kafka::messages::MemberIdentity| {
            (member.member_id.to_string(), member.group_instance_id.as_ref().map(ToString::to_string))
        };
        request.members.iter().map(member).collect()
    } else {
        vec![(request.member_id.to_string(), None)]
    };
    let mut response = LeaveGroupResponse::default();
    if request.group_id.is_empty() {
        response.error_code = ErrorCode::InvalidGroupId.to_wire();
        return response;
    }
    if let Err(code) = context.may_with_group(Action::Consume, &request.group_id) {
        response.error_code = code.to_wire();
        return response;
    }
    let codes = context.front.groups.leave(Leave { group: request.group_id.to_string(), members }).await;
    if version < SEVERAL_SINCE {
        response.error_code = codes.first().map_or(0, |code| code.to_wire());
        return response;
    }
    let told = request.members.into_iter().zip(codes).map(|(member, code)| {
        let mut told = MemberResponse::default();
        told.member_id = member.member_id;
        told.group_instance_id = member.group_instance_id;
        told.error_code = code.to_wire();
        told
    });
    response.members = told.collect();
    response
}
