//! A small cache bounded by bytes, least recently used out first. For tens of large things, not for millions of small ones.

use std::hash::Hash;
use std::sync::Arc;

use ahash::AHashMap;

/// What is cached, shared with whoever is using it.
pub(super) struct Lru<K, V> {
    bytes_max: usize,
    bytes: usize,
    uses: u64,
    entries: AHashMap<K, Entry<V>>,
}

struct Entry<V> {
    value: Arc<V>,
    bytes: usize,
    used: u64,
}

impl<K: Hash + Eq + Copy, V> Lru<K, V> {
    pub(super) fn new(bytes_max: usize) -> Lru<K, V> {
        Lru { bytes_max, bytes: 0, uses: 0, entries: AHashMap::new() }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<Arc<V>> {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.uses;
        Some(entry.value.clone())
    }

    /// Keeps a value. The newest one stays, however large it is.
    pub(super) fn insert(&mut self, key: K, value: Arc<V>, bytes: usize) {
        self.remove(&key);
        self.uses += 1;
        self.bytes += bytes;
        self.entries.insert(key, Entry { value, bytes, used: self.uses });
        while self.bytes > self.bytes_max && self.entries.len() > 1 {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            oldest.into_iter().for_each(|key| self.remove(&key));
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_the_newest_stays() {
        let mut lru = Lru::new(10);
        lru.insert(1, Arc::new("a"), 4);
        lru.insert(2, Arc::new("b"), 4);
        assert!(lru.get(&1).is_some());
        lru.insert(3, Arc::new("c"), 4);
        assert!(lru.get(&2).is_none());
        assert!(lru.get(&1).is_some());
        lru.insert(4, Arc::new("d"), 100);
        assert!(lru.get(&4).is_some());
        assert!(lru.get(&1).is_none());
    }
}
