//! MQTT's bytes over WebSocket: [`WebSocketIo`] is the stream behind the frames.
//!
//! Ours, and not a library's: payload stays in the buffer that it was read into, output is one vectored write of a frame's
//! header and the session's own chunks, and an idle connection has no buffer.

mod frames;
mod handshake;

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};

pub use frames::{CloseCode, Decoded as DecodedFrames, Frames};
pub use handshake::{Handshake, WebSocketRules, handshake};

use crate::io::{Io, Leading, read_some, write_all};
use frames::{put_binary_header, put_close};
use handshake::REQUEST_BYTES_MAX;

/// The stream of a WebSocket connection whose handshake is done.
pub(crate) struct WebSocketIo<I> {
    inner: Leading<I>,
    frames: Frames,
    /// How the peer's side ended; told once all that came before is read.
    ended: Option<CloseCode>,
    /// Pongs and the close frame, for the next gap between frames.
    replies: BytesMut,
    /// Being written: replies, and the header of the frame that has begun.
    header: BytesMut,
    /// Payload that the frame that has begun still owes.
    owed: usize,
    /// The close frame is in the replies or out; no frame begins behind it.
    said_close: bool,
    finishing: bool,
}

impl<I: Io> WebSocketIo<I> {
    /// Answers the request that the peer begins with. A refusal was told to the peer when this returns it.
    pub(crate) async fn accept(mut inner: I, rules: &WebSocketRules) -> io::Result<Self> {
        let mut bytes = BytesMut::with_capacity(1024);
        loop {
            if read_some(&mut inner, &mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match handshake(&bytes, rules) {
                Handshake::NeedMore => bytes.reserve(REQUEST_BYTES_MAX / 8),
                Handshake::Accepted { len, response } => {
                    write_all(&mut inner, response.as_bytes()).await?;
                    let lead = bytes.split_off(len).freeze();
                    return Ok(Self::new(Leading::new(inner, lead), rules));
                }
                Handshake::Refused { response } => {
                    write_all(&mut inner, response.as_bytes()).await?;
                    let status = response.lines().next().unwrap_or_default().to_owned();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, status));
                }
            }
        }
    }

    fn new(inner: Leading<I>, rules: &WebSocketRules) -> Self {
        Self {
            inner,
            frames: Frames::new(rules.frame_bytes_max),
            ended: None,
            replies: BytesMut::new(),
            header: BytesMut::new(),
            owed: 0,
            said_close: false,
            finishing: false,
        }
    }

    fn end(&self) -> Option<io::Result<usize>> {
        match self.ended? {
            CloseCode::Normal => Some(Ok(0)),
            CloseCode::ProtocolError | CloseCode::Unsupported | CloseCode::TooBig => {
                Some(Err(io::ErrorKind::InvalidData.into()))
            }
        }
    }

    /// The close frame is out, or on its way: the peer listens to nothing that comes after it (RFC 6455, 5.5.1).
    fn is_closed(&self) -> bool {
        self.said_close && self.owed == 0 && self.replies.is_empty()
    }

    /// Begins a frame for all of `slices`, if none has begun.
    fn begin_frame(&mut self, slices: &[IoSlice<'_>]) {
        if self.owed == 0 {
            if !self.said_close {
                self.header.unsplit(self.replies.split());
            }
            self.owed = slices.iter().map(|slice| slice.len()).sum();
            put_binary_header(self.owed, &mut self.header);
        }
    }

    /// Writes what is left of the header and the part of `slices` that the frame owes. Answers how much of `slices`
    /// went out.
    fn write_frame(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut parts = Vec::with_capacity(slices.len() + 1);
        parts.push(IoSlice::new(&self.header));
        let mut left = self.owed;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            left -= part.len();
            parts.push(IoSlice::new(part));
        }
        let written = self.inner.try_write(&parts)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_header = written.min(self.header.len());
        self.header.advance(of_header);
        if self.header.is_empty() {
            self.header = BytesMut::new();
        }
        self.owed -= written - of_header;
        Ok(written - of_header)
    }
}

impl<I: Io> Io for WebSocketIo<I> {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended.is_some() { Poll::Ready(Ok(())) } else { self.inner.poll_read_ready(cx) }
    }

    fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        if let Some(end) = self.end() {
            return end;
        }
        let start = buffer.len();
        let read = self.inner.try_read(buffer)?;
        if read == 0 {
            return Ok(0);
        }
        let decoded = self.frames.decode(&mut buffer[start..], &mut self.replies);
        buffer.truncate(start + decoded.payload);
        if decoded.ended.is_some() {
            self.ended = decoded.ended;
            self.said_close = true;
        }
        match (decoded.payload, self.end()) {
            (0, Some(end)) => end,
            // Only control frames, or the beginning of one.
            (0, None) => Err(io::ErrorKind::WouldBlock.into()),
            (payload, _) => Ok(payload),
        }
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_write_ready(cx)
    }

    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.is_closed() {
            return Ok(slices.iter().map(|slice| slice.len()).sum());
        }
        self.begin_frame(slices);
        loop {
            // Only bytes of the header went out: nothing of the session's yet.
            match self.write_frame(slices)? {
                0 => {}
                written => return Ok(written),
            }
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        if self.owed == 0 {
            self.header.unsplit(self.replies.split());
            while !self.header.is_empty() {
                self.write_frame(&[])?;
            }
            self.replies = BytesMut::new();
            if self.finishing {
                self.inner.finish();
            }
        }
        self.inner.try_flush()
    }

    fn finish(&mut self) {
        self.finishing = true;
        if !self.said_close {
            self.said_close = true;
            put_close(CloseCode::Normal, &mut self.replies);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use bytes::Bytes;

    use super::*;

    /// What a peer sent, and what it gets.
    struct Pipe {
        sent: &'static [u8],
        got: Rc<RefCell<Vec<u8>>>,
    }

    impl Io for Pipe {
        fn poll_read_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn try_read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
            let sent = std::mem::take(&mut self.sent);
            buffer.extend_from_slice(sent);
            Ok(sent.len())
        }

        fn poll_write_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            slices.iter().for_each(|slice| self.got.borrow_mut().extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }
    }

    #[test]
    fn nothing_follows_the_close_frame() {
        // One byte of payload, and Close behind it.
        let sent = b"\x82\x81\0\0\0\0x\x88\x82\0\0\0\0\x03\xe8";
        let rules =
            WebSocketRules { path: "/".to_owned(), require_sub_protocol: false, frame_bytes_max: 100 };
        let got = Rc::new(RefCell::new(Vec::new()));
        let pipe = Pipe { sent, got: Rc::clone(&got) };
        let mut io = WebSocketIo::new(Leading::new(pipe, Bytes::new()), &rules);
        let mut read = BytesMut::new();
        assert_eq!((io.try_read(&mut read).unwrap(), &read[..]), (1, &b"x"[..]));
        // What is there at once still goes before it.
        assert_eq!(io.try_write(&[IoSlice::new(b"early")]).unwrap(), 5);
        io.try_flush().unwrap();
        assert_eq!(io.try_write(&[IoSlice::new(b"late")]).unwrap(), 4);
        io.try_flush().unwrap();
        assert_eq!(*got.borrow(), b"\x82\x05early\x88\x02\x03\xe8");
        assert_eq!(io.try_read(&mut read).unwrap(), 0, "the peer is gone");
    }
}
