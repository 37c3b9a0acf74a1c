//! `MetaWatch`: a reader of the history that sleeps while there is nothing new.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::error::WatchError;
use crate::state::State;
use crate::store::Changes;

/// A state that one writes, many read, and watches sleep on.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) state: RwLock<State>,
    /// Told of every change, and of the end.
    changed: Notify,
    stopped: AtomicBool,
}

impl Published {
    pub(crate) fn new(state: State) -> Arc<Published> {
        Arc::new(Published { state: RwLock::new(state), ..Published::default() })
    }

    /// Wakes the watches.
    pub(crate) fn announce(&self) {
        self.changed.notify_waiters();
    }

    /// Ends the watches.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn watch(self: &Arc<Self>, prefix: &str, after: u64) -> Result<MetaWatch, WatchError> {
        self.state.read().check_watch(after)?;
        Ok(MetaWatch { published: self.clone(), prefix: prefix.to_owned(), after })
    }
}

/// Changes as they happen; see [`MetaStore::watch`](crate::MetaStore::watch) for what is promised. It costs
/// nothing while nothing changes, and holds no history: one that is not polled is simply behind.
pub struct MetaWatch {
    published: Arc<Published>,
    prefix: String,
    after: u64,
}

impl MetaWatch {
    /// The next transaction that changed a watched key. Cancel-safe.
    ///
    /// Errors: [`WatchError::Compacted`] if the watch was not polled for too long, [`WatchError::Stopped`].
    /// Either is final.
    pub async fn next(&mut self) -> Result<Changes, WatchError> {
        loop {
            let published = self.published.clone();
            let changed = published.changed.notified();
            if let Some(changes) = self.try_next()? {
                return Ok(changes);
            }
            if published.stopped.load(Ordering::Acquire) {
                return Err(WatchError::Stopped);
            }
            changed.await;
        }
    }

    /// The next changes if there are any by now.
    pub fn try_next(&mut self) -> Result<Option<Changes>, WatchError> {
        let state = self.published.state.read();
        let found = state.next_changes(&self.prefix, self.after)?;
        // Behind what was looked through: changes to other keys must not make this watch fall behind.
        self.after = found.as_ref().map_or(state.revision(), |changes| changes.revision);
        Ok(found)
    }

    /// The revision up to which everything was answered: where to resume.
    pub fn revision(&self) -> u64 {
        self.after
    }
}
