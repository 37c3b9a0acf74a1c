//! One thread of the load: its share of the connections, and the loop that serves them.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use super::publisher::Publisher;
use super::subscriber::Subscriber;
use super::tally::Tally;
use super::{Schedule, Shared};
use crate::clock;
use crate::failure::Failure;
use crate::frames::{self, Session};
use crate::handshake;
use crate::poll::{self, Poller};

/// Bound: bytes taken from a socket in one call; a frame that is larger gets a larger buffer.
const READ_BYTES: usize = 256 * 1024;

/// Bound: how long a thread waits while nothing comes, before it takes the rest for lost.
const QUIET_NS: u64 = 1_500_000_000;

/// Bound: how long the drain may take although something still comes.
const DRAIN_NS: u64 = 20_000_000_000;

/// Bound: a thread looks at the other threads and the time at least this often.
const WAIT_NS: u64 = 20_000_000;

/// A thread's connections.
pub(super) struct Worker<'a> {
    shared: &'a Shared,
    poller: Poller,
    /// Registered first: tokens from 0.
    publishers: Vec<Publisher>,
    /// Tokens go on from the publishers'.
    subscribers: Vec<Subscriber>,
    buffer: Vec<u8>,
    tally: Tally,
    /// Sockets that were not read to the end.
    unfinished: Vec<usize>,
}

impl<'a> Worker<'a> {
    /// Opens the connections of thread `number` and subscribes.
    pub(super) fn open(number: usize, shared: &'a Shared) -> Result<Self, Failure> {
        let load = &shared.load;
        let mine =
            |count: u16| (0..count).filter(move |index| usize::from(*index) % shared.threads() == number);
        let mut worker = Self {
            shared,
            poller: Poller::new().map_err(Failure::system("create an epoll set"))?,
            publishers: Vec::new(),
            subscribers: Vec::new(),
            buffer: vec![0; READ_BYTES.max(4 * load.size as usize)],
            tally: Tally::new(),
            unfinished: Vec::new(),
        };
        for index in mine(load.publishers) {
            let stream = worker.connect("p", index)?;
            worker.publishers.push(Publisher::new(stream, index, shared)?);
        }
        for index in mine(load.subscribers) {
            let stream = worker.connect("s", index)?;
            let filter = shared.filter(usize::from(index % load.topics));
            handshake::subscribe(&stream, &[filter], shared.qos, load.target.protocol.version())?;
            worker.subscribers.push(Subscriber::new(stream, index, shared));
        }
        worker.register().map_err(Failure::system("watch a socket"))?;
        Ok(worker)
    }

    fn connect(&self, role: &str, index: u16) -> Result<TcpStream, Failure> {
        let target = &self.shared.load.target;
        let client_id = format!("bench-{:04x}-{role}{index}", self.shared.run);
        let connect = target.connect(&client_id, Session::Clean)?;
        handshake::open(target.address, u64::from(index), &connect)
    }

    fn register(&self) -> io::Result<()> {
        let publishers = self.publishers.iter().map(|publisher| &publisher.stream);
        let streams = publishers.chain(self.subscribers.iter().map(Subscriber::stream));
        for (token, stream) in streams.enumerate() {
            self.poller.add(stream.as_raw_fd(), token)?;
        }
        Ok(())
    }

    /// The measurement. Ends by itself.
    pub(super) fn run(mut self, schedule: Schedule) -> Result<Tally, Failure> {
        poll::wake_on_time();
        clock::sleep_until(schedule.begin);
        self.serve(&schedule).map_err(Failure::system("talk to the broker"))?;
        self.say_goodbye();
        Ok(self.tally)
    }

    fn serve(&mut self, schedule: &Schedule) -> io::Result<()> {
        let mut cpu_before = None;
        let mut stopped = false;
        let mut heard_at = clock::now();
        loop {
            let now = clock::now();
            if cpu_before.is_none() && now >= schedule.measure_from {
                cpu_before = Some(clock::thread_cpu());
            }
            if now >= schedule.measure_to {
                if self.tally.busiest == 0 {
                    self.tally.busiest = clock::thread_cpu() - cpu_before.unwrap_or(0);
                }
                if !stopped && self.publishers.iter().all(Publisher::has_stopped) {
                    stopped = true;
                    self.shared.stopped.fetch_add(1, Ordering::Release);
                }
                let quiet = now > heard_at.max(schedule.measure_to) + QUIET_NS;
                if quiet || now > schedule.measure_to + DRAIN_NS || self.is_done() || self.shared.has_failed()
                {
                    return Ok(());
                }
            }
            let come_back = self.pump(now, schedule)?;
            if self.hear(come_back.saturating_sub(now), schedule)? {
                heard_at = now;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.shared.is_complete() && self.publishers.iter().all(Publisher::is_done)
    }

    /// Lets every publisher send; when the first wants to be asked again.
    #[inline]
    fn pump(&mut self, now: u64, schedule: &Schedule) -> io::Result<u64> {
        let mut come_back = now + WAIT_NS;
        for publisher in &mut self.publishers {
            let at = publisher.pump(now, schedule, &self.shared.topics, &mut self.tally)?;
            come_back = come_back.min(at);
        }
        Ok(come_back)
    }

    /// Waits for at most `nanoseconds` and serves what came. Whether anything was there to read.
    #[inline]
    fn hear(&mut self, nanoseconds: u64, schedule: &Schedule) -> io::Result<bool> {
        let unfinished = std::mem::take(&mut self.unfinished);
        let count = self.poller.wait(if unfinished.is_empty() { nanoseconds } else { 0 })?;
        let mut heard = !unfinished.is_empty();
        for token in unfinished {
            self.read(token, schedule)?;
        }
        for index in 0..count {
            let ready = self.poller.event(index);
            if ready.writable {
                match ready.token.checked_sub(self.publishers.len()) {
                    None => self.publishers[ready.token].on_writable(),
                    Some(subscriber) => self.subscribers[subscriber].on_writable()?,
                }
            }
            if ready.readable && !self.unfinished.contains(&ready.token) {
                heard = true;
                self.read(ready.token, schedule)?;
            }
        }
        Ok(heard)
    }

    #[inline]
    fn read(&mut self, token: usize, schedule: &Schedule) -> io::Result<()> {
        let (buffer, tally) = (&mut self.buffer, &mut self.tally);
        let more = match token.checked_sub(self.publishers.len()) {
            None => self.publishers[token].on_readable(buffer, schedule, tally)?,
            Some(subscriber) => {
                self.subscribers[subscriber].on_readable(buffer, schedule, &self.shared.topics, tally)?
            }
        };
        if more {
            self.unfinished.push(token);
        }
        Ok(())
    }

    /// A broker that has gone meanwhile does not matter any more.
    fn say_goodbye(&mut self) {
        let Ok(goodbye) = frames::disconnect(self.shared.load.target.protocol.version()) else {
            return;
        };
        let publishers = self.publishers.iter().map(|publisher| &publisher.stream);
        for mut stream in publishers.chain(self.subscribers.iter().map(Subscriber::stream)) {
            let _ = stream.write(&goodbye);
        }
    }
}
