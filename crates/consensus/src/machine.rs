//! `StateMachine`: what a group's committed entries are applied to. Its doc comment is the specification that
//! callers and implementers share.

use bytes::Bytes;
use storage::journal::{Location, Payload};

/// The state of one group on this node: a function of the entries that were applied to it, and of nothing
/// else.
///
/// # Deterministic
///
/// Replicas that apply the same entries must reach the same state and the same replies: no clock, no
/// randomness, no order of a hash map, no calls out. Whatever depends on time or chance is decided before the
/// proposal and carried in it.
///
/// # Order of calls
///
/// ```text
///   turn:   apply(5) apply(6) apply(8)   turn_ended(8)   replies of 5, 6 and 8 go out
///                       7 is consensus' own entry: never shown, covered by turn_ended(8)
/// ```
///
/// One caller, on the consensus thread, in index order, each entry once per life of the machine. `apply` is
/// followed by `turn_ended` before any proposer hears of it, so an acknowledged write is visible to every
/// reader. A turn is at most 64 entries. Calls must not block for long: they hold up every group of the
/// thread.
///
/// # Restart
///
/// A machine is handed over with its state as of [`applied`](StateMachine::applied) and is given the entries
/// after that. What it reported as [`flushed`](StateMachine::flushed) it must still have, because the log up
/// to there may be gone. An entry that was applied but not flushed comes again, with the same index.
///
/// # Indexes
///
/// The first proposal of a group has an index above 0 (index 0 is consensus' own); 0 stands for "nothing
/// applied yet".
pub trait StateMachine: Send + 'static {
    /// Applies an entry and returns the reply for whoever proposed it. The change need not be visible or
    /// stored before [`turn_ended`](StateMachine::turn_ended). A failure of the store below is kept and
    /// reported there.
    fn apply(&mut self, entry: Committed) -> Bytes;

    /// Ends a run of entries: everything up to `applied` has been given. Makes it visible and wakes readers,
    /// once for the whole run. After an error the group stops on this node and none of the run's proposers
    /// gets a reply.
    fn turn_ended(&mut self, applied: u64) -> Result<(), MachineFailed>;

    /// The last index that the state contains, as of the last [`turn_ended`](StateMachine::turn_ended) or
    /// restart.
    fn applied(&self) -> u64;

    /// The last index up to which the state survives a crash without the log. Never above
    /// [`applied`](StateMachine::applied), never shrinks. The log is purged up to it.
    fn flushed(&self) -> u64;

    /// The whole state as of [`applied`](StateMachine::applied), as bytes that
    /// [`restore`](StateMachine::restore) of the same or a newer version reads. For replicas that are too far
    /// behind for the log.
    fn checkpoint(&mut self) -> Result<Bytes, MachineFailed>;

    /// Replaces the state by a checkpoint taken at `applied`. Durable on return:
    /// [`flushed`](StateMachine::flushed) is at least `applied`. Bytes that do not check out are refused and
    /// leave an unusable machine.
    fn restore(&mut self, applied: u64, checkpoint: Bytes) -> Result<(), MachineFailed>;
}

/// An entry that can no longer be lost or changed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its place in the group's log.
    pub index: u64,
    /// Term of the leader that proposed it.
    pub term: u64,
    /// What was proposed.
    pub payload: Payload,
    /// Where the journal of this node keeps the payload. Differs between nodes: it must not influence replies
    /// or anything that is compared between replicas.
    pub location: Location,
}

/// A state machine cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("the state machine failed to {operation}")]
pub struct MachineFailed {
    /// What was attempted.
    pub operation: &'static str,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl MachineFailed {
    /// A failure of the named operation ("write rows").
    pub fn new(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> MachineFailed {
        MachineFailed { operation, source: source.into() }
    }
}
