//! One place for the retained message of a subject. Its row lies in the group that stores the subject's messages, so that both are
//! one entry, and that group changes: a topic begins or ceases to capture the subject, or comes back with another number of
//! shards. Before a message is pushed that sets or clears it, what lies in other groups is moved to the one that stores the
//! subject now; then the push replaces or removes all there is.
//!
//! ```text
//! r 00  ->  nothing      (in a group that may hold retained messages of subjects whose own topic begins elsewhere)
//! ```
//!
//! Nearly always there are none such, and nothing is looked for.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use model::batch::BatchHeader;
use model::{Error, ErrorKind, GroupId, ShardId, TenantId};

use crate::core_thread::Core;
use crate::message::Message;
use crate::partition::partition;
use crate::retained;
use crate::rows::{Check, Place, Row, RowWrite, RowsOutcome};
use crate::topic::Topic;

/// The row that says that retained messages may lie away from where their subject's own topic begins.
const AWAY: &[u8] = b"r\0";
/// Times that a move is tried again because a row was written meanwhile.
const RETRIES: usize = 16;

/// What is known of retained messages that lie away. Shared by all cores.
#[derive(Default)]
pub(crate) struct Gathering {
    may_be_away: AtomicBool,
    /// One at a time: a second one must not put back what was cleared since it looked.
    moving: tokio::sync::Mutex<()>,
}

impl Gathering {
    fn note_away(&self) {
        if !self.may_be_away.load(Ordering::Acquire) {
            self.may_be_away.store(true, Ordering::Release);
        }
    }
}

/// Whether a shard lies elsewhere than a topic of the subject's own begins.
fn is_away(topic: &Topic, shard: ShardId) -> bool {
    !topic.config.captures.is_empty() || topic.shards.first().is_none_or(|first| first.home() != shard.home())
}

/// What is written along with a retained message in `shard`, if it lies away.
pub(crate) fn note(topic: &Topic, shard: ShardId) -> Option<RowWrite> {
    is_away(topic, shard).then(|| RowWrite::Put { key: Bytes::from_static(AWAY), value: Bytes::new() })
}

/// Reads at a start whether a group holds any.
pub(crate) async fn recover(core: &Core, place: &Place) -> Result<(), Error> {
    if core.rows_handle().get(place, Bytes::from_static(AWAY)).await?.is_some() {
        core.shared().gathering.note_away();
    }
    Ok(())
}

/// The group to which the subject's retained message has to be moved before this message may be pushed. None if it is known to lie
/// nowhere else. Does not wait.
pub(crate) fn due(core: &Core, topic: &Topic, message: &Message<'_>) -> Option<GroupId> {
    let number = partition(message.key, message.subject.as_bytes(), topic.shards.len());
    let shard = *topic.shards.get(number)?;
    let gathering = &core.shared().gathering;
    if is_away(topic, shard) {
        gathering.note_away();
    } else if !gathering.may_be_away.load(Ordering::Acquire) {
        return None;
    }
    let key = retained::key(&topic.tenant, message.subject);
    let mut others = core.groups().iter().filter(|group| group.id() != shard.home());
    others.any(|group| !matches!(group.kv().get_at_once(&key), Some(Ok(None)))).then(|| shard.home())
}

/// Moves the retained message of a subject into a group. At every moment the newest one is there, in one group or as the same
/// row in two.
pub(crate) async fn gather(
    core: &Core,
    tenant: &TenantId,
    subject: &str,
    into: GroupId,
) -> Result<(), Error> {
    let _moving = core.shared().gathering.moving.lock().await;
    let key = retained::key(tenant, subject);
    for _ in 0..RETRIES {
        let (own, others) = find(core, &key, into).await?;
        let newest = others.iter().max_by_key(|(_, row)| written_ms(row));
        let Some((_, newest)) = newest else { return Ok(()) };
        let is_newer = own.as_ref().is_none_or(|own| written_ms(own) < written_ms(newest));
        if is_newer && !copy(core, &key, (own, newest), into).await? {
            continue;
        }
        let mut removed = true;
        for (group, row) in others {
            let check = Check::Version { key: key.clone(), version: row.version };
            let delete = vec![RowWrite::Delete { key: key.clone() }];
            let outcome = core.rows_handle().transact(&Place::Group(group), vec![check], delete).await?;
            removed &= outcome != RowsOutcome::Refused;
        }
        if removed {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Conflict, "gather a retained message"))
}

/// The subject's row in the group that it belongs to, and those elsewhere.
async fn find(core: &Core, key: &Bytes, into: GroupId) -> Result<(Option<Row>, Vec<(GroupId, Row)>), Error> {
    let (mut own, mut others) = (None, Vec::new());
    for group in core.rows_handle().groups() {
        let row = core.rows_handle().get(&Place::Group(group), key.clone()).await?;
        if group == into {
            own = row;
        } else {
            others.extend(row.map(|row| (group, row)));
        }
    }
    Ok((own, others))
}

/// Puts a row into a group, in place of the one that was seen there; false if that one has changed.
async fn copy(
    core: &Core,
    key: &Bytes,
    (own, newest): (Option<Row>, &Row),
    into: GroupId,
) -> Result<bool, Error> {
    let key = key.clone();
    let check = match own {
        Some(own) => Check::Version { key: key.clone(), version: own.version },
        None => Check::Absent { key: key.clone() },
    };
    let writes = vec![
        RowWrite::Put { key, value: newest.value.clone() },
        RowWrite::Put { key: Bytes::from_static(AWAY), value: Bytes::new() },
    ];
    let outcome = core.rows_handle().transact(&Place::Group(into), vec![check], writes).await?;
    core.shared().gathering.note_away();
    Ok(outcome != RowsOutcome::Refused)
}

/// When a retained message was published, in ms since 1970.
fn written_ms(row: &Row) -> i64 {
    BatchHeader::parse(&row.value).map_or(i64::MIN, |header| header.max_timestamp)
}
