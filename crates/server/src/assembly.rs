//! The assembly: which threads there are, what runs on each, and in which order they start and stop.
//!
//! ```text
//! main          binds, starts everything, waits for a signal, stops everything
//! consensus     one runtime: openraft, bundling, apply; dispatch of what was applied
//! core 0..N     one runtime each: listeners, connections, the broker's cores
//! reader 0..R   blocking reads: cold batches, rows
//! house         index files, flushes, recycled segments, retention
//! http          health and metrics
//! ```
//!
//! Stopping: cores first (they take nothing new and answer what they took), then consensus, then the rest.

mod access;
mod admission;
mod certificates;
mod consensus_thread;
mod cores;
mod fronts;
mod house;
mod listeners;
mod mqtt_listeners;
mod providers;
mod readers;
mod screen;
mod settings;
mod telemetry;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use admin::{Admin, Api};
use broker::{Foundation, Outside, Shared};
use model::Error as BrokerError;
use net::{Pressure, Signals};
use rt::{Shutdown, SystemClock, SystemRng, Tasks};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use self::access::{Given, Opened};
use self::admission::Door;
use self::certificates::Certificates;
use self::consensus_thread::Consensus;
use self::cores::Ingredients;
use self::listeners::Listeners;
use self::providers::ProviderError;
use self::settings::{broker_config, core_count, node_config, pressure_limits, reader_count};
use crate::config::{Config, Loaded};

/// Why the broker did not start, or stopped.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen for {listener}")]
    Listen {
        /// Which listener.
        listener: String,
        /// Why.
        #[source]
        source: net::BindError,
    },
    /// The certificates of a listener cannot be used.
    #[error("cannot use the certificates of {listener}")]
    Certificates {
        /// Which listener.
        listener: String,
        /// Why.
        #[source]
        source: net::TlsError,
    },
    /// The data cannot be opened.
    #[error(transparent)]
    Open(#[from] cluster::OpenError),
    /// Who may come in cannot be read: then nobody may.
    #[error(transparent)]
    Access(auth::OpenError),
    /// There is no user, and the one of the settings cannot be created.
    #[error("cannot create the first user with the password in {file}")]
    FirstUser {
        /// The file of the settings.
        file: PathBuf,
        /// Why.
        #[source]
        source: auth::FirstUserError,
    },
    /// The user of the settings cannot be made a superuser.
    #[error("cannot recover the user with the password in {file}")]
    RecoverUser {
        /// The file of the settings.
        file: PathBuf,
        /// Why.
        #[source]
        source: auth::FirstUserError,
    },
    /// A provider of access control cannot be used.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// What is stored cannot be read.
    #[error("cannot read what is stored")]
    Recover(#[source] BrokerError),
    /// The system refused something that a process needs.
    #[error("cannot {operation}")]
    System {
        /// What was attempted.
        operation: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A part of the broker failed; the log says which and why.
    #[error("the broker could not go on; the log says why")]
    Failed,
}

impl StartError {
    fn system(operation: &'static str) -> impl FnOnce(io::Error) -> StartError {
        move |source| StartError::System { operation, source }
    }
}

/// Starts the broker and returns when it has stopped: after SIGTERM or SIGINT with `Ok`.
///
/// # Errors
/// [`StartError`].
pub fn start(loaded: Loaded) -> Result<(), StartError> {
    let config = loaded.config;
    // Before there are threads that would have touched some.
    rt::avoid_huge_pages();
    telemetry::start(&config.log);
    // Before anybody can find the process: whoever asks it to stop while it starts gets an orderly end.
    let asked = Asked::listen()?;
    let cores = core_count(&config);
    let certificates = Certificates::load(&config)?;
    let listeners = Listeners::bind(&config, cores)?;
    let shutdown = Shutdown::new();
    let readers = readers::start(reader_count(cores)).map_err(StartError::system("start a thread"))?;
    let foundation = Foundation::new(cores);
    let node_config = node_config(&config, cores);
    let consensus = Consensus::start(node_config, foundation.observer(), shutdown.clone())?;
    // A broker that was killed left it: until this one accepts, nobody shall find it.
    listeners::remove_file(&config.node.data_dir).map_err(StartError::system("remove listeners.json"))?;
    let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng));
    let given = Given {
        clock: clock.clone(),
        rng: rng.clone(),
        offload: readers.clone(),
        // The other half goes on reading.
        at_once: reader_count(cores) / 2,
        tasks: Tasks::new(shutdown.clone()),
    };
    let Opened { access, follower } = access::open(&config, consensus.node().meta(), given)?;
    let outside = Outside { clock, rng, offload: readers, access: access.clone() };
    let shared = foundation.build(consensus.node(), broker_config(&config), outside);
    let house = house::start(consensus.node(), Arc::clone(&shared), shutdown.clone());
    let house = house.map_err(StartError::system("start a thread"))?;
    let listening = listeners.listening().to_vec();
    let (core_sockets, http_socket, socket_files) = listeners.into_sockets();
    let pressure = pressure(&config, &shared);
    let ingredients = Ingredients {
        config: &config,
        shared: &shared,
        certificates: &certificates,
        listening: &listening,
        door: Door::new(config.limits.max_connections, Arc::clone(&pressure), Instant::now()),
        connects: access::flapping(&config, consensus.node().meta(), &access),
    };
    let (cores, fronts) = cores::start(ingredients, follower, core_sockets, &shutdown)?;
    let bound = http_socket.local_addr().map_err(StartError::system("see where HTTP listens"))?.ip();
    let api = Api::new(access.clone(), consensus.node().meta(), Arc::new(SystemClock::new()), bound)
        .with_observed(fronts.observed())
        .with_broker(Arc::clone(&shared))
        .with_kinds(fronts.kinds());
    let admin = Admin::new(Arc::clone(&shared), pressure, fronts.samples()).with_api(api);
    let http = start_http(admin, http_socket, shutdown.clone());
    let http = http.map_err(StartError::system("start a thread"))?;
    listeners::write_file(&config.node.data_dir, &listening)
        .map_err(StartError::system("write listeners.json"))?;
    screen::print(&config, &listening, &access);
    info!("ready");
    let stopped = asked.wait(&shutdown, &certificates);
    shutdown.trigger();
    // Nobody is served there any more.
    drop(socket_files);
    cores.into_iter().for_each(cores::CoreThread::join);
    consensus.stop();
    drop((house, http));
    stopped
}

