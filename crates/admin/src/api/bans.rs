//! `/bans`: those who are kept out, whatever they can prove.

use std::sync::Arc;

use auth::{Ban, Banned, store_ban};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use meta::Expect;
use model::Resource as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::body::{Asked, Given, Paging, answer};
use super::problem::Problem;
use super::stored::{self, Shown};

impl Shown for Ban {
    const MANY: &'static str = "bans";

    fn shown(&self) -> Value {
        json!({ "id": self.id, "who": self.who, "until_ms": self.until_ms, "reason": self.reason })
    }

    fn has_ended(&self, now_ms: i64) -> bool {
        Ban::has_ended(self, now_ms)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBan {
    id: String,
    who: Banned,
    /// When it ends, in milliseconds since 1970.
    until_ms: Option<i64>,
    /// How long it holds from now on, instead.
    for_seconds: Option<u32>,
    #[serde(default)]
    reason: String,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(paging): Asked<Paging>,
) -> Result<Response, Problem> {
    stored::list::<Ban>(&api, &paging).await
}

pub(super) async fn show(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, Problem> {
    stored::show::<Ban>(&api, &id).await
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Given(new): Given<NewBan>,
) -> Result<Response, Problem> {
    let now_ms = api.clock.wall_ms();
    let until_ms = match (new.until_ms, new.for_seconds) {
        (Some(_), Some(_)) => return Err(Problem::field("for_seconds", "must not be given with until_ms")),
        (None, Some(0)) => return Err(Problem::field("for_seconds", "must be at least 1")),
        (Some(until_ms), None) if until_ms <= now_ms => {
            return Err(Problem::field("until_ms", "must be a time to come, in milliseconds since 1970"));
        }
        (until_ms, None) => until_ms,
        (None, Some(seconds)) => Some(now_ms + i64::from(seconds) * 1000),
    };
    let tenant = Some(api.tenant.as_str().to_owned());
    let ban = Ban { tenant, id: new.id, who: new.who, until_ms, reason: new.reason };
    // In place of one that has ended.
    let expect = match api.resources.get::<Ban>(&ban.key()).await? {
        Some(known) if Ban::has_ended(&known.resource, now_ms) => Expect::Version(known.version),
        Some(_) | None => Expect::Absent,
    };
    let version = store_ban(&api.access, &api.resources, &ban, Some(expect)).await;
    let version = version.map_err(|error| Problem::of_conflict(error, true))?;
    api.access.caught_up(version).await;
    Ok(answer(StatusCode::CREATED, Some(version), &ban.shown()))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    stored::remove::<Ban>(&api, &id, &headers).await
}
