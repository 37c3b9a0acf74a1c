//! Access control as a whole, over a Meta Service in memory.

mod admission;
mod decisions;
mod placeholders;

use std::sync::Arc;

use meta::{MemoryMeta, MetaStore, Resources};
use model::{Resource, TenantId};
use rt::{ManualClock, SystemRng};

use crate::{
    Access, Credentials, Effect, Follower, Host, Link, Listener, Passwords, Permission, Policy, Right,
    Secret, Who, offload_to_blocking_threads,
};

/// The wall clock of the tests.
const NOW_MS: i64 = 1_800_000_000_000;

/// A node's access control, and the store that it follows.
struct Desk {
    access: Access,
    resources: Resources,
    clock: Arc<ManualClock>,
    follower: tokio::task::JoinHandle<()>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Desk {
    async fn new(chain: Vec<Link>) -> Desk {
        Desk::over(Arc::new(MemoryMeta::new()), chain).await
    }

    async fn over(store: Arc<dyn MetaStore>, chain: Vec<Link>) -> Desk {
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let host = host(clock.clone());
        let opened = Access::open(store.clone(), chain, Policy::default(), host).await;
        let (access, follower): (Access, Follower) = opened.unwrap();
        let follower = tokio::spawn(follower.run());
        Desk { access, resources: Resources::new(store), clock, follower }
    }

    /// Stores a resource, and returns when it counts.
    async fn put<R: Resource>(&self, resource: &R) {
        let revision = self.resources.put(resource, None).await.unwrap();
        self.access.caught_up(revision).await;
    }

    async fn delete<R: Resource>(&self, key: &str) {
        let revision = self.resources.delete::<R>(key, None).await.unwrap();
        self.access.caught_up(revision).await;
    }
}

fn host(clock: Arc<ManualClock>) -> Host {
    let rng = Arc::new(SystemRng);
    Host { clock, rng: rng.clone(), passwords: Passwords::new(offload_to_blocking_threads(), 2, rng) }
}

pub(crate) fn wide() -> Listener {
    Listener::bound("wide", "0.0.0.0".parse().unwrap())
}

pub(crate) fn loopback() -> Listener {
    Listener::bound("local", "127.0.0.1".parse().unwrap())
}

/// A client that presents nothing.
pub(crate) fn nothing(listener: Listener) -> Credentials {
    Credentials {
        tenant: TenantId::default(),
        listener,
        protocol: "mqtt",
        client_id: "c1".into(),
        user: None,
        password: None,
        peer: "127.0.0.1".parse().unwrap(),
        certificate: None,
    }
}

fn password(listener: Listener, user: &str, password: &str) -> Credentials {
    let password = Some(Secret::new(password.as_bytes().to_vec()));
    Credentials { user: Some(user.into()), password, ..nothing(listener) }
}

/// A permission on topics.
fn permission(id: &str, who: Who, effect: Effect, rights: &[Right], pattern: &str) -> Permission {
    let tenant = TenantId::default();
    Permission { rights: rights.to_vec(), ..Permission::new(tenant, id, who, effect, pattern) }
}
