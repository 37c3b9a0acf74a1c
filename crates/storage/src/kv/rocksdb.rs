//! `Kv` in RocksDB: all groups of a node in one key space.
//!
//! ```text
//!   group u32 BE | 0             ->  applied index u64 LE
//!   group u32 BE | 1 | key       ->  value
//! ```

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes};
use model::GroupId;

use super::checkpoint::{CheckpointReader, CheckpointWriter};
use super::keys::after_prefix;
use super::{Kv, KvError, KvWrite, Row};
use crate::database::{Database, Space, Tier, is_on_disk};

const TAG_APPLIED: u8 = 0;
const TAG_ROW: u8 = 1;
/// Rows that an import writes at a time.
const IMPORT_ROWS: usize = 1024;

/// The rows of one group in the node's database.
pub struct RocksKv {
    database: Arc<Database>,
    group: GroupId,
    applied: AtomicU64,
}

impl RocksKv {
    /// Opens the rows of a group, as they were at the last flush or later.
    ///
    /// # Errors
    /// If the applied index cannot be read.
    pub fn open(database: Arc<Database>, group: GroupId) -> Result<RocksKv, KvError> {
        let row = database
            .get(Space::Kv, &applied_key(group))
            .map_err(|err| KvError::io("read applied index", err))?;
        let applied = match row {
            None => 0,
            Some(row) => {
                let bytes = row[..].try_into().map_err(|_| KvError::Damaged { what: "applied index" })?;
                u64::from_le_bytes(bytes)
            }
        };
        Ok(RocksKv { database, group, applied: AtomicU64::new(applied) })
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        let mut full = Vec::with_capacity(5 + key.len());
        full.put_u32(self.group.0);
        full.put_u8(TAG_ROW);
        full.put_slice(key);
        full
    }

    /// The first key after all of the group.
    fn end(&self) -> Vec<u8> {
        after_prefix(&self.key(&[])).expect("the tag is not 0xff")
    }

    fn set_applied(&self, applied: u64) {
        self.applied.store(applied, Ordering::Release);
    }

    fn scan_tier(
        &self,
        tier: Tier,
        (prefix, from): (&[u8], &[u8]),
        limit: usize,
    ) -> Result<Vec<Row>, rocksdb::Error> {
        let first = self.key(prefix.max(from));
        let end = after_prefix(&self.key(prefix)).expect("the tag is not 0xff");
        if first >= end {
            return Ok(Vec::new());
        }
        let rows = self.database.rows_from(tier, Space::Kv, (&first, &end)).take(limit);
        rows.map(|row| row.map(|row| Row { key: row.key.slice(5..), value: row.value })).collect()
    }

    /// Writes a checkpoint's rows; the applied index is not touched.
    fn import_rows(&self, reader: &mut CheckpointReader<'_>) -> Result<(), KvError> {
        loop {
            let mut changes = self.database.changes(Space::Kv);
            let mut rows = 0;
            while rows < IMPORT_ROWS {
                let Some(row) = reader.next()? else { break };
                changes.put(&self.key(&row.key), &row.value);
                rows += 1;
            }
            self.database.write(changes).map_err(|err| KvError::io("write checkpoint rows", err))?;
            if rows < IMPORT_ROWS {
                return Ok(());
            }
        }
    }

    /// Removes all rows and the applied index, durably.
    fn clear(&self) -> Result<(), KvError> {
        let mut changes = self.database.changes(Space::Kv);
        changes.delete(&applied_key(self.group));
        changes.delete_range(&self.key(&[]), &self.end());
        let cleared = self.database.write(changes).and_then(|()| self.database.flush());
        self.set_applied(0);
        cleared.map_err(|err| KvError::io("clear rows", err))
    }
}

impl Kv for RocksKv {
    fn apply(&self, writes: &[KvWrite], applied: u64) -> Result<(), KvError> {
        if applied <= self.applied() {
            return Ok(());
        }
        let mut changes = self.database.changes(Space::Kv);
        for write in writes {
            match write {
                KvWrite::Put { key, value } => changes.put(&self.key(key), value),
                KvWrite::Delete { key } => changes.delete(&self.key(key)),
                KvWrite::DeleteRange { from, to } if from < to => {
                    changes.delete_range(&self.key(from), &self.key(to));
                }
                KvWrite::DeleteRange { .. } => {}
            }
        }
        changes.put(&applied_key(self.group), &applied.to_le_bytes());
        self.database.write(changes).map_err(|err| KvError::io("write rows", err))?;
        self.set_applied(applied);
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let found = self.database.get(Space::Kv, &self.key(key));
        found.map_err(|err| KvError::io("read row", err))
    }

    fn get_at_once(&self, key: &[u8]) -> Option<Result<Option<Bytes>, KvError>> {
        match self.database.get_from(Tier::Memory, Space::Kv, &self.key(key)) {
            Ok(found) => Some(Ok(found)),
            Err(err) if is_on_disk(&err) => None,
            Err(err) => Some(Err(KvError::io("read row", err))),
        }
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        let rows = self.scan_tier(Tier::Disk, (prefix, from), limit);
        rows.map_err(|err| KvError::io("scan rows", err))
    }

    fn scan_at_once(&self, prefix: &[u8], from: &[u8], limit: usize) -> Option<Result<Vec<Row>, KvError>> {
        match self.scan_tier(Tier::Memory, (prefix, from), limit) {
            Ok(rows) => Some(Ok(rows)),
            Err(err) if is_on_disk(&err) => None,
            Err(err) => Some(Err(KvError::io("scan rows", err))),
        }
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    fn flush(&self) -> Result<u64, KvError> {
        let applied = self.applied();
        self.database.flush().map_err(|err| KvError::io("flush rows", err))?;
        Ok(applied)
    }

    fn export(&self, sink: &mut dyn Write) -> Result<u64, KvError> {
        // One iterator over both: it sees one moment, whatever is applied meanwhile.
        let read = |err| KvError::io("read rows for a checkpoint", err);
        let applied_key = applied_key(self.group);
        let mut applied = 0;
        let mut writer = CheckpointWriter::begin(sink)?;
        for row in self.database.rows(Space::Kv, &applied_key, &self.end()) {
            let row = row.map_err(read)?;
            if row.key == applied_key {
                applied = row.value[..].try_into().map_or(0, u64::from_le_bytes);
            } else {
                writer.row(&row.key[5..], &row.value)?;
            }
        }
        writer.finish(applied)?;
        Ok(applied)
    }

    fn import(&self, source: &mut dyn Read) -> Result<u64, KvError> {
        self.clear()?;
        let mut reader = CheckpointReader::begin(source)?;
        let imported = self.import_rows(&mut reader).and_then(|()| reader.finish());
        let applied = match imported {
            Ok(applied) => applied,
            Err(err) => {
                self.clear()?;
                return Err(err);
            }
        };
        let mut changes = self.database.changes(Space::Kv);
        changes.put(&applied_key(self.group), &applied.to_le_bytes());
        let written = self.database.write(changes).and_then(|()| self.database.flush());
        written.map_err(|err| KvError::io("write applied index", err))?;
        self.set_applied(applied);
        Ok(applied)
    }
}

fn applied_key(group: GroupId) -> Vec<u8> {
    let mut key = group.0.to_be_bytes().to_vec();
    key.push(TAG_APPLIED);
    key
}
