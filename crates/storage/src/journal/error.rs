//! What can go wrong in the journal, by what the caller should do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use model::GroupId;

/// An error of the journal. Cloned to everybody whose append was in the same frame.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A write or sync failed earlier: this stripe takes no more appends until the process is restarted and what the
    /// disk holds has been read back. Whether the entries of the failing append are on disk is unknown. Reads go on.
    #[error("the stripe is sealed after a failed write or sync")]
    Sealed,
    /// The disk is full. Nothing of this append was kept; retry when space has returned.
    #[error("the disk is full")]
    Full,
    /// The append can never fit into a segment; split it or refuse it. See `Journal::append_bytes_max`.
    #[error("an append of {bytes} bytes is larger than the {max} that fit a segment")]
    TooLarge {
        /// Encoded size of the append.
        bytes: u64,
        /// The largest that fits.
        max: u64,
    },
    /// The entry is not one that callers may write (a Checkpoint, or a vote or hint above its size bound).
    #[error("entry not permitted: {reason}")]
    Refused {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The append would leave a hole in its group's log (usually because the one before it was refused). Send again from
    /// `last + 1`.
    #[error("group {group}: entry {index} would leave a gap after {last}")]
    Gap {
        /// Whose log.
        group: GroupId,
        /// The index that was given.
        index: u64,
        /// The last index that the journal has.
        last: u64,
    },
    /// The journal is shutting down.
    #[error("the journal is closed")]
    Closed,
    /// Somebody else has this directory open.
    #[error("{path} is in use by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory belongs to another cluster, node or stripe.
    #[error("{path} belongs to another {what}")]
    Foreign {
        /// The segment that says so.
        path: PathBuf,
        /// Which of its identities differs: `cluster`, `node` or `stripe`.
        what: &'static str,
    },
    /// The file was written by a newer version of this software.
    #[error("{path} has format version {found}, this build reads up to {supported}")]
    Version {
        /// The segment.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// The newest that this build reads.
        supported: u32,
    },
    /// The settings cannot work.
    #[error("bad journal setting: {reason}")]
    Config {
        /// Which rule is broken.
        reason: &'static str,
    },
    /// There is no such segment (recycled, or never there).
    #[error("no segment {segment}")]
    NoSegment {
        /// Its sequence number.
        segment: u64,
    },
    /// The bytes at a location do not match their checksum.
    #[error("damaged bytes in segment {segment} at {offset}")]
    Corrupt {
        /// The segment.
        segment: u64,
        /// Offset of the damage's first possible byte.
        offset: u64,
    },
    /// An operation on files failed.
    #[error("{operation} failed on {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: Arc<io::Error>,
    },
}

impl JournalError {
    /// Whether the same call may succeed later without a restart.
    pub fn is_retriable(&self) -> bool {
        matches!(self, JournalError::Full)
    }
}

/// Adds the operation and the path to an I/O error.
pub(crate) fn io_error(
    operation: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.into();
    move |source| {
        if rt::is_full(&source) {
            JournalError::Full
        } else {
            JournalError::Io { operation, path, source: Arc::new(source) }
        }
    }
}
