//! Access control of the process: who is asked, and what is stored.

use std::sync::Arc;

use auth::{
    Access, FirstUser, Flapping, FlappingLimits, Follower, Host, Link, Passwords, Policy, RecoveredUser,
    create_first_user, recover_user, store_ban,
};
use broker::Offload;
use meta::{MetaStore, Resources};
use model::TenantId;
use rt::{Clock, Rng, SystemClock, Tasks};
use tracing::{info, warn};

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

/// Counts connects of MQTT clients, and bans those that flap; none if nobody is to be.
pub(super) fn flapping(
    config: &Config,
    store: Arc<dyn MetaStore>,
    access: &Access,
) -> Option<mqtt::Connects> {
    let settings = &config.mqtt;
    let limits = FlappingLimits {
        connects_max: settings.flapping_connects?,
        window: settings.flapping_window.duration(),
        ban: settings.flapping_ban.duration(),
    };
    let access = access.clone();
    let (flapping, resources, clock) = (Flapping::new(limits), Resources::new(store), SystemClock::new());
    Some(mqtt::Connects::new(move |tenant, client| {
        let Some(ban) = flapping.note(tenant, client, clock.wall_ms()) else { return };
        info!(client, ban = ban.id, "a client flaps and is banned");
        let (access, resources) = (access.clone(), resources.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = store_ban(&access, &resources, &ban, None).await {
                warn!(err = %error, "a ban could not be stored");
            }
        });
    }))
}

/// Reads users, permissions and bans, after creating the first user if one is wished for and there is none, and recovering one that is
/// to be recovered.
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
        first_user(config, &store, &host.passwords).await?;
        recovered_user(config, &store, &host.passwords).await?;
        let opened = Access::open(store, chain, policy, host).await;
        let (access, follower) = opened.map_err(StartError::Access)?;
        if !settings.anonymous_on_loopback && access.lets_nobody_in(&TenantId::default()) {
            warn!("nobody can come in, as there is no user; auth.first_user creates one at the next start");
        }
        Ok(Opened { access, follower })
    })
}

/// Creates the first user, as settings wish.
async fn first_user(
    config: &Config,
    store: &Arc<dyn MetaStore>,
    passwords: &Passwords,
) -> Result<(), StartError> {
    let settings = &config.first_user;
    let Some(file) = &settings.password_file else { return Ok(()) };
    let resources = Resources::new(Arc::clone(store));
    let password = || providers::secret_in(file);
    match create_first_user(&resources, passwords, &settings.name, password).await {
        Ok(FirstUser::Created) => info!(user = settings.name, "the first user was created, a superuser"),
        Ok(FirstUser::NotNeeded) => info!("auth.first_user does nothing, as a user exists"),
        Err(source) => return Err(StartError::FirstUser { file: file.clone(), source }),
    }
    Ok(())
}

/// Makes a user a superuser with a new password, as settings wish.
async fn recovered_user(
    config: &Config,
    store: &Arc<dyn MetaStore>,
    passwords: &Passwords,
) -> Result<(), StartError> {
    let settings = &config.recover_user;
    let Some(file) = &settings.password_file else { return Ok(()) };
    let resources = Resources::new(Arc::clone(store));
    let password = providers::secret_in(file);
    let user = settings.name.as_str();
    match recover_user(&resources, passwords, user, password).await {
        Ok(RecoveredUser::Recovered) => {
            warn!(
                user,
                "auth.recover_user has made the user a superuser with its password; take it away now"
            );
        }
        Ok(RecoveredUser::NotNeeded) => warn!(user, "auth.recover_user does nothing any more; take it away"),
        Err(source) => return Err(StartError::RecoverUser { file: file.clone(), source }),
    }
    Ok(())
}
