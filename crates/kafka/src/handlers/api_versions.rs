//! ApiVersions (key 18), versions 0 to 4.

use wire::kafka::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, ErrorCode};

use super::{Offered, offered, ranges};

pub(super) const API: Offered = offered(ApiKey::ApiVersions, 0, 4);

/// Spec: V9, V11.
pub(super) fn handle(version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    if !request.is_valid(version) {
        let error_code = ErrorCode::InvalidRequest.to_wire();
        return ApiVersionsResponse { error_code, ..ApiVersionsResponse::default() };
    }
    ApiVersionsResponse { error_code: 0, apis: ranges(), throttle_time_ms: 0 }
}

/// The answer to a version that we do not speak: what the client needs to try again. Spec: V8.
pub(super) fn fallback() -> ApiVersionsResponse {
    let own = API.key.to_wire();
    ApiVersionsResponse::fallback(ranges().into_iter().filter(|range| range.key == own).collect())
}
