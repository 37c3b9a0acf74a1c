//! ListGroups (key 16), versions 0 to 5.

use std::collections::BTreeMap;

use broker::access::Action;
use broker::{Broker, Place};
use bytes::{BufMut, Bytes, BytesMut};
use wire::kafka::messages::{ListGroupsRequest, ListGroupsResponse, ListedGroup, StrBytes};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;
use crate::error::coordinator_code;
use crate::groups::GroupView;
use crate::resources;

pub(super) const API: Offered = offered(ApiKey::ListGroups, 0, 5);

/// First version that tells states.
const STATE_SINCE: i16 = 4;
/// First version that tells types.
const TYPE_SINCE: i16 = 5;
/// Rows that one scan asks for.
const PAGE: usize = 1000;
/// Bound: groups without members that are listed.
const LISTED_MAX: usize = 100_000;
/// The protocol of consumers, told for groups that only have offsets.
const CONSUMER: &str = "consumer";

/// Groups with members, and groups that have committed offsets.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: &ListGroupsRequest,
) -> ListGroupsResponse {
    let mut response = ListGroupsResponse::default();
    match list(context).await {
        Ok(groups) => {
            let is_asked = |group: &GroupView| {
                context.may_with_group(Action::Describe, &group.name).is_ok()
                    && matches_any(&request.states_filter, group.state)
                    && matches_any(&request.types_filter, "classic")
            };
            response.groups = groups.into_iter().filter(is_asked).map(|group| row(version, group)).collect();
        }
        Err(code) => response.error_code = code.to_wire(),
    }
    response
}

async fn list<B: Broker>(context: &Context<B>) -> Result<Vec<GroupView>, ErrorCode> {
    let mut groups = BTreeMap::new();
    let rows = context.broker().rows();
    for group in rows.groups() {
        let mut from = Bytes::new();
        while groups.len() < LISTED_MAX {
            let prefix = Bytes::from_static(resources::GROUPS_PREFIX);
            let page = rows.scan(&Place::Group(group), prefix, from.clone(), PAGE).await;
            let page = page.map_err(|error| coordinator_code(&error))?;
            for name in page.iter().filter_map(|row| resources::group_of_key(&row.key)) {
                let protocol_type = CONSUMER.to_owned();
                let view = GroupView {
                    name: name.to_owned(),
                    state: "Empty",
                    protocol_type,
                    ..GroupView::default()
                };
                groups.insert(name.to_owned(), view);
            }
            match page.last() {
                Some(last) if page.len() == PAGE => {
                    let mut next = BytesMut::from(&last.key[..]);
                    next.put_u8(0);
                    from = next.freeze();
                }
                _ => break,
            }
        }
    }
    let live = context.front.groups.list().await?;
    groups.extend(live.into_iter().map(|group| (group.name.clone(), group)));
    Ok(groups.into_values().collect())
}

fn matches_any(filter: &[StrBytes], value: &str) -> bool {
    filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
}

fn row(version: i16, group: GroupView) -> ListedGroup {
    let mut row = ListedGroup::default();
    row.group_id = group.name.into();
    row.protocol_type = group.protocol_type.into();
    if version >= STATE_SINCE {
        row.group_state = group.state.into();
    }
    if version >= TYPE_SINCE {
        row.group_type = "classic".into();
    }
    row
}
