//! Very many connections at once, each with its subscriptions, opened as fast as the broker takes them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use wire::mqtt::{Qos, Version};

use crate::arguments::Target;
use crate::clock;
use crate::failure::Failure;
use crate::frames::{self, Scan, Session};
use crate::handshake::{Handshake, Progress, is_wait};
use crate::poll::Poller;

/// Bound: time without any progress after which those that are not open yet have failed.
const STUCK_NS: u64 = 20 * clock::SECOND;

/// Who belongs to a crowd.
pub(crate) struct Members {
    pub(crate) target: Target,
    pub(crate) count: usize,
    /// Connections that are being opened at any time.
    pub(crate) concurrency: usize,
    /// Filters that each subscribes to.
    pub(crate) filters: usize,
}

/// Those that came in.
pub(crate) struct Crowd {
    /// With each one's number.
    pub(crate) open: Vec<(usize, TcpStream)>,
    /// Nanoseconds until the last one was open.
    pub(crate) took: u64,
}

/// Filter `filter` of member `member`.
pub(crate) fn filter(member: usize, filter: usize) -> String {
    format!("crowd/{member}/{filter}/+")
}

/// How far a member is.
enum Stage {
    Connecting(Handshake),
    /// SUBSCRIBE was sent. With bytes of CONNACK that are still to come before the answer, and the answer so far.
    Subscribing(TcpStream, usize, Vec<u8>),
}

struct Opening<'a> {
    members: &'a Members,
    address: SocketAddr,
    version: Version,
    poller: Poller,
    stages: Vec<Option<Stage>>,
    crowd: Crowd,
    failed: usize,
    run: u16,
}

/// Opens all that the broker lets in. Those that it refuses, closes or does not answer are missing.
pub(crate) fn open(members: &Members) -> Result<Crowd, Failure> {
    let began = clock::now();
    let opening = Opening {
        members,
        address: members.target.address,
        version: members.target.protocol.version(),
        poller: Poller::new().map_err(Failure::system("create an epoll set"))?,
        stages: (0..members.count).map(|_| None).collect(),
        crowd: Crowd { open: Vec::with_capacity(members.count), took: 0 },
        failed: 0,
        run: (began / 1_000_003) as u16,
    };
    opening.open_all(began)
}

impl Opening<'_> {
    fn open_all(mut self, began: u64) -> Result<Crowd, Failure> {
        let address = self.address;
        let unreachable = |source| Failure::Unreachable { address, source };
        let mut next = 0;
        let mut moved_at = clock::now();
        while self.crowd.open.len() + self.failed < self.members.count {
            while next < self.members.count && next - self.settled() < self.members.concurrency {
                let handshake = Handshake::begin(address, next as u64).map_err(unreachable)?;
                self.poller.add(handshake.descriptor(), next).map_err(Failure::system("watch a socket"))?;
                self.stages[next] = Some(Stage::Connecting(handshake));
                next += 1;
            }
            let count = self.poller.wait(clock::SECOND).map_err(Failure::system("wait for sockets"))?;
            for index in 0..count {
                let member = self.poller.event(index).token;
                moved_at = clock::now();
                if self.advance(member)?.is_err() {
                    self.failed += 1;
                }
            }
            if clock::now() > moved_at + STUCK_NS {
                break;
            }
        }
        self.crowd.took = moved_at - began;
        Ok(self.crowd)
    }

    fn settled(&self) -> usize {
        self.crowd.open.len() + self.failed
    }

    /// Goes on with one member. The inner error is the broker's.
    fn advance(&mut self, member: usize) -> Result<io::Result<()>, Failure> {
        let Some(stage) = self.stages[member].take() else {
            return Ok(Ok(()));
        };
        let outcome = match stage {
            Stage::Connecting(handshake) => self.connect(member, handshake)?,
            Stage::Subscribing(stream, rest, answer) => self.subscribed(member, stream, (rest, answer)),
        };
        Ok(outcome.map(|stage| self.stages[member] = stage))
    }

    fn connect(
        &mut self,
        member: usize,
        mut handshake: Handshake,
    ) -> Result<io::Result<Option<Stage>>, Failure> {
        let client_id = format!("crowd-{:04x}-{member}", self.run);
        let connect = self.members.target.connect(&client_id, Session::Clean)?;
        match handshake.advance(&connect) {
            Ok(Progress::Waiting) => Ok(Ok(Some(Stage::Connecting(handshake)))),
            Ok(Progress::Accepted) if self.members.filters == 0 => {
                self.crowd.open.push((member, handshake.into_stream()));
                Ok(Ok(None))
            }
            Ok(Progress::Accepted) => {
                let filters: Vec<_> =
                    (0..self.members.filters).map(|number| filter(member, number)).collect();
                let request = frames::subscribe(&filters, Qos::AtMostOnce, self.version)
                    .map_err(|_| Failure::Impossible("so many filters do not fit into one packet"))?;
                let rest = handshake.rest_of_connack();
                let mut stream = handshake.into_stream();
                let sent = stream.write_all(&request);
                Ok(sent.and_then(|()| self.subscribed(member, stream, (rest, Vec::new()))))
            }
            Ok(Progress::Refused(_)) => Ok(Err(io::ErrorKind::ConnectionRefused.into())),
            Err(failed) => Ok(Err(failed)),
        }
    }

    fn subscribed(
        &mut self,
        member: usize,
        mut stream: TcpStream,
        (mut rest, mut answer): (usize, Vec<u8>),
    ) -> io::Result<Option<Stage>> {
        let mut chunk = [0; 2048];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let skipped = rest.min(count);
                    rest -= skipped;
                    answer.extend_from_slice(&chunk[skipped..count]);
                }
                Err(wait) if is_wait(&wait) => break,
                Err(failed) => return Err(failed),
            }
        }
        match frames::scan(&answer) {
            Scan::Frame(frame) if frame.grants(self.members.filters) => {
                self.crowd.open.push((member, stream));
                Ok(None)
            }
            Scan::Frame(_) | Scan::Malformed => Err(io::ErrorKind::PermissionDenied.into()),
            Scan::NeedMore => Ok(Some(Stage::Subscribing(stream, rest, answer))),
        }
    }
}
