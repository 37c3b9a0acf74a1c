//! [`Peer`]: who is at the other end of a connection, as far as the network knows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The other end of a connection. A front gets it with the connection; what it may do is not decided here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it is: what a trusted proxy said, if the listener expects one; else what the socket says.
    pub address: Address,
    /// What the bytes travel in.
    pub transport: Transport,
    /// The name of the listener that accepted it.
    pub listener: Arc<str>,
    /// What its certificate says, once that was verified. None without a client certificate.
    pub certificate: Option<Box<CertificateName>>,
    /// The user that it is by its certificate, if the listener takes users from certificates. It stands above any
    /// name that the client gives itself.
    pub user: Option<Box<str>>,
}

impl Peer {
    /// A peer at the other end of a plain TCP connection.
    pub fn tcp(listener: &Arc<str>, address: SocketAddr) -> Self {
        Self {
            address: Address::Ip(address),
            transport: Transport::Tcp,
            listener: Arc::clone(listener),
            certificate: None,
            user: None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.listener, self.address)?;
        match &self.user {
            Some(user) => write!(f, " ({user})"),
            None => Ok(()),
        }
    }
}

/// Where a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// On the network.
    Ip(SocketAddr),
    /// On this machine, through a unix socket.
    Local,
}

impl Address {
    /// The IP address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Ip(address) => Some(address.ip()),
            Address::Local => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Local => f.write_str("local"),
        }
    }
}

/// What the bytes of a connection travel in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket over TCP.
    WebSocket,
    /// WebSocket over TLS.
    SecureWebSocket,
    /// One stream of a QUIC connection.
    Quic,
    /// A unix socket.
    Unix,
}

impl Transport {
    /// The word for it in settings and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::WebSocket => "ws",
            Transport::SecureWebSocket => "wss",
            Transport::Quic => "quic",
            Transport::Unix => "unix",
        }
    }

    /// Whether a certificate stands at its beginning.
    pub const fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::SecureWebSocket | Transport::Quic)
    }

    /// Whether it begins with an HTTP request.
    pub const fn is_websocket(self) -> bool {
        matches!(self, Transport::WebSocket | Transport::SecureWebSocket)
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateName {
    /// The last common name of the subject.
    pub common_name: Option<Box<str>>,
    /// The whole subject as RFC 4514 writes it: `CN=device-7,OU=Line 4,O=Acme`.
    pub subject: Box<str>,
}

/// Which part of a certificate is the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateUser {
    /// None: the client says itself who it is.
    #[default]
    None,
    /// The common name of the subject.
    CommonName,
    /// The whole subject, in the form of [`CertificateName::subject`].
    Subject,
}
