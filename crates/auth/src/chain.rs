//! The chain: who is asked, in which order, and what comes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::authenticator::{AuthenticateError, AuthenticateFuture, Authenticator, Outcome};
use crate::credentials::Credentials;
use crate::passwords::Passwords;
use crate::principal::Identity;
use crate::resources::User;
use crate::tables::Tables;

/// One place of the chain.
#[derive(Clone)]
pub enum Link {
    /// The users of our own table, by password.
    Users,
    /// The common name of a verified certificate is the user, if no password was given. A claimed user must be that name.
    Certificate,
    /// Somebody else.
    Provider(Arc<dyn Authenticator>),
}

/// All places, ready to be asked.
pub(crate) struct Chain {
    places: Vec<Place>,
    /// Whether somebody is asked who may know users that our table does not.
    pub(crate) asks_others: bool,
}

struct Place {
    authenticator: Arc<dyn Authenticator>,
    /// How long it may take. Our own table has no limit but the patience of the client, which may have to wait for its turn
    /// among ten thousand others.
    timeout: Option<Duration>,
    /// Whether its last answer was an error, so that an outage is told once and not for each client.
    failing: AtomicBool,
}

impl Place {
    async fn ask(&self, credentials: &Credentials) -> Result<Outcome, AuthenticateError> {
        let answer = self.authenticator.authenticate(credentials);
        let answer = match self.timeout {
            Some(timeout) => match tokio::time::timeout(timeout, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(AuthenticateError::TimedOut),
            },
            None => answer.await,
        };
        let failed_before = self.failing.swap(answer.is_err(), Ordering::Relaxed);
        let provider = self.authenticator.name();
        match &answer {
            Err(error) if !failed_before => {
                let source = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(provider, err = %error, source, "clients are refused because a provider fails");
            }
            Ok(_) if failed_before => tracing::info!(provider, "a provider answers again"),
            Ok(_) | Err(_) => {}
        }
        answer
    }
}

impl Chain {
    pub(crate) fn new(
        links: Vec<Link>,
        tables: &Arc<Tables>,
        passwords: &Passwords,
        timeout: Duration,
    ) -> Chain {
        let asks_others = links.iter().any(|link| matches!(link, Link::Provider(_)));
        let build = |link| {
            let (authenticator, timeout): (Arc<dyn Authenticator>, _) = match link {
                Link::Users => {
                    (Arc::new(Users { tables: tables.clone(), passwords: passwords.clone() }), None)
                }
                Link::Certificate => (Arc::new(Certificate { tables: tables.clone() }), None),
                Link::Provider(provider) => (provider, Some(timeout)),
            };
            Place { authenticator, timeout, failing: AtomicBool::new(false) }
        };
        Chain { places: links.into_iter().map(build).collect(), asks_others }
    }

    /// The first answer that is one. An error is the end.
    pub(crate) async fn authenticate(&self, credentials: &Credentials) -> Result<Outcome, AuthenticateError> {
        for place in &self.places {
            match place.ask(credentials).await? {
                Outcome::NotMine => {}
                outcome => return Ok(outcome),
            }
        }
        Ok(Outcome::NotMine)
    }
}

/// Users of our own table.
struct Users {
    tables: Arc<Tables>,
    passwords: Passwords,
}

impl Authenticator for Users {
    fn name(&self) -> &str {
        "users"
    }

    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> AuthenticateFuture<'a> {
        Box::pin(async move {
            let tenant = credentials.tenant.as_str();
            let (Some(name), Some(password)) = (credentials.user(), &credentials.password) else {
                return Ok(Outcome::NotMine);
            };
            if !self.tables.has_users(tenant) {
                return Ok(Outcome::NotMine);
            }
            let user = self.tables.user(tenant, name);
            let hash = user.as_ref().and_then(|user| user.password.as_ref()?.parse());
            let right = self.passwords.verify(hash, password.expose().to_vec()).await;
            let right = right.map_err(|_| AuthenticateError::Busy)?;
            Ok(match user {
                Some(user) if right && !user.disabled => Outcome::Allow(identity_of(&user)),
                Some(_) => Outcome::Deny,
                None => Outcome::NotMine,
            })
        })
    }
}

/// What our table says of a user who has proved to be one.
pub(crate) fn identity_of(user: &User) -> Identity {
    Identity {
        user: Some(user.name.as_str().into()),
        superuser: user.superuser,
        groups: user.groups.iter().map(|group| group.as_str().into()).collect(),
        stored: true,
        ..Identity::default()
    }
}

/// The name in a certificate.
struct Certificate {
    tables: Arc<Tables>,
}

impl Authenticator for Certificate {
    fn name(&self) -> &str {
        "certificate"
    }

    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> AuthenticateFuture<'a> {
        Box::pin(async move {
            let name = credentials.certificate.as_ref().filter(|name| !name.is_empty());
            let (Some(name), None) = (name, &credentials.password) else { return Ok(Outcome::NotMine) };
            if credentials.user().is_some_and(|claimed| claimed != name) {
                return Ok(Outcome::Deny);
            }
            Ok(match self.tables.user(credentials.tenant.as_str(), name) {
                Some(user) if user.disabled => Outcome::Deny,
                Some(user) => Outcome::Allow(identity_of(&user)),
                None => Outcome::Allow(Identity { user: Some(name.clone()), ..Identity::default() }),
            })
        })
    }
}
