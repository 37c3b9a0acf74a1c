//! `Follower`: what is stored of some kinds of resource, and then what changes, for whoever keeps them in memory.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{MetaError, WatchError};
use crate::store::{Change, MetaStore};
use crate::watch::MetaWatch;

/// Entries asked for at once.
const PAGE: usize = 500;
/// Pause before the store is asked again after it failed, or after what it held was of no use.
const RESUME_AFTER: Duration = Duration::from_secs(1);

/// Feeds a cache of all resources of some kinds.
///
/// ```text
///   all that there is | one transaction | one transaction | ...   | all that there is | one transaction | ...
///   is_whole                                                        is_whole
///                                          the history no longer went back as far ^
/// ```
///
/// * The first news are everything, of one moment. Then each news are one transaction, in order, none left out and none in
///   part, also when it changed several kinds.
/// * Everything comes again when the watch cannot go on. Then it replaces what was known.
/// * A transaction that changed other kinds is told without changes: its revision counts for whoever waits for it.
///
/// Values are not looked at. What becomes of one that cannot be read is decided by whoever keeps them, as it is of use to refuse
/// everything in one place, and to do without one resource in another.
pub struct Follower {
    store: Arc<dyn MetaStore>,
    kinds: &'static [&'static str],
    watch: Option<MetaWatch>,
}

/// What a [`Follower`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether the changes are all that is stored, made from nothing; otherwise they come on top of what was told before.
    pub is_whole: bool,
    /// What changed of the kinds that are followed, in order.
    pub changes: Vec<Change>,
    /// The store's revision after it.
    pub revision: u64,
}

impl Follower {
    /// One that has read nothing yet.
    pub fn new(store: Arc<dyn MetaStore>, kinds: &'static [&'static str]) -> Follower {
        Follower { store, kinds, watch: None }
    }

    /// The next news, when there are some. Cancel-safe.
    ///
    /// # Errors
    /// [`MetaError::Stopped`] is final. After any other the next call reads everything.
    pub async fn next(&mut self) -> Result<News, MetaError> {
        loop {
            let Some(watch) = &mut self.watch else {
                match self.read_all().await? {
                    Some(news) => return Ok(news),
                    // So much changed meanwhile that it was of no moment.
                    None => continue,
                }
            };
            match watch.next().await {
                Ok(told) => {
                    let changes = told.changes.into_iter().filter(|change| is_of(self.kinds, change));
                    return Ok(News { is_whole: false, changes: changes.collect(), revision: told.revision });
                }
                Err(WatchError::Stopped) => return Err(MetaError::Stopped),
                Err(WatchError::Compacted { .. } | WatchError::Ahead { .. }) => self.watch = None,
            }
        }
    }

    /// The same, asked for as often as it takes. `None`: the store has stopped.
    pub async fn next_in_the_end(&mut self) -> Option<News> {
        loop {
            match self.next().await {
                Ok(news) => return Some(news),
                Err(MetaError::Stopped) => return None,
                Err(_) => tokio::time::sleep(RESUME_AFTER).await,
            }
        }
    }

    /// The news were of no use: after a pause everything comes again.
    pub async fn begin_anew(&mut self) {
        self.watch = None;
        tokio::time::sleep(RESUME_AFTER).await;
    }

    /// Everything of one moment, and a watch that goes on behind it. `None` if the history did not last as long as reading took.
    async fn read_all(&mut self) -> Result<Option<News>, MetaError> {
        let mut changes = Vec::new();
        let mut first = None;
        for kind in self.kinds {
            let prefix = [kind, "/"].concat();
            let mut after = String::new();
            loop {
                let page = self.store.list(&prefix, &after, PAGE).await?;
                first.get_or_insert(page.revision);
                after = page.entries.last().map(|entry| entry.key.clone()).unwrap_or_default();
                let found = page.entries.into_iter();
                changes.extend(found.map(|entry| Change { key: entry.key, value: Some(entry.at.value) }));
                if !page.more {
                    break;
                }
            }
        }
        // One watch over everything, so that what one transaction changed is told together, and no revision is missed.
        let Ok(mut watch) = self.store.watch("", first.unwrap_or(0)) else { return Ok(None) };
        // What changed between the pages: without it this would be of no moment.
        loop {
            match watch.try_next() {
                Ok(Some(told)) => {
                    changes.extend(told.changes.into_iter().filter(|change| is_of(self.kinds, change)));
                }
                Ok(None) => break,
                Err(_) => return Ok(None),
            }
        }
        let revision = watch.revision();
        self.watch = Some(watch);
        Ok(Some(News { is_whole: true, changes, revision }))
    }
}

fn is_of(kinds: &[&str], change: &Change) -> bool {
    change.key.split_once('/').is_some_and(|(kind, _)| kinds.contains(&kind))
}
