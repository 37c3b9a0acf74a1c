//! Listening sockets: one per core on the same address (`SO_REUSEPORT`), so that the kernel spreads
//! connections and no connection ever moves between threads. Unix sockets are in [`crate::unix`].

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use crate::arrivals::Arrivals;
use crate::rate::AcceptRate;

/// Connections that may wait to be accepted.
pub(crate) const BACKLOG: i32 = 4096;
/// Bound: connections that are accepted in a row before the core does something else.
const ACCEPTS_PER_TURN: u32 = 64;
/// How long accepting pauses when the process has no file descriptor left.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(50);

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("{address} is in use by another process")]
    InUse {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("cannot listen on {address}")]
    System {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process listens on a unix socket.
    #[error("{} is in use by another process", path.display())]
    PathInUse {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// Something else is where a unix socket was to be.
    #[error("{} is there and is no socket", path.display())]
    PathTaken {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The system refused a unix socket.
    #[error("cannot listen on {}", path.display())]
    Path {
        /// The path that was asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// One address, listened on by every core.
pub struct SharedListener {
    address: SocketAddr,
    sockets: Vec<StdListener>,
}

impl SharedListener {
    /// Binds `address` once per core. Port 0 takes a free port, the same for all cores.
    ///
    /// A port that another process shares out (`SO_REUSEPORT`) would be joined silently, so a fixed port is first
    /// probed with an ordinary bind.
    ///
    /// # Errors
    /// [`BindError`], before any connection could have been accepted.
    pub fn bind(address: SocketAddr, cores: usize) -> Result<Self, BindError> {
        if address.port() != 0 {
            socket(address, false)?;
        }
        let first = socket(address, true)?;
        let bound = first.local_addr().map_err(|source| BindError::System { address, source })?;
        let mut sockets = vec![first];
        for _ in 1..cores.max(1) {
            sockets.push(socket(bound, true)?);
        }
        for listener in &sockets {
            socket2::SockRef::from(listener)
                .listen(BACKLOG)
                .map_err(|source| BindError::System { address: bound, source })?;
        }
        Ok(Self { address: bound, sockets })
    }

    /// The address in use, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sockets, one for each core.
    pub fn into_sockets(self) -> Vec<StdListener> {
        self.sockets
    }
}

/// Binds a UDP socket, for QUIC.
///
/// # Errors
/// [`BindError`].
pub fn bind_udp(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let bind = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bind().map_err(|source| system(address, source))
}

fn system(address: SocketAddr, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        _ => BindError::System { address, source },
    }
}

fn socket(address: SocketAddr, shared: bool) -> Result<StdListener, BindError> {
    let bind = || -> io::Result<StdListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        if !shared {
            // The probe: a bind alone does not meet a listener that shares its port with itself.
            socket.listen(1)?;
        }
        Ok(socket.into())
    };
    bind().map_err(|source| system(address, source))
}

/// What an acceptor waits for before it accepts. Who comes meanwhile waits in the kernel's queue.
#[derive(Clone, Default)]
pub struct Gate {
    /// How fast the listener lets connections in.
    pub rate: Option<Arc<AcceptRate>>,
    /// Those of this core that have not got to the point yet.
    pub arrivals: Option<Arrivals>,
}

impl Gate {
    pub(crate) async fn room(&self) {
        if let Some(arrivals) = &self.arrivals {
            arrivals.room().await;
        }
    }

    /// What was accepted, once it may go on.
    pub(crate) async fn settle<T>(&self, accepted: io::Result<T>) -> Option<T> {
        match accepted {
            Ok(connection) => {
                if let Some(rate) = &self.rate {
                    rate.wait().await;
                }
                Some(connection)
            }
            Err(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                warn!(err = %error, "out of file descriptors; accepting pauses");
                tokio::time::sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
                None
            }
            Err(_) => None,
        }
    }
}

/// Lets the rest of the core have its turn after each [`ACCEPTS_PER_TURN`].
#[derive(Default)]
pub(crate) struct Turns(u32);

impl Turns {
    pub(crate) async fn accepted(&mut self) {
        self.0 += 1;
        if self.0 == ACCEPTS_PER_TURN {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Accepts connections for ever, as many as there are, and hands each to `serve`, as far as `gate` lets them in. Errors of
/// single connections are passed over; when the process is out of file descriptors, accepting pauses.
///
/// # Errors
/// Only if the socket cannot be registered with the core's runtime.
pub async fn accept_loop(
    socket: StdListener,
    gate: Gate,
    mut serve: impl FnMut(TcpStream, SocketAddr),
) -> io::Result<()> {
    let listener = TcpListener::from_std(socket)?;
    let mut turns = Turns::default();
    loop {
        gate.room().await;
        // It waits only when the kernel's queue is empty.
        let accepted = listener.accept().await;
        if let Some((stream, peer)) = gate.settle(accepted).await {
            // Our own output is coalesced; waiting for more only costs latency.
            let _ = stream.set_nodelay(true);
            serve(stream, peer);
            turns.accepted().await;
        }
    }
}
