//! [`Operator`]: who may use the API.
//!
//! The listener's own rule is that of every other (`auth::Access`): a client that presents nothing comes in through a loopback
//! bind only, and may do everything only until a user or a permission exists. Whoever comes in needs the right to administer
//! the cluster, as superusers have it, whatever rules and bans say: what was stored by mistake can be taken back.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use auth::{Action, Authorizer as _, Credentials, Object, Refusal, Request, Secret};
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Api;
use super::problem::Problem;

/// Somebody who may administer.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    /// None: nobody has been set up yet.
    user: Option<Arc<str>>,
}

impl Operator {
    /// Decides by the request's `Authorization`.
    pub(super) async fn admit(api: &Api, headers: &HeaderMap) -> Result<Self, Problem> {
        let (user, password) = match headers.get(header::AUTHORIZATION) {
            None if is_of_this_machine(headers) => (None, None),
            None => return Err(refused("without a user, ask for localhost or a loopback address")),
            Some(value) => {
                let (user, password) = basic(value.as_bytes())
                    .ok_or_else(|| refused("Authorization has to be Basic, with a user and a password"))?;
                (Some(user), Some(password))
            }
        };
        let credentials = Credentials {
            tenant: api.tenant.clone(),
            listener: api.listener.clone(),
            protocol: "http",
            client_id: "".into(),
            user,
            password,
            // Bans of clients and addresses do not concern operators.
            peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            certificate: None,
        };
        let admitted = api.access.admit_operator(&credentials).await;
        let operator = admitted.map_err(|refusal| match refusal {
            Refusal::Unavailable => Problem::new(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()),
            Refusal::NoUsers => refused(
                "there is no user yet, and nobody may ask here without one: set auth.first_user and restart",
            ),
            Refusal::Banned => {
                let detail = "this user is banned; a superuser can take the ban back";
                Problem::new(StatusCode::FORBIDDEN, detail)
            }
            Refusal::BadCredentials | Refusal::AnonymousNotAllowed | Refusal::Expired => {
                refused("a user and its password are needed")
            }
        })?;
        let administer = Request::new(Action::Administer, "cluster").on(Object::Cluster);
        match (api.access.decide(&operator, &administer).is_allowed(), &operator.user) {
            (true, user) => Ok(Self { user: user.clone() }),
            (false, None) => Err(refused("a user and its password are needed")),
            (false, Some(_)) => {
                Err(Problem::new(StatusCode::FORBIDDEN, "this user may not administer the broker"))
            }
        }
    }

    /// Refuses what would lock out an operator who is nobody.
    pub(super) fn must_be_somebody(&self) -> Result<(), Problem> {
        match self.user {
            Some(_) => Ok(()),
            None => Err(Problem::new(
                StatusCode::CONFLICT,
                "create a superuser with a password first: without one, nobody could use this API afterwards",
            )),
        }
    }
}

/// Whether the client meant this machine. A page in a browser may have had its own name point here, and is taken for the same
/// origin then.
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn refused(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}

/// User and password of `Basic base64(user:password)`.
fn basic(value: &[u8]) -> Option<(Arc<str>, Secret)> {
    let (scheme, encoded) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.into(), Secret::new(password.as_bytes().to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_need_no_user() {
        for (host, is_ours) in [
            ("localhost", true),
            ("localhost:58080", true),
            ("127.0.0.1:58080", true),
            ("[::1]:58080", true),
            ("evil.example:58080", false),
            ("127.0.0.1.evil.example", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            let value = axum::http::HeaderValue::from_static(host);
            assert_eq!(is_of_this_machine(&HeaderMap::from_iter([(header::HOST, value)])), is_ours, "{host}");
        }
        assert!(!is_of_this_machine(&HeaderMap::new()));
    }

    #[test]
    fn basic_is_read_and_nothing_else() {
        let (user, password) = basic(b"basic YWxpY2U6YTpi").unwrap();
        assert_eq!((&*user, password.expose()), ("alice", &b"a:b"[..]));
        for value in ["", "Basic", "Basic !", "Bearer YWxpY2U6YTpi", "Basic YWxpY2U=", "Basic /////w=="] {
            assert!(basic(value.as_bytes()).is_none(), "{value}");
        }
    }
}
