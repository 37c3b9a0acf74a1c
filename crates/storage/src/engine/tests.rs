//! Every engine through the conformance suite, opened as the node opens it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use model::{EngineKind, GroupId, Offset};
use rt::{Disk, SimDisk};

use super::{LogStore, LogStoreConfig, StripeContents};
use crate::conformance::{MemoryJournal, Subject, log_suite};
use crate::database::{Database, files_after_kill};
use crate::journal::Location;
use crate::log::Log;
use crate::source::BatchSource;

/// A whole store, of which one engine is under test.
struct Store {
    engine: EngineKind,
    disk: SimDisk,
    journal: Arc<MemoryJournal>,
    database: Option<(tempfile::TempDir, Option<Arc<Database>>)>,
    store: Option<LogStore>,
    starts: u64,
    tail_cache_bytes: usize,
    /// Entries and batches are given an index here, because the subject is only told of bytes.
    index: u64,
    /// What the journal was told to purge.
    purged: u64,
}

const GROUP: GroupId = GroupId(1);

impl Store {
    fn subject(engine: EngineKind, tail_cache_bytes: usize) -> Box<dyn Subject> {
        let database = (engine == EngineKind::Rocksdb).then(|| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let database = Database::open(dir.path()).expect("open rocksdb");
            (dir, Some(database))
        });
        let mut store = Store {
            engine,
            disk: SimDisk::new(),
            journal: Arc::default(),
            database,
            store: None,
            starts: 0,
            tail_cache_bytes,
            index: 0,
            purged: 0,
        };
        store.open();
        Box::new(store)
    }

    fn open(&mut self) {
        self.starts += 1;
        let config = LogStoreConfig {
            index_dir: PathBuf::from("/index"),
            tail_cache_bytes: self.tail_cache_bytes,
            memory_bytes: 1 << 20,
            memory_origin: Offset(self.starts << 40),
        };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let source: Arc<dyn BatchSource> = self.journal.clone();
        let database = self.database.as_ref().and_then(|(_, database)| database.clone());
        let purged = self.purged;
        let contents =
            StripeContents { source: &source, segments: &self.journal.segments(), purged: &|_| purged };
        let opened = LogStore::open(config, &disk, database, contents, &mut |segment, _| {
            panic!("segment {} needs no rebuilding", segment.seq)
        });
        self.store = Some(opened.expect("open the store"));
    }

    fn opened(&self) -> &LogStore {
        self.store.as_ref().expect("open between restarts")
    }
}

impl Subject for Store {
    fn engine(&self) -> EngineKind {
        self.engine
    }

    fn log(&self) -> Arc<dyn Log> {
        self.opened().group(GROUP).expect("open the group")
    }

    fn store(&mut self, bytes: &Bytes) -> Location {
        // The entry that is being made: one more than what is applied.
        self.index = self.log().applied() + 1;
        self.journal.append(GROUP, self.index, bytes)
    }

    fn restart(&mut self) {
        self.store = None;
        self.disk = self.disk.crash(self.starts);
        if let Some((dir, database)) = &mut self.database {
            let copy = files_after_kill(dir.path());
            *database = Some(Database::open(copy.path()).expect("open rocksdb again"));
            *dir = copy;
        }
        self.open();
    }

    fn settle(&mut self) {
        let sealed = self.journal.seal();
        self.opened().segment_sealed(sealed);
        self.opened().write_footers().expect("write footers");
        let log = self.log();
        self.purged = log.flush().expect("flush");
        let dead = self.opened().dead_segments(|_| self.purged).expect("find dead segments");
        for seq in &dead {
            self.journal.recycle(*seq);
        }
        self.opened().recycled(&dead).expect("forget recycled segments");
    }

    fn is_durable(&self) -> bool {
        self.engine != EngineKind::Memory
    }
}

#[test]
fn the_segment_engine_keeps_its_promises() {
    log_suite(&|| Store::subject(EngineKind::Segment, 1 << 20), 60);
}

#[test]
fn the_segment_engine_keeps_its_promises_without_a_tail_cache() {
    log_suite(&|| Store::subject(EngineKind::Segment, 0), 60);
}

#[test]
fn the_memory_engine_keeps_its_promises() {
    log_suite(&|| Store::subject(EngineKind::Memory, 0), 60);
}

#[test]
fn the_rocksdb_engine_keeps_its_promises() {
    log_suite(&|| Store::subject(EngineKind::Rocksdb, 0), 2);
}