/// What the node has to bear, by the system and by its own counts.
fn pressure(config: &Config, shared: &Arc<Shared>) -> Arc<Pressure> {
    let limits = pressure_limits(config, rt::memory_available());
    let shared = Arc::clone(shared);
    let signals = move || Signals {
        memory: limits.memory.and_then(|_| rt::memory_in_use()).unwrap_or(0),
        backlog: shared.counters().backlog_bytes.load(Ordering::Relaxed),
        is_unwritable: shared.is_unwritable(),
    };
    Arc::new(Pressure::new(limits, signals, Instant::now()))
}

/// What the system may ask of the process. What is asked before anybody waits is not forgotten.
struct Asked {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Asked {
    fn listen() -> Result<Asked, StartError> {
        let runtime = runtime().map_err(StartError::system("make a runtime"))?;
        let entered = runtime.enter();
        let take = |kind| signal(kind).map_err(StartError::system("take signals"));
        let (terminate, interrupt) = (take(SignalKind::terminate())?, take(SignalKind::interrupt())?);
        let hangup = take(SignalKind::hangup())?;
        drop(entered);
        Ok(Asked { runtime, terminate, interrupt, hangup })
    }

    /// Waits for SIGTERM or SIGINT, or for a part that failed to ask for the end. Renews certificates meanwhile.
    fn wait(mut self, shutdown: &Shutdown, certificates: &Certificates) -> Result<(), StartError> {
        self.runtime.block_on(async {
            let mut watch = std::pin::pin!(certificates.watch());
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => break,
                    _ = self.interrupt.recv() => break,
                    _ = self.hangup.recv() => certificates.reload(),
                    () = &mut watch => {}
                    () = shutdown.wait() => return Err(StartError::Failed),
                }
            }
            info!("stopping");
            Ok(())
        })
    }
}

fn start_http(
    admin: Admin,
    socket: std::net::TcpListener,
    shutdown: Shutdown,
) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("http".into()).spawn(move || {
        let served = runtime().map_err(Into::into);
        let served = served.and_then(|runtime| runtime.block_on(admin.serve(socket, shutdown)));
        if let Err(error) = served {
            error!(err = %error, "the HTTP listener failed");
        }
    })
}

/// A single-threaded runtime with everything on.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Where the addresses in use are written.
fn listeners_file(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("listeners.json")
}
