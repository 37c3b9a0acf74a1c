//! A connection that publishes what it is given, and reads the acknowledgements.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::frames::{self, Scan, Stamp, Template, kind};
use crate::handshake::is_wait;

/// Bound: bytes that wait here for the kernel. Above that it wants no more.
const UNSENT_MAX: usize = 64 * 1024;

/// One publisher's connection. It is registered for reading and writing.
pub(crate) struct Outlet {
    pub(crate) stream: TcpStream,
    unsent: Vec<u8>,
    writable: bool,
    tail: Vec<u8>,
}

impl Outlet {
    /// On an accepted connection.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, unsent: Vec::new(), writable: true, tail: Vec::new() }
    }

    /// Whether it takes another message now.
    pub(crate) fn has_room(&self) -> bool {
        self.writable && self.unsent.len() < UNSENT_MAX
    }

    /// Queues a message.
    pub(crate) fn put(&mut self, template: &Template, stamp: Stamp, packet_id: u16) {
        template.append(&mut self.unsent, stamp, packet_id);
    }

    /// Sends what the kernel takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.writable && !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(wait) if is_wait(&wait) => self.writable = false,
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }

    /// The socket takes bytes again.
    pub(crate) fn on_writable(&mut self) -> io::Result<()> {
        self.writable = true;
        self.flush()
    }

    /// Reads all that is there; each acknowledged identifier is given to `take`.
    pub(crate) fn read(&mut self, buffer: &mut [u8], mut take: impl FnMut(u16)) -> io::Result<()> {
        loop {
            let kept = self.tail.len();
            buffer[..kept].copy_from_slice(&self.tail);
            let filled = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => kept + count,
                Err(wait) if is_wait(&wait) => return Ok(()),
                Err(failed) => return Err(failed),
            };
            let mut used = 0;
            loop {
                match frames::scan(&buffer[used..filled]) {
                    Scan::Frame(frame) => {
                        if let Some(id) = frame.packet_id().filter(|_| frame.kind() == kind::PUBACK) {
                            take(id);
                        }
                        used += frame.len;
                    }
                    Scan::NeedMore => break,
                    Scan::Malformed => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
            self.tail.clear();
            self.tail.extend_from_slice(&buffer[used..filled]);
        }
    }
}
