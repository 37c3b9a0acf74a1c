//! Access control of the process: who is asked, and what is stored.

use std::sync::Arc;

use auth::{Access, Follower, Host, Link, Passwords, Policy};
use broker::Offload;
use meta::MetaStore;
use rt::{Clock, Rng, Tasks};

use super::providers::{self, Needs};
use super::{StartError, runtime};
use crate::config::{Config, Unmatched};

/// Access control, and what keeps it up to date.
pub(super) struct Opened {
    pub(super) access: Access,
    pub(super) follower: Follower,
}

/// What the process gives to it.
pub(super) struct Given {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rng: Arc<dyn Rng>,
    /// Where passwords are compared.
    pub(super) offload: Offload,
    /// How many of them at a time.
    pub(super) at_once: usize,
    /// What providers begin.
    pub(super) tasks: Tasks,
}

/// Reads users, permissions and bans.
pub(super) fn open(config: &Config, store: Arc<dyn MetaStore>, given: Given) -> Result<Opened, StartError> {
    let settings = &config.auth;
    let policy = Policy {
        anonymous_on_loopback: settings.anonymous_on_loopback,
        allow_unmatched: settings.unmatched == Unmatched::Allow,
        provider_timeout: settings.provider_timeout.duration(),
    };
    let passwords = Passwords::new(given.offload, given.at_once, Arc::clone(&given.rng));
    let needs = Needs { clock: Arc::clone(&given.clock), passwords: passwords.clone(), tasks: given.tasks };
    let host = Host { clock: given.clock, rng: given.rng, passwords };
    runtime().map_err(StartError::system("make a runtime"))?.block_on(async {
        let mut chain = Vec::new();
        for name in &settings.chain {
            chain.extend(match name.as_str() {
                "users" => Some(Link::Users),
                "certificate" => Some(Link::Certificate),
                provider => providers::provider(provider, config, &needs)?.map(Link::Provider),
            });
        }
        let opened = Access::open(store, chain, policy, host).await;
        let (access, follower) = opened.map_err(StartError::Access)?;
        Ok(Opened { access, follower })
    })
}
