//! `/users`: those whom the broker itself can recognise. Passwords go in and never come out.

use std::sync::Arc;

use auth::{NEW_PASSWORD_BYTES, User};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use meta::Expect;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{Asked, Given, Paging, expected};
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
    let expect = expected(&headers)?;
    let known = stored::find::<User>(&api, &name).await?;
    if expect.is_some_and(|expect| matches!(expect, Expect::Version(version) if version != known.version)) {
        return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "it is not of this version (any more)"));
    }
    let mut user = known.resource;
    user.superuser = changed.superuser.unwrap_or(user.superuser);
    user.disabled = changed.disabled.unwrap_or(user.disabled);
    user.groups = changed.groups.unwrap_or(user.groups);
    if let Some(password) = changed.password {
        user = with_password(&api, user, &password).await?;
    }
    stored::put(&api, &user, Some(Expect::Version(known.version)), false).await
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stored::remove::<User>(&api, &name, &headers).await
}

async fn with_password(api: &Api, user: User, password: &str) -> Result<User, Problem> {
    if !NEW_PASSWORD_BYTES.contains(&password.len()) {
        return Err(Problem::field("password", "must have 1 to 1024 bytes"));
    }
    let busy = |_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many passwords wait to be compared");
    api.access.set_password(user, password.as_bytes()).await.map_err(busy)
}
