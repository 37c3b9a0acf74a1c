//! [`Io`]: the byte stream that a connection runs over, and what every stream that is layered over another needs.
//!
//! ```text
//!   TCP                 TcpStream                       the driver is compiled for it: nothing in between
//!   everything else     Box<dyn Io>: a WebSocketIo over a TlsIo over a Leading over a TcpStream, for instance
//! ```

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::net::{TcpStream, UnixStream};

/// A byte stream with readiness, as tokio's sockets have it. A simulation puts its own pipes behind it.
///
/// Rules for a stream that is layered over another:
///
/// - What it took with [`try_write`](Io::try_write) and could not pass on it holds back, bounded, until
///   [`try_flush`](Io::try_flush). Answers of its own (a pong, a closing alert) go the same way.
/// - [`poll_read_ready`](Io::poll_read_ready) is ready also while it holds bytes, or an end, that were not read yet.
/// - Bound: it holds no buffer while nothing is under way, and never more than one record or control frame.
pub trait Io: 'static {
    /// Ready when [`Io::try_read`] may make progress.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Reads into the spare capacity of `buffer`; 0 means that the peer closed its side.
    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize>;
    /// Ready when [`Io::try_write`] or [`Io::try_flush`] may make progress.
    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Writes as much as the stream takes now.
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Passes on what was held back. `WouldBlock`: not all of it; to be called again once
    /// [`Io::poll_write_ready`] is.
    fn try_flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Nothing more will be written: the stream's own farewell is held back for the next [`Io::try_flush`], and the
    /// stream below is told once that is passed on. May be called again.
    fn finish(&mut self) {}
}

impl Io for TcpStream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_read_ready(self, cx)
    }

    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        TcpStream::try_read_buf(self, buffer)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TcpStream::poll_write_ready(self, cx)
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        TcpStream::try_write_vectored(self, slices)
    }
}

impl Io for UnixStream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        UnixStream::poll_read_ready(self, cx)
    }

    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        UnixStream::try_read_buf(self, buffer)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        UnixStream::poll_write_ready(self, cx)
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        UnixStream::try_write_vectored(self, slices)
    }
}

impl Io for Box<dyn Io> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_read_ready(cx)
    }

    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        (**self).try_read(buffer)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_write_ready(cx)
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (**self).try_write(slices)
    }

    fn try_flush(&mut self) -> io::Result<()> {
        (**self).try_flush()
    }

    fn finish(&mut self) {
        (**self).finish();
    }
}

/// A stream of which the first bytes were read already, while something in front of it was.
pub(crate) struct Leading<I> {
    inner: I,
    lead: Bytes,
}

impl<I> Leading<I> {
    pub(crate) fn new(inner: I, lead: Bytes) -> Self {
        Self { inner, lead }
    }
}

impl<I: Io> Io for Leading<I> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lead.is_empty() { self.inner.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        if self.lead.is_empty() {
            return self.inner.try_read(buffer);
        }
        let lead = std::mem::take(&mut self.lead);
        buffer.extend_from_slice(&lead);
        Ok(lead.len())
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_write_ready(cx)
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.inner.try_write(slices)
    }

    fn try_flush(&mut self) -> io::Result<()> {
        self.inner.try_flush()
    }

    fn finish(&mut self) {
        self.inner.finish();
    }
}

/// Waits for bytes and appends them to `buffer`; 0 at the end of the stream.
pub(crate) async fn read_some(io: &mut impl Io, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        poll_fn(|cx| io.poll_read_ready(cx)).await?;
        match io.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Writes all of `bytes` and flushes.
pub(crate) async fn write_all(io: &mut impl Io, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match io.try_write(&[IoSlice::new(bytes)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| io.poll_write_ready(cx)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    flush(io).await
}

/// Waits until nothing is held back.
pub(crate) async fn flush(io: &mut impl Io) -> io::Result<()> {
    loop {
        match io.try_flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| io.poll_write_ready(cx)).await?;
            }
            result => return result,
        }
    }
}
