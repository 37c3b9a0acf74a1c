//! An ordered map that stands in for RocksDB in tests and simulations: it loses what was not flushed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;

use super::checkpoint;
use super::{Kv, KvError, KvWrite, Row};

/// Rows in memory. [`MapKv::crash`] takes it back to the last flush.
#[derive(Default)]
pub struct MapKv {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    now: State,
    flushed: State,
}

#[derive(Default, Clone)]
struct State {
    rows: BTreeMap<Bytes, Bytes>,
    applied: u64,
}

impl MapKv {
    /// No rows.
    pub fn new() -> MapKv {
        MapKv::default()
    }

    /// What a power failure does: everything since the last flush is gone.
    pub fn crash(&self) {
        let mut inner = self.inner.lock();
        inner.now = inner.flushed.clone();
    }
}

impl Kv for MapKv {
    fn apply(&self, writes: &[KvWrite], applied: u64) -> Result<(), KvError> {
        let mut inner = self.inner.lock();
        let state = &mut inner.now;
        if applied <= state.applied {
            return Ok(());
        }
        for write in writes {
            match write {
                KvWrite::Put { key, value } => {
                    state.rows.insert(key.clone(), value.clone());
                }
                KvWrite::Delete { key } => {
                    state.rows.remove(key);
                }
                KvWrite::DeleteRange { from, to } => state.rows.retain(|key, _| key < from || key >= to),
            }
        }
        state.applied = applied;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.inner.lock().now.rows.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        let inner = self.inner.lock();
        let start = from.max(prefix);
        let rows = inner.now.rows.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
        let rows = rows.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(rows.map(|(key, value)| Row { key: key.clone(), value: value.clone() }).collect())
    }

    fn applied(&self) -> u64 {
        self.inner.lock().now.applied
    }

    fn flush(&self) -> Result<u64, KvError> {
        let mut inner = self.inner.lock();
        inner.flushed = inner.now.clone();
        Ok(inner.flushed.applied)
    }

    fn export(&self, sink: &mut dyn Write) -> Result<u64, KvError> {
        let state = self.inner.lock().now.clone();
        let mut writer = checkpoint::Writer::begin(sink, state.applied)?;
        for (key, value) in &state.rows {
            writer.row(key, value)?;
        }
        writer.end()?;
        Ok(state.applied)
    }

    fn import(&self, source: &mut dyn Read) -> Result<u64, KvError> {
        *self.inner.lock() = Inner::default();
        let mut reader = checkpoint::Reader::begin(source)?;
        let mut rows = BTreeMap::new();
        while let Some(row) = reader.row()? {
            rows.insert(row.key, row.value);
        }
        let state = State { rows, applied: reader.applied() };
        *self.inner.lock() = Inner { now: state.clone(), flushed: state };
        Ok(reader.applied())
    }
}
