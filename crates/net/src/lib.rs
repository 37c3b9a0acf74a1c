//! Sockets, what is layered over them, and the connection driver: everything that turns bytes on a network into calls
//! on a [`Session`] and back.
//!
//! Invariant: this crate does not know a protocol. A front gives it a [`Session`] (sans-IO), it gives the
//! session bytes, events and time, and writes what the session leaves in the [`Output`].

mod arrivals;
mod driver;
mod entrance;
mod io;
mod leave;
mod listen;
mod mailbox;
mod output;
mod peer;
mod pressure;
mod proxy;
#[cfg(feature = "quic")]
mod quic;
mod rate;
mod session;
mod tls;
mod unix;
mod websocket;

pub use arrivals::{Arrival, Arrivals};
pub use driver::{CoreIo, drive};
pub use entrance::{Entered, Entrance, Refused};
pub use io::Io;
pub use listen::{BindError, Gate, SharedListener, accept_loop, bind_udp};
pub use mailbox::Mailbox;
pub use output::Output;
pub use peer::{Address, CertificateName, CertificateUser, Peer, Transport};
pub use pressure::{Level, Pressure, PressureLimits, Shortage, Signals};
pub use proxy::{ProxyError, ProxyHeader, ProxyProtocol};
#[cfg(feature = "quic")]
pub use quic::{QuicConnecting, accept_quic_loop};
pub use rate::AcceptRate;
pub use session::{Closed, Session, Turn};
pub use tls::{ClientAuth, ClientIssuers, Tls, TlsError, TlsFiles, certificate_name};
pub use unix::{UnixSocket, accept_unix_loop};
pub use websocket::{CloseCode, DecodedFrames, Frames, Handshake, WebSocketRules, handshake};
