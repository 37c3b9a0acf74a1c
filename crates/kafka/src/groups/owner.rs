//! The task that owns the groups: it feeds the state machine, answers, and writes commits in the order in which they
//! were allowed.

use ahash::{AHashMap, AHashSet};
use broker::{Broker, RowWrite, Rows, RowsOutcome};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};
use wire::kafka::ErrorCode;

use super::machine::{Command, GroupLimits, Groups, Joined, Ms, SyncAnswer, Token};
use super::{Ask, Commit};
use crate::error::coordinator_code;
use crate::resources;

/// Bound: groups that the owner remembers to have a row of their own. Beyond it, rows are written once more.
const NOTED_MAX: usize = 10_000;
/// Rows of a deleted group that are removed in one transaction.
const DELETE_STEP: usize = 500;

/// Owner of all groups of this node. Lives on one core.
pub(crate) struct Owner {
    asks: mpsc::Receiver<Ask>,
    rows: Rows,
    groups: Groups,
    started: Instant,
    joins: AHashMap<Token, oneshot::Sender<Joined>>,
    syncs: AHashMap<Token, oneshot::Sender<SyncAnswer>>,
    next_token: Token,
    /// Groups whose row is known to be written.
    noted: AHashSet<String>,
}

impl Owner {
    pub(crate) fn new<B: Broker>(asks: mpsc::Receiver<Ask>, limits: GroupLimits, broker: &B) -> Self {
        Self {
            asks,
            rows: broker.rows(),
            groups: Groups::new(limits),
            started: Instant::now(),
            joins: AHashMap::new(),
            syncs: AHashMap::new(),
            next_token: 0,
            noted: AHashSet::new(),
        }
    }

    /// Runs until the last handle is gone. To be spawned on a `LocalSet`.
    pub(crate) async fn run(mut self) {
        loop {
            let deadline = self.groups.deadline().map(|at| self.started + Duration::from_millis(at));
            let ask = tokio::select! {
                ask = self.asks.recv() => ask,
                () = until(deadline) => {
                    let mut commands = Vec::new();
                    let now = self.now();
                    self.groups.tick(now, &mut commands);
                    self.carry_out(commands);
                    continue;
                }
            };
            match ask {
                Some(ask) => self.handle(ask),
                None => return,
            }
        }
    }

    fn now(&self) -> Ms {
        self.started.elapsed().as_millis() as Ms
    }

    fn handle(&mut self, ask: Ask) {
        let now = self.now();
        let mut commands = Vec::new();
        match ask {
            Ask::Join(mut join, answer) => {
                join.token = self.token();
                self.joins.insert(join.token, answer);
                self.groups.join(now, join, &mut commands);
            }
            Ask::Sync(mut sync, answer) => {
                sync.token = self.token();
                self.syncs.insert(sync.token, answer);
                self.groups.sync(now, sync, &mut commands);
            }
            Ask::Heartbeat(claim, answer) => {
                let _ = answer.send(self.groups.heartbeat(now, &claim));
            }
            Ask::Leave(leave, answer) => {
                let codes = self.groups.leave(now, &leave.group, &leave.members, &mut commands);
                let _ = answer.send(codes);
            }
            Ask::Commit(commit, answer) => self.commit(now, commit, answer),
            Ask::Describe(names, answer) => {
                let _ = answer.send(names.iter().map(|name| self.groups.describe(name)).collect());
            }
            Ask::List(answer) => {
                let _ = answer.send(self.groups.list());
            }
            Ask::Delete(group, answer) => self.delete(group, answer),
        }
        self.carry_out(commands);
    }

    /// Hands out answers. Whoever asked may have gone: its membership stands until it expires. Spec: G73.
    fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Joined { token, joined } => {
                    if let Some(answer) = self.joins.remove(&token) {
                        let _ = answer.send(joined);
                    }
                }
                Command::Synced { token, answer: synced } => {
                    if let Some(answer) = self.syncs.remove(&token) {
                        let _ = answer.send(synced);
                    }
                }
            }
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    /// Writes are queued here, in the order in which the state machine allowed them; only waiting for them is left to a
    /// task.
    fn commit(&mut self, now: Ms, mut commit: Commit, answer: oneshot::Sender<ErrorCode>) {
        if let Err(code) = self.groups.check_commit(now, &commit.claim) {
            let _ = answer.send(code);
            return;
        }
        if commit.writes.is_empty() {
            let _ = answer.send(ErrorCode::None);
            return;
        }
        let group = &commit.claim.group;
        if !self.noted.contains(group) {
            if self.noted.len() >= NOTED_MAX {
                self.noted.clear();
            }
            self.noted.insert(group.clone());
            commit.writes.push(resources::group_row(group));
        }
        let written = self.rows.submit(&resources::place(group), Vec::new(), commit.writes);
        tokio::task::spawn_local(async move {
            let code = match written.await {
                Ok(RowsOutcome::Done { .. }) => ErrorCode::None,
                Ok(RowsOutcome::Refused) => ErrorCode::UnknownServerError,
                Err(error) => coordinator_code(&error),
            };
            let _ = answer.send(code);
        });
    }

    fn delete(&mut self, group: String, answer: oneshot::Sender<ErrorCode>) {
        if self.groups.has_members(&group) {
            let _ = answer.send(ErrorCode::NonEmptyGroup);
            return;
        }
        self.noted.remove(&group);
        let rows = self.rows.clone();
        tokio::task::spawn_local(async move {
            let _ = answer.send(forget(&rows, &group).await);
        });
    }
}

/// Removes a group's rows.
async fn forget(rows: &Rows, group: &str) -> ErrorCode {
    let place = resources::place(group);
    let mut found = false;
    match rows.get(&place, resources::group_key(group)).await {
        Ok(row) => found |= row.is_some(),
        Err(error) => return coordinator_code(&error),
    }
    loop {
        let prefix = resources::offsets_prefix(group);
        let page = match rows.scan(&place, prefix, bytes::Bytes::new(), DELETE_STEP).await {
            Ok(page) => page,
            Err(error) => return coordinator_code(&error),
        };
        found |= !page.is_empty();
        let is_last = page.len() < DELETE_STEP;
        let mut writes: Vec<RowWrite> =
            page.into_iter().map(|row| RowWrite::Delete { key: row.key }).collect();
        if is_last {
            writes.push(RowWrite::Delete { key: resources::group_key(group) });
        }
        if !found {
            return ErrorCode::GroupIdNotFound;
        }
        if let Err(error) = rows.transact(&place, Vec::new(), writes).await {
            return coordinator_code(&error);
        }
        if is_last {
            return ErrorCode::None;
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
