//! `mqtt sink`: the least that the other side can be. It answers what has to be answered and hands the bytes of a
//! PUBLISH on as they are to whoever subscribed to exactly that topic, on one thread. What the load reaches
//! against it is the least that the load generator can do.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use crate::arguments;
use crate::clock;
use crate::failure::Failure;
use crate::frames::{self, Frame, Scan, kind};
use crate::handshake::is_wait;
use crate::poll::{self, Poller};
use crate::report;

/// Bound: bytes on their way to one subscriber; above that no publisher is read.
const UNSENT_MAX: usize = 1 << 20;

const READ_BYTES: usize = 256 * 1024;

/// The token of the listener; connections follow it.
const LISTENER: usize = 0;

struct Peer {
    stream: TcpStream,
    tail: Vec<u8>,
    unsent: Vec<u8>,
    writable: bool,
    readable: bool,
    subscribes: bool,
}

/// The listener and its connections.
pub(crate) struct Sink {
    listener: TcpListener,
    poller: Poller,
    peers: Vec<Option<Peer>>,
    subscriptions: HashMap<Vec<u8>, Vec<usize>>,
    /// Of each topic the members of its one share. What comes in one piece goes to one of them.
    shares: HashMap<Vec<u8>, Vec<usize>>,
    /// Whether some filter ends with `+`.
    has_wildcards: bool,
    buffer: Vec<u8>,
}

/// Listens, tells where, and serves until the time is over.
pub(crate) fn run(arguments: &arguments::Sink) -> Result<(), Failure> {
    let sink = Sink::bind(arguments.address).map_err(Failure::system("listen"))?;
    let address = sink.address().map_err(Failure::system("listen"))?;
    report::say(&address.to_string());
    let until = clock::now() + clock::nanos(arguments.duration);
    sink.serve(|| clock::now() >= until).map_err(Failure::system("serve"))
}

