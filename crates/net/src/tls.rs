//! TLS: [`TlsIo`] is the stream behind the records; [`Tls`] holds certificates and renews them.
//!
//! Bound: what comes in is read into a buffer that the connections of a core share and is decrypted at once, so that an
//! idle connection keeps its keys and one small buffer of the library, less than 20 KiB (a test holds it to that).

mod name;
mod settings;

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustls::{ServerConfig, ServerConnection};

pub use name::certificate_name;
pub use settings::{ClientAuth, ClientIssuers, Tls, TlsError, TlsFiles};

use crate::driver::{CoreIo, Scratch};
use crate::io::{Io, flush};
use crate::peer::CertificateName;

/// Sealed bytes that one read takes at most.
const READ_MAX: usize = 64 * 1024;
/// Bound: sealed bytes that wait for a peer that does not read; the rest stays in the session's output.
const WRITE_BUFFER_MAX: usize = 64 * 1024;
/// Bound: what a client may send until its handshake is done. Chains of certificates fit many times.
const HANDSHAKE_BYTES_MAX: usize = 128 * 1024;

/// The stream of a TLS connection.
pub(crate) struct TlsIo<I> {
    inner: I,
    tls: Box<ServerConnection>,
    sealed: Scratch,
    /// What came with the last bytes of the handshake.
    early: BytesMut,
    ended: bool,
    finishing: bool,
}

impl<I: Io> TlsIo<I> {
    /// Shakes hands. Answers the name in the client's certificate, if it showed one, which is verified then.
    ///
    /// # Errors
    /// The handshake failed (the peer is told why as far as it reads), or the certificate has no readable subject.
    pub(crate) async fn accept(
        inner: I,
        config: Arc<ServerConfig>,
        core: &CoreIo,
    ) -> io::Result<(Self, Option<CertificateName>)> {
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        tls.set_buffer_limit(Some(WRITE_BUFFER_MAX));
        let sealed = std::rc::Rc::clone(core.sealed());
        let mut io = Self {
            inner,
            tls: Box::new(tls),
            sealed,
            early: BytesMut::new(),
            ended: false,
            finishing: false,
        };
        let mut received = 0;
        while io.tls.is_handshaking() {
            std::future::poll_fn(|cx| io.inner.poll_read_ready(cx)).await?;
            let mut early = std::mem::take(&mut io.early);
            let result = io.receive(&mut early);
            io.early = early;
            match result {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => received += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // The alert, if the socket takes it at once.
                    let _ = io.try_flush();
                    return Err(error);
                }
            }
            if received > HANDSHAKE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the TLS handshake is too long"));
            }
            flush(&mut io).await?;
        }
        let name = match io.tls.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => Some(certificate_name(certificate).ok_or_else(nameless)?),
            None => None,
        };
        Ok((io, name))
    }

    /// Reads sealed bytes once and appends what was in them to `buffer`. Answers how many were read; 0 at the end.
    fn receive(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut sealed = std::mem::take(&mut *self.sealed.borrow_mut());
        sealed.reserve(READ_MAX);
        let read = self.inner.try_read(&mut sealed);
        let opened = match &read {
            Ok(_) => self.open(&sealed, buffer),
            Err(_) => Ok(()),
        };
        sealed.clear();
        *self.sealed.borrow_mut() = sealed;
        opened.and(read)
    }

    fn open(&mut self, mut sealed: &[u8], buffer: &mut BytesMut) -> io::Result<()> {
        while !sealed.is_empty() && !self.ended {
            self.tls.read_tls(&mut sealed)?;
            let state = self.tls.process_new_packets();
            let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let start = buffer.len();
            buffer.resize(start + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut buffer[start..])?;
            self.ended |= state.peer_has_closed();
        }
        Ok(())
    }

    /// Seals and writes until the socket takes no more.
    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut Sink(&mut self.inner))?;
        }
        if self.finishing {
            self.inner.finish();
        }
        self.inner.try_flush()
    }
}

fn nameless() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the client's certificate has no subject that can be read")
}

impl<I: Io> Io for TlsIo<I> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || !self.early.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            self.inner.poll_read_ready(cx)
        }
    }

    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            buffer.extend_from_slice(&early);
            return Ok(early.len());
        }
        if self.ended {
            return Ok(0);
        }
        let start = buffer.len();
        let read = self.receive(buffer)?;
        match buffer.len() - start {
            // A part of a record, or one that is not data.
            0 if read > 0 && !self.ended => Err(io::ErrorKind::WouldBlock.into()),
            opened => Ok(opened),
        }
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_write_ready(cx)
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let taken = self.tls.writer().write_vectored(slices)?;
            match self.send() {
                // The buffer was full and is empty now.
                Ok(()) if taken == 0 => {}
                Ok(()) => return Ok(taken),
                // What the buffer took goes out later.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        self.send()
    }

    fn finish(&mut self) {
        self.finishing = true;
        self.tls.send_close_notify();
    }
}

/// Hands what is sealed to the stream below.
struct Sink<'a, I>(&'a mut I);

impl<I: Io> Write for Sink<'_, I> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
