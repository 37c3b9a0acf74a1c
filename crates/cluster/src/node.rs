//! A node: its identity, its journal, its logs and rows, and the groups that run over them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use consensus::{Groups, Limits, StateMachine};
use meta::{MetaOpenError, MetaStore, ReplicatedMeta};
use model::{GroupId, NodeId, Offset};
use parking_lot::Mutex;
use rt::{Disk, DiskLock, OnFailure, OnShutdown, Rng, TaskHandle, TaskKind, Tasks};
use storage::journal::{
    Driver, Identity, Journal, JournalConfig, JournalError, JournalState, Recovered, RecoveredGroup,
};
use storage::kv::{Kv, KvError, RocksKv};
use storage::{BatchSource, Database, Log, LogError, LogStore, LogStoreConfig, StripeContents};
use thiserror::Error;
use tokio::sync::Notify;
use tracing::warn;

use crate::group::Group;
use crate::identity::{self, StoredIdentity};
use crate::janitor::{Janitor, Watched};
use crate::machine::{DataMachine, Flushed, Observer};
use crate::rebuild;
use crate::space::Space;

/// Ends when its group is closed and everything taken is answered; without it nothing is acknowledged any more.
const BUNDLER: TaskKind =
    TaskKind { name: "bundler", on_shutdown: OnShutdown::Finish, on_failure: OnFailure::Shutdown };

/// Does the journal's work where there are no threads.
const PUMP: TaskKind =
    TaskKind { name: "journal", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };

/// Sizes and places of a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Data groups. Fixed when the data directory is made; a later value that differs is ignored with a warning.
    pub data_groups: u32,
    /// Size of a journal segment.
    pub segment_bytes: u32,
    /// Newest batches kept in memory.
    pub tail_cache_bytes: usize,
    /// All shards of the memory engine together.
    pub memory_bytes: usize,
}

impl NodeConfig {
    /// Defaults, below `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            data_groups: 2,
            segment_bytes: 64 << 20,
            tail_cache_bytes: 256 << 20,
            memory_bytes: 256 << 20,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process uses the data directory.
    #[error("the data directory {dir} is in use by another broker")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be used.
    #[error("cannot use the data directory {dir}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The identity file is damaged or of a newer version.
    #[error("{file} is damaged or was written by a newer version")]
    Identity {
        /// The file.
        file: PathBuf,
    },
    /// The journal cannot be opened.
    #[error("cannot open the journal")]
    Journal(#[source] JournalError),
    /// The journal is damaged: entries of a group are lost and there is no replica to repair them from.
    #[error(
        "the journal is damaged in {ranges} place(s): acknowledged records may be lost; restore the files"
    )]
    Damaged {
        /// Number of damaged ranges.
        ranges: usize,
    },
    /// The index cannot be opened.
    #[error("cannot open the log index")]
    Log(#[source] LogError),
    /// The rows cannot be opened.
    #[error("cannot open the rows")]
    Rows(#[source] KvError),
    /// The Meta Service did not start.
    #[error("the meta service did not start")]
    Meta {
        /// Why.
        #[source]
        source: Box<MetaOpenError>,
    },
    /// A group did not start.
    #[error("group {group} did not start")]
    Group {
        /// Which.
        group: GroupId,
        /// Why.
        #[source]
        source: Box<consensus::OpenError>,
    },
}

/// What a node takes from outside.
pub struct Outside {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Randomness: identity and salts.
    pub rng: Arc<dyn Rng>,
    /// Who does the journal's work.
    pub driver: JournalDriver,
    /// Where the rows of the groups are kept.
    pub rows: RowStores,
    /// Where the groups' tasks run.
    pub tasks: Tasks,
    /// Told what is applied.
    pub observer: Arc<dyn Observer>,
}

/// Who does the journal's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalDriver {
    /// Threads of its own.
    Threads,
    /// A task on the runtime that the node is opened on: for simulation, where everything is one thread.
    Task,
}

/// Where the rows of the groups are kept.
pub enum RowStores {
    /// In a RocksDB below the data directory.
    Database,
    /// In what this answers for each group: for simulation. There is no rocksdb engine then.
    Given(Box<dyn Fn(GroupId) -> Arc<dyn Kv>>),
}

/// An open node. Shared by all threads.
pub struct Node {
    identity: StoredIdentity,
    meta: Arc<ReplicatedMeta>,
    groups: Vec<Group>,
    journal: Arc<Journal>,
    space: Arc<Space>,
    consensus: Groups,
    janitor: Janitor,
    runs: Mutex<Vec<TaskHandle>>,
    _lock: Box<dyn DiskLock>,
}

