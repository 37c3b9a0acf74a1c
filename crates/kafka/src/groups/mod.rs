//! Consumer groups: one task owns their state; every core reaches it through one bounded channel.
//!
//! What survives a restart is what was committed: offsets are replicated rows ([`crate::resources`]). Membership does not: after
//! a restart members are told that they are unknown and join again, as the protocol has it.

mod group;
mod machine;
mod owner;
#[cfg(test)]
mod tests;

pub(crate) use machine::{
    Claim, GroupLimits, GroupView, Join, Joined, JoinedMember, MemberView, Sync, SyncAnswer,
};
pub(crate) use owner::Owner;

use broker::RowWrite;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use wire::kafka::ErrorCode;

/// Bound: requests to the owner that wait in its channel. A core that meets a full channel waits, and with it only the
/// connection that asked.
const ASKS_MAX: usize = 4096;

/// A request to the owner.
pub(crate) enum Ask {
    Join(Join, oneshot::Sender<Joined>),
    Sync(Sync, oneshot::Sender<SyncAnswer>),
    Heartbeat(Claim, oneshot::Sender<ErrorCode>),
    Leave(Leave, oneshot::Sender<Vec<ErrorCode>>),
    Commit(Commit, oneshot::Sender<ErrorCode>),
    Describe(Vec<String>, oneshot::Sender<Vec<Option<GroupView>>>),
    List(oneshot::Sender<Vec<GroupView>>),
    Delete(String, oneshot::Sender<ErrorCode>),
}

/// Members leave.
pub(crate) struct Leave {
    pub(crate) group: String,
    /// Member id and instance id of each.
    pub(crate) members: Vec<(String, Option<String>)>,
}

/// Offsets to be kept, if the member may.
pub(crate) struct Commit {
    pub(crate) claim: Claim,
    pub(crate) writes: Vec<RowWrite>,
}

/// The groups as every core sees them. Clones are the same.
#[derive(Clone)]
pub(crate) struct GroupsHandle {
    asks: mpsc::Sender<Ask>,
}

/// A handle and what its owner receives.
pub(crate) fn channel() -> (GroupsHandle, mpsc::Receiver<Ask>) {
    let (asks, received) = mpsc::channel(ASKS_MAX);
    (GroupsHandle { asks }, received)
}

impl GroupsHandle {
    pub(crate) async fn join(&self, join: Join) -> Joined {
        let stopped = || Joined::refused(ErrorCode::CoordinatorNotAvailable);
        self.ask(|answer| Ask::Join(join, answer)).await.unwrap_or_else(stopped)
    }

    pub(crate) async fn sync(&self, sync: Sync) -> SyncAnswer {
        let stopped = || SyncAnswer::refused(ErrorCode::CoordinatorNotAvailable);
        self.ask(|answer| Ask::Sync(sync, answer)).await.unwrap_or_else(stopped)
    }

    pub(crate) async fn heartbeat(&self, claim: Claim) -> ErrorCode {
        let code = self.ask(|answer| Ask::Heartbeat(claim, answer)).await;
        code.unwrap_or(ErrorCode::CoordinatorNotAvailable)
    }

    pub(crate) async fn leave(&self, leave: Leave) -> Vec<ErrorCode> {
        let count = leave.members.len();
        let codes = self.ask(|answer| Ask::Leave(leave, answer)).await;
        codes.unwrap_or_else(|| vec![ErrorCode::CoordinatorNotAvailable; count])
    }

    /// Answers when the offsets are durable.
    pub(crate) async fn commit(&self, commit: Commit) -> ErrorCode {
        let code = self.ask(|answer| Ask::Commit(commit, answer)).await;
        code.unwrap_or(ErrorCode::CoordinatorNotAvailable)
    }

    /// `None` in place of a group without members; `Err` when the owner is gone.
    pub(crate) async fn describe(&self, names: Vec<String>) -> Result<Vec<Option<GroupView>>, ErrorCode> {
        let views = self.ask(|answer| Ask::Describe(names, answer)).await;
        views.ok_or(ErrorCode::CoordinatorNotAvailable)
    }

    pub(crate) async fn list(&self) -> Result<Vec<GroupView>, ErrorCode> {
        self.ask(Ask::List).await.ok_or(ErrorCode::CoordinatorNotAvailable)
    }

    /// Forgets the committed offsets of a group without members.
    pub(crate) async fn delete(&self, group: String) -> ErrorCode {
        let code = self.ask(|answer| Ask::Delete(group, answer)).await;
        code.unwrap_or(ErrorCode::CoordinatorNotAvailable)
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(ask(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Copies bytes out of a request's frame, which would otherwise stay in memory with them.
pub(crate) fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
