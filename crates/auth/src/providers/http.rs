//! `HttpProvider`: asks a service over HTTP. Request and response have the shape of EMQX's HTTP authentication.
//!
//! ```text
//!   POST <url>, content-type: application/json
//!   {"username": "u", "password": "p", "clientid": "c", "peerhost": "10.1.2.3",
//!    "cert_common_name": "", "protocol": "mqtt", "listener": "tcp", "tenant": "default"}
//!
//!   200 {"result": "allow", "is_superuser": false, "groups": [], "expire_at": 1800000000, "acl": [...]}
//!   204 allow, without any of these        200 {"result": "deny"}, 401, 403  deny
//!   200 {"result": "ignore"}, 404 not mine  anything else  an error, so the client is refused
//! ```
//!
//! Rights come with the answer, or from permissions; there is no request for each publish.

use std::str::FromStr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::claims;
use super::client::HttpClient;
use crate::authenticator::{AuthenticateError, AuthenticateFuture, Authenticator, Outcome};
use crate::credentials::{Credentials, Secret};
use crate::principal::Identity;

/// Bound: bytes of an answer.
const ANSWER_LEN_MAX: usize = 256 << 10;
/// Bound: requests under way to one service. Others wait for their turn, within the chain's time.
const AT_ONCE_MAX: usize = 64;
/// Bound: groups in an answer.
const GROUPS_MAX: usize = 64;

/// Where the service is.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Its address, `http` or `https`. Without TLS, passwords cross the network as they are.
    pub url: String,
    /// Headers of each request, such as `authorization`. Their values are not printed.
    pub headers: Vec<(String, Secret)>,
}

/// Why the settings are of no use.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not an address with the scheme `http` or `https` and a host.
    #[error("the address of the service is not an http or https URL")]
    Url,
    /// Not a header.
    #[error("{name} is not a header that can be sent")]
    Header {
        /// Its name.
        name: String,
    },
    /// The operating system's list of trusted certificates cannot be read.
    #[error("no certificate authority is trusted")]
    Trust(#[source] std::io::Error),
}

/// A service that judges claims.
pub struct HttpProvider {
    client: HttpClient,
    url: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    turns: Semaphore,
}

impl HttpProvider {
    /// A provider at this address. Nothing is sent before the first client comes.
    ///
    /// # Errors
    /// If the settings are of no use.
    pub fn new(settings: &HttpSettings) -> Result<HttpProvider, HttpError> {
        let (url, tls) = parse_url(&settings.url).ok_or(HttpError::Url)?;
        let header = |(name, value): &(String, Secret)| {
            let mut parsed = HeaderValue::from_bytes(value.expose()).ok()?;
            parsed.set_sensitive(true);
            Some((HeaderName::from_str(name).ok()?, parsed))
        };
        let headers = settings
            .headers
            .iter()
            .map(|pair| header(pair).ok_or_else(|| HttpError::Header { name: pair.0.clone() }))
            .collect::<Result<_, _>>()?;
        let client = HttpClient::new(tls).map_err(HttpError::Trust)?;
        Ok(HttpProvider { client, url, headers, turns: Semaphore::new(AT_ONCE_MAX) })
    }

    fn request(&self, credentials: &Credentials) -> Result<Request<Full<Bytes>>, AuthenticateError> {
        let password = credentials.password.as_ref().map(Secret::expose).unwrap_or_default();
        // A text of JSON cannot hold other bytes, and replacing them would change the password.
        let Ok(password) = str::from_utf8(password) else {
            return Err(AuthenticateError::Answer("a password that is not UTF-8 cannot be sent"));
        };
        let body = json!({
            "username": credentials.user().map_or("", |user| user),
            "password": password,
            "clientid": &*credentials.client_id,
            "peerhost": credentials.peer.to_canonical().to_string(),
            "cert_common_name": credentials.certificate.as_deref().unwrap_or_default(),
            "protocol": credentials.protocol,
            "listener": &*credentials.listener.name,
            "tenant": credentials.tenant.as_str(),
        });
        let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.headers.iter().cloned());
        Ok(request)
    }
}

