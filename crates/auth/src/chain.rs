//! The chain: who is asked, in which order, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use crate::authenticator::{AuthenticateError, AuthenticateFuture, Authenticator, Outcome};
use crate::credentials::Credentials;
use crate::hashing::Hashing;
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
    links: Vec<Arc<dyn Authenticator>>,
    timeout: Duration,
    /// Whether somebody is asked who may know users that our table does not.
    pub(crate) asks_others: bool,
}

impl Chain {
    pub(crate) fn new(
        links: Vec<Link>,
        tables: &Arc<Tables>,
        hashing: &Arc<Hashing>,
        timeout: Duration,
    ) -> Chain {
        let asks_others = links.iter().any(|link| matches!(link, Link::Provider(_)));
        let build = |link| -> Arc<dyn Authenticator> {
            match link {
                Link::Users => Arc::new(Users { tables: tables.clone(), hashing: hashing.clone() }),
                Link::Certificate => Arc::new(Certificate { tables: tables.clone() }),
                Link::Provider(provider) => provider,
            }
        };
        Chain { links: links.into_iter().map(build).collect(), timeout, asks_others }
    }

    /// The first answer that is one. An error is the end.
    pub(crate) async fn authenticate(&self, credentials: &Credentials) -> Result<Outcome, AuthenticateError> {
        for link in &self.links {
            let answer = match tokio::time::timeout(self.timeout, link.authenticate(credentials)).await {
                Ok(answer) => answer,
                Err(_) => Err(AuthenticateError::TimedOut),
            };
            match answer {
                Ok(Outcome::NotMine) => {}
                Ok(outcome) => return Ok(outcome),
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(provider = link.name(), err = %error, source, "a client is refused");
                    return Err(error);
                }
            }
        }
        Ok(Outcome::NotMine)
    }
}

/// Users of our own table.
struct Users {
    tables: Arc<Tables>,
    hashing: Arc<Hashing>,
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
            let right = self.hashing.verify(hash, password.expose().to_vec()).await;
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
