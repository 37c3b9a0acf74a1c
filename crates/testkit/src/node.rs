//! A node whose cores all run on the runtime of the calling test: one, unless it asks for more.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use auth::{Access, Host, Link, Passwords, Policy};
use broker::{Broker, BrokerConfig, Core, Foundation, Offload, Outside, Shared};
use cluster::{JournalDriver, Node, NodeConfig, OpenError, RowStores};
use meta::Resources;
use model::Resource;
use rt::{Clock, Shutdown, StdDisk, SystemClock, SystemRng, Tasks};
use storage::journal::JournalError;
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet};

/// How long a directory may stay in use after its node was stopped, and how long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

thread_local! {
    /// Directories of nodes that the running test dropped. A database that finds its directory gone waits for a second before it
    /// gives up.
    static LEFT: RefCell<Vec<TempDir>> = const { RefCell::new(Vec::new()) };
}

/// Runs a test as the only core of a process: a single-threaded runtime with a `LocalSet`.
pub fn on_core<F: Future<Output = ()>>(test: F) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = LocalSet::new();
    local.block_on(&runtime, test);
    // What still runs holds the nodes.
    drop(local);
    drop(runtime);
    LEFT.take();
}

/// A running node. Dropped without [`TestNode::stop`], it is as good as killed.
pub struct TestNode {
    /// The broker on this thread.
    pub core: Core,
    /// What other cores a test asked for, on this thread as well: what one posts to another comes with that one's next turn.
    pub others: Vec<Core>,
    shared: Arc<Shared>,
    node: Arc<Node>,
    readers: Arc<Readers>,
    /// Until it is stopped.
    dir: Option<TempDir>,
    tasks: Vec<JoinHandle<()>>,
}

/// Where blocking work goes: each to a thread of its own.
#[derive(Default)]
struct Readers {
    refuse: AtomicBool,
    refused: Notify,
}

impl Readers {
    fn offload(self: &Arc<Self>) -> Offload {
        let readers = Arc::clone(self);
        Arc::new(move |work| {
            if readers.refuse.load(Ordering::Relaxed) {
                drop(work);
                readers.refused.notify_one();
            } else {
                std::thread::spawn(work);
            }
        })
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        LEFT.with_borrow_mut(|left| left.extend(self.dir.take()));
    }
}

impl TestNode {
    /// A node on an empty directory.
    pub async fn start() -> TestNode {
        TestNode::start_on(TempDir::new().expect("a temporary directory")).await
    }

    /// The same with a clock of the test's.
    pub async fn start_with(clock: Arc<dyn Clock>) -> TestNode {
        TestNode::start_as(TempDir::new().expect("a temporary directory"), own_table(), clock, 1).await
    }

    /// A node of so many cores.
    pub async fn start_cores(cores: u16) -> TestNode {
        let (dir, clock) = (TempDir::new().expect("a temporary directory"), Arc::new(SystemClock::new()));
        TestNode::start_as(dir, own_table(), clock, cores).await
    }

    /// A node on a directory that another one left.
    pub async fn start_on(dir: TempDir) -> TestNode {
        TestNode::start_as(dir, own_table(), Arc::new(SystemClock::new()), 1).await
    }

    /// A node on an empty directory that asks these who somebody is.
    pub async fn start_asking(chain: Vec<Link>) -> TestNode {
        let dir = TempDir::new().expect("a temporary directory");
        TestNode::start_as(dir, chain, Arc::new(SystemClock::new()), 1).await
    }

