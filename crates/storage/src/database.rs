//! RocksDB, opened once per node: two key spaces without a write-ahead log, because everything in them is replayed
//! from the journal. The only file that knows RocksDB's options; what the rows mean is its users' affair.
//!
//! Blocks on disk: for the consensus thread (writes) and the pool of threads that may block (reads).

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, Direction, ErrorKind,
    FlushOptions, IteratorMode, Options, ReadOptions, ReadTier, SliceTransform, WriteBatch, WriteOptions,
};

use crate::kv::{KvError, Row};

/// The format of the rows. This build reads this one and no other.
const FORMAT: &[u8] = &[1];
const FORMAT_KEY: &[u8] = b"format";
/// Bound: memory of unflushed rows, over all key spaces.
const WRITE_BUFFERS_BYTES: usize = 32 << 20;
/// Bound: memory of one unflushed table.
const WRITE_BUFFER_BYTES: usize = 8 << 20;
/// Bits per key of the bloom filters: about 1 in 100 absent keys is looked for on disk.
const BLOOM_BITS: f64 = 10.0;
/// What a prefix bloom filter covers: tag, group and the first 8 bytes of a key.
pub(crate) const PREFIX_LEN: usize = 13;

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Replicated key/value rows of groups.
    Kv,
    /// Batches of the `rocksdb` engine.
    Log,
}

impl Space {
    const ALL: [Space; 2] = [Space::Kv, Space::Log];

    fn name(self) -> &'static str {
        match self {
            Space::Kv => "kv",
            Space::Log => "log",
        }
    }
}

/// How far a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// It never waits for a disk; see [`is_on_disk`].
    Memory,
    /// Wherever the rows are.
    Disk,
}

impl From<Tier> for ReadTier {
    fn from(tier: Tier) -> ReadTier {
        match tier {
            Tier::Memory => ReadTier::BlockCache,
            Tier::Disk => ReadTier::All,
        }
    }
}

/// Whether a read of [`Tier::Memory`] failed because it would have had to read a disk.
pub(crate) fn is_on_disk(err: &rocksdb::Error) -> bool {
    err.kind() == ErrorKind::Incomplete
}

/// The node's RocksDB.
pub struct Database {
    db: DB,
}

/// Changes of one space that become visible, and durable, together.
pub(crate) struct Changes<'a> {
    space: &'a ColumnFamily,
    batch: WriteBatch,
}