/// The address, and whether it asks for TLS.
pub(super) fn parse_url(url: &str) -> Option<(Uri, bool)> {
    let url: Uri = url.parse().ok()?;
    let tls = match url.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return None,
    };
    url.host().is_some_and(|host| !host.is_empty()).then_some((url, tls))
}

impl Authenticator for HttpProvider {
    fn name(&self) -> &str {
        "http"
    }

    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> AuthenticateFuture<'a> {
        Box::pin(async move {
            let request = self.request(credentials)?;
            let _turn = self.turns.acquire().await.map_err(|_| AuthenticateError::Busy)?;
            let (status, body) = self.client.send(request, ANSWER_LEN_MAX).await?;
            outcome(status, &body)
        })
    }
}

fn outcome(status: StatusCode, body: &[u8]) -> Result<Outcome, AuthenticateError> {
    match status {
        StatusCode::OK => {}
        StatusCode::NO_CONTENT => return Ok(Outcome::Allow(Identity::default())),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(Outcome::Deny),
        StatusCode::NOT_FOUND => return Ok(Outcome::NotMine),
        _ => return Err(AuthenticateError::Answer("its status is none of 200, 204, 401, 403, 404")),
    }
    let answer: Value =
        serde_json::from_slice(body).map_err(|_| AuthenticateError::Answer("its body is not JSON"))?;
    match answer.get("result").and_then(Value::as_str) {
        Some("allow") => identity(&answer).map(Outcome::Allow),
        Some("deny") => Ok(Outcome::Deny),
        Some("ignore") => Ok(Outcome::NotMine),
        _ => Err(AuthenticateError::Answer("its result is none of allow, deny, ignore")),
    }
}

