//! `Resources`: the typed view of the store. What a kind is, is known to the crate that defines it.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use model::Resource;

use crate::error::{MetaError, WatchError};
use crate::store::{Expect, MetaStore, Transaction, Versioned};
use crate::watch::MetaWatch;

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

/// A change of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownChange<R> {
    /// Its key within its kind.
    pub key: String,
    /// What it is now, `None` if it was removed.
    pub resource: Option<R>,
}

/// Changes of one kind of resource, as they happen.
pub struct ResourceWatch<R> {
    watch: MetaWatch,
    prefix: usize,
    kind: PhantomData<fn() -> R>,
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

    /// Changes of this kind behind a revision; see [`MetaStore::watch`].
    pub fn watch<R: Resource>(&self, after: u64) -> Result<ResourceWatch<R>, WatchError> {
        let prefix = [R::KIND, "/"].concat();
        Ok(ResourceWatch {
            watch: self.store.watch(&prefix, after)?,
            prefix: prefix.len(),
            kind: PhantomData,
        })
    }
}

impl<R: Resource> ResourceWatch<R> {
    /// The revision of the next transaction that changed a resource of this kind, and what it changed.
    /// Cancel-safe. A resource that cannot be read is told in its place, so that the others are not held up.
    pub async fn next(&mut self) -> Result<(u64, Vec<Result<KnownChange<R>, MetaError>>), WatchError> {
        let changes = self.watch.next().await?;
        let typed = changes.changes.into_iter().map(|change| {
            let resource = change.value.map(|value| decode(&value)).transpose()?;
            Ok(KnownChange { key: change.key[self.prefix..].to_owned(), resource })
        });
        Ok((changes.revision, typed.collect()))
    }

    /// The revision up to which everything was answered: where to resume.
    pub fn revision(&self) -> u64 {
        self.watch.revision()
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
