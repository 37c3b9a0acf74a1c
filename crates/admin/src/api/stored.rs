//! What users, permissions and bans have in common: they are resources of the tenant that are listed, shown, written and
//! removed under their version, and count on this node when the answer goes out.

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use meta::{Expect, Known};
use model::Resource;
use serde_json::{Value, json};

use super::Api;
use super::body::{Paging, answer, expected};
use super::problem::Problem;

/// A kind of resource as the API shows it.
pub(crate) trait Shown: Resource {
    /// What a list of them is called.
    const MANY: &'static str;

    /// What operators see of it: never a secret.
    fn shown(&self) -> Value;

    /// Whether it has ended by itself, and is as if it were not there.
    fn has_ended(&self, now_ms: i64) -> bool {
        let _ = now_ms;
        false
    }
}

/// A page: `{"users": [...], "next": "name" or null}`.
pub(crate) async fn list<R: Shown>(api: &Api, paging: &Paging) -> Result<Response, Problem> {
    let prefix = api.key("");
    let after = if paging.after.is_empty() { String::new() } else { api.key(&paging.after) };
    let page = api.resources.list::<R>(&prefix, &after, paging.limit()).await?;
    let now_ms = api.clock.wall_ms();
    let stored = page.resources.iter().map(|known| &known.resource);
    let shown: Vec<_> = stored.filter(|one| !one.has_ended(now_ms)).map(R::shown).collect();
    let next = page.next.as_deref().and_then(|key| key.strip_prefix(&prefix));
    Ok(answer(StatusCode::OK, None, &json!({ R::MANY: shown, "next": next })))
}

/// One, with its version.
pub(crate) async fn show<R: Shown>(api: &Api, name: &str) -> Result<Response, Problem> {
    let known = find::<R>(api, name).await?;
    Ok(answer(StatusCode::OK, Some(known.version), &known.resource.shown()))
}

pub(crate) async fn find<R: Shown>(api: &Api, name: &str) -> Result<Known<R>, Problem> {
    let found = api.resources.get::<R>(&api.key(name)).await?;
    let found = found.filter(|known| !known.resource.has_ended(api.clock.wall_ms()));
    found.ok_or_else(|| Problem::not_found("there is none of this name"))
}

/// Writes one if what is there is as expected.
pub(crate) async fn put<R: Shown>(
    api: &Api,
    resource: &R,
    expect: Option<Expect>,
    creates: bool,
) -> Result<Response, Problem> {
    let version = api.resources.put(resource, expect).await;
    let version = version.map_err(|error| Problem::of_conflict(error, creates))?;
    api.access.caught_up(version).await;
    let status = if creates { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer(status, Some(version), &resource.shown()))
}

/// Removes one.
pub(crate) async fn remove<R: Shown>(
    api: &Api,
    name: &str,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let expect = expected(headers)?;
    find::<R>(api, name).await?;
    let removed = api.resources.delete::<R>(&api.key(name), expect).await;
    let revision = removed.map_err(|error| Problem::of_conflict(error, false))?;
    api.access.caught_up(revision).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}
