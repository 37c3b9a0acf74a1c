//! The HTTP client of the providers: HTTP/1.1 over TCP or TLS, answers of bounded size, no redirects.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::authenticator::AuthenticateError;

/// Bound: idle connections kept per server.
const IDLE_MAX: usize = 16;
/// How long an idle connection is kept.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// A client for one provider. Connections belong to the runtime that opened them and are kept for the next request.
pub(super) struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpClient {
    /// Trusts what the operating system trusts. Errors if it trusts nobody and TLS is asked for.
    pub(super) fn new(tls: bool) -> std::io::Result<HttpClient> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        let builder = if tls {
            builder.with_provider_and_native_roots(provider)?.https_only()
        } else {
            let config =
                rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let config = config.map_err(std::io::Error::other)?;
            let nobody = rustls::RootCertStore::empty();
            builder
                .with_tls_config(config.with_root_certificates(nobody).with_no_client_auth())
                .https_or_http()
        };
        let connector = builder.enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_FOR)
            .build(connector);
        Ok(HttpClient { client })
    }

    /// One request; the body of the answer has at most `len_max` bytes.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        len_max: usize,
    ) -> Result<(StatusCode, Bytes), AuthenticateError> {
        let response: Response<_> =
            self.client.request(request).await.map_err(AuthenticateError::unreachable)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), len_max).collect().await;
        let body = body.map_err(|error: Box<dyn Error + Send + Sync>| {
            if error.is::<http_body_util::LengthLimitError>() {
                AuthenticateError::Answer("its body is too long")
            } else {
                AuthenticateError::Unreachable(error)
            }
        })?;
        Ok((status, body.to_bytes()))
    }
}