fn identity(answer: &Value) -> Result<Identity, AuthenticateError> {
    let superuser = match answer.get("is_superuser") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(superuser)) => *superuser,
        Some(_) => return Err(AuthenticateError::Answer("is_superuser is no boolean")),
    };
    let expires_at_ms = match answer.get("expire_at") {
        None | Some(Value::Null) => None,
        Some(at) => {
            let seconds =
                at.as_i64().ok_or(AuthenticateError::Answer("expire_at is no number of seconds"))?;
            Some(seconds.saturating_mul(1_000))
        }
    };
    let groups = match answer.get("groups") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(groups)) if groups.len() <= GROUPS_MAX => {
            let text = |group: &Value| group.as_str().map(Into::into);
            let groups: Option<Vec<_>> = groups.iter().map(text).collect();
            groups.ok_or(AuthenticateError::Answer("groups are not texts"))?
        }
        Some(_) => return Err(AuthenticateError::Answer("groups are no list, or too many")),
    };
    let rules = claims::rules(answer.get("acl"));
    let rules = rules.map_err(|_| AuthenticateError::Answer("its acl is not understood"))?.into();
    Ok(Identity { superuser, groups, expires_at_ms, rules, ..Identity::default() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::TenantId;
    use parking_lot::Mutex;

    use super::*;
    use crate::credentials::Listener;
    use crate::providers::testing::Service;

    fn credentials() -> Credentials {
        Credentials {
            tenant: TenantId::default(),
            listener: Listener::bound("tcp", "0.0.0.0".parse().unwrap()),
            protocol: "mqtt",
            client_id: "c\"1".into(),
            user: Some("alice".into()),
            password: Some(Secret::new("pass\nword")),
            peer: "::ffff:10.1.2.3".parse().unwrap(),
            certificate: None,
        }
    }

    fn settings(url: &str) -> HttpSettings {
        let headers = vec![("authorization".to_owned(), Secret::new("Bearer x"))];
        HttpSettings { url: url.to_owned(), headers }
    }

    async fn ask(status: &'static str, body: &str) -> Result<Outcome, AuthenticateError> {
        let body = body.to_owned();
        let service = Service::start(Arc::new(move |_| (status, body.clone()))).await;
        HttpProvider::new(&settings(&service.url)).unwrap().authenticate(&credentials()).await
    }

    #[tokio::test]
    async fn the_service_is_told_what_was_claimed() {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = asked.clone();
        let service = Service::start(Arc::new(move |request| {
            told.lock().push(request.to_owned());
            ("204 No Content", String::new())
        }))
        .await;
        let provider = HttpProvider::new(&settings(&service.url)).unwrap();
        assert!(matches!(provider.authenticate(&credentials()).await, Ok(Outcome::Allow(_))));
        let request = asked.lock().pop().unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /ask HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("authorization: bearer x"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        let expected = json!({
            "username": "alice", "password": "pass\nword", "clientid": "c\"1", "peerhost": "10.1.2.3",
            "cert_common_name": "", "protocol": "mqtt", "listener": "tcp", "tenant": "default",
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn answers_are_read() {
        let body = r#"{"result": "allow", "is_superuser": true, "groups": ["g"], "expire_at": 1800000000,
                       "acl": [{"permission": "deny", "action": "publish", "topic": "a"}], "client_attrs": {}}"#;
        let Ok(Outcome::Allow(identity)) = ask("200 OK", body).await else { panic!("refused") };
        assert!(identity.superuser && identity.user.is_none());
        assert_eq!(identity.expires_at_ms, Some(1_800_000_000_000));
        assert_eq!((identity.groups.len(), identity.rules.len()), (1, 1));
        for (status, body) in [("200 OK", r#"{"result": "deny"}"#), ("401 No", ""), ("403 No", "")] {
            assert!(matches!(ask(status, body).await, Ok(Outcome::Deny)), "{status} {body}");
        }
        for (status, body) in [("200 OK", r#"{"result": "ignore"}"#), ("404 Not here", "")] {
            assert!(matches!(ask(status, body).await, Ok(Outcome::NotMine)), "{status} {body}");
        }
    }

    #[tokio::test]
    async fn whatever_else_it_says_is_an_error() {
        for (status, body) in [
            ("200 OK", ""),
            ("200 OK", "allow"),
            ("200 OK", r#"{"result": true}"#),
            ("200 OK", r#"{"result": "allow", "is_superuser": "yes"}"#),
            ("200 OK", r#"{"result": "allow", "expire_at": "soon"}"#),
            ("200 OK", r#"{"result": "allow", "acl": "all"}"#),
            ("200 OK", r#"{"result": "allow", "groups": [1]}"#),
            ("500 Oops", r#"{"result": "allow"}"#),
            ("302 Elsewhere", r#"{"result": "allow"}"#),
            ("201 Made", r#"{"result": "allow"}"#),
        ] {
            assert!(matches!(ask(status, body).await, Err(AuthenticateError::Answer(_))), "{status} {body}");
        }
        let long = format!(r#"{{"result": "allow", "x": "{}"}}"#, "x".repeat(ANSWER_LEN_MAX));
        assert!(matches!(ask("200 OK", &long).await, Err(AuthenticateError::Answer(_))));
        // Nobody listens any more where this listener was.
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let provider = HttpProvider::new(&settings(&format!("http://{gone}/"))).unwrap();
        let answer = provider.authenticate(&credentials()).await;
        assert!(matches!(answer, Err(AuthenticateError::Unreachable(_))));
    }

    #[test]
    fn settings_of_no_use_are_refused() {
        for url in ["", "example.org", "ftp://example.org", "http://", "file:///etc/passwd"] {
            assert!(matches!(HttpProvider::new(&settings(url)).err(), Some(HttpError::Url)), "{url}");
        }
        let headers = vec![("a b".to_owned(), Secret::new("x"))];
        let refused = HttpProvider::new(&HttpSettings { url: "http://localhost".to_owned(), headers }).err();
        assert!(matches!(refused, Some(HttpError::Header { .. })));
    }
}