    async fn start_as(dir: TempDir, chain: Vec<Link>, clock: Arc<dyn Clock>, cores: u16) -> TestNode {
        let foundation = Foundation::new(usize::from(cores));
        let node = Arc::new(open(dir.path(), &foundation).await);
        let readers = Arc::<Readers>::default();
        let offload = readers.offload();
        let rng = Arc::new(SystemRng);
        let passwords = Passwords::new(offload.clone(), 2, rng.clone());
        let host = Host { clock: clock.clone(), rng: rng.clone(), passwords };
        let opened = Access::open(node.meta(), chain, Policy::default(), host).await;
        let (access, follower) = opened.expect("what is stored can be read");
        let following = tokio::task::spawn_local(follower.run());
        let outside = Outside { clock, rng, offload, access };
        let shared = foundation.build(Arc::clone(&node), BrokerConfig::default(), outside);
        let core = Core::new(Arc::clone(&shared), 0);
        let others: Vec<_> = (1..cores).map(|id| Core::new(Arc::clone(&shared), id)).collect();
        let mut tasks = vec![following];
        for core in others.iter().chain([&core]) {
            let running = core.clone();
            tasks.push(tokio::task::spawn_local(async move { running.run().await }));
        }
        core.recover().await.expect("what is stored can be read");
        let endings = core.clone();
        tasks.push(tokio::task::spawn_local(async move { endings.run_endings(|_, _| ()).await }));
        let schedule = core.clone();
        tasks.push(tokio::task::spawn_local(async move { schedule.run_schedule().await }));
        TestNode { core, others, shared, node, readers, dir: Some(dir), tasks }
    }

    /// Stops the node in order and gives its directory back. Everything that the test made of its core must be gone.
    pub async fn stop(mut self) -> TempDir {
        self.node.shutdown().await;
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // It was cancelled, which is what was asked.
            let _ = task.await;
        }
        self.dir.take().expect("it is stopped once")
    }

    /// From now on nothing is read from the disk: whoever asks for it fails with what may pass. Returns when somebody did.
    pub async fn fail_reads(&self, meanwhile: impl FnOnce()) {
        self.refuse_reads(true);
        meanwhile();
        let refused = tokio::time::timeout(PATIENCE, self.readers.refused.notified()).await;
        refused.expect("somebody reads in time");
    }

    /// Whether what would read from the disk fails from now on, with what may pass.
    pub fn refuse_reads(&self, refuse: bool) {
        self.readers.refuse.store(refuse, Ordering::Relaxed);
    }

    /// Stores a resource. When this returns, a user, a permission or a ban counts; who follows another kind has the revision.
    pub async fn put<R: Resource>(&self, resource: &R) -> u64 {
        let revision = Resources::new(self.node.meta()).put(resource, None).await.expect("stored");
        self.core.access().caught_up(revision).await;
        revision
    }

    /// Removes one. When this returns, it does not count any more, as with [`TestNode::put`].
    pub async fn delete<R: Resource>(&self, key: &str) -> u64 {
        let revision = Resources::new(self.node.meta()).delete::<R>(key, None).await.expect("removed");
        self.core.access().caught_up(revision).await;
        revision
    }

    /// What is shared between cores.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The node below the broker.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

/// Asked where a test does not say otherwise.
fn own_table() -> Vec<Link> {
    vec![Link::Users, Link::Certificate]
}

/// Opens the node; waits for the last tasks of a former one to let go of the directory.
async fn open(dir: &Path, foundation: &Foundation) -> Node {
    let begun = Instant::now();
    loop {
        match Node::open(config(dir), outside(foundation)).await {
            Ok(node) => return node,
            Err(OpenError::InUse { .. } | OpenError::Journal(JournalError::Locked { .. }))
                if begun.elapsed() < PATIENCE =>
            {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("the node does not open: {error:?}"),
        }
    }
}

fn config(dir: &Path) -> NodeConfig {
    NodeConfig { segment_bytes: 1 << 20, ..NodeConfig::new(dir) }
}

fn outside(foundation: &Foundation) -> cluster::Outside {
    cluster::Outside {
        disk: Arc::new(StdDisk::new()),
        rng: Arc::new(SystemRng),
        driver: JournalDriver::Threads,
        rows: RowStores::Database,
        tasks: Tasks::new(Shutdown::new()),
        observer: foundation.observer(),
    }
}
