//! SaslHandshake (key 17), versions 0 and 1.

use broker::Broker;
use wire::kafka::messages::{SaslHandshakeRequest, SaslHandshakeResponse};
use wire::kafka::{ApiKey, ErrorCode, Response};

use super::{Handled, Offered, offered};
use crate::context::Context;
use crate::login::{Carrier, Method};

pub(super) const API: Offered = offered(ApiKey::SaslHandshake, 0, 1);

/// Spec: S80.
pub(super) fn handle<B: Broker>(
    context: &Context<B>,
    version: i16,
    request: &SaslHandshakeRequest,
) -> Handled {
    let mut response = SaslHandshakeResponse::default();
    response.mechanisms = Method::ALL.iter().map(|method| method.name().into()).collect();
    match Method::from_name(&request.mechanism) {
        Some(method) => {
            let carrier = if version == 0 { Carrier::Frames } else { Carrier::Requests };
            context.begin_login(method, carrier);
            Handled::Response(Response::SaslHandshake(response))
        }
        None => {
            response.error_code = ErrorCode::UnsupportedSaslMechanism.to_wire();
            Handled::Farewell(Response::SaslHandshake(response))
        }
    }
}
