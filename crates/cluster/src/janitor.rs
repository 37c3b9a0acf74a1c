//! Housekeeping: index files of sealed segments, flushed rows, purged logs, recycled segments. One background
//! thread; it sleeps until the journal has sealed a segment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use consensus::GroupHandle;
use model::GroupId;
use parking_lot::Mutex;
use storage::journal::Journal;
use storage::kv::Kv;
use storage::{Log, LogStore};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::machine::Flushed;

pub(crate) struct Janitor {
    journal: Arc<Journal>,
    logs: Arc<LogStore>,
    groups: Mutex<Vec<Watched>>,
    /// Group 0, which flushes and purges by itself; its log pins segments like any other.
    meta: Mutex<Option<GroupHandle>>,
    due: Arc<Notify>,
    runtime: tokio::runtime::Handle,
}

/// A group that is kept tidy.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) id: GroupId,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) flushed: Arc<Flushed>,
    pub(crate) handle: GroupHandle,
}

impl Janitor {
    pub(crate) fn new(journal: Arc<Journal>, logs: Arc<LogStore>) -> Self {
        let due = Arc::new(Notify::new());
        let sealed = Arc::clone(&due);
        journal.on_seal(Box::new(move |_| sealed.notify_one()));
        let runtime = tokio::runtime::Handle::current();
        Self { journal, logs, groups: Mutex::default(), meta: Mutex::default(), due, runtime }
    }

    pub(crate) fn watch(&self, group: Watched) {
        self.groups.lock().push(group);
    }

    pub(crate) fn watch_meta(&self, handle: GroupHandle) {
        *self.meta.lock() = Some(handle);
    }

    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// One round. Every step may fail on a full disk; what it would have done is done by a later round.
    pub(crate) fn round(&self) {
        if let Err(error) = self.logs.write_footers() {
            warn!(err = %error, "an index file could not be written");
        }
        let groups = self.groups.lock().clone();
        for group in &groups {
            match flush(group) {
                Ok(flushed) => group.flushed.0.store(flushed, Ordering::Release),
                Err(error) => warn!(group = group.id.0, err = %error, "a group could not be flushed"),
            }
            let handle = group.handle.clone();
            self.runtime.spawn(async move {
                // A group that has stopped purges at its next start.
                let _ = handle.purge().await;
            });
        }
        self.recycle(&groups);
    }

    fn recycle(&self, groups: &[Watched]) {
        let meta = self.meta.lock().clone();
        let purged = |id: GroupId| {
            if id == GroupId::META {
                return meta.as_ref().and_then(|handle| handle.status().purged_index).unwrap_or(0);
            }
            let group = groups.iter().find(|group| group.id == id);
            group.and_then(|group| group.handle.status().purged_index).unwrap_or(0)
        };
        let dead = match self.logs.dead_segments(purged) {
            Ok(dead) => dead,
            Err(error) => {
                warn!(err = %error, "segments could not be given back");
                return;
            }
        };
        let recycled: Vec<u64> = dead.into_iter().filter(|seq| self.journal.recycle(*seq).is_ok()).collect();
        if recycled.is_empty() {
            return;
        }
        info!(segments = recycled.len(), "journal segments are recycled");
        if let Err(error) = self.logs.recycled(&recycled) {
            warn!(err = %error, "index files of recycled segments could not be removed");
        }
    }
}

fn flush(group: &Watched) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    Ok(group.log.flush()?.min(group.kv.flush()?))
}
