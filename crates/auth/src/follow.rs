//! `Follower`: reads what is stored, then follows the Meta Service.
//!
//! Invariant: what cannot be read closes the door. While a stored user, permission or ban is not understood, the tables are
//! not whole, and everything is refused; a node that starts so does not start.

use std::sync::Arc;

use meta::{MetaError, MetaStore};
use model::ResourceError;

use crate::tables::{KINDS, Tables};

/// Why the tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The Meta Service did not answer.
    #[error("users and permissions cannot be read")]
    Meta(#[source] MetaError),
    /// A stored entry is not understood, so nobody can be let in.
    #[error("a stored user, permission or ban is not understood")]
    Unreadable(#[source] ResourceError),
}

/// Keeps an [`Access`](crate::Access) up to date. Without it, decisions stay as they were when it was opened.
pub struct Follower {
    stored: meta::Follower,
    tables: Arc<Tables>,
}

impl Follower {
    pub(crate) async fn open(store: Arc<dyn MetaStore>, tables: Arc<Tables>) -> Result<Follower, OpenError> {
        let mut stored = meta::Follower::new(store, &KINDS);
        let all = stored.next().await.map_err(OpenError::Meta)?;
        tables.take(&all).map_err(OpenError::Unreadable)?;
        Ok(Follower { stored, tables })
    }

    /// Follows until the Meta Service has stopped. Dropping the future is safe.
    pub async fn run(mut self) {
        let mut is_told = false;
        while let Some(news) = self.stored.next_in_the_end().await {
            let taken = self.tables.take(&news);
            if let Err(error) = &taken {
                if !is_told {
                    tracing::error!(err = %error, "everybody is refused until users and permissions can be read");
                }
                self.stored.begin_anew().await;
            }
            is_told = taken.is_err();
        }
    }
}
