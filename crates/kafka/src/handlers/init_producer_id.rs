//! InitProducerId (key 22), versions 0 to 5: idempotent producers only.

use broker::Broker;
use wire::kafka::messages::{InitProducerIdRequest, InitProducerIdResponse};
use wire::kafka::{ApiKey, ErrorCode};

use super::{Offered, offered};
use crate::context::Context;
use crate::error::coordinator_code;

pub(super) const API: Offered = offered(ApiKey::InitProducerId, 0, 5);

/// Spec: I38.
pub(super) async fn handle<B: Broker>(
    context: &Context<B>,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let id = match request.transactional_id {
        Some(_) => Err(ErrorCode::InvalidRequest),
        None => context.new_producer_id().await.map_err(|error| coordinator_code(&error)),
    };
    let mut response = InitProducerIdResponse::default();
    match id {
        Ok(id) => {
            // Invariant: ids are given out below `i64::MAX`.
            response.producer_id = id as i64;
            response.producer_epoch = 0;
        }
        Err(code) => {
            response.error_code = code.to_wire();
            (response.producer_id, response.producer_epoch) = (-1, -1);
        }
    }
    response
}
