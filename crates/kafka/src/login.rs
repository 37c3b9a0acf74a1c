//! Who is connected: SASL, decided by [`broker::access`]. It knows no frame and no version. Spec: S80.
//!
//! ```text
//!   client                                 here
//!   SaslHandshake (mechanism)  -------->   begin_login
//!   token                      -------->   log_in   -> a token for the client, and in the end a grant
//! ```

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::Broker;
use broker::access::{Credentials, Decision, Grant, Mechanism, Refusal, Request, ScramServer, Secret};
use bytes::Bytes;
use net::Peer;
use tracing::{debug, info};

use crate::context::{Context, FrontState};
use crate::metrics::Metrics;

/// Bound: bytes of a token. That of a password is the same.
pub(crate) const TOKEN_LEN_MAX: usize = 64 << 10;
/// Bound: how long a connection may take to log in where nobody else is served.
pub(crate) const LOGIN_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a client waits for its refusal, so that guessing takes time.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// How a client may prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Plain,
    Scram(Mechanism),
}

impl Method {
    pub(crate) const ALL: [Method; 3] =
        [Method::Plain, Method::Scram(Mechanism::Sha256), Method::Scram(Mechanism::Sha512)];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Method::Plain => "PLAIN",
            Method::Scram(mechanism) => mechanism.name(),
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// What the tokens of an exchange come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// SaslAuthenticate requests.
    Requests,
    /// Frames of nothing else.
    Frames,
}

/// A token was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// What the client is told.
    pub(crate) token: Bytes,
    /// Milliseconds for which its proof is valid; 0 if it does not end, or is not complete.
    pub(crate) lifetime_ms: i64,
}

/// A token was not taken. Why is for the log alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No exchange is under way.
    OutOfTurn,
    /// It is not who it says, or may not come in.
    Refused,
    /// It cannot be known right now.
    Unavailable,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Served,
    /// It has to log in first.
    Stranger,
    /// It may not stay.
    Refused,
}

/// Who the client of a connection is, and what it is about to prove.
pub(crate) struct Login {
    /// `None` as long as it may not be here.
    grant: RefCell<Option<Grant>>,
    /// When what it proved ends.
    until: Cell<Option<Instant>>,
    exchange: RefCell<Option<Exchange>>,
}

struct Exchange {
    carrier: Carrier,
    proof: Proof,
}

enum Proof {
    Plain,
    ScramFirst(Box<ScramServer>),
    /// With the user that the client claims to be.
    ScramFinal(Box<ScramServer>, Box<str>),
}

impl Login {
    /// Of a client that has said nothing: it is anonymous, where anonymous clients may come in.
    pub(crate) fn new<B: Broker>(front: &FrontState<B>, peer: &Peer) -> Self {
        let admitted = front.broker.access().admit_anonymous(&credentials(front, peer));
        let grant = admitted
            .inspect_err(|refusal| debug!(conn = %peer, why = %refusal, "a Kafka client has to log in"));
        let (exchange, until) = (RefCell::new(None), Cell::new(None));
        Self { grant: RefCell::new(grant.ok()), until, exchange }
    }

    pub(crate) fn standing(&self) -> Standing {
        match self.grant.borrow().as_ref().map(Grant::standing) {
            Some(Ok(())) => Standing::Served,
            Some(Err(_)) => Standing::Refused,
            None => Standing::Stranger,
        }
    }

    pub(crate) fn decide(&self, request: &Request<'_>) -> Decision {
        self.grant.borrow().as_ref().map_or(Decision::Deny, |grant| grant.decide(request))
    }

    /// When what the client proved ends.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until.get()
    }

    /// Whether the next frame is a token and nothing else.
    pub(crate) fn wants_bare_token(&self) -> bool {
        self.exchange.borrow().as_ref().is_some_and(|exchange| exchange.carrier == Carrier::Frames)
    }

    /// The user that the client has proved to be.
    fn user(&self) -> Option<Arc<str>> {
        self.grant.borrow().as_ref().and_then(|grant| grant.principal().user.clone())
    }
}

/// What is known of a client before it says anything.
fn credentials<B: Broker>(front: &FrontState<B>, peer: &Peer) -> Credentials {
    let anonymous = Credentials::anonymous(front.config.listener.clone(), "");
    let peer = peer.address.ip().unwrap_or(anonymous.peer);
    Credentials { tenant: front.tenant.clone(), protocol: "kafka", peer, ..anonymous }
}

impl<B: Broker> Context<B> {
    /// The client names a mechanism. What it began before is forgotten.
    pub(crate) fn begin_login(&self, method: Method, carrier: Carrier) {
        let proof = match method {
            Method::Plain => Proof::Plain,
            Method::Scram(mechanism) => Proof::ScramFirst(Box::new(self.broker().access().scram(mechanism))),
        };
        self.login.exchange.replace(Some(Exchange { carrier, proof }));
    }

