//! `Kv` in an ordered map: for simulation and tests. It forgets what was not flushed when it is told to crash.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::Mutex;

use super::checkpoint::{CheckpointReader, CheckpointWriter};
use super::{Kv, KvError, KvWrite, Row};

/// An ordered map that is durable only up to its last flush.
#[derive(Default)]
pub struct MapKv {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Rows,
    flushed: Rows,
}

#[derive(Clone, Default)]
struct Rows {
    rows: BTreeMap<Bytes, Bytes>,
    applied: u64,
}

impl MapKv {
    /// An empty store.
    pub fn new() -> MapKv {
        MapKv::default()
    }

    /// Power loss and restart: everything applied since the last flush is gone.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        state.live = state.flushed.clone();
    }
}

impl Kv for MapKv {
    fn apply(&self, writes: &[KvWrite], applied: u64) -> Result<(), KvError> {
        let live = &mut self.state.lock().live;
        if applied <= live.applied {
            return Ok(());
        }
        for write in writes {
            match write {
                KvWrite::Put { key, value } => {
                    live.rows.insert(key.clone(), value.clone());
                }
                KvWrite::Delete { key } => {
                    live.rows.remove(key);
                }
                KvWrite::DeleteRange { from, to } => live.rows.retain(|key, _| key < from || key >= to),
            }
        }
        live.applied = applied;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.state.lock().live.rows.get(key).cloned())
    }

    fn get_at_once(&self, key: &[u8]) -> Option<Result<Option<Bytes>, KvError>> {
        Some(self.get(key))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        let state = self.state.lock();
        let first = Bound::Included(prefix.max(from));
        let rows = state.live.rows.range::<[u8], _>((first, Bound::Unbounded));
        let rows = rows.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(rows.map(|(key, value)| Row { key: key.clone(), value: value.clone() }).collect())
    }

    fn scan_at_once(&self, prefix: &[u8], from: &[u8], limit: usize) -> Option<Result<Vec<Row>, KvError>> {
        Some(self.scan(prefix, from, limit))
    }

    fn applied(&self) -> u64 {
        self.state.lock().live.applied
    }

    fn flush(&self) -> Result<u64, KvError> {
        let mut state = self.state.lock();
        state.flushed = state.live.clone();
        Ok(state.flushed.applied)
    }

    fn export(&self, sink: &mut dyn Write) -> Result<u64, KvError> {
        let Rows { rows, applied } = self.state.lock().live.clone();
        let mut writer = CheckpointWriter::begin(sink)?;
        for (key, value) in &rows {
            writer.row(key, value)?;
        }
        writer.finish(applied)?;
        Ok(applied)
    }

    fn import(&self, source: &mut dyn Read) -> Result<u64, KvError> {
        *self.state.lock() = State::default();
        let mut reader = CheckpointReader::begin(source)?;
        let mut rows = BTreeMap::new();
        while let Some(row) = reader.next()? {
            rows.insert(row.key, row.value);
        }
        let applied = reader.finish()?;
        let imported = Rows { rows, applied };
        *self.state.lock() = State { live: imported.clone(), flushed: imported };
        Ok(applied)
    }
}
