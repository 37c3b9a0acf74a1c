//! Access control, once, for every protocol: who may come in, what they may do, who is kept out.
//!
//! [`Access`] is the handle that fronts hold; its doc comment says who comes in. [`Authenticator`] and [`Authorizer`] are the seams, and their
//! doc comments the specification. [`User`], [`Permission`] and [`Ban`] are what is stored; [`scram`] proves identities without passwords.
//!
//! Invariant: this crate knows no protocol, no topic and no connection. It decides on canonical names, and whoever cannot
//! be judged is refused.

mod access;
mod authenticator;
mod author;
mod authorizer;
mod bans;
mod chain;
mod changed_user;
mod credentials;
mod first_user;
mod flapping;
mod follow;
mod grant;
mod mosquitto;
mod password;
mod passwords;
mod pattern;
mod principal;
pub mod providers;
mod resources;
mod rule;
mod rules;
pub mod scram;
mod stored_ban;
mod tables;
#[cfg(test)]
mod tests;

pub use access::{Access, Host, Policy, Refusal};
pub use authenticator::{AuthenticateError, AuthenticateFuture, Authenticator, Outcome};
pub use author::Author;
pub use authorizer::{Action, Authorizer, Decision, Object, Request};
pub use chain::Link;
pub use changed_user::{ChangeUserError, change_user};
pub use credentials::{Credentials, Listener, NEW_PASSWORD_BYTES, Secret};
pub use first_user::{FirstUser, FirstUserError, RecoveredUser, create_first_user, recover_user};
pub use flapping::{Flapping, FlappingLimits};
pub use follow::{Follower, OpenError};
pub use grant::Grant;
pub use mosquitto::{Existing, ImportError, Imported, import_mosquitto, read_mosquitto};
pub use password::{NotAHash, PasswordHash};
pub use passwords::{Offload, Passwords, offload_to_blocking_threads};
pub use pattern::{Pattern, PatternError};
pub use principal::{Identity, Principal};
pub use resources::{Ban, Banned, Network, PasswordText, Permission, User, Who};
pub use rule::{Effect, Right, Rule};
pub use stored_ban::store_ban;
