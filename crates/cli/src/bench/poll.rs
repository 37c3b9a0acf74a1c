//! Waiting for sockets: epoll, edge-triggered, with a time limit in nanoseconds. A socket is registered once and
//! its owner remembers whether it may read or write.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::clock::SECOND;

/// Bound: events taken per wait. More stay in the kernel for the next one.
const EVENTS_MAX: usize = 1024;

/// A set of sockets.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// What has become possible with one socket.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    /// As registered.
    pub(crate) token: usize,
    /// Bytes, the end or an error are there to be read.
    pub(crate) readable: bool,
    /// The socket takes bytes again, or failed.
    pub(crate) writable: bool,
}

impl Poller {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        // Safety: takes no pointer; a valid result is a descriptor that nobody else owns.
        let epoll = unsafe {
            let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if epoll < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(epoll)
        };
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX] })
    }

    /// Adds a socket, for reading and writing. It leaves when it is closed.
    pub(crate) fn add(&self, socket: RawFd, token: usize) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: events as u32, u64: token as u64 };
        // Safety: `event` lives through the call; the kernel copies it.
        let answer =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &raw mut event) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for at most `nanoseconds` and returns how many events there are.
    pub(crate) fn wait(&mut self, nanoseconds: u64) -> io::Result<usize> {
        let limit = libc::timespec {
            tv_sec: (nanoseconds / SECOND) as libc::time_t,
            tv_nsec: (nanoseconds % SECOND) as libc::c_long,
        };
        // Safety: `events` has room for EVENTS_MAX entries, `limit` lives through the call, no signal mask is given.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as libc::c_int,
                &raw const limit,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                interrupted if interrupted.kind() == io::ErrorKind::Interrupted => Ok(0),
                failed => Err(failed),
            },
        }
    }

    /// One of the events of the last [`Self::wait`].
    #[inline]
    pub(crate) fn event(&self, index: usize) -> Ready {
        let event = self.events[index];
        let (bits, token) = (event.events as i32, event.u64);
        let failed = bits & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
        Ready {
            token: token as usize,
            readable: failed || bits & (libc::EPOLLIN | libc::EPOLLRDHUP) != 0,
            writable: failed || bits & libc::EPOLLOUT != 0,
        }
    }
}

/// Asks the kernel to end this thread's waits when they are over, not up to 50 us later.
pub(crate) fn wake_on_time() {
    // Safety: takes no pointer. A refusal only means less exact pacing, which the report shows as lateness.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0) };
}
