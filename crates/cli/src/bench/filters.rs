//! `mqtt filters`: what very many subscriptions cost a broker, and what it costs to find the one that matches.
//!
//! First one message goes to each topic, of which the broker may know nothing yet; then the same topics again and
//! again, a window of messages on their way, for the measured time.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use wire::mqtt::Qos;

use crate::arguments::Filters;
use crate::clock;
use crate::crowd::{self, Crowd, Members};
use crate::failure::Failure;
use crate::frames::{Sample, Session, Stamp, Template};
use crate::handshake;
use crate::intake::{Intake, Taken};
use crate::outlet::Outlet;
use crate::poll::Poller;
use crate::process;
use crate::report::{Cost, FiltersOutcome, Pass};

const BUFFER_BYTES: usize = 256 * 1024;

/// Bound: how long it waits while nothing comes, before it takes the rest for lost.
const QUIET_NS: u64 = 3 * clock::SECOND;

/// A publisher and all subscribers.
struct Field {
    poller: Poller,
    publisher: Outlet,
    /// Tokens go from 1; the publisher's is 0.
    subscribers: Vec<Intake>,
    templates: Vec<Template>,
    buffer: Vec<u8>,
    run: u16,
    sent: u64,
    received: u64,
}

/// Makes the measurement.
pub(crate) fn run(arguments: &Filters) -> Result<FiltersOutcome, Failure> {
    let members = Members {
        target: arguments.target.clone(),
        count: arguments.connections as usize,
        concurrency: 200,
        filters: usize::from(arguments.filters),
    };
    process::raise_descriptor_limit(members.count)?;
    let pid = arguments.target.broker_pid;
    let load_average = process::load_average();
    let before = process::usage(pid)?;
    let mut cost = Cost::default();
    cost.begin(before);
    let crowd = crowd::open(&members)?;
    let settled = process::usage(pid)?;
    if crowd.open.is_empty() {
        return Err(Failure::Impossible("the broker let nobody subscribe"));
    }
    let subscribed = (members.count, crowd.open.len(), crowd.took);
    let mut field = Field::new(arguments, crowd)?;
    let topics = field.templates.len() as u64;
    let first = field.pass(arguments, Some(topics))?;
    let again = field.pass(arguments, None)?;
    cost.end(process::usage(pid)?);
    Ok(FiltersOutcome::new(
        (arguments.filters, subscribed),
        before.zip(settled),
        (field.templates.len(), first, again),
        cost.finish(load_average),
    ))
}

impl Field {
    fn new(arguments: &Filters, crowd: Crowd) -> Result<Self, Failure> {
        let version = arguments.target.protocol.version();
        let run = (clock::now() / 1_000_003) as u16;
        let watch = || Failure::system("watch a socket");
        let connect = arguments.target.connect(&format!("filters-{run:04x}"), Session::Clean)?;
        let stream = handshake::open(arguments.target.address, 0, &connect)?;
        let poller = Poller::new().map_err(Failure::system("create an epoll set"))?;
        poller.add(stream.as_raw_fd(), 0).map_err(watch())?;
        let filters = usize::from(arguments.filters);
        let all = crowd.open.len() * filters;
        let count = all.min(arguments.topics as usize);
        let templates = (0..count).map(|number| {
            let at = number * all / count;
            let topic = crowd::filter(crowd.open[at / filters].0, at % filters).replace('+', "x");
            let (size, qos) = (arguments.size as usize, Qos::AtMostOnce);
            Template::new(Sample { topic: &topic, size, qos, version, properties: false })
        });
        let templates = templates.collect::<Result<_, _>>();
        let templates =
            templates.map_err(|_| Failure::Impossible("the payload is longer than MQTT permits"))?;
        let mut subscribers = Vec::with_capacity(crowd.open.len());
        for (_, stream) in crowd.open {
            poller.add(stream.as_raw_fd(), subscribers.len() + 1).map_err(watch())?;
            subscribers.push(Intake::new(stream, version));
        }
        let (publisher, buffer) = (Outlet::new(stream), vec![0; BUFFER_BYTES]);
        Ok(Self { poller, publisher, subscribers, templates, buffer, run, sent: 0, received: 0 })
    }

    /// Publishes `count` messages, or until the measured time is over, and waits for what is on its way.
    fn pass(&mut self, arguments: &Filters, count: Option<u64>) -> Result<Pass, Failure> {
        let pid = arguments.target.broker_pid;
        let before = process::usage(pid)?;
        let began = clock::now();
        let until = began + clock::nanos(arguments.duration);
        (self.sent, self.received) = (0, 0);
        let mut heard_at = began;
        loop {
            let now = clock::now();
            let over = count.map_or(now >= until, |count| self.sent >= count);
            let quiet = now > heard_at + QUIET_NS;
            if quiet || (over && self.received >= self.sent) {
                break;
            }
            if !over {
                let room =
                    u64::from(arguments.window).saturating_sub(self.sent.saturating_sub(self.received));
                let left = count.map_or(u64::MAX, |count| count - self.sent);
                self.publish(room.min(left));
            }
            let received = self.received;
            self.turn().map_err(Failure::system("talk to the broker"))?;
            if self.received > received {
                heard_at = clock::now();
            }
        }
        let took = Duration::from_nanos(heard_at.max(began + 1) - began);
        Ok(Pass::new((self.sent, self.received), took, before.zip(process::usage(pid)?)))
    }

    fn publish(&mut self, count: u64) {
        let now = clock::now();
        for _ in 0..count {
            if !self.publisher.has_room() {
                return;
            }
            let stamp = Stamp { due: now, sequence: self.sent as u32, publisher: 0, run: self.run };
            let template = &self.templates[(self.sent % self.templates.len() as u64) as usize];
            self.publisher.put(template, stamp, 0);
            self.sent += 1;
        }
    }

    /// Sends, waits for a moment, and takes what came.
    fn turn(&mut self) -> io::Result<()> {
        self.publisher.flush()?;
        let count = self.poller.wait(clock::SECOND / 50)?;
        for index in 0..count {
            let ready = self.poller.event(index);
            let Some(place) = ready.token.checked_sub(1) else {
                if ready.writable {
                    self.publisher.on_writable()?;
                }
                self.publisher.read(&mut self.buffer, |_| {})?;
                continue;
            };
            let subscriber = &mut self.subscribers[place];
            if ready.writable {
                subscriber.on_writable()?;
            }
            let (received, run) = (&mut self.received, self.run);
            let mut count = |payload: &[u8]| {
                *received += u64::from(Stamp::read(payload).is_some_and(|stamp| stamp.run == run));
            };
            while ready.readable && subscriber.read(&mut self.buffer, &mut count)? == Taken::Some {}
        }
        Ok(())
    }
}
