//! The types that openraft is instantiated with, and short names for what it derives from them. Nothing of
//! this leaves the crate.

use std::fmt;

use bytes::Bytes;
use storage::journal::{Location, Payload};

/// Standard Raft terms (one leader per term, so that a log id is term and index), commands as bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Command;
    type R = Bytes;
    type NodeId = u64;
    type Node = ();
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, u64, ()>;
    type Entry = openraft::type_config::alias::DefaultEntryOf<Self>;
    type AsyncRuntime = openraft::TokioRuntime;
    type Responder<T>
        = Answer<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Where openraft sends the outcome of a write: a function that runs on the consensus thread, which spares a
/// channel and a wake per entry.
pub(crate) struct Answer<T>(pub(crate) Box<dyn FnOnce(T) + Send>);

impl<T: Send + 'static> openraft::raft::responder::Responder<Types, T> for Answer<T> {
    fn on_complete(self, outcome: T) {
        (self.0)(outcome);
    }
}

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, ()>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, Bytes>;

/// A command on its way through openraft: as it was proposed, or as a reference to where the journal keeps
/// it.
///
/// What the log hands out carries no payload that would have to be read from disk: a long replay holds the
/// bytes of one entry at a time, read when it is applied.
#[derive(Clone)]
pub(crate) struct Command {
    /// Present while it is proposed and while the log caches it.
    pub(crate) payload: Option<Payload>,
    /// Present once the entry is durable.
    pub(crate) location: Option<Location>,
}

impl Command {
    /// A command that is not in the log yet.
    pub(crate) fn proposed(payload: Payload) -> Command {
        Command { payload: Some(payload), location: None }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "command at {location:?}"),
            None => f.write_str("command"),
        }
    }
}

/// The log id of a term and an index.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::vote::leader_id_std::CommittedLeaderId::new(term), index)
}

/// The term of a log id.
pub(crate) fn term_of(id: &LogId) -> u64 {
    id.committed_leader_id().term
}
