//! The rows of all groups of a node in one RocksDB, without a log of its own.
//!
//! ```text
//! group u32 | 0            -> applied index u64
//! group u32 | 1 | key      -> value
//! ```
//!
//! One column family: a memtable holds whole batches and memtables are flushed in order, so what a crash leaves is
//! the state after some batch, with the applied index of exactly that batch.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use model::GroupId;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, FlushOptions, IteratorMode, Options, ReadOptions,
    WriteBatch, WriteOptions,
};

use super::checkpoint;
use super::{Kv, KvError, KvWrite, Row};

/// Memtable of the database: replay after a crash is bounded by what two of them hold.
const WRITE_BUFFER_BYTES: usize = 32 << 20;
/// Cache of blocks.
const BLOCK_CACHE_BYTES: usize = 32 << 20;
/// Rows that one batch of an import writes.
const IMPORT_ROWS: usize = 1024;

/// The database that holds the rows of every group of this node.
pub struct RocksStore {
    db: Arc<DB>,
}

impl RocksStore {
    /// Opens the database in `dir`, or makes one. One process at a time.
    pub fn open(dir: &Path) -> Result<RocksStore, KvError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_max_background_jobs(2);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(256);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
        blocks.set_bloom_filter(10.0, false);
        options.set_block_based_table_factory(&blocks);
        let db = DB::open(&options, dir).map_err(|error| KvError::io("open the rows", error))?;
        Ok(RocksStore { db: Arc::new(db) })
    }

    /// The rows of one group.
    pub fn group(&self, group: GroupId) -> Result<Arc<dyn Kv>, KvError> {
        let kv = RocksKv { db: Arc::clone(&self.db), group, applied: AtomicU64::new(0) };
        let stored = kv.db.get(kv.applied_key()).map_err(|error| KvError::io("read the applied index", error))?;
        if let Some(stored) = stored {
            let index = stored.try_into().map_err(|_| KvError::Damaged { what: "the applied index" })?;
            kv.applied.store(u64::from_be_bytes(index), Ordering::Release);
        }
        Ok(Arc::new(kv))
    }
}

struct RocksKv {
    db: Arc<DB>,
    group: GroupId,
    applied: AtomicU64,
}

impl RocksKv {
    fn applied_key(&self) -> [u8; 5] {
        let group = self.group.0.to_be_bytes();
        [group[0], group[1], group[2], group[3], 0]
    }

    fn key(&self, key: &[u8]) -> BytesMut {
        let mut full = BytesMut::with_capacity(5 + key.len());
        full.put_u32(self.group.0);
        full.put_u8(1);
        full.put_slice(key);
        full
    }

    /// Behind the last row of this group.
    fn end(&self) -> [u8; 5] {
        let group = self.group.0.to_be_bytes();
        [group[0], group[1], group[2], group[3], 2]
    }

    fn write(&self, batch: WriteBatch, applied: u64) -> Result<(), KvError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|error| KvError::io("write rows", error))?;
        self.applied.store(applied, Ordering::Release);
        Ok(())
    }

    fn each(
        &self,
        prefix: &[u8],
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, KvError>,
    ) -> Result<(), KvError> {
        let prefix = self.key(prefix);
        let start = self.key(from).max(prefix.clone());
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(self.end().to_vec());
        let rows = self.db.iterator_opt(IteratorMode::From(&start, Direction::Forward), options);
        for row in rows {
            let (key, value) = row.map_err(|error| KvError::io("scan rows", error))?;
            if !key.starts_with(&prefix) || !visit(&key[5..], &value)? {
                break;
            }
        }
        Ok(())
    }
}

impl Kv for RocksKv {
    fn apply(&self, writes: &[KvWrite], applied: u64) -> Result<(), KvError> {
        if applied <= self.applied() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for write in writes {
            match write {
                KvWrite::Put { key, value } => batch.put(self.key(key), value),
                KvWrite::Delete { key } => batch.delete(self.key(key)),
                KvWrite::DeleteRange { from, to } if from < to => batch.delete_range(self.key(from), self.key(to)),
                KvWrite::DeleteRange { .. } => {}
            }
        }
        batch.put(self.applied_key(), applied.to_be_bytes());
        self.write(batch, applied)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.db.get(self.key(key)).map_err(|error| KvError::io("read a row", error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        let mut rows = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        self.each(prefix, from, |key, value| {
            rows.push(Row { key: Bytes::copy_from_slice(key), value: Bytes::copy_from_slice(value) });
            Ok(rows.len() < limit)
        })?;
        Ok(rows)
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    fn flush(&self) -> Result<u64, KvError> {
        let applied = self.applied();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_opt(&options).map_err(|error| KvError::io("flush the rows", error))?;
        Ok(applied)
    }

    fn export(&self, sink: &mut dyn Write) -> Result<u64, KvError> {
        let snapshot = self.db.snapshot();
        let read = |error| KvError::io("read rows for a checkpoint", error);
        let applied = match snapshot.get(self.applied_key()).map_err(read)? {
            Some(index) => {
                u64::from_be_bytes(index.try_into().map_err(|_| KvError::Damaged { what: "the applied index" })?)
            }
            None => 0,
        };
        let mut writer = checkpoint::Writer::begin(sink, applied)?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(self.end().to_vec());
        let start = self.key(b"");
        for row in snapshot.iterator_opt(IteratorMode::From(&start, Direction::Forward), options) {
            let (key, value) = row.map_err(read)?;
            writer.row(&key[5..], &value)?;
        }
        writer.end()?;
        Ok(applied)
    }

    fn import(&self, source: &mut dyn Read) -> Result<u64, KvError> {
        let mut batch = WriteBatch::default();
        batch.delete_range(self.key(b""), BytesMut::from(&self.end()[..]));
        batch.delete(self.applied_key());
        self.write(batch, 0)?;
        self.flush()?;
        let mut reader = checkpoint::Reader::begin(source)?;
        let loaded = self.import_rows(&mut reader);
        if loaded.is_err() {
            let mut batch = WriteBatch::default();
            batch.delete_range(self.key(b""), BytesMut::from(&self.end()[..]));
            self.write(batch, 0)?;
        }
        loaded
    }
}

impl RocksKv {
    fn import_rows(&self, reader: &mut checkpoint::Reader<'_>) -> Result<u64, KvError> {
        let mut batch = WriteBatch::default();
        while let Some(row) = reader.row()? {
            batch.put(self.key(&row.key), &row.value);
            if batch.len() >= IMPORT_ROWS {
                self.write(std::mem::take(&mut batch), 0)?;
            }
        }
        let applied = reader.applied();
        batch.put(self.applied_key(), applied.to_be_bytes());
        self.write(batch, applied)?;
        self.flush()?;
        Ok(applied)
    }
}
