//! Why a measurement could not be made. A slow or lossy broker is a result, not a failure.

use std::io;
use std::net::SocketAddr;

/// Ends the program with a sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Arguments that contradict each other or cannot be had on this machine.
    #[error("{0}")]
    Impossible(&'static str),
    /// Too few file descriptors.
    #[error(
        "{wanted} connections need {wanted} file descriptors and some; the hard limit is {limit} (ulimit -Hn)"
    )]
    DescriptorLimit {
        /// How many were asked for.
        wanted: usize,
        /// What the system gives.
        limit: u64,
    },
    /// The system said no.
    #[error("{operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The answer.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// Where to.
        address: SocketAddr,
        /// The answer.
        source: io::Error,
    },
    /// The broker answered, but not with what MQTT wants at this place.
    #[error("the broker did not {expected} (it sent {got:02x?})")]
    Unexpected {
        /// What it should have done.
        expected: &'static str,
        /// The first bytes of what came instead.
        got: Vec<u8>,
    },
    /// The process to watch cannot be read.
    #[error("cannot read what process {pid} uses: {source}")]
    Process {
        /// Its id.
        pid: u32,
        /// The answer.
        source: io::Error,
    },
    /// A thread of this program ended by a panic.
    #[error("a thread of this program panicked")]
    Panicked,
}

impl Failure {
    /// Names the operation that an [`io::Error`] belongs to.
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { operation, source }
    }
}
