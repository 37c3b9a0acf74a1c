//! The consensus thread: opens the node and runs its groups.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use cluster::{JournalDriver, Node, NodeConfig, Observer, OpenError, RowStores};
use rt::{Shutdown, StdDisk, SystemRng, Tasks};
use tokio::sync::oneshot;

use super::{StartError, runtime};

/// The running thread.
pub(super) struct Consensus {
    node: Arc<Node>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Consensus {
    /// Starts the thread and opens the node on it.
    pub(super) fn start(
        config: NodeConfig,
        observer: Arc<dyn Observer>,
        shutdown: Shutdown,
    ) -> Result<Self, StartError> {
        let (stop, stopped) = oneshot::channel();
        let (opened, result) = channel();
        let thread = std::thread::Builder::new().name("consensus".into());
        let thread = thread.spawn(move || run(config, observer, shutdown, &opened, stopped));
        let thread = thread.map_err(StartError::system("start a thread"))?;
        match result.recv() {
            Ok(node) => Ok(Self { node: node?, stop, thread }),
            // It ended without an answer: a panic, which it reported itself.
            Err(_) => Err(StartError::Failed),
        }
    }

    pub(super) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }

    /// Stops the groups once what they took is answered, and ends the thread.
    pub(super) fn stop(self) {
        drop(self.node);
        // It ends by itself only after a panic.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn run(
    config: NodeConfig,
    observer: Arc<dyn Observer>,
    shutdown: Shutdown,
    opened: &Sender<Result<Arc<Node>, StartError>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(source) => {
            let _ = opened.send(Err(StartError::System { operation: "make a runtime", source }));
            return;
        }
    };
    runtime.block_on(async {
        let outside = cluster::Outside {
            disk: Arc::new(StdDisk::new()),
            rng: Arc::new(SystemRng),
            driver: JournalDriver::Threads,
            rows: RowStores::Database,
            tasks: Tasks::new(shutdown),
            observer,
        };
        let node: Result<Node, OpenError> = Node::open(config, outside).await;
        let node = match node {
            Ok(node) => Arc::new(node),
            Err(error) => {
                let _ = opened.send(Err(error.into()));
                return;
            }
        };
        if opened.send(Ok(Arc::clone(&node))).is_ok() {
            // An error says that the main thread is gone; then we go too.
            let _ = stopped.await;
            node.shutdown().await;
        }
    });
}
