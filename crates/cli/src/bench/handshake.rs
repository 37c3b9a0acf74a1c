//! From nothing to an accepted MQTT connection, without waiting: many at once on one thread.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::failure::Failure;
use crate::frames::kind;

/// Bound: ports used of one source address before the next is taken; a host has about 28,000.
const PORTS_PER_SOURCE: u64 = 20_000;

/// Bound: time for each step of a handshake, so that a silent broker ends the measurement.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A connection on its way.
pub(crate) struct Handshake {
    stream: TcpStream,
    said_connect: bool,
    answer: [u8; 4],
    answer_len: usize,
}

/// How far it is.
pub(crate) enum Progress {
    /// Not there yet.
    Waiting,
    /// The broker accepted. Bytes of a longer CONNACK may still come.
    Accepted,
    /// The broker said something else.
    Refused([u8; 4]),
}

impl Handshake {
    /// Starts connection number `index`. Loopback targets are reached from several loopback addresses, so that
    /// ports never run out.
    pub(crate) fn begin(target: SocketAddr, index: u64) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let IpAddr::V4(address) = target.ip()
            && address.is_loopback()
        {
            let host = 1 + (index / PORTS_PER_SOURCE % 250) as u8;
            let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
            socket.bind(&source.into())?;
        }
        match socket.connect(&target.into()) {
            Err(refused) if refused.raw_os_error() != Some(libc::EINPROGRESS) => return Err(refused),
            Ok(()) | Err(_) => {}
        }
        Ok(Self { stream: socket.into(), said_connect: false, answer: [0; 4], answer_len: 0 })
    }

    /// To be registered for reading and writing.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Goes on after the socket became readable or writable.
    pub(crate) fn advance(&mut self, connect: &[u8]) -> io::Result<Progress> {
        if !self.said_connect {
            if let Some(refused) = self.stream.take_error()? {
                return Err(refused);
            }
            match self.stream.write(connect) {
                Ok(_) => self.said_connect = true,
                Err(wait) if is_wait(&wait) || wait.kind() == io::ErrorKind::NotConnected => {
                    return Ok(Progress::Waiting);
                }
                Err(failed) => return Err(failed),
            }
        }
        while self.answer_len < self.answer.len() {
            match self.stream.read(&mut self.answer[self.answer_len..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.answer_len += count,
                Err(wait) if is_wait(&wait) => return Ok(Progress::Waiting),
                Err(failed) => return Err(failed),
            }
        }
        let accepted = self.answer[0] == kind::CONNACK << 4 && self.answer[3] == 0;
        Ok(if accepted { Progress::Accepted } else { Progress::Refused(self.answer) })
    }

    /// The socket, after [`Progress::Accepted`].
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// Whether a call on a socket only has to be repeated later.
#[inline]
pub(crate) fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Opens connection number `index` and waits until it is accepted.
pub(crate) fn open(target: SocketAddr, index: u64, connect: &[u8]) -> Result<TcpStream, Failure> {
    let unreachable = |source| Failure::Unreachable { address: target, source };
    let mut handshake = Handshake::begin(target, index).map_err(unreachable)?;
    let began = Instant::now();
    loop {
        match handshake.advance(connect).map_err(unreachable)? {
            Progress::Accepted => break,
            Progress::Refused(got) => {
                return Err(Failure::Unexpected { expected: "accept a connection", got: got.to_vec() });
            }
            Progress::Waiting if began.elapsed() > ANSWER_WITHIN => {
                return Err(unreachable(io::ErrorKind::TimedOut.into()));
            }
            Progress::Waiting => wait_for(&handshake)?,
        }
    }
    let stream = handshake.into_stream();
    read_rest_of_connack(&stream)?;
    Ok(stream)
}

fn wait_for(handshake: &Handshake) -> Result<(), Failure> {
    let events = if handshake.said_connect { libc::POLLIN } else { libc::POLLOUT };
    let mut entry = libc::pollfd { fd: handshake.descriptor(), events, revents: 0 };
    // Safety: one valid entry. An interruption only makes the caller look once more.
    unsafe { libc::poll(&raw mut entry, 1, 100) };
    Ok(())
}

/// A 5.0 CONNACK is longer than the four bytes that were looked at; the broker sends it in one piece.
fn read_rest_of_connack(mut stream: &TcpStream) -> Result<(), Failure> {
    let mut rest = [0; 1024];
    match stream.read(&mut rest) {
        Ok(_) => Ok(()),
        Err(wait) if is_wait(&wait) => Ok(()),
        Err(failed) => Err(Failure::system("read a CONNACK")(failed)),
    }
}
