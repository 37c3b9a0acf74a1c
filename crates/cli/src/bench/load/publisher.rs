//! A connection that publishes. Hot path.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use super::tally::Tally;
use super::{Schedule, Shared, Topic};
use crate::clock::SECOND;
use crate::failure::Failure;
use crate::frames::{self, Batch, Sample, Scan, Stamp, kind};
use crate::handshake::is_wait;

/// Bound: bytes that wait in this host's kernel for a broker that does not read. More would be published before the
/// measured time and delivered in it.
const SEND_BUFFER_BYTES: usize = 256 * 1024;

/// One publisher.
pub(super) struct Publisher {
    pub(super) stream: TcpStream,
    topic: usize,
    /// Number among the publishers of its topic.
    rank: u16,
    run: u16,
    batch: Batch,
    /// Bytes of `batch` that are not yet with the kernel.
    unsent: std::ops::Range<usize>,
    /// PUBRELs that are not yet with the kernel; they go between two messages.
    releases: Vec<u8>,
    writable: bool,
    pacing: Option<Pacing>,
    window: Window,
    sequence: u32,
    /// The beginning of a frame whose rest has not come.
    tail: Vec<u8>,
    closed: bool,
}

/// When messages are due: number k at `first + k * period`.
struct Pacing {
    /// After the beginning, as a share of the period, so that publishers do not all send at once.
    publisher: u64,
    publishers: u64,
    rate: u64,
}

impl Pacing {
    /// When message `number` is due.
    #[inline]
    fn due(&self, schedule: &Schedule, number: u32) -> u64 {
        let place = u128::from(number) * u128::from(self.publishers) + u128::from(self.publisher);
        schedule.begin + (place * u128::from(SECOND) / u128::from(self.rate)) as u64
    }
}

/// What may be on its way.
enum Window {
    /// Whatever TCP takes.
    Open,
    /// QoS 0: so many that are not yet delivered.
    Undelivered(usize),
    /// QoS 1 and 2: one per packet identifier, until the exchange is over.
    Unacknowledged {
        /// Identifiers that may be used, the longest unused first.
        free: VecDeque<u16>,
        /// When the message of each identifier was due; 0: not in flight.
        due: Vec<u64>,
    },
}

impl Window {
    fn new(shared: &Shared) -> Self {
        match (shared.load.qos, shared.window) {
            (0, 0) => Self::Open,
            (0, size) => Self::Undelivered(size),
            (_, size) => Self::Unacknowledged { free: (1..=size as u16).collect(), due: vec![0; size + 1] },
        }
    }

    /// How many messages may follow now.
    #[inline]
    fn room(&self, topic: &Topic) -> usize {
        match self {
            Self::Open => usize::MAX,
            Self::Undelivered(size) => {
                let all = size * topic.publishers as usize;
                all.saturating_sub(topic.outstanding() as usize).min(*size)
            }
            Self::Unacknowledged { free, .. } => free.len(),
        }
    }

    /// The packet identifier of the next message; 0 at QoS 0.
    #[inline]
    fn take(&mut self, due_at: u64) -> u16 {
        match self {
            Self::Open | Self::Undelivered(_) => 0,
            Self::Unacknowledged { free, due } => {
                let id = free.pop_front().unwrap_or(0);
                due[usize::from(id)] = due_at;
                id
            }
        }
    }

    /// Gives an identifier back; when its message was due, if it was in flight.
    #[inline]
    fn give_back(&mut self, id: u16) -> Option<u64> {
        match self {
            Self::Open | Self::Undelivered(_) => None,
            Self::Unacknowledged { free, due } => {
                let due = std::mem::take(due.get_mut(usize::from(id))?);
                (due != 0).then(|| {
                    free.push_back(id);
                    due
                })
            }
        }
    }

    fn in_flight(&self) -> usize {
        match self {
            Self::Open | Self::Undelivered(_) => 0,
            Self::Unacknowledged { free, due } => due.len() - 1 - free.len(),
        }
    }
}

impl Publisher {
    /// Number `index` of the run, on an accepted connection.
    pub(super) fn new(stream: TcpStream, index: u16, shared: &Shared) -> Result<Self, Failure> {
        let load = &shared.load;
        let topic = usize::from(index % load.topics);
        let version = load.target.protocol.version();
        let name = shared.topic_name(topic);
        let (size, properties) = (load.size as usize, load.properties);
        let batch = Batch::new(Sample { topic: &name, size, qos: shared.qos, version, properties })
            .map_err(|_| Failure::Impossible("the topic or the payload is longer than MQTT permits"))?;
        socket2::SockRef::from(&stream)
            .set_send_buffer_size(SEND_BUFFER_BYTES)
            .map_err(Failure::system("limit a send buffer"))?;
        let pacing = (load.rate > 0).then(|| Pacing {
            publisher: u64::from(index),
            publishers: u64::from(load.publishers),
            rate: u64::from(load.rate),
        });
        Ok(Self {
            stream,
            topic,
            rank: index / load.topics,
            run: shared.run,
            batch,
            unsent: 0..0,
            releases: Vec::new(),
            writable: true,
            pacing,
            window: Window::new(shared),
            sequence: 0,
            tail: Vec::new(),
            closed: false,
        })
    }

