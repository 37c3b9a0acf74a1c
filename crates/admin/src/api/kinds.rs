//! Resources of other crates (`Kind`): lists in pages, one by its name, written and removed under its version.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use meta::{Expect, MetaError, MetaStore, Transaction, Versioned};
use serde_json::{Map, Value, json};

use super::Api;
use super::body::{Asked, Given, Paging, answer, expected};
use super::problem::Problem;
use crate::kind::Kind;

/// One of the kinds, and where its resources are.
struct Kept {
    api: Arc<Api>,
    kind: Arc<Kind>,
}

type Of = State<Arc<Kept>>;

/// The routes of one kind.
pub(super) fn routes(api: &Arc<Api>, kind: &Arc<Kind>) -> Router {
    let kept = Arc::new(Kept { api: Arc::clone(api), kind: Arc::clone(kind) });
    let (many, one) = (format!("/{}", kind.path), format!("/{}/{{name}}", kind.path));
    let routes = match kind.is_listed {
        true => Router::new().route(&many, get(list).post(create)),
        false => Router::new().route(&many, post(create)),
    };
    routes.route(&one, get(show).put(replace).delete(remove)).with_state(kept)
}

impl Kept {
    fn store(&self) -> &dyn MetaStore {
        &**self.api.resources.store()
    }

    fn path(&self, name: &str) -> String {
        self.kind.stored_path(&self.api.tenant, name)
    }

    async fn find(&self, name: &str) -> Result<Versioned, Problem> {
        let found = self.store().get(&self.path(name)).await?;
        found.ok_or_else(|| Problem::not_found("there is none of this name"))
    }

    /// Whether there is no room for one more.
    async fn is_full(&self) -> Result<bool, MetaError> {
        if self.kind.count_max == usize::MAX {
            return Ok(false);
        }
        let page = self.store().list(&self.path(""), "", self.kind.count_max).await?;
        Ok(page.entries.len() >= self.kind.count_max)
    }

    /// Writes one, and answers its version when it counts.
    async fn put(&self, name: &str, value: &Bytes, expect: Option<Expect>) -> Result<u64, MetaError> {
        let put = Transaction::new().put(self.path(name), value.clone());
        self.change(name, put, expect).await
    }

    /// Changes one if what is there is as expected, and answers the revision when it counts.
    async fn change(
        &self,
        name: &str,
        change: Transaction,
        expect: Option<Expect>,
    ) -> Result<u64, MetaError> {
        let change = match expect {
            Some(expect) => change.check(self.path(name), expect),
            None => change,
        };
        let revision = self.store().transact(change).await?;
        (self.kind.caught_up)(revision).await;
        Ok(revision)
    }

    /// A stored one with its version.
    fn answer(&self, status: StatusCode, at: &Versioned) -> Result<Response, Problem> {
        let shown = self.kind.shown(&at.value).map_err(|error| Problem::from(MetaError::Resource(error)))?;
        Ok(answer(status, Some(at.version), &shown))
    }

    /// What stands in a list for a stored one.
    fn listed(&self, name: &str, stored: &[u8]) -> Value {
        let unreadable = |error: model::ResourceError| json!({ self.kind.name_field: name, "unreadable": error.to_string() });
        self.kind.shown(stored).unwrap_or_else(unreadable)
    }
}

async fn list(State(kept): Of, Asked(paging): Asked<Paging>) -> Result<Response, Problem> {
    let prefix = kept.path("");
    let after = if paging.after.is_empty() { String::new() } else { kept.path(&paging.after) };
    let page = kept.store().list(&prefix, &after, paging.limit()).await?;
    let names = || page.entries.iter().map(|entry| &entry.key[prefix.len()..]);
    let shown: Vec<_> =
        names().zip(&page.entries).map(|(name, entry)| kept.listed(name, &entry.at.value)).collect();
    let next = names().next_back().filter(|_| page.more);
    let many = kept.kind.path.replace('-', "_");
    Ok(answer(StatusCode::OK, None, &json!({ many: shown, "next": next })))
}

async fn show(State(kept): Of, Path(name): Path<String>) -> Result<Response, Problem> {
    let found = kept.find(&name).await?;
    kept.answer(StatusCode::OK, &found)
}

/// One that is there already, with the very same fields, is answered as it is: whoever did not hear an answer may ask again.
async fn create(State(kept): Of, Given(given): Given<Map<String, Value>>) -> Result<Response, Problem> {
    let name = kept.kind.name_in(&given, None)?;
    let value = kept.kind.read(&kept.api.tenant, &name, given)?;
    if let Some(found) = kept.store().get(&kept.path(&name)).await? {
        if found.value != value {
            return Err(Problem::new(StatusCode::CONFLICT, "it is there already, and another one"));
        }
        (kept.kind.caught_up)(found.version).await;
        return kept.answer(StatusCode::OK, &found);
    }
    if kept.is_full().await? {
        return Err(Problem::full(kept.kind.count_max));
    }
    let put = kept.put(&name, &value, Some(Expect::Absent)).await;
    let version = put.map_err(|error| Problem::of_conflict(error, true))?;
    kept.answer(StatusCode::CREATED, &Versioned { value, version })
}

async fn replace(
    State(kept): Of,
    Path(name): Path<String>,
    headers: HeaderMap,
    Given(given): Given<Map<String, Value>>,
) -> Result<Response, Problem> {
    let expect = expected(&headers)?;
    let name = kept.kind.name_in(&given, Some(&name))?;
    let value = kept.kind.read(&kept.api.tenant, &name, given)?;
    let is_new = kept.store().get(&kept.path(&name)).await?.is_none();
    if is_new && kept.is_full().await? {
        return Err(Problem::full(kept.kind.count_max));
    }
    let put = kept.put(&name, &value, expect).await;
    let version = put.map_err(|error| Problem::of_conflict(error, false))?;
    kept.answer(StatusCode::OK, &Versioned { value, version })
}

async fn remove(State(kept): Of, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let expect = expected(&headers)?;
    kept.find(&name).await?;
    let removed = kept.change(&name, Transaction::new().delete(kept.path(&name)), expect).await;
    removed.map_err(|error| Problem::of_conflict(error, false))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
