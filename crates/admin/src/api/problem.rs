//! [`Problem`]: an answer that says what was wrong, as RFC 9457 has it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meta::MetaError;
use model::ResourceError;
use serde_json::{Map, Value, json};

/// An error as it is answered.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    /// The field of the request that is wrong, if it is one.
    field: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None }
    }

    /// A field of the request breaks a rule.
    pub(crate) fn field(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: rule.into(), field: Some(field.into()) }
    }

    /// The same, told after what had happened before.
    pub(crate) fn after(self, before: &str) -> Self {
        Self { detail: format!("{before}: {}", self.detail), ..self }
    }

    pub(crate) fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
    }

    /// What the store says of a write that was to create something, or to change what has a known version.
    pub(crate) fn of_conflict(error: MetaError, creates: bool) -> Self {
        match error {
            MetaError::Conflict { .. } if creates => Self::new(StatusCode::CONFLICT, "it is there already"),
            MetaError::Conflict { .. } => {
                Self::new(StatusCode::PRECONDITION_FAILED, "it is not of this version (any more)")
            }
            other => Self::from(other),
        }
    }
}

impl From<MetaError> for Problem {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::Resource(ResourceError::Invalid { field, rule, .. }) => Self::field(field, rule),
            MetaError::Resource(other) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, other.to_string()),
            MetaError::Invalid { .. } => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
            MetaError::Conflict { .. } => {
                Self::new(StatusCode::CONFLICT, "it was changed meanwhile; try again")
            }
            MetaError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
            MetaError::NotLeader { .. } | MetaError::Busy | MetaError::Unknown | MetaError::Stopped => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        body.insert("title".into(), self.status.canonical_reason().unwrap_or("Error").into());
        body.insert("status".into(), json!(self.status.as_u16()));
        body.insert("detail".into(), self.detail.into());
        if let Some(field) = self.field {
            body.insert("field".into(), field.into());
        }
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, Value::Object(body).to_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"robustmq\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
