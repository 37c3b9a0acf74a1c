//! `Authenticator`: the seam between a connection's claim and whoever can judge it.

use std::error::Error;
use std::pin::Pin;

use crate::credentials::Credentials;
use crate::principal::Identity;

/// What [`Authenticator::authenticate`] returns: boxed, so that a chain can hold `Arc<dyn Authenticator>`.
pub type AuthenticateFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Outcome, AuthenticateError>> + Send + 'a>>;

/// Judges claims of identity.
///
/// # The chain
///
/// Authenticators are asked one after the other, in the configured order, until one answers something else than
/// [`Outcome::NotMine`]. That answer is final: nobody behind it is asked. If nobody knows the claim, it is refused.
///
/// # For implementers
///
/// - `NotMine` means *I know nothing of this user or of this kind of proof*; it is never the answer to a wrong proof of a
///   user that I know. It must not be told apart by its duration from a wrong password, where passwords are compared here.
/// - An error means that no answer could be had: the server is away, its answer makes no sense, my own data is damaged.
///   **The chain ends with a refusal.** Never turn an error into `NotMine` or `Allow`.
/// - The chain bounds the time of a call and drops the future when it is over, or when the client has gone: hold nothing
///   that a drop would leave inconsistent.
/// - Calls come concurrently from every core's runtime. An implementation that does heavy work moves it off the calling
///   thread; one that talks to a server bounds what it reads and how many connections it opens.
/// - Passwords and tokens are never logged, nor are they part of an error's text.
/// - `credentials.user` is a claim: whatever it is put into (a query, a path, a search filter) must take it as a value.
pub trait Authenticator: Send + Sync {
    /// A short lower-case name for logs and metrics.
    fn name(&self) -> &str;

    /// Judges one claim.
    ///
    /// # Errors
    /// If no answer could be had; the client is refused.
    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> AuthenticateFuture<'a>;
}

/// What an authenticator says of a claim.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is proved.
    Allow(Identity),
    /// It is false.
    Deny,
    /// It is somebody else's to judge.
    NotMine,
}

/// Why an authenticator has no answer. Each of them refuses the client; they differ in what the operator has to mend.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// The server behind the provider cannot be reached, or broke off.
    #[error("the server behind the provider cannot be asked")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// It answered something that cannot be understood, or that breaks a bound.
    #[error("the provider's answer is not understood: {0}")]
    Answer(&'static str),
    /// There is more to do than may wait.
    #[error("too many logins are waiting")]
    Busy,
    /// It took longer than a provider may take.
    #[error("the provider did not answer in time")]
    TimedOut,
}

impl AuthenticateError {
    /// The server cannot be asked.
    pub fn unreachable(source: impl Into<Box<dyn Error + Send + Sync>>) -> AuthenticateError {
        AuthenticateError::Unreachable(source.into())
    }
}
