//! The errors of the store: few kinds, each says what the caller can do.

use consensus::ProposeError;
use model::{NodeId, ResourceError};

/// Why a call of the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// A check does not hold; nothing happened. Read again and decide anew.
    #[error("{key} is not as expected")]
    Conflict {
        /// The key of the first check that does not hold.
        key: String,
        /// Its version, `None` if it is not there.
        found: Option<u64>,
    },
    /// The transaction breaks a rule whatever the state is; nothing happened.
    #[error("a transaction {rule}")]
    Invalid {
        /// The rule, as the end of a sentence.
        rule: &'static str,
    },
    /// The store would exceed its bound; nothing happened.
    #[error("the meta store is full")]
    Full,
    /// A resource cannot be read, or must not be stored; nothing happened.
    #[error(transparent)]
    Resource(ResourceError),
    /// Another node leads; nothing happened. Go there, or wait for a leader.
    #[error("this node does not lead the meta service")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The service is busy or its disk is full; nothing happened. Try again later.
    #[error("the meta service takes no writes right now")]
    Busy,
    /// Leadership was lost on the way: the transaction may or may not have happened.
    #[error("the outcome of the transaction is unknown")]
    Unknown,
    /// The service has stopped on this node. A transaction that was on its way may or may not have happened.
    #[error("the meta service has stopped")]
    Stopped,
}

impl From<ProposeError> for MetaError {
    fn from(error: ProposeError) -> MetaError {
        match error {
            ProposeError::NotLeader { leader } => MetaError::NotLeader { leader },
            ProposeError::Full | ProposeError::DiskFull => MetaError::Busy,
            ProposeError::TooLarge { .. } => MetaError::Invalid { rule: "must fit an entry of the log" },
            ProposeError::Unknown => MetaError::Unknown,
            ProposeError::Stopped | ProposeError::JournalSealed | ProposeError::MachineFailed => {
                MetaError::Stopped
            }
        }
    }
}

/// Why a watch does not begin, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The changes behind that revision are no longer kept: list, and watch from the listing's revision.
    #[error("the history begins after revision {oldest}")]
    Compacted {
        /// The oldest revision from which a watch can begin.
        oldest: u64,
    },
    /// The store has not reached that revision: it was seen on another node, or belongs to another store.
    #[error("the store is at revision {revision}")]
    Ahead {
        /// Where the store is.
        revision: u64,
    },
    /// The service has stopped.
    #[error("the meta service has stopped")]
    Stopped,
}