impl Database {
    /// Opens the database of a data directory, creating it if needed.
    ///
    /// # Errors
    /// [`KvError::Damaged`] if another format wrote it, otherwise what RocksDB says.
    pub fn open(path: &Path) -> Result<Arc<Database>, KvError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_max_background_jobs(2);
        options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
        options.set_keep_log_file_num(2);
        let spaces = Space::ALL.map(|space| ColumnFamilyDescriptor::new(space.name(), space_options()));
        let db = DB::open_cf_descriptors(&options, path, spaces)
            .map_err(|err| KvError::io("open rocksdb", err))?;
        match db.get(FORMAT_KEY).map_err(|err| KvError::io("read format", err))? {
            Some(format) if format == FORMAT => {}
            Some(_) => return Err(KvError::Damaged { what: "rocksdb format version" }),
            None => {
                let written = db.put_opt(FORMAT_KEY, FORMAT, &unlogged()).and_then(|()| db.flush());
                written.map_err(|err| KvError::io("write format", err))?;
            }
        }
        Ok(Arc::new(Database { db }))
    }

    /// Begins a set of changes.
    pub(crate) fn changes(&self, space: Space) -> Changes<'_> {
        Changes { space: self.space(space), batch: WriteBatch::default() }
    }

    /// Applies a set of changes: all or none, visible on return, durable after [`flush`](Database::flush).
    pub(crate) fn write(&self, changes: Changes<'_>) -> Result<(), rocksdb::Error> {
        self.db.write_opt(changes.batch, &unlogged())
    }

    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, rocksdb::Error> {
        self.get_from(Tier::Disk, space, key)
    }

    pub(crate) fn get_from(
        &self,
        tier: Tier,
        space: Space,
        key: &[u8],
    ) -> Result<Option<Bytes>, rocksdb::Error> {
        let mut options = ReadOptions::default();
        options.set_read_tier(tier.into());
        let found = self.db.get_pinned_cf_opt(self.space(space), key, &options)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Rows from `from` (inclusive) to `to` (exclusive), in key order, as of this moment.
    pub(crate) fn rows(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = Result<Row, rocksdb::Error>> + '_ {
        self.rows_from(Tier::Disk, space, (from, to))
    }

    pub(crate) fn rows_from(
        &self,
        tier: Tier,
        space: Space,
        (from, to): (&[u8], &[u8]),
    ) -> impl Iterator<Item = Result<Row, rocksdb::Error>> + '_ {
        let mut options = reading(from, to);
        options.set_read_tier(tier.into());
        let mode = IteratorMode::From(from, Direction::Forward);
        let rows = self.db.iterator_cf_opt(self.space(space), options, mode);
        rows.map(|row| row.map(|(key, value)| Row { key: key.into(), value: value.into() }))
    }

    /// The last row at or before `at`, but not before `from`.
    pub(crate) fn last_row(
        &self,
        space: Space,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<Row>, rocksdb::Error> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.set_iterate_lower_bound(from);
        let mode = IteratorMode::From(at, Direction::Reverse);
        let mut rows = self.db.iterator_cf_opt(self.space(space), options, mode);
        let row = rows.next().transpose()?;
        Ok(row.map(|(key, value)| Row { key: key.into(), value: value.into() }))
    }

    /// Makes everything written so far durable.
    pub(crate) fn flush(&self) -> Result<(), rocksdb::Error> {
        let spaces = Space::ALL.map(|space| self.space(space));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&[&spaces[0], &spaces[1]], &options)
    }

    fn space(&self, space: Space) -> &ColumnFamily {
        self.db.cf_handle(space.name()).expect("every space was created on opening")
    }
}

impl Changes<'_> {
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.batch.put_cf(self.space, key, value);
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.batch.delete_cf(self.space, key);
    }

    pub(crate) fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        self.batch.delete_range_cf(self.space, from, to);
    }
}

fn space_options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(BLOOM_BITS, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(PREFIX_LEN));
    options
}

fn unlogged() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// Bounded to a range; through the prefix bloom filter where the range lies within one prefix.
fn reading(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(to);
    let within = from.len() >= PREFIX_LEN && to.len() >= PREFIX_LEN && from[..PREFIX_LEN] == to[..PREFIX_LEN];
    if within {
        options.set_prefix_same_as_start(true);
    } else {
        options.set_total_order_seek(true);
    }
    options
}

/// What a killed process leaves: the files as they are now, in a directory of their own, without the flush of a proper close.
///
/// RocksDB goes on in the background: a copy during which files came, went or grew is no moment of it, and is made anew.
#[cfg(test)]
pub(crate) fn files_after_kill(dir: &Path) -> tempfile::TempDir {
    let list = || -> std::collections::BTreeMap<_, _> {
        let files = std::fs::read_dir(dir).expect("list").map(|file| file.expect("list"));
        files.map(|file| (file.file_name(), file.metadata().map_or(0, |found| found.len()))).collect()
    };
    loop {
        let (copy, before) = (tempfile::tempdir().expect("a temporary directory"), list());
        let names = before.keys().filter(|name| *name != "LOCK");
        let copied: Result<Vec<_>, _> =
            names.map(|name| std::fs::copy(dir.join(name), copy.path().join(name))).collect();
        match copied {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            copied if list() == before => {
                copied.expect("copy");
                return copy;
            }
            copied => drop(copied.expect("copy")),
        }
    }
}
