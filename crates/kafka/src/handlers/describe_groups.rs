//! DescribeGroups (key 15), versions 0 to 5.

use broker::Broker;
use broker::access::Action;
use wire::kafka::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember, StrBytes,
};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;
use crate::error::coordinator_code;
use crate::groups::{GroupView, MemberView};
use crate::resources;

pub(super) const API: Offered = offered(ApiKey::DescribeGroups, 0, 5);

/// First version that tells static members.
const INSTANCE_SINCE: i16 = 4;
/// First version that tells what may be done with a group.
const OPERATIONS_SINCE: i16 = 3;
/// Everything that may be done, as Kafka without an authorizer tells it.
const ALL_OPERATIONS: i32 = 0b1_0100_1000;

/// A group that nobody ever used is told as dead, without an error. Spec: G78.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut response = DescribeGroupsResponse::default();
    let names: Vec<String> = request.groups.iter().map(ToString::to_string).collect();
    let views = context.front.groups.describe(names).await;
    let views = views.map_err(|code| vec![Err(code); request.groups.len()]);
    let views = match views {
        Ok(views) => views.into_iter().map(Ok).collect(),
        Err(refused) => refused,
    };
    for (name, view) in request.groups.into_iter().zip(views) {
        let view = context.may_with_group(Action::Describe, &name).and(view);
        let view = match view {
            Ok(Some(view)) => Ok(view),
            Ok(None) => without_members(context, &name).await,
            Err(code) => Err(code),
        };
        let mut told = match view {
            Ok(view) => describe(version, view),
            Err(code) => {
                let mut told = DescribedGroup::default();
                told.error_code = code.to_wire();
                told
            }
        };
        told.group_id = name;
        if version >= OPERATIONS_SINCE && request.include_authorized_operations {
            told.authorized_operations = ALL_OPERATIONS;
        }
        response.groups.push(told);
    }
    response
}

async fn without_members<B: Broker>(context: &Context<B>, name: &StrBytes) -> Result<GroupView, ErrorCode> {
    let row = context.broker().rows().get(&resources::place(name), resources::group_key(name)).await;
    let has_offsets = row.map_err(|error| coordinator_code(&error))?.is_some();
    let state = if has_offsets { "Empty" } else { "Dead" };
    Ok(GroupView { name: name.to_string(), state, ..GroupView::default() })
}

fn describe(version: i16, view: GroupView) -> DescribedGroup {
    let mut told = DescribedGroup::default();
    told.group_state = view.state.into();
    told.protocol_type = view.protocol_type.into();
    told.protocol_data = view.protocol.into();
    let member = |member: MemberView| {
        let mut told = DescribedGroupMember::default();
        told.member_id = member.id.into();
        if version >= INSTANCE_SINCE {
            told.group_instance_id = member.instance.map(Into::into);
        }
        told.client_id = member.client_id.into();
        told.client_host = member.client_host.into();
        told.member_metadata = member.metadata;
        told.member_assignment = member.assignment;
        told
    };
    told.members = view.members.into_iter().map(member).collect();
    told
}
