//! `Follower`: reads what is stored, then follows the Meta Service.
//!
//! Invariant: what cannot be read closes the door. While a stored user, permission or ban is not understood, the tables are
//! not whole, and everything is refused; a node that starts so does not start.

use std::sync::Arc;
use std::time::Duration;

use meta::{Change, MetaError, MetaStore, MetaWatch, WatchError};
use model::ResourceError;

use crate::tables::{KINDS, State, Tables};

/// Entries asked for at once.
const PAGE: usize = 500;

/// Pause before the Meta Service is asked again after it failed.
const RESUME_AFTER: Duration = Duration::from_secs(1);

/// Why the tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The Meta Service did not answer.
    #[error("users and permissions cannot be read")]
    Meta(#[source] MetaError),
    /// It could not be watched.
    #[error("users and permissions cannot be followed")]
    Watch(#[source] WatchError),
    /// A stored entry is not understood, so nobody can be let in.
    #[error("a stored user, permission or ban is not understood")]
    Unreadable(#[source] ResourceError),
}

/// Keeps an [`Access`](crate::Access) up to date. Without it, decisions stay as they were when it was opened.
pub struct Follower {
    store: Arc<dyn MetaStore>,
    tables: Arc<Tables>,
    watch: MetaWatch,
}

impl Follower {
    pub(crate) async fn open(store: Arc<dyn MetaStore>, tables: Arc<Tables>) -> Result<Follower, OpenError> {
        let (state, watch) = read_all(&*store).await?;
        tables.replace(state, watch.revision());
        Ok(Follower { store, tables, watch })
    }

    /// Follows until the Meta Service has stopped. Dropping the future is safe.
    pub async fn run(mut self) {
        while let Err(error) = self.follow().await {
            match error {
                OpenError::Watch(WatchError::Stopped) => return,
                OpenError::Watch(WatchError::Compacted { .. } | WatchError::Ahead { .. }) => {}
                OpenError::Meta(_) | OpenError::Unreadable(_) => {
                    tracing::error!(err = %error, "everybody is refused until users and permissions can be read");
                }
            }
            self.reread().await;
        }
    }

    async fn follow(&mut self) -> Result<(), OpenError> {
        loop {
            let changes = self.watch.next().await.map_err(OpenError::Watch)?;
            self.tables.take(&changes.changes, changes.revision).map_err(OpenError::Unreadable)?;
        }
    }

    /// Reads everything anew, as often as it takes.
    async fn reread(&mut self) {
        loop {
            match read_all(&*self.store).await {
                Ok((state, watch)) => {
                    self.tables.replace(state, watch.revision());
                    self.watch = watch;
                    return;
                }
                Err(OpenError::Watch(WatchError::Stopped)) => return,
                Err(_) => tokio::time::sleep(RESUME_AFTER).await,
            }
        }
    }
}

/// The state at one revision, and a watch that goes on behind it.
async fn read_all(store: &dyn MetaStore) -> Result<(State, MetaWatch), OpenError> {
    let mut entries = Vec::new();
    let mut first = None;
    for kind in KINDS {
        let prefix = [kind, "/"].concat();
        let mut after = String::new();
        loop {
            let page = store.list(&prefix, &after, PAGE).await.map_err(OpenError::Meta)?;
            first.get_or_insert(page.revision);
            after = page.entries.last().map(|entry| entry.key.clone()).unwrap_or_default();
            let found = page.entries.into_iter();
            entries.extend(found.map(|entry| Change { key: entry.key, value: Some(entry.at.value) }));
            if !page.more {
                break;
            }
        }
    }
    // One watch over all kinds, so that what one transaction changed is taken together.
    let mut watch = store.watch("", first.unwrap_or(0)).map_err(OpenError::Watch)?;
    // What changed between the pages: without it the state would be of no moment.
    while let Some(changes) = watch.try_next().map_err(OpenError::Watch)? {
        entries.extend(changes.changes);
    }
    let state = State::of(&entries).map_err(OpenError::Unreadable)?;
    Ok((state, watch))
}