    /// Takes a token. A failure ends the exchange, and the connection should end with it.
    pub(crate) async fn log_in(&self, token: &[u8]) -> Result<Taken, Failure> {
        let taken = self.take_token(token).await;
        if taken.is_err() {
            Metrics::add(&self.front.metrics.logins_refused, 1);
            tokio::time::sleep(REFUSAL_PAUSE).await;
        }
        taken
    }

    async fn take_token(&self, token: &[u8]) -> Result<Taken, Failure> {
        let Some(Exchange { carrier, proof }) = self.login.exchange.take() else {
            return Err(Failure::OutOfTurn);
        };
        if token.len() > TOKEN_LEN_MAX {
            return Err(self.refused(None, "the token is too long"));
        }
        let (access, credentials) = (self.broker().access(), credentials(&self.front, &self.peer));
        match proof {
            Proof::Plain => {
                let Some((user, password)) = parse_plain(token) else {
                    return Err(self.refused(None, "the token is not one of RFC 4616"));
                };
                let password = Some(Secret::new(password.to_vec()));
                let claim = Credentials { user: Some(user.into()), password, ..credentials };
                self.let_in(user, access.admit(&claim).await, Bytes::new())
            }
            Proof::ScramFirst(mut scram) => {
                let (tenant, mechanism) = (&self.front.tenant, scram.mechanism());
                let malformed = |error| self.refused(None, error);
                let user = Box::<str>::from(scram.client_first(token).map_err(malformed)?);
                let (keys, known) = access.scram_keys(tenant, &user, mechanism);
                let challenge = scram.server_first(keys, known).map_err(malformed)?;
                let proof = Proof::ScramFinal(scram, user);
                self.login.exchange.replace(Some(Exchange { carrier, proof }));
                Ok(Taken { token: challenge.into(), lifetime_ms: 0 })
            }
            Proof::ScramFinal(mut scram, user) => {
                let proved = scram.client_final(token).map_err(|error| self.refused(Some(&user), error));
                let (answer, verified) = proved?;
                let admitted = access.admit_verified(&credentials, &verified);
                self.let_in(&user, admitted, answer.into())
            }
        }
    }

    /// Whoever was let in before must be the same (KIP-368).
    fn let_in(&self, user: &str, admitted: Result<Grant, Refusal>, token: Bytes) -> Result<Taken, Failure> {
        let grant = admitted.map_err(|refusal| {
            let refused = self.refused(Some(user), refusal);
            match refusal {
                Refusal::Unavailable => Failure::Unavailable,
                Refusal::Banned
                | Refusal::BadCredentials
                | Refusal::AnonymousNotAllowed
                | Refusal::NoUsers
                | Refusal::Expired => refused,
            }
        })?;
        let before = self.login.user();
        if before.is_some() && before != grant.principal().user {
            return Err(self.refused(Some(user), "another user than before"));
        }
        // One that ends now has a moment left: 0 would mean that it does not end.
        let left = grant.expires_at().map(|at| at.saturating_sub(self.broker().wall_ms()).max(1));
        let now = tokio::time::Instant::now().into_std();
        // What is too far away to be counted does not end.
        let until = left.and_then(|left| now.checked_add(Duration::from_millis(left.unsigned_abs())));
        self.login.until.set(until);
        self.login.grant.replace(Some(grant));
        Ok(Taken { token, lifetime_ms: left.unwrap_or(0) })
    }

    fn refused(&self, user: Option<&str>, why: impl std::fmt::Display) -> Failure {
        info!(conn = %self.peer, user, why = %why, "a Kafka client was refused");
        Failure::Refused
    }
}

/// `authzid NUL authcid NUL password` (RFC 4616): the user and the password.
fn parse_plain(token: &[u8]) -> Option<(&str, &[u8])> {
    let mut parts = token.split(|byte| *byte == 0);
    let (on_behalf_of, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let is_own = on_behalf_of.is_empty() || on_behalf_of == user;
    let is_whole = parts.next().is_none() && !user.is_empty() && !password.is_empty();
    if !(is_own && is_whole) {
        return None;
    }
    Some((str::from_utf8(user).ok()?, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s80_a_plain_token_names_one_user_and_a_password() {
        assert_eq!(parse_plain(b"\0alice\0s3cret"), Some(("alice", &b"s3cret"[..])));
        assert_eq!(parse_plain(b"alice\0alice\0\xff"), Some(("alice", &b"\xff"[..])));
        for token in [
            &b""[..],
            b"alice",
            b"\0alice",
            b"\0alice\0",
            b"\0\0x",
            b"bob\0alice\0x",
            b"\0alice\0x\0",
            b"\0\xff\0x",
        ] {
            assert_eq!(parse_plain(token), None, "{token:?}");
        }
    }

    #[test]
    fn s80_mechanisms_have_the_names_of_their_standards() {
        let names = Method::ALL.map(Method::name);
        assert_eq!(names, ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]);
        assert_eq!(names.map(Method::from_name), Method::ALL.map(Some));
        assert_eq!((Method::from_name("plain"), Method::from_name("GSSAPI")), (None, None));
    }
}
