//! The state machine of group 0: transactions applied to the state in memory, rows written behind it.
//!
//! ```text
//!   rows   "e" key  ->  [u64 version][value]          "r"  ->  [u64 revision]          little-endian
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use consensus::{Committed, MachineFailed, StateMachine};
use storage::kv::{Kv, KvError, KvWrite};
use tokio::sync::Notify;

use crate::command::{self, Outcome, Unreadable};
use crate::state::State;
use crate::store::{Change, Versioned};
use crate::watch::Published;

/// The key of the revision's row.
const REVISION: &[u8] = b"r";
/// What the keys of entries begin with.
const ENTRY: &[u8] = b"e";
/// Rows read at a time when the state is loaded.
const LOAD_ROWS: usize = 1024;
/// Applied entries after which the rows are flushed and the log may be purged: what a restart replays at
/// most.
const FLUSH_ENTRIES: u64 = 1024;

/// Group 0's machine.
pub(crate) struct MetaMachine {
    kv: Arc<dyn Kv>,
    published: Arc<Published>,
    /// Told of each flush.
    flushes: Arc<Notify>,
    /// Rows of this turn.
    writes: Vec<KvWrite>,
    failure: Option<Unreadable>,
    flushed: u64,
}

impl MetaMachine {
    /// The machine over the rows of an earlier run.
    pub(crate) fn load(kv: Arc<dyn Kv>) -> Result<MetaMachine, KvError> {
        let published = Published::new(load(&*kv)?);
        let flushed = kv.applied();
        let flushes = Arc::new(Notify::new());
        Ok(MetaMachine { kv, published, flushes, writes: Vec::new(), failure: None, flushed })
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    pub(crate) fn flushes(&self) -> Arc<Notify> {
        self.flushes.clone()
    }

    fn apply_command(&mut self, head: &Bytes) -> Result<Outcome, Unreadable> {
        let transaction = command::decode(head)?;
        let (outcome, changes) = self.published.state.write().apply(transaction);
        if let Some(changes) = changes {
            let version = changes.revision;
            self.writes.extend(changes.changes.into_iter().map(|change| row(change, version)));
            let value = Bytes::copy_from_slice(&version.to_le_bytes());
            self.writes.push(KvWrite::Put { key: Bytes::from_static(REVISION), value });
        }
        Ok(outcome)
    }
}

impl StateMachine for MetaMachine {
    fn apply(&mut self, entry: Committed) -> Bytes {
        match self.apply_command(&entry.payload.head) {
            Ok(outcome) => command::encode_outcome(outcome),
            Err(unreadable) => {
                self.failure = Some(unreadable);
                Bytes::new()
            }
        }
    }

    fn turn_ended(&mut self, applied: u64) -> Result<(), MachineFailed> {
        if let Some(unreadable) = self.failure.take() {
            return Err(MachineFailed::new("read a transaction", unreadable));
        }
        let changed = !self.writes.is_empty();
        let written = self.kv.apply(&self.writes, applied);
        written.map_err(|error| MachineFailed::new("write rows", error))?;
        self.writes.clear();
        if applied >= self.flushed + FLUSH_ENTRIES {
            self.flushed = self.kv.flush().map_err(|error| MachineFailed::new("flush rows", error))?;
            self.flushes.notify_one();
        }
        if changed {
            self.published.announce();
        }
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.kv.applied()
    }

    fn flushed(&self) -> u64 {
        self.flushed
    }

    fn checkpoint(&mut self) -> Result<Bytes, MachineFailed> {
        let mut out = Vec::new();
        self.kv.export(&mut out).map_err(|error| MachineFailed::new("export rows", error))?;
        Ok(Bytes::from(out))
    }

    fn restore(&mut self, _applied: u64, checkpoint: Bytes) -> Result<(), MachineFailed> {
        let imported = self.kv.import(&mut checkpoint.reader());
        self.flushed = imported.map_err(|error| MachineFailed::new("import rows", error))?;
        let state = load(&*self.kv).map_err(|error| MachineFailed::new("load rows", error))?;
        *self.published.state.write() = state;
        self.published.announce();
        Ok(())
    }
}

impl Drop for MetaMachine {
    fn drop(&mut self) {
        self.published.stop();
    }
}

fn row(change: Change, version: u64) -> KvWrite {
    let mut key = BytesMut::with_capacity(ENTRY.len() + change.key.len());
    key.put_slice(ENTRY);
    key.put_slice(change.key.as_bytes());
    let key = key.freeze();
    match change.value {
        Some(content) => {
            let mut value = BytesMut::with_capacity(8 + content.len());
            value.put_u64_le(version);
            value.put_slice(&content);
            KvWrite::Put { key, value: value.freeze() }
        }
        None => KvWrite::Delete { key },
    }
}

fn load(kv: &dyn Kv) -> Result<State, KvError> {
    let damaged = || KvError::Damaged { what: "meta store's row" };
    let mut entries = BTreeMap::new();
    let mut from = Bytes::new();
    loop {
        let rows = kv.scan(ENTRY, &from, LOAD_ROWS)?;
        let Some(last) = rows.last() else { break };
        from = [&last.key[..], &[0]].concat().into();
        for mut row in rows {
            let key = str::from_utf8(&row.key[ENTRY.len()..]).map_err(|_| damaged())?.to_owned();
            if row.value.len() < 8 {
                return Err(damaged());
            }
            let version = row.value.get_u64_le();
            entries.insert(key, Versioned { value: row.value, version });
        }
    }
    let revision = match kv.get(REVISION)? {
        Some(revision) => u64::from_le_bytes(revision[..].try_into().map_err(|_| damaged())?),
        None => 0,
    };
    Ok(State::restored(entries, revision))
}
