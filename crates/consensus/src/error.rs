//! The errors of this crate: few kinds, each says what the caller can do.

use model::{GroupId, NodeId};

use crate::codec::Damaged;

/// Why a proposal got no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not proposed: another node leads the group, or nobody does right now. Go there, or try again.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Not proposed: the group's queue is at its bound. Try again when [`ready`](crate::GroupHandle::ready)
    /// says so.
    #[error("the group's queue is full")]
    Full,
    /// Not proposed: the disk is full, and the entries before it wait for space. They are written when there
    /// is some; try again then.
    #[error("the disk is full")]
    DiskFull,
    /// Not proposed: the payload can never fit. Split it or refuse it.
    #[error("a payload of {bytes} bytes is larger than the {max} that one entry may have")]
    TooLarge {
        /// Encoded size of the payload.
        bytes: usize,
        /// The largest that is taken.
        max: usize,
    },
    /// Leadership changed while the entry was on its way. It may or may not be committed.
    #[error("leadership changed: the outcome is unknown")]
    Unknown,
    /// The group was shut down. An entry that was on its way may or may not be committed.
    #[error("the group has stopped")]
    Stopped,
    /// The journal failed a write or a sync and takes no more. An entry that was on its way may or may not be
    /// there after a restart.
    #[error("the group's journal is sealed")]
    JournalSealed,
    /// The state machine failed. An entry that was on its way is committed or will be applied again after a
    /// restart.
    #[error("the group's state machine failed")]
    MachineFailed,
}

/// Why a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The group is open already.
    #[error("group {0:?} is open")]
    AlreadyOpen(GroupId),
    /// The journal lost entries in the middle of the log (damaged files): repair from a replica, or restore.
    #[error("entries {first} to {last} of the group's log are missing")]
    Gap {
        /// First missing index.
        first: u64,
        /// Last missing index.
        last: u64,
    },
    /// Stored bytes of the group do not decode.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// An entry that must be read at start could not be.
    #[error("entry {index} cannot be read")]
    Unreadable {
        /// The entry.
        index: u64,
        /// Why.
        #[source]
        source: storage::journal::JournalError,
    },
    /// The state machine is older than what is left of the log: its files were lost or replaced.
    #[error("the state machine has applied {applied}, but the log begins after {purged}")]
    MachineBehind {
        /// What the machine has.
        applied: u64,
        /// What the log no longer has.
        purged: u64,
    },
    /// The log ends before what the state machine has applied: the journal's files were lost or replaced.
    #[error("the state machine has applied {applied}, but the log ends at {last:?}")]
    LogBehind {
        /// What the machine has.
        applied: u64,
        /// The log's last index.
        last: Option<u64>,
    },
    /// The log names other nodes as the group's voters.
    #[error("node {node:?} is not the group's voter")]
    NotVoter {
        /// This node.
        node: NodeId,
    },
    /// The group stopped before it could serve.
    #[error("the group stopped while it started")]
    Stopped(#[source] ProposeError),
}
