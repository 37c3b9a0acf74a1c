//! `/users/import`: users of another broker come over with the passwords that they have.

use std::sync::Arc;

use auth::{Existing, ImportError, Imported, import_mosquitto};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::body::{Asked, GivenFile, answer};
use super::problem::Problem;
use super::{Api, By};

/// Bound: bytes of a password file, some 60,000 users.
pub(super) const FILE_BYTES_MAX: usize = 8 << 20;

/// The last part of the path. It is one of a user's names too: users are not posted to, so that nothing is lost.
const NAME: &str = "import";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Whether users who exist get the password of the file.
    #[serde(default)]
    replace: bool,
}

/// Takes a password file of Mosquitto.
pub(super) async fn import(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    by: By,
    Asked(wanted): Asked<Wanted>,
    GivenFile(file): GivenFile,
) -> Result<Response, Problem> {
    if name != NAME {
        return Err(Problem::method_not_allowed());
    }
    by.must_be_somebody()?;
    let existing = if wanted.replace { Existing::Replaced } else { Existing::Refused };
    let Imported { created, replaced, revision } =
        import_mosquitto(&api.resources, &api.tenant, &file, existing).await?;
    api.access.caught_up(revision).await;
    Ok(answer(StatusCode::OK, None, &json!({ "created": created, "replaced": replaced })))
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        let detail = error.to_string();
        match error {
            ImportError::TooLarge => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            ImportError::Line { .. } | ImportError::Hash { .. } | ImportError::User { .. } => {
                Self::new(StatusCode::BAD_REQUEST, format!("{detail}; nothing was imported"))
            }
            ImportError::Exists { .. } => {
                let way = "with ?replace=true users who exist get the password of the file";
                Self::new(StatusCode::CONFLICT, format!("{detail}; nothing was imported; {way}"))
            }
            ImportError::Read(source) => Self::from(source),
            ImportError::Store { source, .. } => Self::from(source).after(&detail),
        }
    }
}
