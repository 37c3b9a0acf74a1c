//! `/clients/{id}/history`, `/slow-subscriptions`, `/topic-metrics`: what a front saw, and what it is asked to count. Entries are
//! shown as the front gives them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use serde::Deserialize;
use serde_json::json;

use super::body::{Given, answer};
use super::problem::Problem;
use crate::observed::{Observed, TopicRefused};

type Seen = State<Arc<dyn Observed>>;

/// The routes over what was seen.
pub(super) fn routes(observed: Arc<dyn Observed>) -> Router {
    Router::new()
        .route("/clients/{id}/history", get(history))
        .route("/slow-subscriptions", get(slow).delete(clear_slow))
        .route("/topic-metrics", get(metrics).post(register))
        .route("/topic-metrics/{filter}", delete(unregister))
        .with_state(observed)
}

async fn history(State(observed): Seen, Path(client): Path<String>) -> Result<Response, Problem> {
    let events = observed.history(&client);
    if events.is_empty() {
        return Err(Problem::not_found("nothing is known of a client of this name (any more)"));
    }
    Ok(answer(StatusCode::OK, None, &json!({ "client": client, "events": events })))
}

async fn slow(State(observed): Seen) -> Result<Response, Problem> {
    let ranking = observed.slow_subscriptions();
    let ranking =
        ranking.ok_or_else(|| Problem::not_found("this node does not look for slow subscriptions"))?;
    Ok(answer(StatusCode::OK, None, &json!({ "slow_subscriptions": ranking })))
}

async fn clear_slow(State(observed): Seen) -> StatusCode {
    observed.clear_slow_subscriptions();
    StatusCode::NO_CONTENT
}

async fn metrics(State(observed): Seen) -> Response {
    answer(StatusCode::OK, None, &json!({ "topic_metrics": observed.topic_metrics() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    /// A topic or a filter.
    filter: String,
}

async fn register(State(observed): Seen, Given(new): Given<Counted>) -> Result<Response, Problem> {
    let is_new = observed.register_topic(&new.filter).map_err(|refused| match refused {
        TopicRefused::Filter(rule) => Problem::field("filter", rule),
        TopicRefused::Full(rule) => Problem::new(StatusCode::INSUFFICIENT_STORAGE, rule),
    })?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(answer(status, None, &json!({ "filter": new.filter })))
}

async fn unregister(State(observed): Seen, Path(filter): Path<String>) -> Result<Response, Problem> {
    match observed.unregister_topic(&filter) {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(Problem::not_found("this filter is not counted")),
    }
}