impl Node {
    /// Opens the data directory (making it if need be), replays what is to be replayed, and starts all groups. To be
    /// called on the consensus thread, whose runtime then runs the groups. Blocks on the disk.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed unless the error says that a file could not be written.
    pub async fn open(config: NodeConfig, outside: Outside) -> Result<Node, OpenError> {
        let dir = config.data_dir.clone();
        let lock = lock(&dir, &*outside.disk)?;
        let identity = identity::load_or_create(&dir, &config, &outside)?;
        let mut journal_config =
            JournalConfig::new(&dir, Identity { cluster: identity.cluster, node: identity.node });
        journal_config.segment_bytes = config.segment_bytes;
        let (journal, recovered) = open_journal(journal_config, &outside)?;
        refuse_damage(&recovered)?;
        let database = match &outside.rows {
            RowStores::Database => Some(Database::open(&dir.join("rows")).map_err(OpenError::Rows)?),
            RowStores::Given(_) => None,
        };
        let logs = open_logs(
            store_config(&config, &identity),
            &outside.disk,
            database.as_ref(),
            (&journal, &recovered),
        )?;
        let consensus = Groups::new(
            NodeId(identity.node),
            Arc::clone(&journal),
            outside.tasks.clone(),
            Limits::default(),
        );
        let janitor = Janitor::new(Arc::clone(&journal), Arc::clone(&logs));
        let mut recovered = recovered;
        let found = recovered.groups.remove(&GroupId::META).unwrap_or_default();
        let rows = rows_of(GroupId::META, &outside.rows, database.as_ref())?;
        let meta = ReplicatedMeta::open(&consensus, found, rows, &outside.tasks).await;
        let meta = meta.map_err(|source| OpenError::Meta { source: Box::new(source) })?;
        janitor.watch_meta(meta.group().clone());
        let in_flight =
            Group::in_flight_bytes_max(journal.append_bytes_max()) * identity.data_groups as usize;
        let space = Arc::new(Space::new(Arc::clone(&journal), in_flight));
        let mut node = Node {
            identity,
            meta: Arc::new(meta),
            groups: Vec::new(),
            journal,
            space,
            consensus,
            janitor,
            runs: Mutex::default(),
            _lock: lock,
        };
        for number in 1..=node.identity.data_groups {
            let id = GroupId(number);
            let log = logs.group(id).map_err(OpenError::Log)?;
            let kv = rows_of(id, &outside.rows, database.as_ref())?;
            let found = recovered.groups.remove(&id).unwrap_or_default();
            node.start_group(id, (log, kv), found, &outside).await?;
        }
        Ok(node)
    }

    async fn start_group(
        &mut self,
        id: GroupId,
        (log, kv): (Arc<dyn Log>, Arc<dyn Kv>),
        found: RecoveredGroup,
        outside: &Outside,
    ) -> Result<(), OpenError> {
        let flushed = Arc::new(Flushed::starting_at(log.applied().min(kv.applied())));
        let machine = DataMachine::open(
            id,
            (Arc::clone(&log), Arc::clone(&kv)),
            Arc::clone(&outside.observer),
            Arc::clone(&flushed),
        );
        let machine: Box<dyn StateMachine> = Box::new(machine.map_err(OpenError::Rows)?);
        let handle = self.consensus.open(id, found, machine).await;
        let handle = handle.map_err(|source| OpenError::Group { group: id, source: Box::new(source) })?;
        self.janitor.watch(Watched {
            id,
            log: Arc::clone(&log),
            kv: Arc::clone(&kv),
            flushed,
            handle: handle.clone(),
        });
        let group = Group::new(id, (log, kv), Arc::clone(&self.space), self.journal.append_bytes_max());
        let run = group.clone().run(handle);
        self.runs.lock().push(outside.tasks.spawn(BUNDLER, format!("group {id}"), run));
        self.groups.push(group);
        Ok(())
    }

    /// What is small and cluster-wide.
    pub fn meta(&self) -> Arc<dyn MetaStore> {
        Arc::clone(&self.meta) as Arc<dyn MetaStore>
    }

    /// The data groups, by number.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The data group that a key belongs to. Never changes for the life of the cluster.
    pub fn group_of_key(&self, key: &[u8]) -> &Group {
        let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits of FNV-1a depend on few bits of the last bytes; the folded word does not.
        &self.groups[((hash ^ (hash >> 32)) as u32 as usize) % self.groups.len()]
    }

    /// This node's number.
    pub fn id(&self) -> NodeId {
        NodeId(self.identity.node)
    }

    /// A name for the cluster: 22 characters that never change.
    pub fn cluster_name(&self) -> Arc<str> {
        identity::name_of(self.identity.cluster).into()
    }

    /// Whether the journal takes appends.
    pub fn journal_state(&self) -> JournalState {
        self.journal.state()
    }

    /// Whether the disk is so nearly full that records are refused. Commands without records are still taken.
    pub fn is_space_low(&self) -> bool {
        self.space.is_low()
    }

    /// Resolves when [`is_space_low`](Node::is_space_low): whatever makes space should be done now.
    pub async fn space_low(&self) {
        self.space.low().await;
    }

    /// Bytes that the journal takes on disk.
    pub fn journal_bytes(&self) -> u64 {
        self.journal.disk_bytes()
    }

    /// The journal's counters.
    pub fn journal_counters(&self) -> storage::journal::JournalCounters {
        self.journal.counters()
    }

    /// Does the node's housekeeping once: index files, flushes, purges, recycled segments. Blocks on the disk: for a thread
    /// of its own. Errors are logged; nothing is lost by one, the next round tries again.
    pub fn keep_house(&self) {
        self.janitor.round();
        self.space.look();
    }

