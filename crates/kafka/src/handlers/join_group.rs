//! JoinGroup (key 11), versions 0 to 9.

use broker::Broker;
use broker::access::Action;
use wire::kafka::messages::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use wire::kafka::{ApiKey, RequestHeader};

use super::{Offered, offered};
use crate::context::Context;
use crate::groups::{Join, Joined, own};

pub(super) const API: Offered = offered(ApiKey::JoinGroup, 0, 9);

/// First version with a timeout of its own for the rebalance.
const REBALANCE_TIMEOUT_SINCE: i16 = 1;
/// First version in which a new member learns its id before it joins. Spec: G68.
const MUST_KNOW_ID_SINCE: i16 = 4;
/// First version with static members.
const INSTANCE_SINCE: i16 = 5;
/// Bytes of a client's name that its member id repeats.
const NAME_IN_ID_MAX: usize = 255;
/// First version that tells the protocol's type, and may leave its name out.
const PROTOCOL_TYPE_SINCE: i16 = 7;
/// First version in which a leader may be told that the assignment stands.
const SKIP_SINCE: i16 = 9;

/// Waits for the rebalance to end. Spec: G68 to G71, G75.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    header: &RequestHeader,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let client_id = header.client_id.as_deref().unwrap_or_default().to_owned();
    let random = (u128::from(context.broker().random()) << 64) | u128::from(context.broker().random());
    // A timeout below zero is outside of what is allowed, as zero is.
    let ms = |ms: i32| u64::try_from(ms).unwrap_or(0);
    let session_timeout = ms(request.session_timeout_ms);
    let rebalance_timeout = if header.version >= REBALANCE_TIMEOUT_SINCE {
        ms(request.rebalance_timeout_ms)
    } else {
        session_timeout
    };
    let join = Join {
        token: 0,
        group: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        new_member_id: new_member_id(request.group_instance_id.as_deref().unwrap_or(&client_id), random),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
        client_id,
        client_host: match context.peer.address.ip() {
            Some(ip) => format!("/{}", ip.to_canonical()),
            None => context.peer.address.to_string(),
        },
        session_timeout,
        rebalance_timeout,
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .iter()
            .map(|each| (each.name.to_string(), own(&each.metadata)))
            .collect(),
        must_know_id: header.version >= MUST_KNOW_ID_SINCE,
        can_skip_assignment: header.version >= SKIP_SINCE,
    };
    respond(
        header.version,
        match context.may_with_group(Action::Consume, &join.group) {
            Ok(()) => context.front.groups.join(join).await,
            Err(code) => Joined::refused(code),
        },
    )
}

/// Kafka's form: the client's name, or its beginning, and something that nobody guesses.
fn new_member_id(name: &str, random: u128) -> String {
    let name = &name[..name.floor_char_boundary(NAME_IN_ID_MAX)];
    format!("{name}-{}", model::TopicId(random))
}

fn respond(version: i16, joined: Joined) -> JoinGroupResponse {
    let mut response = JoinGroupResponse::default();
    response.error_code = joined.error.to_wire();
    response.generation_id = joined.generation;
    if version >= PROTOCOL_TYPE_SINCE {
        response.protocol_type = joined.protocol_type.map(Into::into);
        response.protocol_name = joined.protocol.map(Into::into);
    } else {
        response.protocol_name = Some(joined.protocol.unwrap_or_default().into());
    }
    response.leader = joined.leader.into();
    response.skip_assignment = joined.skip_assignment;
    response.member_id = joined.member_id.into();
    let member = |member: crate::groups::JoinedMember| {
        let mut told = JoinGroupResponseMember::default();
        told.member_id = member.id.into();
        if version >= INSTANCE_SINCE {
            told.group_instance_id = member.instance.map(Into::into);
        }
        told.metadata = member.metadata;
        told
    };
    response.members = joined.members.into_iter().map(member).collect();
    response
}
