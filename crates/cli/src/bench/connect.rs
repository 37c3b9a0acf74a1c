//! `mqtt connect`: how many connections per second a broker accepts and lets go again.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::arguments::Connect;
use crate::clock;
use crate::failure::Failure;
use crate::frames::{self, Session};
use crate::handshake::{Handshake, Progress, is_wait};
use crate::load::Times;
use crate::poll::Poller;
use crate::process;
use crate::report::{ConnectOutcome, Cost};

/// Bound: time in which a connection has to come and go; what takes longer is counted as failed.
const GIVE_UP_NS: u64 = 10 * clock::SECOND;

/// One of the connections that are open at the same time.
enum Slot {
    /// Nothing more to start.
    Empty,
    Opening(Handshake, u64),
    /// DISCONNECT was sent; the broker closes.
    Closing(TcpStream, u64),
}

struct Churn<'a> {
    arguments: &'a Connect,
    poller: Poller,
    slots: Vec<Slot>,
    begun: u64,
    accepted: u64,
    failed: u64,
    /// From the first packet of a connection to the end of its CONNACK.
    times: Times,
    goodbye: Vec<u8>,
    run: u16,
}

/// Makes the measurement.
pub(crate) fn run(arguments: &Connect) -> Result<ConnectOutcome, Failure> {
    process::raise_descriptor_limit(usize::from(arguments.concurrency))?;
    let load_average = process::load_average();
    let mut churn = Churn {
        arguments,
        poller: Poller::new().map_err(Failure::system("create an epoll set"))?,
        slots: (0..arguments.concurrency).map(|_| Slot::Empty).collect(),
        begun: 0,
        accepted: 0,
        failed: 0,
        times: Times::new(),
        goodbye: frames::disconnect(arguments.target.protocol.version())
            .map_err(|_| Failure::Impossible("a DISCONNECT cannot be encoded"))?,
        run: (clock::now() / 1_000_003) as u16,
    };
    let pid = arguments.target.broker_pid;
    let mut cost = Cost::default();
    cost.begin(process::usage(pid)?);
    let began = clock::now();
    let cpu_before = clock::thread_cpu();
    churn.serve(began + clock::nanos(arguments.duration))?;
    let seconds = Duration::from_nanos(clock::now() - began).as_secs_f64();
    let busiest = clock::thread_cpu() - cpu_before;
    cost.end(process::usage(pid)?);
    let counts = (churn.accepted, churn.failed);
    Ok(ConnectOutcome::new(counts, &churn.times, (seconds, busiest), cost.finish(load_average)))
}

impl Churn<'_> {
    fn serve(&mut self, until: u64) -> Result<(), Failure> {
        for slot in 0..self.slots.len() {
            self.start(slot)?;
        }
        let wait = Failure::system("wait for sockets");
        let outcome = loop {
            let now = clock::now();
            if now >= until || self.accepted + self.failed >= self.arguments.count {
                break Ok(());
            }
            self.give_up(now)?;
            match self.poller.wait((until - now).min(clock::SECOND)) {
                Ok(count) => {
                    for index in 0..count {
                        self.advance(self.poller.event(index).token)?;
                    }
                }
                Err(failed) => break Err(failed),
            }
        };
        outcome.map_err(wait)
    }

    fn start(&mut self, slot: usize) -> Result<(), Failure> {
        self.slots[slot] = Slot::Empty;
        if self.begun >= self.arguments.count {
            return Ok(());
        }
        let address = self.arguments.target.address;
        let began = clock::now();
        let handshake = Handshake::begin(address, self.begun)
            .map_err(|source| Failure::Unreachable { address, source })?;
        self.begun += 1;
        self.poller.add(handshake.descriptor(), slot).map_err(Failure::system("watch a socket"))?;
        self.slots[slot] = Slot::Opening(handshake, began);
        Ok(())
    }

    /// Goes on with one connection, and puts the next one into its place when it is gone.
    fn advance(&mut self, slot: usize) -> Result<(), Failure> {
        match std::mem::replace(&mut self.slots[slot], Slot::Empty) {
            Slot::Empty => Ok(()),
            Slot::Opening(mut handshake, began) => match self.open(slot, &mut handshake) {
                Ok(Progress::Waiting) => {
                    self.slots[slot] = Slot::Opening(handshake, began);
                    Ok(())
                }
                Ok(Progress::Accepted) => {
                    self.accepted += 1;
                    self.times.record(clock::now() - began, 1);
                    self.close(slot, handshake.into_stream(), began)
                }
                Ok(Progress::Refused(_)) | Err(_) => {
                    self.failed += 1;
                    self.start(slot)
                }
            },
            Slot::Closing(stream, began) => {
                if is_gone(&stream) {
                    return self.start(slot);
                }
                self.slots[slot] = Slot::Closing(stream, began);
                Ok(())
            }
        }
    }

    fn open(&self, slot: usize, handshake: &mut Handshake) -> io::Result<Progress> {
        let client_id = format!("churn-{:04x}-{slot}", self.run);
        let connect = self
            .arguments
            .target
            .connect(&client_id, Session::Clean)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        handshake.advance(&connect)
    }

    fn close(&mut self, slot: usize, mut stream: TcpStream, began: u64) -> Result<(), Failure> {
        match stream.write(&self.goodbye) {
            Ok(_) if !is_gone(&stream) => {
                self.slots[slot] = Slot::Closing(stream, began);
                Ok(())
            }
            Ok(_) | Err(_) => self.start(slot),
        }
    }

    fn give_up(&mut self, now: u64) -> Result<(), Failure> {
        for slot in 0..self.slots.len() {
            let began = match &self.slots[slot] {
                Slot::Empty => continue,
                Slot::Opening(_, began) | Slot::Closing(_, began) => *began,
            };
            if now > began + GIVE_UP_NS {
                self.failed += 1;
                self.start(slot)?;
            }
        }
        Ok(())
    }
}

/// Reads what is left and tells whether the broker has closed.
fn is_gone(mut stream: &TcpStream) -> bool {
    let mut rest = [0; 256];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(failed) => return !is_wait(&failed),
        }
    }
}
