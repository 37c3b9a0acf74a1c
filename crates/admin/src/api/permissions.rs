//! `/permissions`: rules with somebody whom they are for.

use std::sync::Arc;

use auth::{Effect, Object, Permission, Right, Who};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use meta::Expect;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{Asked, Given, Paging, expected};
use super::problem::Problem;
use super::stored::{self, Shown};
use super::{Api, By};

impl Shown for Permission {
    const MANY: &'static str = "permissions";

    fn shown(&self) -> Value {
        json!({
            "id": self.id,
            "who": self.who,
            "effect": self.effect,
            "rights": self.rights,
            "object": self.object,
            "patterns": self.patterns,
            "qos": self.qos,
            "retain": self.retain,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenPermission {
    /// In the path when one is replaced.
    id: Option<String>,
    who: Who,
    effect: Effect,
    #[serde(default)]
    rights: Vec<Right>,
    #[serde(default)]
    object: Object,
    patterns: Vec<String>,
    #[serde(default)]
    qos: Vec<u8>,
    retain: Option<bool>,
}

impl GivenPermission {
    fn permission(self, api: &Api, id: String) -> Permission {
        let Self { id: _, who, effect, rights, object, patterns, qos, retain } = self;
        Permission { tenant: api.tenant.clone(), id, who, effect, rights, object, patterns, qos, retain }
    }
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(paging): Asked<Paging>,
) -> Result<Response, Problem> {
    stored::list::<Permission>(&api, &paging).await
}

pub(super) async fn show(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, Problem> {
    stored::show::<Permission>(&api, &id).await
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    by: By,
    Given(mut given): Given<GivenPermission>,
) -> Result<Response, Problem> {
    by.must_be_somebody()?;
    let id = given.id.take().ok_or_else(|| Problem::field("id", "must be given"))?;
    stored::put(&api, &given.permission(&api, id), Some(Expect::Absent), true).await
}

pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    by: By,
    headers: HeaderMap,
    Given(given): Given<GivenPermission>,
) -> Result<Response, Problem> {
    by.must_be_somebody()?;
    if given.id.as_ref().is_some_and(|given| *given != id) {
        return Err(Problem::field("id", "must be that of the path, or left out"));
    }
    stored::put(&api, &given.permission(&api, id), expected(&headers)?, false).await
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stored::remove::<Permission>(&api, &id, &headers).await
}
