//! From nothing to an accepted MQTT connection, without waiting: many at once on one thread.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use wire::mqtt::{Qos, Version};

use crate::failure::Failure;
use crate::frames::{self, Scan, kind};

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
            // The port is chosen when the target is known: ports that still wait after an earlier run then do not count.
            choose_port_late(&socket)?;
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

    /// After [`Progress::Accepted`]: bytes of the CONNACK that were not taken yet.
    pub(crate) fn rest_of_connack(&self) -> usize {
        (2 + usize::from(self.answer[1])).saturating_sub(self.answer.len())
    }

    /// The socket, after [`Progress::Accepted`].
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// Lets a bound socket get its port when it connects.
fn choose_port_late(socket: &Socket) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // Safety: the pointer and the length are those of `yes`, which lives through the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
    let rest = handshake.rest_of_connack();
    let stream = handshake.into_stream();
    read_rest_of_connack(&stream, rest)?;
    Ok(stream)
}

fn wait_for(handshake: &Handshake) -> Result<(), Failure> {
    let events = if handshake.said_connect { libc::POLLIN } else { libc::POLLOUT };
    let mut entry = libc::pollfd { fd: handshake.descriptor(), events, revents: 0 };
    // Safety: one valid entry. An interruption only makes the caller look once more.
    unsafe { libc::poll(&raw mut entry, 1, 100) };
    Ok(())
}

/// A 5.0 CONNACK is longer than the four bytes that were looked at. What follows it stays in the socket: messages
/// for a session that was resumed.
fn read_rest_of_connack(mut stream: &TcpStream, mut rest: usize) -> Result<(), Failure> {
    let began = Instant::now();
    let mut chunk = [0; 256];
    while rest > 0 && began.elapsed() < ANSWER_WITHIN {
        let len = rest.min(chunk.len());
        match stream.read(&mut chunk[..len]) {
            Ok(0) => break,
            Ok(count) => rest -= count,
            Err(wait) if is_wait(&wait) => std::thread::yield_now(),
            Err(failed) => return Err(Failure::system("read a CONNACK")(failed)),
        }
    }
    if rest > 0 {
        return Err(Failure::Unexpected { expected: "finish a CONNACK", got: Vec::new() });
    }
    Ok(())
}

/// Subscribes on an accepted connection and waits for the grant.
pub(crate) fn subscribe(
    mut stream: &TcpStream,
    filters: &[String],
    qos: Qos,
    version: Version,
) -> Result<(), Failure> {
    let request = frames::subscribe(filters, qos, version)
        .map_err(|_| Failure::Impossible("a filter is longer than MQTT permits"))?;
    stream.write_all(&request).map_err(Failure::system("send a SUBSCRIBE"))?;
    let began = Instant::now();
    let mut answer = Vec::new();
    let mut chunk = [0; 256];
    while began.elapsed() < ANSWER_WITHIN {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(wait) if is_wait(&wait) => std::thread::yield_now(),
            Err(failed) => return Err(Failure::system("read a SUBACK")(failed)),
        }
        if let Scan::Frame(frame) = frames::scan(&answer) {
            if frame.grants(filters.len()) {
                return Ok(());
            }
            break;
        }
    }
    answer.truncate(16);
    Err(Failure::Unexpected { expected: "grant a subscription", got: answer })
}
