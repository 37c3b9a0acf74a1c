//! `mqtt idle`: what a silent connection costs a broker in memory, and silence in processor time.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::arguments::Idle;
use crate::clock;
use crate::failure::Failure;
use crate::frames;
use crate::handshake::{Handshake, Progress};
use crate::poll::Poller;
use crate::process;
use crate::report::{Cost, IdleOutcome};

/// Bound: time without any progress after which opening has failed.
const STUCK_NS: u64 = 20 * clock::SECOND;

struct Opening<'a> {
    arguments: &'a Idle,
    poller: Poller,
    handshakes: Vec<Option<Handshake>>,
    open: Vec<TcpStream>,
    refused: u64,
    run: u16,
}

/// Makes the measurement.
pub(crate) fn run(arguments: &Idle) -> Result<IdleOutcome, Failure> {
    let wanted = arguments.connections as usize;
    process::raise_descriptor_limit(wanted)?;
    let pid = arguments.target.broker_pid;
    let load_average = process::load_average();
    let before = process::usage(pid)?;
    let kernel_before = process::kernel_memory();
    let began = clock::now();
    let open = Opening {
        arguments,
        poller: Poller::new().map_err(Failure::system("create an epoll set"))?,
        handshakes: (0..wanted).map(|_| None).collect(),
        open: Vec::with_capacity(wanted),
        refused: 0,
        run: (began / 1_000_003) as u16,
    }
    .open_all()?;
    let open_seconds = Duration::from_nanos(clock::now() - began).as_secs_f64();
    std::thread::sleep(arguments.settle);
    let settled = process::usage(pid)?;
    let kernel = process::kernel_memory();
    let mut cost = Cost::default();
    cost.begin(settled);
    std::thread::sleep(arguments.hold);
    cost.end(process::usage(pid)?);
    let alive = count_alive(&open).map_err(Failure::system("look at the held connections"))?;
    let resident = before.zip(settled).map(|(before, settled)| (before.resident, settled.resident));
    Ok(IdleOutcome::new(
        (open.len(), alive, open_seconds),
        resident,
        (kernel_before, kernel),
        (arguments.hold, cost.finish(load_average)),
    ))
}

impl Opening<'_> {
    /// Opens all, some at a time; fails if the broker refuses or stops answering.
    fn open_all(mut self) -> Result<Vec<TcpStream>, Failure> {
        let address = self.arguments.target.address;
        let unreachable = |source| Failure::Unreachable { address, source };
        let version = self.arguments.target.protocol.version();
        let mut next = 0;
        let mut moved_at = clock::now();
        while self.open.len() < self.handshakes.len() {
            while next < self.handshakes.len()
                && next - self.open.len() < usize::from(self.arguments.concurrency)
            {
                let handshake = Handshake::begin(address, next as u64).map_err(unreachable)?;
                self.poller.add(handshake.descriptor(), next).map_err(Failure::system("watch a socket"))?;
                self.handshakes[next] = Some(handshake);
                next += 1;
            }
            let count = self.poller.wait(clock::SECOND).map_err(Failure::system("wait for sockets"))?;
            for index in 0..count {
                let token = self.poller.event(index).token;
                let client_id = format!("idle-{:04x}-{token}", self.run);
                let connect = frames::connect(&client_id, version)
                    .map_err(|_| Failure::Impossible("a client identifier cannot be encoded"))?;
                moved_at = clock::now();
                self.advance(token, &connect).map_err(unreachable)?;
            }
            if self.refused > 0 || clock::now() > moved_at + STUCK_NS {
                return Err(Failure::Impossible("the broker refused a connection or stopped answering"));
            }
        }
        Ok(self.open)
    }

    fn advance(&mut self, token: usize, connect: &[u8]) -> std::io::Result<()> {
        let Some(mut handshake) = self.handshakes[token].take() else {
            return Ok(());
        };
        match handshake.advance(connect)? {
            Progress::Waiting => self.handshakes[token] = Some(handshake),
            Progress::Accepted => self.open.push(handshake.into_stream()),
            Progress::Refused(_) => self.refused += 1,
        }
        Ok(())
    }
}

/// How many of the connections the broker has not closed.
fn count_alive(open: &[TcpStream]) -> std::io::Result<usize> {
    let mut entries: Vec<_> = open
        .iter()
        .map(|stream| libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 })
        .collect();
    // Safety: the pointer and the length are those of one vector that lives through the call.
    let answer = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, 0) };
    if answer < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(entries.iter().filter(|entry| entry.revents == 0).count())
}
