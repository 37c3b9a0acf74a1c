//! [`Entrance`]: what a connection passes through between being accepted and being a byte stream for a session.
//!
//! ```text
//!   socket -> PROXY header? -> TLS? -> WebSocket? -> session          all of it within one deadline
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};

use crate::driver::CoreIo;
use crate::io::{Io, Leading};
use crate::peer::{Address, CertificateName, CertificateUser, Peer, Transport};
use crate::proxy::{ProxyProtocol, read_header};
use crate::tls::{Tls, TlsIo};
use crate::websocket::{WebSocketIo, WebSocketRules};

/// Why a connection did not get in. It was told as far as its protocol has words for it, and is closed.
#[derive(Debug, Error)]
pub enum Refused {
    /// It took longer than it may.
    #[error("the handshake took too long")]
    TooSlow,
    /// What came first was not a PROXY header that the listener takes.
    #[error("no PROXY header")]
    Proxy(#[source] io::Error),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// The request for a WebSocket was refused.
    #[error("no WebSocket")]
    WebSocket(#[source] io::Error),
    /// The QUIC connection did not open its stream.
    #[error("no QUIC stream")]
    Quic(#[source] io::Error),
    /// The certificate does not hold the part that is to be the user.
    #[error("the client's certificate names no user")]
    Nameless,
}

/// What the connections of one listener pass through, for all cores.
#[derive(Clone)]
pub struct Entrance {
    /// The listener's name.
    pub name: Arc<str>,
    /// What its connections travel in.
    pub transport: Transport,
    /// Whether a proxy says first for whom it connects.
    pub proxy: Option<ProxyProtocol>,
    /// Certificates, if the transport has them.
    pub tls: Option<Arc<Tls>>,
    /// Rules for the request, if the transport is a WebSocket.
    pub websocket: Option<Arc<WebSocketRules>>,
    /// Which part of a client's certificate is the user.
    pub user: CertificateUser,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// A connection that got in.
pub struct Entered {
    /// Its stream.
    pub io: Box<dyn Io>,
    /// Who is at the other end.
    pub peer: Peer,
}

impl Entrance {
    /// Whether a connection is a session's byte stream as it is accepted.
    pub fn is_plain(&self) -> bool {
        self.transport == Transport::Tcp && self.proxy.is_none()
    }

    /// Takes a TCP connection through.
    ///
    /// # Errors
    /// [`Refused`]. Bound: until then the connection has cost the bytes of one handshake, each of which is bounded, and
    /// [`Entrance::timeout`].
    pub async fn enter_tcp(
        &self,
        stream: TcpStream,
        address: Address,
        core: &CoreIo,
    ) -> Result<Entered, Refused> {
        self.enter(Box::new(stream), address, core).await
    }

    /// Takes a connection of a unix socket through. A PROXY header before it gives it an address.
    ///
    /// # Errors
    /// As [`Entrance::enter_tcp`].
    pub async fn enter_unix(&self, stream: UnixStream, core: &CoreIo) -> Result<Entered, Refused> {
        self.enter(Box::new(stream), Address::Local, core).await
    }

    async fn enter(&self, io: Box<dyn Io>, address: Address, core: &CoreIo) -> Result<Entered, Refused> {
        tokio::time::timeout(self.timeout, self.pass(io, address, core))
            .await
            .unwrap_or(Err(Refused::TooSlow))
    }

    async fn pass(
        &self,
        mut io: Box<dyn Io>,
        mut address: Address,
        core: &CoreIo,
    ) -> Result<Entered, Refused> {
        let mut certificate = None;
        if let Some(accepted) = self.proxy {
            let (header, rest): (_, Bytes) = read_header(&mut io, accepted).await.map_err(Refused::Proxy)?;
            if let Some(source) = header.source {
                address = Address::Ip(source);
            }
            io = Box::new(Leading::new(io, rest));
        }
        if let Some(tls) = &self.tls {
            let accepted = TlsIo::accept(io, tls.current(), core).await;
            let (stream, name) = accepted.map_err(Refused::Tls)?;
            (io, certificate) = (Box::new(stream), name);
        }
        if let Some(rules) = &self.websocket {
            io = Box::new(WebSocketIo::accept(io, rules).await.map_err(Refused::WebSocket)?);
        }
        Ok(Entered { io, peer: self.peer(address, certificate)? })
    }

    pub(crate) fn peer(
        &self,
        address: Address,
        certificate: Option<CertificateName>,
    ) -> Result<Peer, Refused> {
        let user = match (self.user, &certificate) {
            (CertificateUser::None, _) | (_, None) => None,
            (CertificateUser::CommonName, Some(name)) => {
                Some(name.common_name.clone().filter(|name| !name.is_empty()).ok_or(Refused::Nameless)?)
            }
            (CertificateUser::Subject, Some(name)) => Some(name.subject.clone()),
        };
        Ok(Peer {
            address,
            transport: self.transport,
            listener: Arc::clone(&self.name),
            certificate: certificate.map(Box::new),
            user,
        })
    }
}
