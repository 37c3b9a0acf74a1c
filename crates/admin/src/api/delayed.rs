//! `/delayed`: messages that wait to be published. Their payloads are not shown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use broker::{ScheduleId, Scheduled, Shared};
use model::{Error, ErrorKind, TenantId};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::body::{Asked, Paging, answer};
use super::problem::Problem;

/// Bound: requests that the broker works on at once; others wait for them. A page that is read holds a few payloads in memory.
const AT_ONCE: usize = 2;
/// A request that is not answered after this is refused.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The messages of one tenant.
struct Delayed {
    broker: Arc<Shared>,
    tenant: TenantId,
    permits: Semaphore,
}

/// The routes over the messages of a tenant.
pub(super) fn routes(broker: Arc<Shared>, tenant: TenantId) -> Router {
    Router::new()
        .route("/delayed", get(list))
        .route("/delayed/{id}", delete(cancel))
        .with_state(Arc::new(Delayed { broker, tenant, permits: Semaphore::new(AT_ONCE) }))
}

impl Delayed {
    /// What the broker answers, if it does in time.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Result<T, Problem> {
        let answered = timeout(ANSWER_MAX, async {
            // It is never closed.
            let _permit = self.permits.acquire().await;
            question.await
        });
        let late = "the broker did not answer in time; what was asked for may still come to pass";
        let answered = answered.await.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, late))?;
        answered.map_err(|error| problem(&error))
    }
}

async fn list(
    State(delayed): State<Arc<Delayed>>,
    Asked(paging): Asked<Paging>,
) -> Result<Response, Problem> {
    let after = match &*paging.after {
        "" => None,
        text => Some(ScheduleId::parse(text).ok_or_else(|| {
            Problem::field("after", "must be the id of a delayed message, or the `next` of a page")
        })?),
    };
    let limit = paging.limit();
    // One more tells whether there is a next page.
    let found = delayed.ask(delayed.broker.scheduled(&delayed.tenant, after, limit + 1)).await?;
    let page = &found[..found.len().min(limit)];
    let next = page.last().filter(|_| found.len() > limit).map(|last| last.id.text());
    let shown: Vec<_> = page.iter().map(shown).collect();
    Ok(answer(StatusCode::OK, None, &json!({ "delayed": shown, "next": next })))
}

async fn cancel(State(delayed): State<Arc<Delayed>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let nothing = || Problem::not_found("no message of this id waits (any more)");
    let id = ScheduleId::parse(&id).ok_or_else(nothing)?;
    match delayed.ask(delayed.broker.cancel_scheduled(&delayed.tenant, id)).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(nothing()),
    }
}

fn shown(scheduled: &Scheduled) -> Value {
    let Scheduled { id, due_ms, subject, value_bytes } = scheduled;
    json!({ "id": id.text(), "due_ms": due_ms, "subject": subject, "bytes": value_bytes })
}

fn problem(error: &Error) -> Problem {
    let kind = error.kind();
    let status = if kind == ErrorKind::StorageFull {
        StatusCode::INSUFFICIENT_STORAGE
    } else if kind.is_retryable() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    Problem::new(status, error.to_string())
}
