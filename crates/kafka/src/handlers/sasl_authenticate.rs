//! SaslAuthenticate (key 36), versions 0 to 2.

use broker::Broker;
use wire::kafka::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use wire::kafka::{ApiKey, ErrorCode, Response};

use super::{Handled, Offered, offered};
use crate::context::Context;
use crate::login::Failure;

pub(super) const API: Offered = offered(ApiKey::SaslAuthenticate, 0, 2);

/// Spec: S80.
pub(super) async fn handle<B: Broker>(context: &Context<B>, request: SaslAuthenticateRequest) -> Handled {
    let mut response = SaslAuthenticateResponse::default();
    response.error_message = None;
    let (code, message) = match context.log_in(&request.auth_bytes).await {
        Ok(taken) => {
            response.auth_bytes = taken.token;
            response.session_lifetime_ms = taken.lifetime_ms;
            return Handled::Response(Response::SaslAuthenticate(response));
        }
        // Clients take any error as final, and a connection that breaks as something to be tried again.
        Err(Failure::Unavailable) => return Handled::Close,
        Err(Failure::OutOfTurn) => (ErrorCode::IllegalSaslState, "a SaslHandshake has to come before it"),
        Err(Failure::Refused) => (ErrorCode::SaslAuthenticationFailed, "user or proof is not accepted"),
    };
    response.error_code = code.to_wire();
    response.error_message = Some(message.into());
    Handled::Farewell(Response::SaslAuthenticate(response))
}