    /// Sends what is due and permitted, one call to the kernel at most. Returns when to come back without being
    /// woken by the socket: now, at a time, or never.
    pub(super) fn pump(
        &mut self,
        now: u64,
        schedule: &Schedule,
        topics: &[Topic],
        tally: &mut Tally,
    ) -> io::Result<u64> {
        if !self.writable || self.closed {
            return Ok(u64::MAX);
        }
        if self.unsent.is_empty() {
            self.release()?;
            if now >= schedule.measure_to || !self.releases.is_empty() {
                return Ok(u64::MAX);
            }
            let count = self.fill(now, schedule, topics, tally);
            if count == 0 {
                return Ok(self.next_due(now, schedule, topics));
            }
            self.unsent = 0..self.batch.frames(count).len();
        }
        match self.stream.write(&self.batch.frames(self.batch.capacity())[self.unsent.clone()]) {
            Ok(count) => self.unsent.start += count,
            Err(wait) if is_wait(&wait) => self.writable = false,
            Err(failed) => return Err(failed),
        }
        Ok(if !self.writable { u64::MAX } else { self.next_due(now, schedule, topics) })
    }

    /// Sends the PUBRELs that wait.
    fn release(&mut self) -> io::Result<()> {
        if self.releases.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.releases) {
            Ok(count) => drop(self.releases.drain(..count)),
            Err(wait) if is_wait(&wait) => self.writable = false,
            Err(failed) => return Err(failed),
        }
        Ok(())
    }

    /// Puts the next messages into the batch.
    #[inline]
    fn fill(&mut self, now: u64, schedule: &Schedule, topics: &[Topic], tally: &mut Tally) -> usize {
        let topic = &topics[self.topic];
        let room = self.window.room(topic).min(self.batch.capacity());
        let mut count = 0;
        while count < room {
            let mut due = now;
            if let Some(pacing) = &self.pacing {
                due = pacing.due(schedule, self.sequence);
                if due > now {
                    break;
                }
                if schedule.measures(now) {
                    tally.lateness.record(now - due, 1);
                }
            }
            let id = self.window.take(due);
            let stamp = Stamp { due, sequence: self.sequence, publisher: self.rank, run: self.run };
            self.batch.patch(count, stamp, id);
            self.sequence = self.sequence.wrapping_add(1);
            count += 1;
        }
        if count > 0 {
            topic.sent.fetch_add(count as u64, Ordering::Relaxed);
        }
        if schedule.measures(now) {
            tally.published += count as u64;
        }
        count
    }

    fn next_due(&self, now: u64, schedule: &Schedule, topics: &[Topic]) -> u64 {
        /// How often an undelivered window is looked at when another thread may open it.
        const LOOK: u64 = 100_000;
        if !self.unsent.is_empty() || !self.releases.is_empty() {
            return now;
        }
        if self.window.room(&topics[self.topic]) == 0 {
            return if matches!(self.window, Window::Undelivered(_)) { now + LOOK } else { u64::MAX };
        }
        self.pacing.as_ref().map_or(now, |pacing| pacing.due(schedule, self.sequence))
    }

    /// The socket takes bytes again.
    pub(super) fn on_writable(&mut self) {
        self.writable = true;
    }

    /// Whether all that it began to send is with the kernel, and acknowledged where that is owed.
    pub(super) fn is_done(&self) -> bool {
        self.closed || (self.unsent.is_empty() && self.window.in_flight() == 0)
    }

    /// Whether no message of it is half sent.
    pub(super) fn has_stopped(&self) -> bool {
        self.closed || self.unsent.is_empty()
    }

    /// Reads acknowledgements. True: there may be more.
    pub(super) fn on_readable(
        &mut self,
        buffer: &mut [u8],
        schedule: &Schedule,
        tally: &mut Tally,
    ) -> io::Result<bool> {
        let kept = self.tail.len();
        buffer[..kept].copy_from_slice(&self.tail);
        let count = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => {
                self.closed = true;
                tally.closed += 1;
                return Ok(false);
            }
            Ok(count) => count,
            Err(wait) if is_wait(&wait) => return Ok(false),
            Err(failed) => return Err(failed),
        };
        let more = kept + count == buffer.len();
        let now = crate::clock::now();
        let mut input = &buffer[..kept + count];
        loop {
            match frames::scan(input) {
                Scan::Frame(frame) => {
                    match frame.kind() {
                        kind::PUBACK | kind::PUBCOMP => {
                            self.on_acknowledgement(frame, schedule.measures(now), now, tally);
                        }
                        kind::PUBREC => self.on_receipt(frame, tally),
                        _ => {}
                    }
                    input = &input[frame.len..];
                }
                Scan::NeedMore => break,
                Scan::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        self.tail.clear();
        self.tail.extend_from_slice(input);
        Ok(more)
    }

    /// The broker has the message: its identifier is released, or free at once if it was refused.
    #[inline]
    fn on_receipt(&mut self, frame: frames::Frame<'_>, tally: &mut Tally) {
        let Some(id) = frame.packet_id() else { return };
        if is_refusal(frame) {
            tally.refused += 1;
            self.window.give_back(id);
        } else {
            self.releases.extend_from_slice(&frames::answer(kind::PUBREL, id));
        }
    }

    #[inline]
    fn on_acknowledgement(&mut self, frame: frames::Frame<'_>, measured: bool, now: u64, tally: &mut Tally) {
        let Some(due) = frame.packet_id().and_then(|id| self.window.give_back(id)) else {
            return;
        };
        tally.refused += u64::from(is_refusal(frame));
        if measured {
            tally.acknowledged += 1;
            tally.acknowledgement.record(now.saturating_sub(due), 1);
        }
    }
}

/// Whether the reason of an acknowledgement, if it has one, says no.
#[inline]
fn is_refusal(frame: frames::Frame<'_>) -> bool {
    frame.body.get(2).is_some_and(|&reason| reason >= 0x80)
}
