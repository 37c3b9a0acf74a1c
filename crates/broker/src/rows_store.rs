//! [`Rows`]: reading and changing replicated rows, from any thread.

use std::sync::Arc;

use bytes::Bytes;
use cluster::{Command, Group, SubmitError};
use model::{Error, ErrorKind, GroupId};
use storage::kv::{self, CommandResult, Expect, KvError, Operation};
use tokio::sync::oneshot;

use crate::node::Shared;
use crate::outbox::kind_of;
use crate::rows::{Check, Place, Row, RowWrite, RowsOutcome};

/// Rows that the calling thread reads itself, where they are in memory.
const ROWS_AT_ONCE: usize = 16;

/// The replicated rows of a node. Clones are the same.
///
/// A read sees every transaction that was answered before it began. Keys of a front begin with a byte and a name of its
/// own, so that owners cannot meet.
#[derive(Clone)]
pub struct Rows {
    shared: Arc<Shared>,
}

impl Rows {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes all writes if all checks hold, or none. Answers when that is durable.
    pub async fn transact(
        &self,
        place: &Place,
        checks: Vec<Check>,
        writes: Vec<RowWrite>,
    ) -> Result<RowsOutcome, Error> {
        self.submit(place, checks, writes).await
    }

    /// As [`Rows::transact`]; queued when this returns, so that transactions in one place take effect in the order of
    /// the calls.
    pub fn submit(
        &self,
        place: &Place,
        checks: Vec<Check>,
        writes: Vec<RowWrite>,
    ) -> impl Future<Output = Result<RowsOutcome, Error>> + use<> {
        let checks = checks.into_iter().map(Check::into_kv);
        let rows =
            kv::Command { operations: checks.chain(writes.into_iter().map(RowWrite::into_kv)).collect() };
        let (answer, outcome) = oneshot::channel();
        let refused = match self.group(place) {
            Ok(group) => {
                let command = Command { rows: Some(rows), ..Command::default() };
                group.submit(
                    command,
                    Box::new(move |result| {
                        let _ = answer.send(result);
                    }),
                );
                None
            }
            Err(error) => Some(error),
        };
        async move {
            if let Some(error) = refused {
                return Err(error);
            }
            let reply = outcome.await.unwrap_or(Err(SubmitError::Stopped));
            let reply = reply.map_err(|error| Error::with_source(kind_of(error), "change rows", error))?;
            match reply.rows {
                Some(CommandResult::Applied { version }) => Ok(RowsOutcome::Done { version }),
                Some(CommandResult::Conflict { .. }) => Ok(RowsOutcome::Refused),
                Some(CommandResult::AlreadyApplied) | None => {
                    Err(Error::new(ErrorKind::Internal, "change rows"))
                }
            }
        }
    }

    /// A row.
    pub async fn get(&self, place: &Place, key: Bytes) -> Result<Option<Row>, Error> {
        let kv = self.group(place)?.kv().clone();
        let stored = match kv.get_at_once(&key) {
            Some(stored) => stored,
            None => {
                let key = key.clone();
                self.shared.offloaded(move || kv.get(&key)).await?
            }
        };
        let row = stored.and_then(|stored| stored.map(|stored| row(key, &stored)).transpose());
        row.map_err(|error| unreadable("read a row", error))
    }

    /// Rows whose key begins with `prefix`, in key order from `from` on (empty: from the first), at most `limit`.
    pub async fn scan(
        &self,
        place: &Place,
        prefix: Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        let kv = self.group(place)?.kv().clone();
        let few = kv.scan_at_once(&prefix, &from, limit.min(ROWS_AT_ONCE));
        let stored = match few {
            Some(Ok(few)) if few.len() < ROWS_AT_ONCE || few.len() == limit => Ok(few),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => self.shared.offloaded(move || kv.scan(&prefix, &from, limit)).await?,
        };
        let rows = stored.and_then(|stored| {
            stored.into_iter().map(|stored| row(stored.key, &stored.value)).collect::<Result<Vec<_>, _>>()
        });
        rows.map_err(|error| unreadable("scan rows", error))
    }

    /// All groups, for whoever gathers rows that lie beside records.
    pub fn groups(&self) -> Vec<GroupId> {
        self.shared.node.groups().iter().map(Group::id).collect()
    }

    /// The group of a place.
    pub fn group_of(&self, place: &Place) -> Result<GroupId, Error> {
        Ok(self.group(place)?.id())
    }

    fn group(&self, place: &Place) -> Result<&Group, Error> {
        let id = match place {
            Place::ByKey(key) => self.shared.node.group_of_key(key).id(),
            Place::OfShard(shard) => shard.home(),
            Place::Group(id) => *id,
        };
        let group = self.shared.node.groups().iter().find(|group| group.id() == id);
        group.ok_or_else(|| Error::new(ErrorKind::NotFound, "find a group"))
    }
}

impl RowWrite {
    /// About how many bytes it takes in an entry.
    pub(crate) fn size(&self) -> usize {
        match self {
            RowWrite::Put { key, value } => key.len() + value.len() + 24,
            RowWrite::Delete { key } => key.len() + 24,
        }
    }

    pub(crate) fn into_kv(self) -> Operation {
        match self {
            RowWrite::Put { key, value } => Operation::Put { key, value },
            RowWrite::Delete { key } => Operation::Delete { key },
        }
    }
}

impl Check {
    fn into_kv(self) -> Operation {
        match self {
            Check::Absent { key } => Operation::Check { key, expect: Expect::Absent },
            Check::Version { key, version } => Operation::Check { key, expect: Expect::Version(version) },
        }
    }
}

fn row(key: Bytes, stored: &Bytes) -> Result<Row, KvError> {
    let value = kv::decode_value(stored)?;
    Ok(Row { key, version: value.version, value: value.value })
}

fn unreadable(operation: &'static str, error: KvError) -> Error {
    Error::with_source(ErrorKind::Internal, operation, error)
}
