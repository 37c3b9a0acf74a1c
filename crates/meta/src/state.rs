//! `State`: the map, its revision and the history that watches read. A pure function of the transactions that
//! were applied; no I/O, no locks.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::command::Outcome;
use crate::error::{MetaError, WatchError};
use crate::store::{
    Change, Changes, Check, Entry, Expect, KEY_LEN_MAX, Operation, Page, STEPS_MAX, STORE_BYTES_MAX,
    TRANSACTION_BYTES_MAX, Transaction, VALUE_LEN_MAX, Versioned,
};

/// Bound: changes of the history. A watch that is further behind lists again.
pub(crate) const HISTORY_CHANGES_MAX: usize = 4096;
/// Bound: keys and values of the history.
const HISTORY_BYTES_MAX: usize = 16 << 20;

/// The content of a store.
#[derive(Default)]
pub(crate) struct State {
    entries: BTreeMap<String, Versioned>,
    /// Bytes of keys and values.
    bytes: usize,
    revision: u64,
    history: VecDeque<Changes>,
    history_changes: usize,
    history_bytes: usize,
    /// The revision behind which the history is complete.
    compacted: u64,
}

impl State {
    /// A state that was stored at `revision`, without history.
    pub(crate) fn restored(entries: BTreeMap<String, Versioned>, revision: u64) -> State {
        let bytes = entries.iter().map(|(key, at)| key.len() + at.value.len()).sum();
        State { entries, bytes, revision, compacted: revision, ..State::default() }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, key: &str) -> Option<Versioned> {
        self.entries.get(key).cloned()
    }

    pub(crate) fn list(&self, prefix: &str, after: &str, limit: usize) -> Page {
        let first = if after >= prefix { Bound::Excluded(after) } else { Bound::Included(prefix) };
        let range = self.entries.range::<str, _>((first, Bound::Unbounded));
        let mut found = range.take_while(|(key, _)| key.starts_with(prefix));
        let entries = found
            .by_ref()
            .take(limit.max(1))
            .map(|(key, at)| Entry { key: key.clone(), at: at.clone() })
            .collect();
        Page { entries, revision: self.revision, more: found.next().is_some() }
    }

    /// Applies a transaction. Returns what became of it, and what changed.
    pub(crate) fn apply(&mut self, transaction: Transaction) -> (Outcome, Option<Changes>) {
        for (position, check) in transaction.checks.iter().enumerate() {
            let found = self.entries.get(&check.key).map(|at| at.version);
            if !holds(check, found) {
                return (Outcome::Conflict(position, found), None);
            }
        }
        if self.bytes_after(&transaction.operations) > STORE_BYTES_MAX {
            return (Outcome::Full, None);
        }
        let version = self.revision + 1;
        let changes: Vec<Change> = transaction
            .operations
            .into_iter()
            .filter_map(|operation| self.change(operation, version))
            .collect();
        if changes.is_empty() {
            return (Outcome::Done(self.revision), None);
        }
        self.revision = version;
        let changes = Changes { revision: version, changes };
        self.remember(changes.clone());
        (Outcome::Done(version), Some(changes))
    }

    /// Whether the history goes back to `after`.
    pub(crate) fn check_watch(&self, after: u64) -> Result<(), WatchError> {
        if after > self.revision {
            return Err(WatchError::Ahead { revision: self.revision });
        }
        if after < self.compacted {
            return Err(WatchError::Compacted { oldest: self.compacted });
        }
        Ok(())
    }

    /// The first changes behind revision `after` to keys that begin with `prefix`.
    pub(crate) fn next_changes(&self, prefix: &str, after: u64) -> Result<Option<Changes>, WatchError> {
        self.check_watch(after)?;
        // Revisions are dense, so that the place of one in the history is known.
        let skip = (after - self.compacted) as usize;
        for Changes { revision, changes } in self.history.range(skip..) {
            let mine: Vec<Change> =
                changes.iter().filter(|change| change.key.starts_with(prefix)).cloned().collect();
            if !mine.is_empty() {
                return Ok(Some(Changes { revision: *revision, changes: mine }));
            }
        }
        Ok(None)
    }

    fn change(&mut self, operation: Operation, version: u64) -> Option<Change> {
        match operation {
            Operation::Put { key, value } => {
                self.bytes += key.len() + value.len();
                let replaced = self.entries.insert(key.clone(), Versioned { value: value.clone(), version });
                self.bytes -= replaced.map_or(0, |at| key.len() + at.value.len());
                Some(Change { key, value: Some(value) })
            }
            Operation::Delete { key } => {
                let removed = self.entries.remove(&key)?;
                self.bytes -= key.len() + removed.value.len();
                Some(Change { key, value: None })
            }
        }
    }

    fn bytes_after(&self, operations: &[Operation]) -> usize {
        let mut bytes = self.bytes;
        for operation in operations {
            let there =
                self.entries.get(operation.key()).map_or(0, |at| operation.key().len() + at.value.len());
            bytes = bytes.saturating_sub(there);
            if let Operation::Put { key, value } = operation {
                bytes += key.len() + value.len();
            }
        }
        bytes
    }

    fn remember(&mut self, changes: Changes) {
        self.history_changes += changes.changes.len();
        self.history_bytes += weight(&changes);
        self.history.push_back(changes);
        while self.history_changes > HISTORY_CHANGES_MAX || self.history_bytes > HISTORY_BYTES_MAX {
            let Some(oldest) = self.history.pop_front() else { return };
            self.history_changes -= oldest.changes.len();
            self.history_bytes -= weight(&oldest);
            self.compacted = oldest.revision;
        }
    }
}

/// The rules of a transaction that hold whatever the state is.
pub(crate) fn check_transaction(transaction: &Transaction) -> Result<(), MetaError> {
    let steps = transaction.checks.len() + transaction.operations.len();
    let mut bytes = 0;
    let mut rule = (steps > STEPS_MAX).then_some("has at most 1024 checks and operations");
    let mut keys: Vec<&str> = transaction.operations.iter().map(Operation::key).collect();
    let checked = transaction.checks.iter().map(|check| check.key.as_str());
    for key in keys.iter().copied().chain(checked) {
        bytes += key.len();
        if key.is_empty() || key.len() > KEY_LEN_MAX {
            rule = Some("has keys of 1 to 1024 bytes");
        }
    }
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        rule = Some("changes a key at most once");
    }
    for operation in &transaction.operations {
        if let Operation::Put { value, .. } = operation {
            bytes += value.len();
            if value.len() > VALUE_LEN_MAX {
                rule = Some("has values of at most 1 MiB");
            }
        }
    }
    if bytes > TRANSACTION_BYTES_MAX {
        rule = Some("has keys and values of at most 4 MiB together");
    }
    rule.map_or(Ok(()), |rule| Err(MetaError::Invalid { rule }))
}

/// The answer for whoever asked for the transaction.
pub(crate) fn answer(outcome: Outcome, checks: &[Check]) -> Result<u64, MetaError> {
    match outcome {
        Outcome::Done(revision) => Ok(revision),
        Outcome::Conflict(position, found) => {
            let key = checks.get(position).map(|check| check.key.clone()).unwrap_or_default();
            Err(MetaError::Conflict { key, found })
        }
        Outcome::Full => Err(MetaError::Full),
    }
}

fn holds(check: &Check, found: Option<u64>) -> bool {
    match check.expect {
        Expect::Absent => found.is_none(),
        Expect::Present => found.is_some(),
        Expect::Version(version) => found == Some(version),
    }
}

fn weight(changes: &Changes) -> usize {
    changes.changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len)).sum()
}
