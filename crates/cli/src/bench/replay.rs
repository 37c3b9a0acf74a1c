//! `mqtt replay`: what is published while the clients of lasting sessions are away, and how fast it comes when they
//! return.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use wire::mqtt::Qos;

use crate::arguments::Replay;
use crate::clock;
use crate::failure::Failure;
use crate::frames::{self, Sample, Session, Stamp, Template};
use crate::handshake;
use crate::intake::{Intake, Taken};
use crate::outlet::Outlet;
use crate::poll::Poller;
use crate::process;
use crate::report::{Cost, Pass, ReplayOutcome};

const BUFFER_BYTES: usize = 256 * 1024;

/// Bound: how long it waits while nothing comes, before it takes the rest for lost.
const QUIET_NS: u64 = 10 * clock::SECOND;

struct Run<'a> {
    arguments: &'a Replay,
    number: u16,
    buffer: Vec<u8>,
}

/// Makes the measurement.
pub(crate) fn run(arguments: &Replay) -> Result<ReplayOutcome, Failure> {
    let sessions = usize::from(arguments.sessions);
    process::raise_descriptor_limit(sessions)?;
    let pid = arguments.target.broker_pid;
    let load_average = process::load_average();
    let number = (clock::now() / 1_000_003) as u16;
    let mut run = Run { arguments, number, buffer: vec![0; BUFFER_BYTES] };
    for session in 0..sessions {
        let stream = run.connect(session)?;
        let version = arguments.target.protocol.version();
        handshake::subscribe(&stream, &[topic(session)], Qos::AtLeastOnce, version)?;
        run.leave(&stream)?;
    }
    let before = process::usage(pid)?;
    let mut cost = Cost::default();
    cost.begin(before);
    let stored = run.store()?;
    let full = process::usage(pid)?;
    let (replayed, first, disordered) = run.replay()?;
    cost.end(process::usage(pid)?);
    let grown = before.zip(full).map(|(before, full)| full.resident as f64 - before.resident as f64);
    Ok(ReplayOutcome::new(
        (arguments.sessions, arguments.messages),
        (stored, grown),
        (replayed, first, disordered),
        cost.finish(load_average),
    ))
}

fn topic(session: usize) -> String {
    format!("replay/{session}")
}

impl Run<'_> {
    fn connect(&self, session: usize) -> Result<TcpStream, Failure> {
        let id = format!("replay-{:04x}-{session}", self.number);
        let connect = self.arguments.target.connect(&id, Session::Kept)?;
        handshake::open(self.arguments.target.address, session as u64, &connect)
    }

    fn leave(&self, mut stream: &TcpStream) -> Result<(), Failure> {
        let goodbye = frames::disconnect(self.arguments.target.protocol.version())
            .map_err(|_| Failure::Impossible("a DISCONNECT cannot be encoded"))?;
        io::Write::write_all(&mut stream, &goodbye).map_err(Failure::system("send a DISCONNECT"))
    }

    fn templates(&self) -> Result<Vec<Template>, Failure> {
        let (size, version) = (self.arguments.size as usize, self.arguments.target.protocol.version());
        let template = |session| {
            let (topic, qos) = (topic(session), Qos::AtLeastOnce);
            Template::new(Sample { topic: &topic, size, qos, version, properties: false })
        };
        let templates = (0..usize::from(self.arguments.sessions)).map(template).collect::<Result<_, _>>();
        templates.map_err(|_| Failure::Impossible("the payload is longer than MQTT permits"))
    }

    /// Publishes everything, as fast as it is acknowledged.
    fn store(&mut self) -> Result<Pass, Failure> {
        let Replay { messages, window, ref target, .. } = *self.arguments;
        let templates = self.templates()?;
        let connect = target.connect(&format!("replay-{:04x}-p", self.number), Session::Clean)?;
        let mut publisher = Outlet::new(handshake::open(target.address, 0, &connect)?);
        let mut poller = Poller::new().map_err(Failure::system("create an epoll set"))?;
        poller.add(publisher.stream.as_raw_fd(), 0).map_err(Failure::system("watch a socket"))?;
        let before = process::usage(target.broker_pid)?;
        let began = clock::now();
        let mut free: Vec<u16> = (1..=window).collect();
        let (mut sent, mut acknowledged, mut heard_at) = (0_u32, 0_u32, began);
        let talk = || Failure::system("talk to the broker");
        while acknowledged < messages && clock::now() < heard_at + QUIET_NS {
            let now = clock::now();
            while sent < messages && publisher.has_room() {
                let Some(id) = free.pop() else { break };
                let stamp = Stamp { due: now, sequence: sent, publisher: 0, run: self.number };
                publisher.put(&templates[sent as usize % templates.len()], stamp, id);
                sent += 1;
            }
            publisher.flush().map_err(talk())?;
            for index in 0..poller.wait(clock::SECOND / 50).map_err(talk())? {
                let ready = poller.event(index);
                if ready.writable {
                    publisher.on_writable().map_err(talk())?;
                }
                let take = |id| {
                    free.push(id);
                    acknowledged += 1;
                };
                publisher.read(&mut self.buffer, take).map_err(talk())?;
                heard_at = clock::now();
            }
        }
        let took = Duration::from_nanos(heard_at.max(began + 1) - began);
        let counts = (u64::from(sent), u64::from(acknowledged));
        Ok(Pass::new(counts, took, before.zip(process::usage(target.broker_pid)?)))
    }

    /// Lets all return; what came, after how long the first message, and how many came twice or too early.
    fn replay(&mut self) -> Result<(Pass, Duration, u64), Failure> {
        let pid = self.arguments.target.broker_pid;
        let version = self.arguments.target.protocol.version();
        let mut poller = Poller::new().map_err(Failure::system("create an epoll set"))?;
        let before = process::usage(pid)?;
        let began = clock::now();
        let mut sessions = Vec::new();
        for session in 0..usize::from(self.arguments.sessions) {
            // What follows CONNACK at once must not be taken for a part of it.
            let stream = self.connect(session)?;
            poller.add(stream.as_raw_fd(), session).map_err(Failure::system("watch a socket"))?;
            sessions.push((Intake::new(stream, version), 0_u32));
        }
        let wanted = u64::from(self.arguments.messages);
        let (mut received, mut disordered) = (0, 0);
        let (mut first, mut heard_at) = (None, began);
        let talk = || Failure::system("talk to the broker");
        while received < wanted && clock::now() < heard_at + QUIET_NS {
            for index in 0..poller.wait(clock::SECOND / 50).map_err(talk())? {
                let ready = poller.event(index);
                let (intake, next) = &mut sessions[ready.token];
                if ready.writable {
                    intake.on_writable().map_err(talk())?;
                }
                let run = self.number;
                let mut take = |payload: &[u8]| {
                    let Some(stamp) = Stamp::read(payload).filter(|stamp| stamp.run == run) else { return };
                    disordered += u64::from(stamp.sequence < *next);
                    *next = stamp.sequence.wrapping_add(1);
                    received += 1;
                };
                while ready.readable
                    && intake.read(&mut self.buffer, &mut take).map_err(talk())? == Taken::Some
                {
                }
                heard_at = clock::now();
                if received > 0 {
                    first.get_or_insert(heard_at);
                }
            }
        }
        let took = Duration::from_nanos(heard_at.max(began + 1) - began);
        let pass = Pass::new((wanted, received), took, before.zip(process::usage(pid)?));
        Ok((pass, Duration::from_nanos(first.unwrap_or(heard_at) - began), disordered))
    }
}
