//! QUIC: [`QuicIo`] is the one bidirectional stream of a connection.
//!
//! A client opens a connection with the application protocol `mqtt`, then one stream, and speaks MQTT on it as over TLS. The
//! endpoint lives on one core, which knows a client also after it has moved to another address.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, ServerConfig, TokioRuntime,
    TransportConfig,
};
use rustls::pki_types::CertificateDer;

use crate::entrance::{Entered, Entrance, Refused};
use crate::io::Io;
use crate::listen::Gate;
use crate::peer::{Address, CertificateName};
use crate::tls::{Tls, certificate_name};

/// The application protocol.
const ALPN: &[u8] = b"mqtt";
/// Bound: what a client may have sent and we have not read, and what we have sent and it has not.
const WINDOW_BYTES: u32 = 256 * 1024;
/// What is taken out of the connection, or put into it by copy, at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// With this many connections, a further client first has to show that its address is its own.
const UNPROVEN_MAX: usize = 256;

/// A client that has sent its first packet and waits for an answer.
pub struct QuicConnecting {
    incoming: Incoming,
    config: Arc<ServerConfig>,
}

impl QuicConnecting {
    /// Tells it that it is not let in.
    pub fn refuse(self) {
        self.incoming.refuse();
    }
}

/// Accepts connections for ever and hands each to `serve`, as [`crate::accept_loop`] does. To be run on a core.
///
/// # Errors
/// The socket cannot be registered with the runtime, or the certificates do not serve QUIC, which needs TLS 1.3.
pub async fn accept_quic_loop(
    socket: UdpSocket,
    entrance: &Entrance,
    gate: Gate,
    mut serve: impl FnMut(QuicConnecting),
) -> io::Result<()> {
    let tls = entrance.tls.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
    let mut current = Current::of(tls)?;
    let config = (*current.quic).clone();
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))?;
    loop {
        gate.room().await;
        let Some(incoming) = endpoint.accept().await else { return Ok(()) };
        if endpoint.open_connections() > UNPROVEN_MAX && incoming.may_retry() {
            // It answers with what it is sent, if it is where it says.
            let _ = incoming.retry();
            continue;
        }
        if let Some(rate) = &gate.rate {
            rate.wait().await;
        }
        if !Arc::ptr_eq(&current.tls, &tls.current()) {
            current = Current::of(tls)?;
        }
        serve(QuicConnecting { incoming, config: Arc::clone(&current.quic) });
    }
}

/// What handshakes begin with, and the certificates that it was made of.
struct Current {
    tls: Arc<rustls::ServerConfig>,
    quic: Arc<ServerConfig>,
}

impl Current {
    fn of(tls: &Tls) -> io::Result<Self> {
        let tls = tls.current();
        let mut for_quic = (*tls).clone();
        for_quic.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicServerConfig::try_from(for_quic).map_err(io::Error::other)?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(1_u8.into())
            .max_concurrent_uni_streams(0_u8.into())
            .datagram_receive_buffer_size(None)
            .stream_receive_window(WINDOW_BYTES.into())
            .receive_window(WINDOW_BYTES.into())
            .send_window(WINDOW_BYTES.into())
            // Silence is judged by MQTT's keep alive, as over TCP; a client may ask for less.
            .max_idle_timeout(None);
        config.transport_config(Arc::new(transport));
        Ok(Self { tls, quic: Arc::new(config) })
    }
}

impl Entrance {
    /// Takes a QUIC connection through: its handshake, and the opening of its stream.
    ///
    /// # Errors
    /// As [`Entrance::enter_tcp`].
    pub async fn enter_quic(&self, connecting: QuicConnecting) -> Result<Entered, Refused> {
        let entering = self.shake_hands(connecting);
        tokio::time::timeout(self.timeout, entering).await.unwrap_or(Err(Refused::TooSlow))
    }

    async fn shake_hands(&self, connecting: QuicConnecting) -> Result<Entered, Refused> {
        let QuicConnecting { incoming, config } = connecting;
        let failed = |error| Refused::Quic(io::Error::other(error));
        let connection = incoming.accept_with(config).map_err(failed)?.await.map_err(failed)?;
        let address: SocketAddr = connection.remote_address();
        let certificate = match certificates(&connection) {
            Some(chain) => Some(first_name(&chain).ok_or(Refused::Nameless)?),
            None => None,
        };
        let peer = self.peer(Address::Ip(address), certificate)?;
        let (send, receive) = connection.accept_bi().await.map_err(failed)?;
        let io = QuicIo {
            _connection: connection,
            send,
            receive,
            arrived: BytesMut::new(),
            ended: false,
            unsent: BytesMut::new(),
            farewell: Farewell::NotYet,
        };
        Ok(Entered { io: Box::new(io), peer })
    }
}

/// The certificates that the client showed, which were verified in the handshake.
fn certificates(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast().ok().map(|chain| *chain)
}

fn first_name(chain: &[CertificateDer<'_>]) -> Option<CertificateName> {
    certificate_name(chain.first()?)
}

/// The stream of a connection.
struct QuicIo {
    /// Closed when this is dropped.
    _connection: Connection,
    send: SendStream,
    receive: RecvStream,
    /// Taken out of the connection and not read yet; empty while nothing is under way.
    arrived: BytesMut,
    ended: bool,
    /// Taken from the session when the connection took no more. It is what readiness to write is waited for with.
    unsent: BytesMut,
    farewell: Farewell,
}

enum Farewell {
    NotYet,
    /// To be said behind what is unsent.
    Wanted,
    /// Said; resolves when the peer has all of it.
    Said(Pin<Box<dyn Future<Output = ()>>>),
    Heard,
}

impl QuicIo {
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.send).poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(written)) => self.unsent.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.unsent = BytesMut::new();
        if matches!(self.farewell, Farewell::Wanted) {
            let stopped = self.send.finish().map(|()| self.send.stopped());
            self.farewell = match stopped {
                Ok(stopped) => Farewell::Said(Box::pin(async move { drop(stopped.await) })),
                Err(_) => Farewell::Heard,
            };
        }
        if let Farewell::Said(heard) = &mut self.farewell {
            std::task::ready!(heard.as_mut().poll(cx));
            self.farewell = Farewell::Heard;
        }
        Poll::Ready(Ok(()))
    }
}

impl Io for QuicIo {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || !self.arrived.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
        let read = std::task::ready!(self.receive.poll_read(cx, &mut chunk))?;
        chunk.truncate(read);
        self.ended = read == 0;
        self.arrived = chunk;
        Poll::Ready(Ok(()))
    }

    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let arrived = std::mem::take(&mut self.arrived);
        if arrived.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer.extend_from_slice(&arrived);
        Ok(arrived.len())
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unsent(cx)
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.unsent.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        for slice in slices {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                match Pin::new(&mut self.send).poll_write(&mut cx, rest) {
                    Poll::Ready(Ok(written)) => {
                        taken += written;
                        rest = &rest[written..];
                    }
                    Poll::Ready(Err(error)) => return Err(error.into()),
                    Poll::Pending => {
                        let chunk = &rest[..rest.len().min(CHUNK_BYTES)];
                        self.unsent.extend_from_slice(chunk);
                        return Ok(taken + chunk.len());
                    }
                }
            }
        }
        Ok(taken)
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let done = self.unsent.is_empty() && matches!(self.farewell, Farewell::NotYet | Farewell::Heard);
        if done { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    fn finish(&mut self) {
        if matches!(self.farewell, Farewell::NotYet) {
            self.farewell = Farewell::Wanted;
        }
    }
}
