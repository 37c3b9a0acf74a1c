//! [`Flapping`]: clients that connect again and again are banned for a while.

use std::collections::HashMap;
use std::time::Duration;

use model::TenantId;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::resources::{Ban, Banned, NAME_LEN_MAX};

/// Bound: clients that are counted at once, some 100 bytes each. While there are as many, others are not counted: who connects
/// under ever new names is held by the rate of its listener, not by this.
const CLIENTS_MAX: usize = 65_536;
/// What the ids of these bans begin with.
const PREFIX: &str = "flapping-";

/// When a client flaps, and what it gets for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlappingLimits {
    /// Connects within `window` that are in order. One more is flapping.
    pub connects_max: u32,
    /// The time in which they are counted, from the first of them on.
    pub window: Duration,
    /// How long the client is kept out.
    pub ban: Duration,
}

/// Counts connects of a node, by client id: many clients may share an address, and two that share an id take it from each
/// other, for which their neighbours cannot help. Of this node only; the ban that follows is everybody's.
pub struct Flapping {
    limits: FlappingLimits,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Bound: [`CLIENTS_MAX`].
    clients: HashMap<Box<str>, Count>,
    /// Before this, looking for what is over frees nothing.
    next_sweep_ms: i64,
}

#[derive(Clone, Copy)]
struct Count {
    began_ms: i64,
    connects: u32,
}

impl Flapping {
    /// Nobody has connected yet.
    pub fn new(limits: FlappingLimits) -> Flapping {
        Flapping { limits, counts: Mutex::default() }
    }

    /// A client connects, whether or not it is let in. Answers the ban that it has earned; whoever asks stores it
    /// ([`store_ban`](crate::store_ban)).
    pub fn note(&self, tenant: &TenantId, client: &str, now_ms: i64) -> Option<Ban> {
        // A longer id cannot be banned.
        if client.len() > NAME_LEN_MAX {
            return None;
        }
        let window_ms = to_millis(self.limits.window);
        let key = format!("{tenant}/{client}");
        let mut counts = self.counts.lock();
        let fresh = Count { began_ms: now_ms, connects: 0 };
        if !counts.clients.contains_key(key.as_str()) && !counts.has_room(now_ms, window_ms) {
            return None;
        }
        let count = counts.clients.entry(key.as_str().into()).or_insert(fresh);
        if now_ms - count.began_ms >= window_ms {
            *count = fresh;
        }
        count.connects += 1;
        if count.connects <= self.limits.connects_max {
            return None;
        }
        counts.clients.remove(key.as_str());
        drop(counts);
        Some(self.ban(tenant, client, now_ms))
    }

    fn ban(&self, tenant: &TenantId, client: &str, now_ms: i64) -> Ban {
        let FlappingLimits { connects_max, window, ban } = self.limits;
        // The same on every node, so that two nodes that notice at once make one ban.
        let digest = Sha256::digest(client.as_bytes());
        let id: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ban {
            tenant: Some(tenant.as_str().to_owned()),
            id: format!("{PREFIX}{id}"),
            who: Banned::Client(client.to_owned()),
            until_ms: Some(now_ms.saturating_add(to_millis(ban))),
            reason: format!("connected more than {connects_max} times in {window:?}"),
        }
    }
}

impl Counts {
    /// Whether one more client may be counted. What is over makes room, looked for at most four times in a window.
    fn has_room(&mut self, now_ms: i64, window_ms: i64) -> bool {
        if self.clients.len() >= CLIENTS_MAX && now_ms >= self.next_sweep_ms {
            self.clients.retain(|_, count| now_ms - count.began_ms < window_ms);
            self.next_sweep_ms = now_ms + window_ms / 4;
        }
        self.clients.len() < CLIENTS_MAX
    }
}

fn to_millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FlappingLimits =
        FlappingLimits { connects_max: 3, window: Duration::from_secs(60), ban: Duration::from_secs(300) };

    #[test]
    fn one_connect_too_many_in_the_window_is_a_ban_of_that_client_alone() {
        let flapping = Flapping::new(LIMITS);
        let tenant = TenantId::default();
        let at = |client: &str, seconds: i64| flapping.note(&tenant, client, seconds * 1000);
        assert!((0..3).all(|second| at("a", second).is_none()));
        assert!(at("b", 3).is_none(), "others go on");
        // A new window: it begins anew.
        assert!((60..63).all(|second| at("a", second).is_none()));
        let ban = at("a", 119).unwrap();
        assert_eq!((ban.who.clone(), ban.until_ms), (Banned::Client("a".to_owned()), Some(419_000)));
        assert!(ban.id.starts_with(PREFIX) && model::Resource::validate(&ban).is_ok());
        // It is counted anew while it is kept out.
        assert!((120..123).all(|second| at("a", second).is_none()));
        assert!(at("a", 123).is_some());
        assert!((0..9).all(|_| at(&"x".repeat(300), 1).is_none()));
    }

    #[test]
    fn what_is_counted_is_bounded_and_what_is_over_makes_room() {
        let flapping = Flapping::new(LIMITS);
        let tenant = TenantId::default();
        for number in 0..CLIENTS_MAX + 1000 {
            assert!(flapping.note(&tenant, &format!("c{number}"), 0).is_none());
        }
        assert_eq!(flapping.counts.lock().clients.len(), CLIENTS_MAX);
        assert!((0..10).all(|_| flapping.note(&tenant, "late", 1000).is_none()), "not counted");
        assert!((0..3).all(|_| flapping.note(&tenant, "late", 60_000).is_none()));
        assert!(flapping.note(&tenant, "late", 60_000).is_some());
    }
}
