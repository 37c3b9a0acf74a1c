//! A small cache bounded by bytes, least recently used out first.

use std::hash::Hash;
use std::sync::Arc;

use ahash::AHashMap;

/// More entries than this are not looked at for each one that comes.
const MANY: usize = 64;

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
        if self.bytes > self.bytes_max {
            self.evict();
        }
    }

    /// Makes room. Where there are many, some are given up that would have had room, so that not each of the next ones looks at
    /// all of them again.
    fn evict(&mut self) {
        let keep_bytes = if self.entries.len() > MANY { self.bytes_max / 4 * 3 } else { self.bytes_max };
        let mut by_use: Vec<(u64, K)> = self.entries.iter().map(|(key, entry)| (entry.used, *key)).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        // The last one is what was put in just now.
        by_use.pop();
        for (_, key) in by_use {
            if self.bytes <= keep_bytes {
                return;
            }
            self.remove(&key);
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
