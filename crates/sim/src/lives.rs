//! The lives of a node without a broker: opened, used and cut off, again and again, on what the life before left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use broker::Foundation;
use cluster::{JournalDriver, Node, NodeConfig, OpenError, Outside, RowStores};
use model::GroupId;
use rt::{Rng, SeededRng, Shutdown, SimDisk, Tasks};
use storage::kv::{Kv, MapKv};
use tokio::runtime::Builder;

use crate::turns::patiently;

/// Where the node keeps its files.
const DIR: &str = "/node";
/// Groups that hold shards and rows.
const DATA_GROUPS: u32 = 2;

/// A node's disk and rows.
pub struct Lives {
    disk: SimDisk,
    rows: BTreeMap<GroupId, Arc<MapKv>>,
    seed: u64,
    count: u64,
}

impl Lives {
    /// Nothing yet. Identity and salts follow from `seed`.
    pub fn new(seed: u64) -> Lives {
        let rows = (0..=DATA_GROUPS).map(|group| (GroupId(group), Arc::default())).collect();
        Lives { disk: SimDisk::new(), rows, seed, count: 0 }
    }

    /// The disk of the coming or current life: for faults, damage and a look. Paths begin with `/node`.
    pub fn disk(&self) -> SimDisk {
        self.disk.clone()
    }

    /// The same node once more, with what would survive a kill now.
    ///
    /// # Panics
    /// If rows cannot be copied, which is no fault that is simulated.
    pub fn fork(&self) -> Lives {
        let copy = |(group, rows): (&GroupId, &Arc<MapKv>)| {
            let (copy, mut checkpoint) = (MapKv::new(), Vec::new());
            rows.export(&mut checkpoint).expect("rows in memory are readable");
            copy.import(&mut &checkpoint[..]).expect("what was exported");
            (*group, Arc::new(copy))
        };
        Lives { disk: self.disk.fork(), rows: self.rows.iter().map(copy).collect(), ..*self }
    }

    /// Opens the node and does `life` with it; nothing of it runs on afterwards. `Err(None)` if opening does not end, as when
    /// the power goes meanwhile. Call [`kill`](Lives::kill) or [`crash`](Lives::crash) before the next life.
    ///
    /// # Errors
    /// Why the node does not open.
    ///
    /// # Panics
    /// As `life` does.
    pub fn live<T>(&mut self, life: impl AsyncFnOnce(&Node) -> T) -> Result<T, Option<OpenError>> {
        self.count += 1;
        let rows = self.rows.clone();
        let given = move |group: GroupId| Arc::clone(&rows[&group]) as Arc<dyn Kv>;
        let config = NodeConfig {
            segment_bytes: 64 << 10,
            data_groups: DATA_GROUPS,
            ..NodeConfig::new(Path::new(DIR))
        };
        let outside = Outside {
            disk: Arc::new(self.disk.clone()),
            rng: Arc::new(SeededRng::new(self.seed ^ self.count << 32)) as Arc<dyn Rng>,
            driver: JournalDriver::Task,
            rows: RowStores::Given(Box::new(given)),
            tasks: Tasks::new(Shutdown::new()),
            observer: Foundation::new(1).observer(),
        };
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            match patiently(Node::open(config, outside)).await {
                None => Err(None),
                Some(Err(error)) => Err(Some(error)),
                Some(Ok(node)) => Ok(life(&node).await),
            }
        })
    }

    /// The process dies: what was written to the disk is there, rows are as they were flushed.
    pub fn kill(&mut self) {
        self.disk = self.disk.kill();
        self.rows.values().for_each(|rows| rows.crash());
    }

    /// The power goes: what was not synced is there or not, as `seed` decides.
    pub fn crash(&mut self, seed: u64) {
        self.disk = self.disk.crash(seed);
        self.rows.values().for_each(|rows| rows.crash());
    }
}
