//! `Tables`: what the Meta Service says of users, permissions and bans, as this node knows it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use meta::News;
use model::{Resource, ResourceError};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::bans::{Bans, Suspect};
use crate::resources::{Ban, Permission, User};
use crate::rules::{Compiled, RuleTable};

/// Read at each login and, after a change, once by each connection; written by the follower alone.
pub(crate) struct Tables {
    state: RwLock<State>,
    /// Grows with each change; what caches compare.
    revision: AtomicU64,
    changed: watch::Sender<u64>,
    /// The Meta Service's revision up to which everything is in `state`.
    reached: watch::Sender<u64>,
}

/// Everything that is stored.
#[derive(Default)]
pub(crate) struct State {
    users: HashMap<String, HashMap<String, Arc<User>>>,
    permissions: HashMap<String, BTreeMap<String, Arc<Compiled>>>,
    rules: HashMap<String, Arc<RuleTable>>,
    bans: Bans,
    /// Whether all that is stored was understood. Otherwise nobody may do anything.
    whole: bool,
}

/// A tenant at one revision.
pub(crate) struct TenantView {
    pub(crate) rules: Arc<RuleTable>,
    /// Whether it has neither users nor permissions.
    pub(crate) untouched: bool,
    /// See [`State::whole`].
    pub(crate) whole: bool,
}

impl Default for Tables {
    fn default() -> Tables {
        Tables {
            state: RwLock::default(),
            revision: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            reached: watch::Sender::new(0),
        }
    }
}

impl Tables {
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Tells of each revision.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells how far the Meta Service was followed.
    pub(crate) fn reached(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    pub(crate) fn view(&self, tenant: &str) -> TenantView {
        let state = self.state.read();
        let untouched = state.users.get(tenant).is_none_or(HashMap::is_empty)
            && state.permissions.get(tenant).is_none_or(BTreeMap::is_empty);
        let rules = state.rules.get(tenant).cloned().unwrap_or_default();
        TenantView { rules, untouched, whole: state.whole }
    }

    pub(crate) fn user(&self, tenant: &str, name: &str) -> Option<Arc<User>> {
        self.state.read().users.get(tenant)?.get(name).cloned()
    }

    pub(crate) fn has_users(&self, tenant: &str) -> bool {
        self.state.read().users.get(tenant).is_some_and(|users| !users.is_empty())
    }

    pub(crate) fn keeps_out(&self, suspect: Suspect<'_>, now_ms: i64) -> bool {
        self.state.read().bans.keeps_out(suspect, now_ms)
    }

    pub(crate) fn keeps_user_out(&self, tenant: &str, user: &str, now_ms: i64) -> bool {
        self.state.read().bans.keeps_user_out(tenant, user, now_ms)
    }

    /// Keys of bans that have ended, at most so many.
    pub(crate) fn ended_bans(&self, now_ms: i64, max: usize) -> Vec<String> {
        self.state.read().bans.ended(now_ms).take(max).cloned().collect()
    }

    /// Takes what the Meta Service says. If some of it cannot be understood, everything is refused from now on, until news that
    /// are whole can be.
    pub(crate) fn take(&self, news: &News) -> Result<(), ResourceError> {
        // Compiled before anybody has to wait for it.
        let whole = news.is_whole.then(|| State::of(&news.changes));
        if news.is_whole || !news.changes.is_empty() {
            let (was_whole, outcome) = {
                let mut state = self.state.write();
                let was_whole = state.whole;
                let outcome = match whole {
                    Some(whole) => whole.map(|whole| *state = whole),
                    None => state.take(&news.changes),
                };
                state.whole &= outcome.is_ok();
                (was_whole, outcome)
            };
            if was_whole || outcome.is_ok() {
                self.announce();
            }
            outcome?;
        }
        self.reached.send_replace(news.revision);
        Ok(())
    }

    fn announce(&self) {
        let revision = self.revision.fetch_add(1, Ordering::AcqRel) + 1;
        self.changed.send_replace(revision);
    }
}

/// The kinds that are ours.
pub(crate) const KINDS: [&str; 3] = [User::KIND, Permission::KIND, Ban::KIND];

impl State {
    /// The state that these entries make.
    fn of(entries: &[meta::Change]) -> Result<State, ResourceError> {
        let mut state = State { whole: true, ..State::default() };
        state.take(entries)?;
        Ok(state)
    }

    fn take(&mut self, changes: &[meta::Change]) -> Result<(), ResourceError> {
        let mut recompile = Vec::new();
        for change in changes {
            let Some((kind, key)) = change.key.split_once('/') else { continue };
            let Some((tenant, name)) = key.split_once('/') else { continue };
            let value = change.value.as_ref();
            match kind {
                User::KIND => self.take_user(tenant, name, value)?,
                Permission::KIND => {
                    self.take_permission(tenant, name, value)?;
                    recompile.push(tenant);
                }
                Ban::KIND => self.bans.put(key, value.map(|value| Ban::decode(value)).transpose()?),
                _ => {}
            }
        }
        self.bans.settle();
        recompile.sort_unstable();
        recompile.dedup();
        for tenant in recompile {
            let table = RuleTable::new(self.permissions.entry(tenant.to_owned()).or_default().values());
            self.rules.insert(tenant.to_owned(), Arc::new(table));
        }
        Ok(())
    }

    fn take_user(&mut self, tenant: &str, name: &str, value: Option<&Bytes>) -> Result<(), ResourceError> {
        let users = self.users.entry(tenant.to_owned()).or_default();
        match value {
            Some(value) => users.insert(name.to_owned(), Arc::new(User::decode(value)?)),
            None => users.remove(name),
        };
        Ok(())
    }

    fn take_permission(
        &mut self,
        tenant: &str,
        id: &str,
        value: Option<&Bytes>,
    ) -> Result<(), ResourceError> {
        let permissions = self.permissions.entry(tenant.to_owned()).or_default();
        match value {
            Some(value) => {
                let permission = Permission::decode(value)?;
                let unreadable = ResourceError::Malformed { kind: Permission::KIND, field: "patterns" };
                let rule = permission.rule().map_err(|_| unreadable)?;
                let compiled = Compiled { id: permission.id, who: permission.who, rule };
                permissions.insert(id.to_owned(), Arc::new(compiled));
            }
            None => {
                permissions.remove(id);
            }
        }
        Ok(())
    }
}
