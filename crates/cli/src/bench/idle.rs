//! `mqtt idle`: what a silent connection costs a broker in memory, and silence in processor time.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::arguments::Idle;
use crate::crowd::{self, Members};
use crate::failure::Failure;
use crate::process;
use crate::report::{Cost, IdleOutcome};

/// Makes the measurement.
pub(crate) fn run(arguments: &Idle) -> Result<IdleOutcome, Failure> {
    let members = Members {
        target: arguments.target.clone(),
        count: arguments.connections as usize,
        concurrency: usize::from(arguments.concurrency),
        filters: usize::from(arguments.filters),
    };
    process::raise_descriptor_limit(members.count)?;
    let pid = arguments.target.broker_pid;
    let load_average = process::load_average();
    let before = process::usage(pid)?;
    let kernel_before = process::kernel_memory();
    let crowd = crowd::open(&members)?;
    let open_seconds = Duration::from_nanos(crowd.took).as_secs_f64();
    let opened = process::usage(pid)?;
    std::thread::sleep(arguments.settle);
    let settled = process::usage(pid)?;
    let kernel = process::kernel_memory();
    let mut cost = Cost::default();
    cost.begin(settled);
    std::thread::sleep(arguments.hold);
    cost.end(process::usage(pid)?);
    let alive = count_alive(&crowd.open).map_err(Failure::system("look at the held connections"))?;
    Ok(IdleOutcome::new(
        (members.count, crowd.open.len(), alive),
        (open_seconds, before.zip(opened)),
        before.zip(settled).map(|(before, settled)| (before.resident, settled.resident)),
        (kernel_before, kernel),
        (arguments.hold, cost.finish(load_average)),
    ))
}

/// How many of the connections the broker has not closed.
fn count_alive(open: &[(usize, TcpStream)]) -> std::io::Result<usize> {
    let mut entries: Vec<_> = open
        .iter()
        .map(|(_, stream)| libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 })
        .collect();
    // Safety: the pointer and the length are those of one vector that lives through the call.
    let answer = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, 0) };
    if answer < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(entries.iter().filter(|entry| entry.revents == 0).count())
}
