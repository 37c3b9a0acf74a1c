//! `Bans`: the block list, ready to be asked.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::resources::{Ban, Banned, Network, glob_matches, holds};

/// All bans, by the key of their resource and by whom they keep out.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    by_key: HashMap<String, Ban>,
    lists: HashMap<Option<String>, List>,
    unsettled: HashSet<Option<String>>,
}

/// The bans of one tenant, or of all tenants. Each with its end.
#[derive(Debug, Default)]
struct List {
    clients: HashMap<String, Option<i64>>,
    users: HashMap<String, Option<i64>>,
    addresses: HashMap<IpAddr, Option<i64>>,
    networks: Vec<(Network, Option<i64>)>,
    client_patterns: Vec<(String, Option<i64>)>,
    user_patterns: Vec<(String, Option<i64>)>,
}

/// Whom to look for.
#[derive(Clone, Copy)]
pub(crate) struct Suspect<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) peer: IpAddr,
}

impl Bans {
    /// Takes what a key has become. It counts when [`Bans::settle`] was called.
    pub(crate) fn put(&mut self, key: &str, ban: Option<Ban>) {
        self.unsettled.extend(ban.as_ref().map(|ban| ban.tenant.clone()));
        let before = match ban {
            Some(ban) => self.by_key.insert(key.to_owned(), ban),
            None => self.by_key.remove(key),
        };
        self.unsettled.extend(before.map(|before| before.tenant));
    }

    /// Makes the lists of those tenants anew whose bans have changed.
    pub(crate) fn settle(&mut self) {
        for tenant in std::mem::take(&mut self.unsettled) {
            let mut list = List::default();
            self.by_key.values().filter(|ban| ban.tenant == tenant).for_each(|ban| list.add(ban));
            self.lists.insert(tenant, list);
        }
    }

    /// Whether somebody is kept out now.
    pub(crate) fn keeps_out(&self, suspect: Suspect<'_>, now_ms: i64) -> bool {
        self.lists_of(suspect.tenant).any(|list| list.keeps_out(suspect, now_ms))
    }

    /// Whether a user is kept out now, by its name.
    pub(crate) fn keeps_user_out(&self, tenant: &str, user: &str, now_ms: i64) -> bool {
        self.lists_of(tenant).any(|list| list.keeps_user_out(user, |until| holds(*until, now_ms)))
    }

    /// The keys of those that have ended.
    pub(crate) fn ended(&self, now_ms: i64) -> impl Iterator<Item = &String> {
        self.by_key.iter().filter(move |(_, ban)| ban.has_ended(now_ms)).map(|(key, _)| key)
    }

    fn lists_of(&self, tenant: &str) -> impl Iterator<Item = &List> {
        [None, Some(tenant.to_owned())].into_iter().filter_map(|tenant| self.lists.get(&tenant))
    }
}

impl List {
    fn add(&mut self, ban: &Ban) {
        let until = ban.until_ms;
        match &ban.who {
            Banned::Client(id) => longest(self.clients.entry(id.clone()).or_insert(until), until),
            Banned::User(name) => longest(self.users.entry(name.clone()).or_insert(until), until),
            Banned::Address(address) => {
                longest(self.addresses.entry(address.to_canonical()).or_insert(until), until);
            }
            Banned::Network(network) => self.networks.push((*network, until)),
            Banned::ClientPattern(pattern) => self.client_patterns.push((pattern.clone(), until)),
            Banned::UserPattern(pattern) => self.user_patterns.push((pattern.clone(), until)),
        }
    }

    fn keeps_out(&self, suspect: Suspect<'_>, now_ms: i64) -> bool {
        let holds = |until: &Option<i64>| holds(*until, now_ms);
        let address = suspect.peer.to_canonical();
        self.clients.get(suspect.client_id).is_some_and(holds)
            || self.addresses.get(&address).is_some_and(holds)
            || self.networks.iter().any(|(network, until)| network.contains(address) && holds(until))
            || globs(&self.client_patterns, suspect.client_id, holds)
            || suspect.user.is_some_and(|user| self.keeps_user_out(user, holds))
    }

    fn keeps_user_out(&self, user: &str, holds: impl Fn(&Option<i64>) -> bool) -> bool {
        self.users.get(user).is_some_and(&holds) || globs(&self.user_patterns, user, holds)
    }
}

fn globs(patterns: &[(String, Option<i64>)], text: &str, holds: impl Fn(&Option<i64>) -> bool) -> bool {
    patterns.iter().any(|(pattern, until)| holds(until) && glob_matches(pattern, text))
}

/// Two bans of one name hold until the later one ends.
fn longest(held: &mut Option<i64>, until: Option<i64>) {
    *held = match (*held, until) {
        (Some(held), Some(until)) => Some(held.max(until)),
        _ => None,
    };
}
