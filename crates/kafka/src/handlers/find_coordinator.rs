//! FindCoordinator (key 10), versions 0 to 4.

use broker::Broker;
use broker::access::Action;
use wire::kafka::messages::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;
use crate::error::Refusal;

pub(super) const API: Offered = offered(ApiKey::FindCoordinator, 0, 4);

/// First version that asks about several keys.
const SEVERAL_SINCE: i16 = 4;
/// Kafka's numbers for what is coordinated.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// We coordinate every group ourselves.
pub(super) fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let refused = match request.key_type {
        GROUP => None,
        TRANSACTION => {
            Some(Refusal::new(ErrorCode::CoordinatorNotAvailable, "transactions are not supported"))
        }
        _ => Some(Refusal::new(ErrorCode::InvalidRequest, "only groups have a coordinator")),
    };
    let mut response = FindCoordinatorResponse::default();
    if version >= SEVERAL_SINCE {
        for key in &request.coordinator_keys {
            let mut told = Coordinator::default();
            told.key = key.clone();
            match &refused.clone().or_else(|| denied(context, key)) {
                None => (told.node_id, told.host, told.port) = here(context),
                Some(refusal) => {
                    (told.node_id, told.port) = (-1, -1);
                    told.error_code = refusal.code.to_wire();
                    told.error_message = Some(refusal.message.as_str().into());
                }
            }
            response.coordinators.push(told);
        }
        return response;
    }
    match refused.or_else(|| denied(context, &request.key)) {
        None => (response.node_id, response.host, response.port) = here(context),
        Some(refusal) => {
            (response.node_id, response.port) = (-1, -1);
            response.error_code = refusal.code.to_wire();
            response.error_message = Some(refusal.message.into());
        }
    }
    response
}

fn denied<B: Broker>(context: &Context<B>, group: &str) -> Option<Refusal> {
    let may = context.may_with_group(Action::Describe, group);
    may.err().map(|code| Refusal::new(code, code.name()))
}

fn here<B: Broker>(context: &Context<B>) -> (i32, wire::kafka::messages::StrBytes, i32) {
    (context.node_id(), context.host.clone(), context.port)
}
