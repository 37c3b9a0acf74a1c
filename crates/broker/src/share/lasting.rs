//! Which shares wait for which session, so that a session that ends concerns only those.

use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::Share;
use super::state::State;
use crate::node::SessionKey;

/// Shares of this node by the sessions that they wait for.
///
/// Invariant: it says what the states of the shares say, for it changes with them, while the share's lock is held.
#[derive(Default)]
pub(super) struct LastingIndex {
    by_session: Mutex<AHashMap<SessionKey, Vec<Arc<Share>>>>,
}

impl LastingIndex {
    /// `share`, whose state this is, waits for a session from now on. Answers whether it did not before.
    pub(super) fn add(&self, share: &Arc<Share>, state: &mut State, client: &Arc<str>) -> bool {
        if !state.lasting.insert(Arc::clone(client)) {
            return false;
        }
        let session = (share.key.tenant.clone(), Arc::clone(client));
        self.by_session.lock().entry(session).or_default().push(Arc::clone(share));
        true
    }

    /// It does not wait for a session any more. Answers whether it did before.
    pub(super) fn remove(&self, share: &Arc<Share>, state: &mut State, client: &Arc<str>) -> bool {
        if !state.lasting.remove(client) {
            return false;
        }
        let session = (share.key.tenant.clone(), Arc::clone(client));
        let mut by_session = self.by_session.lock();
        if let Some(shares) = by_session.get_mut(&session) {
            shares.retain(|known| !Arc::ptr_eq(known, share));
            if shares.is_empty() {
                by_session.remove(&session);
            }
        }
        true
    }

    /// The shares that wait for a session.
    pub(super) fn of(&self, session: &SessionKey) -> Vec<Arc<Share>> {
        self.by_session.lock().get(session).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use model::TenantId;

    use super::super::{ShareKey, Shares};
    use super::*;
    use crate::routing::{Dialect, Filter};

    fn session(client: &str) -> SessionKey {
        (TenantId::default(), client.into())
    }

    fn names(shares: &[Arc<Share>]) -> Vec<&str> {
        shares.iter().map(|share| &*share.key.name).collect()
    }

    /// A session that ended was looked for in every share of the node.
    #[test]
    fn a_session_that_ends_concerns_no_share_but_its_own() {
        let (shares, index) = (Shares::default(), LastingIndex::default());
        let filter = Filter::parse("jobs/#", &Dialect::CANONICAL).unwrap();
        let all: Vec<_> = (0..1000)
            .map(|n| {
                let name = format!("s{n}").into();
                let key = ShareKey { tenant: TenantId::default(), name, filter: filter.clone() };
                let share = shares.open(&key);
                let owner = format!("c{n}").into();
                assert!(index.add(&share, &mut share.state.lock(), &owner));
                assert!(!index.add(&share, &mut share.state.lock(), &owner), "it is known");
                share
            })
            .collect();
        assert!(index.of(&session("stranger")).is_empty());
        assert_eq!(names(&index.of(&session("c7"))), ["s7"]);
        // The same client of another tenant is another session.
        assert!(index.of(&(TenantId::new("other").unwrap(), "c7".into())).is_empty());
        assert!(index.add(&all[8], &mut all[8].state.lock(), &"c7".into()));
        assert_eq!(names(&index.of(&session("c7"))), ["s7", "s8"]);
        for share in index.of(&session("c7")) {
            assert!(index.remove(&share, &mut share.state.lock(), &"c7".into()));
            assert!(!index.remove(&share, &mut share.state.lock(), &"c7".into()), "it is forgotten");
        }
        assert!(index.of(&session("c7")).is_empty());
        assert_eq!(names(&index.of(&session("c8"))), ["s8"]);
        assert_eq!(index.by_session.lock().len(), 999, "nothing is kept of a session that nobody waits for");
    }
}
