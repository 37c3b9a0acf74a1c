//! DeleteGroups (key 42), versions 0 to 2.

use broker::Broker;
use broker::access::Action;
use wire::kafka::ApiKey;
use wire::kafka::messages::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};

use super::{Offered, offered};
use crate::context::Context;

pub(super) const API: Offered = offered(ApiKey::DeleteGroups, 0, 2);

/// Spec: G78.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut response = DeleteGroupsResponse::default();
    for name in request.groups_names {
        let mut told = DeletableGroupResult::default();
        let code = match context.may_with_group(Action::Delete, &name) {
            Ok(()) => context.front.groups.delete(name.to_string()).await,
            Err(code) => code,
        };
        told.error_code = code.to_wire();
        told.group_id = name;
        response.results.push(told);
    }
    response
}
