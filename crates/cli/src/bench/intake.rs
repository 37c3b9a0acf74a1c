//! A connection that takes messages in and answers those that want it, up to QoS 2. Hot path.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use wire::mqtt::Version;

use crate::frames::{self, Scan, kind};
use crate::handshake::is_wait;

/// One subscriber's connection.
pub(crate) struct Intake {
    pub(crate) stream: TcpStream,
    version: Version,
    /// The beginning of a frame whose rest has not come.
    tail: Vec<u8>,
    /// Answers that are not yet with the kernel.
    unsent: Vec<u8>,
    writable: bool,
    closed: bool,
}

/// What became of a read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing more is there.
    All,
    /// There may be more.
    Some,
    /// The broker has closed.
    Closed,
}

impl Intake {
    /// Of a connection whose subscription stands; it is registered for reading and writing.
    pub(crate) fn new(stream: TcpStream, version: Version) -> Self {
        Self { stream, version, tail: Vec::new(), unsent: Vec::new(), writable: true, closed: false }
    }

    /// Reads once, gives the payload of each message to `take`, and answers.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8], take: impl FnMut(&[u8])) -> io::Result<Taken> {
        let kept = self.tail.len();
        buffer[..kept].copy_from_slice(&self.tail);
        let count = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => {
                self.closed = true;
                return Ok(Taken::Closed);
            }
            Ok(count) => count,
            Err(wait) if is_wait(&wait) => return Ok(Taken::All),
            Err(failed) => return Err(failed),
        };
        let filled = kept + count;
        let used = self.take_frames(&buffer[..filled], take)?;
        self.tail.clear();
        self.tail.extend_from_slice(&buffer[used..filled]);
        self.flush()?;
        Ok(if filled == buffer.len() { Taken::Some } else { Taken::All })
    }

    /// Looks at all whole frames; returns how many bytes they are.
    #[inline]
    fn take_frames(&mut self, input: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let frame = match frames::scan(&input[used..]) {
                Scan::Frame(frame) => frame,
                Scan::NeedMore => return Ok(used),
                Scan::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            };
            used += frame.len;
            match frame.kind() {
                kind::PUBLISH => {
                    let (id, payload) = frame.delivery(self.version).ok_or(io::ErrorKind::InvalidData)?;
                    if let Some(id) = id {
                        let answer = if frame.first & 0b0100 == 0 { kind::PUBACK } else { kind::PUBREC };
                        self.unsent.extend_from_slice(&frames::answer(answer, id));
                    }
                    take(payload);
                }
                kind::PUBREL => {
                    let id = frame.packet_id().ok_or(io::ErrorKind::InvalidData)?;
                    self.unsent.extend_from_slice(&frames::answer(kind::PUBCOMP, id));
                }
                _ => {}
            }
        }
    }

    /// The socket takes bytes again.
    pub(crate) fn on_writable(&mut self) -> io::Result<()> {
        self.writable = true;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.writable && !self.unsent.is_empty() && !self.closed {
            match self.stream.write(&self.unsent) {
                Ok(count) if count == self.unsent.len() => self.unsent.clear(),
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(wait) if is_wait(&wait) => self.writable = false,
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }
}
