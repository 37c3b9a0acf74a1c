//! The core threads: each runs its share of the listeners, connections and the broker.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use broker::{Core, Shared};
use net::{CoreIo, accept_loop, drive};
use rt::{OnFailure, OnShutdown, Shutdown, TaskKind, Tasks};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tracing::error;

use super::listeners::FrontSockets;
use super::{StartError, runtime};
use crate::config::Config;

/// One client. It is told of the end and has a few seconds to take what is left for it.
const CONNECTION: TaskKind =
    TaskKind { name: "connection", on_shutdown: OnShutdown::Finish, on_failure: OnFailure::Log };
/// Takes new connections.
const ACCEPTOR: TaskKind =
    TaskKind { name: "acceptor", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };
/// The core's outbox and deliveries; goes on until the connections are answered.
const CORE: TaskKind =
    TaskKind { name: "core", on_shutdown: OnShutdown::Finish, on_failure: OnFailure::Shutdown };
/// Endings of sessions.
const ENDINGS: TaskKind =
    TaskKind { name: "endings", on_shutdown: OnShutdown::Drop, on_failure: OnFailure::Shutdown };

/// A running core.
pub(super) struct CoreThread(JoinHandle<()>);

impl CoreThread {
    pub(super) fn join(self) {
        // A panic was reported by its thread.
        let _ = self.0.join();
    }
}

/// Starts all cores; they accept when this returns.
pub(super) fn start(
    config: &Config,
    shared: &Arc<Shared>,
    sockets: Vec<FrontSockets>,
    shutdown: &Shutdown,
) -> Result<Vec<CoreThread>, StartError> {
    let (ready, started) = channel();
    let fronts = kafka::Groups::start_config(&super::fronts::kafka_config(config));
    let mut threads = Vec::new();
    for (number, sockets) in sockets.into_iter().enumerate() {
        let (config, shared, shutdown) = (config.clone(), Arc::clone(shared), shutdown.clone());
        let (ready, fronts) = (ready.clone(), fronts.clone());
        let thread = std::thread::Builder::new().name(format!("core {number}"));
        let _ = fronts;
        let thread = thread.spawn(move || run(number as u16, &config, shared, sockets, shutdown, &ready));
        threads.push(CoreThread(thread.map_err(StartError::system("start a thread"))?));
    }
    drop(ready);
    for _ in &threads {
        started.recv().unwrap_or(Err(StartError::Failed))?;
    }
    Ok(threads)
}