    /// Resolves when there may be something to tidy: a segment was sealed, or space is low.
    pub async fn housekeeping_due(&self) {
        tokio::select! {
            () = self.janitor.due() => {}
            () = self.space.still_low() => {}
        }
    }

    /// Stops taking commands, answers what was taken, stops the groups. On the consensus thread.
    pub async fn shutdown(&self) {
        for group in &self.groups {
            group.close();
        }
        let runs: Vec<_> = std::mem::take(&mut *self.runs.lock());
        for mut run in runs {
            run.ended().await;
        }
        self.consensus.shutdown().await;
        // What is in the rows' memory need not be replayed at the next start.
        self.janitor.round();
    }
}

fn lock(dir: &Path, disk: &dyn Disk) -> Result<Box<dyn DiskLock>, OpenError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.to_owned() },
        _ => OpenError::Directory { dir: dir.to_owned(), source },
    };
    disk.create_dir_all(dir).map_err(failed)?;
    disk.lock(&dir.join("lock")).map_err(failed)
}

/// Damage is not started over: entries, or a vote, may have been in the damaged range, and with one replica nobody
/// else has them. (Only what may still be needed is looked at: segments whose entries are all purged are not.)
fn refuse_damage(recovered: &Recovered) -> Result<(), OpenError> {
    let ranges = recovered.quarantined.len() + recovered.missing_segments.len();
    for range in &recovered.quarantined {
        warn!(segment = range.segment, offset = range.offset, bytes = range.len, "the journal is damaged");
    }
    for segment in &recovered.missing_segments {
        warn!(segment, "a journal segment is missing");
    }
    let lost = recovered.groups.values().any(|group| !group.gaps().is_empty());
    if ranges > 0 || lost { Err(OpenError::Damaged { ranges }) } else { Ok(()) }
}

fn open_journal(config: JournalConfig, outside: &Outside) -> Result<(Arc<Journal>, Recovered), OpenError> {
    let wake = Arc::new(Notify::new());
    let driver = match outside.driver {
        JournalDriver::Threads => Driver::Threads,
        JournalDriver::Task => {
            let wake = Arc::clone(&wake);
            Driver::Manual { wake: Arc::new(move || wake.notify_one()) }
        }
    };
    let opened = Journal::open(config, Arc::clone(&outside.disk), Arc::clone(&outside.rng), driver);
    let (journal, recovered) = opened.map_err(OpenError::Journal)?;
    let journal = Arc::new(journal);
    if outside.driver == JournalDriver::Task {
        // Ends with the journal: it holds no handle that would keep it alive.
        let pumped = Arc::downgrade(&journal);
        outside.tasks.spawn(PUMP, "journal", async move {
            loop {
                wake.notified().await;
                let Some(journal) = pumped.upgrade() else { return };
                while journal.turn() {}
            }
        });
    }
    Ok((journal, recovered))
}

fn rows_of(
    group: GroupId,
    rows: &RowStores,
    database: Option<&Arc<Database>>,
) -> Result<Arc<dyn Kv>, OpenError> {
    match (rows, database) {
        (RowStores::Given(rows), _) => Ok(rows(group)),
        (RowStores::Database, Some(database)) => {
            Ok(Arc::new(RocksKv::open(Arc::clone(database), group).map_err(OpenError::Rows)?))
        }
        (RowStores::Database, None) => Err(OpenError::Rows(KvError::Damaged { what: "the rows" })),
    }
}

fn store_config(config: &NodeConfig, identity: &StoredIdentity) -> LogStoreConfig {
    LogStoreConfig {
        index_dir: config.data_dir.join("index"),
        tail_cache_bytes: config.tail_cache_bytes,
        memory_bytes: config.memory_bytes,
        memory_origin: Offset(identity.starts << 40),
    }
}

fn open_logs(
    config: LogStoreConfig,
    disk: &Arc<dyn Disk>,
    database: Option<&Arc<Database>>,
    (journal, recovered): (&Arc<Journal>, &Recovered),
) -> Result<Arc<LogStore>, OpenError> {
    let source: Arc<dyn BatchSource> = Arc::clone(journal) as Arc<dyn BatchSource>;
    let segments = journal.segments();
    let purged = |group: GroupId| {
        let purged = recovered.groups.get(&group).and_then(|found| found.purged);
        purged.map_or(0, |purged| purged.index)
    };
    let contents = StripeContents { source: &source, segments: &segments, purged: &purged };
    let rebuilt = LogStore::open(config, disk, database.map(Arc::clone), contents, &mut |info, log| {
        rebuild::segment(journal, recovered, info, log)
    });
    let logs = Arc::new(rebuilt.map_err(OpenError::Log)?);
    // The logs read from the journal: a strong handle here would keep both alive for ever.
    let sealed = Arc::downgrade(&logs);
    journal.on_seal(Box::new(move |info| {
        if let Some(logs) = sealed.upgrade() {
            logs.segment_sealed(info.clone());
        }
    }));
    Ok(logs)
}
