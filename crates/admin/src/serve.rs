//! The HTTP server and its routes.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use broker::Shared;
use net::{Pressure, Shortage};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rt::Shutdown;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::api::{self, Api};
use crate::metrics::{self, ReadSamples};

/// The admin front of a node.
///
/// - `GET /health/live`: 200 while the process runs.
/// - `GET /health/ready`: 200 while the node takes writes and newcomers, else 503 with the reason.
/// - `GET /metrics`: Prometheus text (OpenMetrics).
/// - `/api/v1`: for operators, if there is an [`Api`].
#[derive(Clone)]
pub struct Admin {
    state: Arc<Inner>,
    api: Option<Arc<Api>>,
}

struct Inner {
    broker: Arc<Shared>,
    pressure: Arc<Pressure>,
    registry: Registry,
}

/// Why the HTTP server ended.
#[derive(Debug, Error)]
#[error("the HTTP server failed")]
pub struct ServeError(#[from] std::io::Error);

impl Admin {
    /// Over the shared state of a node, what it has to bear, and what its fronts count.
    pub fn new(broker: Arc<Shared>, pressure: Arc<Pressure>, fronts: ReadSamples) -> Self {
        let registry = metrics::registry(Arc::clone(&broker), Arc::clone(&pressure), fronts);
        Self { state: Arc::new(Inner { broker, pressure, registry }), api: None }
    }

    /// With an API for operators.
    #[must_use]
    pub fn with_api(mut self, api: Api) -> Self {
        self.api = Some(Arc::new(api));
        self
    }

    /// Serves until the stop signal.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub async fn serve(self, socket: StdListener, shutdown: Shutdown) -> Result<(), ServeError> {
        let routes = Router::new()
            .route("/health/live", get(async || "live\n"))
            .route("/health/ready", get(ready))
            .route("/metrics", get(exposition))
            .with_state(self.state);
        let routes = match self.api {
            Some(api) => routes.nest("/api/v1", api::routes(api)),
            None => routes,
        };
        let listener = TcpListener::from_std(socket)?;
        let stopped = async move { shutdown.wait().await };
        axum::serve(listener, routes).with_graceful_shutdown(stopped).await?;
        Ok(())
    }
}

async fn ready(State(inner): State<Arc<Inner>>) -> Response {
    let shortage = || inner.pressure.shortage(Instant::now()).map(Shortage::words);
    match inner.broker.not_ready().or_else(shortage) {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn exposition(State(inner): State<Arc<Inner>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &inner.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
