//! `/clients/{id}/history`, `/slow-subscriptions`, `/topic-metrics`: what a front saw, and what it counts. Entries are shown as the
//! front gives them. What is to be counted is a kind of resource (`kinds.rs`).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::body::answer;
use super::problem::Problem;
use crate::observed::Observed;

type Seen = State<Arc<dyn Observed>>;

/// The routes over what was seen.
pub(super) fn routes(observed: Arc<dyn Observed>) -> Router {
    Router::new()
        .route("/clients/{id}/history", get(history))
        .route("/slow-subscriptions", get(slow).delete(clear_slow))
        .route("/topic-metrics", get(metrics))
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
