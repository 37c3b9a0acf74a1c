//! A connection that subscribes: takes deliveries in, acknowledges those that want it. Hot path.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use wire::mqtt::Version;

use super::tally::Tally;
use super::{Schedule, Shared, Topic};
use crate::frames::{self, Scan, Stamp, kind};
use crate::handshake::is_wait;

/// Bytes of a PUBACK that says success.
const PUBACK: [u8; 2] = [kind::PUBACK << 4, 2];

/// One subscriber.
pub(super) struct Subscriber {
    pub(super) stream: TcpStream,
    topic: usize,
    run: u16,
    version: Version,
    /// The last sequence of each publisher of the topic, plus one.
    next: Vec<u32>,
    /// The beginning of a frame whose rest has not come.
    tail: Vec<u8>,
    /// Acknowledgements that are not yet with the kernel.
    unsent: Vec<u8>,
    writable: bool,
    closed: bool,
}

/// Deliveries of one read that were due at the same time: recorded as one.
#[derive(Default)]
struct Same {
    due: u64,
    count: u64,
}

impl Subscriber {
    /// Number `index` of the run, on a connection whose subscription stands.
    pub(super) fn new(stream: TcpStream, index: u16, shared: &Shared) -> Self {
        let topic = usize::from(index % shared.load.topics);
        Self {
            stream,
            topic,
            run: shared.run,
            version: shared.load.target.protocol.version(),
            next: vec![0; shared.topics[topic].publishers as usize],
            tail: Vec::new(),
            unsent: Vec::new(),
            writable: true,
            closed: false,
        }
    }

    /// Reads once and answers. True: there may be more.
    pub(super) fn on_readable(
        &mut self,
        buffer: &mut [u8],
        schedule: &Schedule,
        topics: &[Topic],
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
        let filled = kept + count;
        let used = self.take(&buffer[..filled], schedule, topics, tally)?;
        self.tail.clear();
        self.tail.extend_from_slice(&buffer[used..filled]);
        self.flush()?;
        Ok(filled == buffer.len())
    }

    /// Counts all whole frames; returns how many bytes they are.
    fn take(
        &mut self,
        input: &[u8],
        schedule: &Schedule,
        topics: &[Topic],
        tally: &mut Tally,
    ) -> io::Result<usize> {
        let now = crate::clock::now();
        let measured = schedule.measures(now);
        let mut used = 0;
        let mut delivered = 0;
        let mut same = Same::default();
        loop {
            let frame = match frames::scan(&input[used..]) {
                Scan::Frame(frame) => frame,
                Scan::NeedMore => break,
                Scan::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            };
            used += frame.len;
            if frame.kind() != kind::PUBLISH {
                continue;
            }
            let (id, payload) = frame.delivery(self.version).ok_or(io::ErrorKind::InvalidData)?;
            if let Some(id) = id {
                let [high, low] = id.to_be_bytes();
                self.unsent.extend_from_slice(&[PUBACK[0], PUBACK[1], high, low]);
            }
            let Some(stamp) = Stamp::read(payload).filter(|stamp| stamp.run == self.run) else {
                continue;
            };
            delivered += 1;
            tally.disordered += u64::from(self.is_disordered(stamp));
            if same.due != stamp.due {
                same.record(now, measured, tally);
                same = Same { due: stamp.due, count: 0 };
            }
            same.count += 1;
        }
        same.record(now, measured, tally);
        topics[self.topic].received.fetch_add(delivered, Ordering::Relaxed);
        tally.delivered += if measured { delivered } else { 0 };
        Ok(used)
    }

    #[inline]
    fn is_disordered(&mut self, stamp: Stamp) -> bool {
        let Some(next) = self.next.get_mut(usize::from(stamp.publisher)) else {
            return true;
        };
        let disordered = stamp.sequence < *next;
        *next = stamp.sequence.wrapping_add(1);
        disordered
    }

    /// The socket takes bytes again.
    pub(super) fn on_writable(&mut self) -> io::Result<()> {
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

impl Same {
    #[inline]
    fn record(&self, now: u64, measured: bool, tally: &mut Tally) {
        if measured && self.count > 0 {
            tally.latency.record(now.saturating_sub(self.due), self.count);
        }
    }
}