impl Sink {
    /// Listens.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        poller.add(listener.as_raw_fd(), LISTENER)?;
        Ok(Self {
            listener,
            poller,
            peers: Vec::new(),
            subscriptions: HashMap::new(),
            shares: HashMap::new(),
            has_wildcards: false,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is told that it is over, which it asks at least 20 times a second.
    pub(crate) fn serve(mut self, is_over: impl Fn() -> bool) -> io::Result<()> {
        poll::wake_on_time();
        while !is_over() {
            let busy = self.turn();
            let count = self.poller.wait(if busy { 0 } else { clock::SECOND / 20 })?;
            for index in 0..count {
                let ready = self.poller.event(index);
                if ready.token == LISTENER {
                    self.accept()?;
                } else if let Some(Some(peer)) = self.peers.get_mut(ready.token - 1) {
                    peer.readable |= ready.readable;
                    peer.writable |= ready.writable;
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(wait) if is_wait(&wait) => return Ok(()),
                Err(failed) => return Err(failed),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let place = self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len());
            self.poller.add(stream.as_raw_fd(), place + 1)?;
            let peer = Peer {
                stream,
                tail: Vec::new(),
                unsent: Vec::new(),
                writable: true,
                readable: true,
                subscribes: false,
            };
            if place == self.peers.len() {
                self.peers.push(Some(peer));
            } else {
                self.peers[place] = Some(peer);
            }
        }
    }

    /// Reads once from each connection that has something, then writes. Whether some have more.
    fn turn(&mut self) -> bool {
        let full = self.peers.iter().flatten().any(|peer| peer.unsent.len() > UNSENT_MAX);
        let mut busy = false;
        for place in 0..self.peers.len() {
            if full && self.peers[place].as_ref().is_some_and(|peer| !peer.subscribes) {
                continue;
            }
            if self.peers[place].as_ref().is_some_and(|peer| peer.readable) {
                busy = true;
                if self.read(place).is_err() {
                    self.drop_peer(place);
                }
            }
        }
        for place in 0..self.peers.len() {
            if let Some(peer) = &mut self.peers[place]
                && peer.flush().is_err()
            {
                self.drop_peer(place);
            }
        }
        busy
    }

    fn drop_peer(&mut self, place: usize) {
        self.peers[place] = None;
        let subscribers = self.subscriptions.values_mut().chain(self.shares.values_mut());
        subscribers.for_each(|places| places.retain(|&other| other != place));
    }

    fn read(&mut self, place: usize) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let Some(peer) = &mut self.peers[place] else {
            return Ok(());
        };
        let kept = peer.tail.len();
        if buffer.len() < 2 * kept {
            buffer.resize(2 * kept, 0);
        }
        buffer[..kept].copy_from_slice(&peer.tail);
        let outcome = match peer.stream.read(&mut buffer[kept..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                peer.readable = kept + count == buffer.len();
                self.take(place, &buffer[..kept + count])
            }
            Err(wait) if is_wait(&wait) => {
                peer.readable = false;
                Ok(())
            }
            Err(failed) => Err(failed),
        };
        self.buffer = buffer;
        outcome
    }

    /// Answers all whole frames. Neighbours with the same topic are handed on in one piece.
    fn take(&mut self, place: usize, input: &[u8]) -> io::Result<()> {
        let mut used = 0;
        let mut run: Option<(&[u8], usize)> = None;
        loop {
            let frame = match frames::scan(&input[used..]) {
                Scan::Frame(frame) => frame,
                Scan::NeedMore => break,
                Scan::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            };
            let topic = (frame.kind() == kind::PUBLISH).then(|| frame.topic()).flatten();
            if let Some((name, from)) = run
                && topic.is_none_or(|(topic, _)| topic != name)
            {
                self.hand_on(name, &input[from..used]);
                run = None;
            }
            match topic {
                Some((name, rest)) => {
                    run = run.or(Some((name, used)));
                    if frame.first & 0b0110 != 0 {
                        let id = rest.first_chunk::<2>().ok_or(io::ErrorKind::InvalidData)?;
                        let answer = if frame.first & 0b0100 == 0 { kind::PUBACK } else { kind::PUBREC };
                        self.answer(place, &frames::answer(answer, u16::from_be_bytes(*id)));
                    }
                }
                None => self.take_control(place, frame)?,
            }
            used += frame.len;
        }
        if let Some((name, from)) = run {
            self.hand_on(name, &input[from..used]);
        }
        if let Some(peer) = &mut self.peers[place] {
            peer.tail.clear();
            peer.tail.extend_from_slice(&input[used..]);
        }
        Ok(())
    }

    fn take_control(&mut self, place: usize, frame: Frame<'_>) -> io::Result<()> {
        match frame.kind() {
            kind::CONNECT => {
                let v5 = frame.topic().and_then(|(_, rest)| rest.first().copied()) == Some(5);
                let connack: &[u8] = if v5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
                self.answer(place, connack);
            }
            kind::SUBSCRIBE => self.subscribe(place, frame).ok_or(io::ErrorKind::InvalidData)?,
            kind::PINGREQ => self.answer(place, &[0xd0, 0]),
            kind::PUBREC | kind::PUBREL => {
                let next = if frame.kind() == kind::PUBREC { kind::PUBREL } else { kind::PUBCOMP };
                self.answer(
                    place,
                    &frames::answer(next, frame.packet_id().ok_or(io::ErrorKind::InvalidData)?),
                );
            }
            kind::DISCONNECT => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        Ok(())
    }

    /// Filters without wildcards, or with `+` as the last level, as this program's own SUBSCRIBE has them.
    fn subscribe(&mut self, place: usize, frame: Frame<'_>) -> Option<()> {
        let (id, rest) = frame.body.split_first_chunk::<2>()?;
        // In 5.0 an empty list of properties stands before them.
        let (v5, filters) = match read_filters(rest) {
            Some(filters) => (false, filters),
            None => (true, read_filters(rest.strip_prefix(&[0])?)?),
        };
        let mut codes = Vec::with_capacity(filters.len());
        for (filter, qos) in filters {
            let (map, topic) = match filter.strip_prefix(b"$share/") {
                Some(rest) => (&mut self.shares, &rest[1 + rest.iter().position(|&byte| byte == b'/')?..]),
                None => (&mut self.subscriptions, filter),
            };
            map.entry(topic.to_vec()).or_default().push(place);
            self.has_wildcards |= topic.ends_with(b"/+");
            codes.push(qos);
        }
        if let Some(peer) = &mut self.peers[place] {
            peer.subscribes = true;
        }
        self.answer(place, &frames::suback(*id, v5, &codes));
        Some(())
    }

    fn answer(&mut self, place: usize, bytes: &[u8]) {
        if let Some(peer) = &mut self.peers[place] {
            peer.unsent.extend_from_slice(bytes);
        }
    }

    fn hand_on(&mut self, topic: &[u8], frames: &[u8]) {
        if let Some(members) = self.shares.get_mut(topic).filter(|members| !members.is_empty()) {
            members.rotate_left(1);
            let next = members.first().and_then(|&place| self.peers[place].as_mut());
            next.into_iter().for_each(|peer| peer.unsent.extend_from_slice(frames));
        }
        for &place in self.subscriptions.get(topic).into_iter().flatten() {
            if let Some(peer) = &mut self.peers[place] {
                peer.unsent.extend_from_slice(frames);
            }
        }
        if self.has_wildcards
            && let Some(level) = topic.iter().rposition(|&byte| byte == b'/')
        {
            let filter = [&topic[..=level], b"+"].concat();
            for &place in self.subscriptions.get(&filter).into_iter().flatten() {
                if let Some(peer) = &mut self.peers[place] {
                    peer.unsent.extend_from_slice(frames);
                }
            }
        }
    }
}

/// Filters and their QoS; `None` if these are none.
fn read_filters(mut rest: &[u8]) -> Option<Vec<(&[u8], u8)>> {
    let mut filters = Vec::new();
    while !rest.is_empty() {
        let (len, tail) = rest.split_first_chunk::<2>()?;
        let (filter, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let (&options, tail) = tail.split_first()?;
        if filter.is_empty() {
            return None;
        }
        filters.push((filter, options & 0b11));
        rest = tail;
    }
    Some(filters)
}

impl Peer {
    fn flush(&mut self) -> io::Result<()> {
        if !self.writable || self.unsent.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.unsent) {
            Ok(count) => drop(self.unsent.drain(..count)),
            Err(wait) if is_wait(&wait) => self.writable = false,
            Err(failed) => return Err(failed),
        }
        Ok(())
    }
}
