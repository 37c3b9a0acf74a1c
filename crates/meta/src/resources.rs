//! `Resources`: the typed view of the store. What a kind is, is known to the crate that defines it. Caches are fed by a
//! [`Follower`](crate::Follower).

use std::sync::Arc;

use bytes::Bytes;
use model::Resource;

use crate::error::MetaError;
use crate::store::{Expect, MetaStore, Transaction, Versioned};

/// Reads and writes resources by their type. Cheap to clone.
#[derive(Clone)]
pub struct Resources {
    store: Arc<dyn MetaStore>,
}

/// A resource as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<R> {
    /// The resource.
    pub resource: R,
    /// Its version, for [`Expect::Version`].
    pub version: u64,
}

/// Part of a listing of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPage<R> {
    /// The resources, by key.
    pub resources: Vec<Known<R>>,
    /// The revision that they are of; see [`MetaStore::list`].
    pub revision: u64,
    /// The key after which the next page begins, if there is one.
    pub next: Option<String>,
}

impl Resources {
    /// The resources of a store.
    pub fn new(store: Arc<dyn MetaStore>) -> Resources {
        Resources { store }
    }

    /// The store itself, for transactions over several resources.
    pub fn store(&self) -> &Arc<dyn MetaStore> {
        &self.store
    }

    /// The resource with this key, if there is one.
    ///
    /// Errors: [`MetaError::Resource`] if it is of a newer release or damaged, besides those of
    /// [`MetaStore::get`].
    pub async fn get<R: Resource>(&self, key: &str) -> Result<Option<Known<R>>, MetaError> {
        let path = [R::KIND, "/", key].concat();
        let Some(Versioned { value, version }) = self.store.get(&path).await? else { return Ok(None) };
        Ok(Some(Known { resource: decode(&value)?, version }))
    }

    /// Resources whose key begins with `prefix` and comes after `after` (empty: from the first), by key, at
    /// most `limit`.
    pub async fn list<R: Resource>(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<KnownPage<R>, MetaError> {
        let kind = [R::KIND, "/"].concat();
        let after = if after.is_empty() { String::new() } else { [&kind, after].concat() };
        let page = self.store.list(&[&kind, prefix].concat(), &after, limit).await?;
        let last = page.entries.last().map(|entry| entry.key[kind.len()..].to_owned());
        let known = |at: Versioned| Ok(Known { resource: decode(&at.value)?, version: at.version });
        let resources: Result<_, MetaError> = page.entries.into_iter().map(|entry| known(entry.at)).collect();
        Ok(KnownPage { resources: resources?, revision: page.revision, next: last.filter(|_| page.more) })
    }

    /// Stores a resource if what is there is as expected (`None`: whatever is there). Answers its version.
    pub async fn put<R: Resource>(&self, resource: &R, expect: Option<Expect>) -> Result<u64, MetaError> {
        let transaction = Transaction::new().put_resource(resource)?;
        self.store.transact(expecting(transaction, resource.path(), expect)).await
    }

    /// Removes a resource if what is there is as expected (`None`: whatever is there). Answers the store's
    /// revision after it.
    pub async fn delete<R: Resource>(&self, key: &str, expect: Option<Expect>) -> Result<u64, MetaError> {
        let path = [R::KIND, "/", key].concat();
        let transaction = Transaction::new().delete(path.clone());
        self.store.transact(expecting(transaction, path, expect)).await
    }
}

fn expecting(transaction: Transaction, path: String, expect: Option<Expect>) -> Transaction {
    match expect {
        Some(expect) => transaction.check(path, expect),
        None => transaction,
    }
}

fn decode<R: Resource>(stored: &Bytes) -> Result<R, MetaError> {
    R::decode(stored).map_err(MetaError::Resource)
}
