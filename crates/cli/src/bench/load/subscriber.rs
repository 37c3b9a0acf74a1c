//! A connection that subscribes: counts what comes. Hot path.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use super::tally::Tally;
use super::{Schedule, Shared, Topic};
use crate::clock;
use crate::frames::Stamp;
use crate::intake::{Intake, Taken};

/// One subscriber.
pub(super) struct Subscriber {
    intake: Intake,
    count: Count,
}

/// What it counts by.
struct Count {
    topic: usize,
    run: u16,
    /// The last sequence of each publisher of the topic, plus one.
    next: Vec<u32>,
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
        let next = vec![0; shared.topics[topic].publishers as usize];
        Self {
            intake: Intake::new(stream, shared.load.target.protocol.version()),
            count: Count { topic, run: shared.run, next },
        }
    }

    /// Its connection.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.intake.stream
    }

    /// Reads once and answers. True: there may be more.
    pub(super) fn on_readable(
        &mut self,
        buffer: &mut [u8],
        schedule: &Schedule,
        topics: &[Topic],
        tally: &mut Tally,
    ) -> io::Result<bool> {
        // The clock is read when the first message of a read is there.
        let mut now = None;
        let mut delivered = 0;
        let mut same = Same::default();
        let count = &mut self.count;
        let taken = self.intake.read(buffer, |payload| {
            let now = *now.get_or_insert_with(clock::now);
            let Some(stamp) = Stamp::read(payload).filter(|stamp| stamp.run == count.run) else {
                return;
            };
            delivered += 1;
            tally.disordered += u64::from(count.is_disordered(stamp));
            if same.due != stamp.due {
                same.record(now, schedule, tally);
                same = Same { due: stamp.due, count: 0 };
            }
            same.count += 1;
        })?;
        if let Some(now) = now {
            same.record(now, schedule, tally);
            topics[self.count.topic].received.fetch_add(delivered, Ordering::Relaxed);
            tally.delivered += if schedule.measures(now) { delivered } else { 0 };
        }
        tally.closed += u64::from(taken == Taken::Closed);
        Ok(taken == Taken::Some)
    }

    /// The socket takes bytes again.
    pub(super) fn on_writable(&mut self) -> io::Result<()> {
        self.intake.on_writable()
    }
}

impl Count {
    #[inline]
    fn is_disordered(&mut self, stamp: Stamp) -> bool {
        let Some(next) = self.next.get_mut(usize::from(stamp.publisher)) else {
            return true;
        };
        let disordered = stamp.sequence < *next;
        *next = stamp.sequence.wrapping_add(1);
        disordered
    }
}

impl Same {
    #[inline]
    fn record(&self, now: u64, schedule: &Schedule, tally: &mut Tally) {
        if self.count > 0 && schedule.measures(now) {
            tally.latency.record(now.saturating_sub(self.due), self.count);
        }
    }
}
