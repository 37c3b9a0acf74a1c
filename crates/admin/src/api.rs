//! `/api/v1`: what operators see and change while the broker runs. JSON in and out; errors are problems (`problem.rs`),
//! versions are entity tags, who may ask is decided in `guard.rs`.

mod bans;
mod body;
mod delayed;
mod explain;
mod guard;
mod import;
mod kinds;
mod observed;
mod permissions;
mod problem;
mod stored;
#[cfg(test)]
mod tests;
mod users;

use std::net::IpAddr;
use std::sync::Arc;

use auth::{Access, Listener};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::handler::Handler as _;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use broker::Shared;
use meta::{MetaStore, Resources};
use model::TenantId;
use rt::Clock;

pub(crate) use self::body::field_in;
use self::guard::Operator;
pub(crate) use self::problem::Problem;
use crate::kind::Kind;
use crate::observed::Observed;

/// Bound: bytes of a request's body, unless its route says more.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What the API needs of the node. What it is not given has no routes.
pub struct Api {
    access: Access,
    resources: Resources,
    clock: Arc<dyn Clock>,
    tenant: TenantId,
    listener: Listener,
    observed: Option<Arc<dyn Observed>>,
    broker: Option<Arc<Shared>>,
    kinds: Vec<Arc<Kind>>,
}

impl Api {
    /// Over access control and the store that it follows. `bound` is the address that the HTTP listener is bound to: it
    /// decides who may ask without a user.
    pub fn new(access: Access, store: Arc<dyn MetaStore>, clock: Arc<dyn Clock>, bound: IpAddr) -> Self {
        Self {
            access,
            resources: Resources::new(store),
            clock,
            tenant: TenantId::default(),
            listener: Listener::bound("http", bound),
            observed: None,
            broker: None,
            kinds: Vec::new(),
        }
    }

    /// With what a front saw of its clients.
    #[must_use]
    pub fn with_observed(mut self, observed: Arc<dyn Observed>) -> Self {
        self.observed = Some(observed);
        self
    }

    /// With what waits in the broker.
    #[must_use]
    pub fn with_broker(mut self, broker: Arc<Shared>) -> Self {
        self.broker = Some(broker);
        self
    }

    /// With resources of other crates.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Vec<Kind>) -> Self {
        self.kinds.extend(kinds.into_iter().map(Arc::new));
        self
    }

    /// The key of a resource of the tenant.
    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.tenant)
    }
}

/// All routes below `/api/v1`.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    let mut routes = Router::new()
        .route("/users", get(users::list).post(users::create))
        .route(
            "/users/{name}",
            get(users::show)
                .patch(users::change)
                .delete(users::remove)
                .post(import::import.layer(DefaultBodyLimit::max(import::FILE_BYTES_MAX))),
        )
        .route("/permissions", get(permissions::list).post(permissions::create))
        .route(
            "/permissions/{id}",
            get(permissions::show).put(permissions::replace).delete(permissions::remove),
        )
        .route("/bans", get(bans::list).post(bans::create))
        .route("/bans/{id}", get(bans::show).delete(bans::remove))
        .route("/access/explain", get(explain::explain))
        .with_state(Arc::clone(&api));
    if let Some(observed) = &api.observed {
        routes = routes.merge(observed::routes(Arc::clone(observed)));
    }
    if let Some(broker) = &api.broker {
        routes = routes.merge(delayed::routes(Arc::clone(broker), api.tenant.clone()));
    }
    for kind in &api.kinds {
        routes = routes.merge(kinds::routes(&api, kind));
    }
    routes
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(from_fn_with_state(api, admit))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// Lets operators through, and nobody else.
async fn admit(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let operator = Operator::admit(&api, request.headers()).await?;
    request.extensions_mut().insert(operator);
    Ok(next.run(request).await)
}

/// The operator of a request that was let through.
type By = Extension<Operator>;
