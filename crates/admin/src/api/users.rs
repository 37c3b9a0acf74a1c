//! `/users`: those whom the broker itself can recognise. Passwords go in and never come out.

use std::sync::Arc;

use auth::{ChangeUserError, NEW_PASSWORD_BYTES, User, change_user};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use meta::{Expect, Known, MetaError};
use model::Resource as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{Asked, Given, Paging, answer, expected};
use super::problem::Problem;
use super::stored::{self, Shown};
use super::{Api, By};

impl Shown for User {
    const MANY: &'static str = "users";

    fn shown(&self) -> Value {
        json!({
            "name": self.name,
            "superuser": self.superuser,
            "disabled": self.disabled,
            "groups": self.groups,
            "has_password": self.password.is_some(),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    name: String,
    password: Option<String>,
    #[serde(default)]
    superuser: bool,
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    groups: Vec<String>,
}

/// What is not given stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangedUser {
    password: Option<String>,
    superuser: Option<bool>,
    disabled: Option<bool>,
    groups: Option<Vec<String>>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(paging): Asked<Paging>,
) -> Result<Response, Problem> {
    stored::list::<User>(&api, &paging).await
}

pub(super) async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    stored::show::<User>(&api, &name).await
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    by: By,
    Given(new): Given<NewUser>,
) -> Result<Response, Problem> {
    if !new.superuser || new.disabled || new.password.is_none() {
        by.must_be_somebody()?;
    }
    let mut user = User::new(api.tenant.clone(), new.name);
    (user.superuser, user.disabled, user.groups) = (new.superuser, new.disabled, new.groups);
    if let Some(password) = new.password {
        user = with_password(&api, user, &password).await?;
    }
    stored::put(&api, &user, Some(Expect::Absent), true).await
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Given(changed): Given<ChangedUser>,
) -> Result<Response, Problem> {
    let known = found(&api, &name, &headers).await?;
    let mut user = known.resource.clone();
    user.superuser = changed.superuser.unwrap_or(user.superuser);
    user.disabled = changed.disabled.unwrap_or(user.disabled);
    user.groups = changed.groups.unwrap_or(user.groups);
    if let Some(password) = changed.password {
        user = with_password(&api, user, &password).await?;
    }
    let version = store(&api, &known, Some(&user)).await?;
    Ok(answer(StatusCode::OK, Some(version), &user.shown()))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = found(&api, &name, &headers).await?;
    store(&api, &known, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The user of this name, if it is of the version that the request asks for.
async fn found(api: &Api, name: &str, headers: &HeaderMap) -> Result<Known<User>, Problem> {
    let expect = expected(headers)?;
    let known = stored::find::<User>(api, name).await?;
    match expect {
        Some(Expect::Version(version)) if version != known.version => Err(other_version()),
        Some(Expect::Absent) => Err(other_version()),
        Some(Expect::Version(_) | Expect::Present) | None => Ok(known),
    }
}

/// Stores what a user has become, unless it was the last who could use the API. It counts on return.
async fn store(api: &Api, before: &Known<User>, after: Option<&User>) -> Result<u64, Problem> {
    let own = before.resource.path();
    let changed = change_user(&api.resources, before, after).await;
    let revision = changed.map_err(|error| match error {
        ChangeUserError::LastSuperuser => Problem::new(
            StatusCode::CONFLICT,
            "create another superuser with a password first: without this one, nobody could use this API afterwards",
        ),
        ChangeUserError::Store(MetaError::Conflict { key, .. }) if key == own => other_version(),
        ChangeUserError::Store(error) => Problem::from(error),
    })?;
    api.access.caught_up(revision).await;
    Ok(revision)
}

fn other_version() -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "it is not of this version (any more)")
}

async fn with_password(api: &Api, user: User, password: &str) -> Result<User, Problem> {
    if !NEW_PASSWORD_BYTES.contains(&password.len()) {
        return Err(Problem::field("password", "must have 1 to 1024 bytes"));
    }
    let busy = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many passwords wait to be compared");
    api.access.set_password(user, password.as_bytes()).await.map_err(busy)
}
