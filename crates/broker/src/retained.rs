//! Retained messages: one row per subject, written in the same committed entry as the message itself, so that the
//! last write wins by log order. A message that has expired is not found any more; a round over all rows, begun once an hour,
//! removes it.
//!
//! ```text
//! r <tenant> 00 <subject>  ->  a record batch of one record      (in the group of the subject's topic)
//! ```
//!
//! The row is moved when the subject is written after another topic began to store it ([`gather`](crate::gather)); until then it
//! is where it was, so all groups are looked through.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use model::batch::{BatchBuilder, RecordRef, Records};
use model::{Error, MAX_DECODED_BATCH_BYTES, TenantId, header_name};

use crate::core_thread::Core;
use crate::delivery::{Batch, Delivery, Picked};
use crate::message::Message;
use crate::routing::{Ahead, Filter};
use crate::rows::{Check, Place, RowWrite, Rows};

/// Rows that one scan reads, as long as what it reads matches or must be looked at.
const SCAN_ROWS: usize = 512;
/// The same behind a place that was sought.
const SOUGHT_ROWS: usize = 16;
/// Scans in a row before others have their turn: each may be answered from memory at once.
const SCANS_PER_TURN: usize = 8;
/// Rows that one scan of a round reads.
const ROUND_ROWS: usize = 256;
/// Scans in a row of a round: the rest comes later.
const ROUND_SCANS: usize = 64;

/// Key of a subject's retained message; with an empty subject, the prefix of all.
pub(crate) fn key(tenant: &TenantId, subject: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(2 + tenant.as_str().len() + subject.len());
    key.put_u8(b'r');
    key.put_slice(tenant.as_str().as_bytes());
    key.put_u8(0);
    key.put_slice(subject.as_bytes());
    key.freeze()
}

/// The write that makes a message the retained one.
pub(crate) fn put(tenant: &TenantId, message: &Message<'_>, timestamp: i64) -> RowWrite {
    let size = message.value.map_or(0, <[u8]>::len) + 256;
    let mut builder = BatchBuilder::with_capacity(size);
    // A single message is far below the 2 GiB at which a batch refuses.
    let pushed = builder.push(timestamp, message.key, message.value, message.headers.iter().copied());
    debug_assert!(pushed.is_ok());
    RowWrite::Put { key: key(tenant, message.subject), value: builder.finish() }
}

/// The write that removes a subject's retained message.
pub(crate) fn delete(tenant: &TenantId, subject: &str) -> RowWrite {
    RowWrite::Delete { key: key(tenant, subject) }
}

/// What is looked for.
pub(crate) struct Query<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) filter: &'a Filter,
    /// Subjects up to this one were found before.
    pub(crate) after: Option<&'a str>,
    pub(crate) limit: usize,
}

/// Retained messages that match, in subject order. Costs by those that match, and by the different levels where the filter has a
/// `+` before a literal one; what lies below a level that cannot match is passed over ([`Filter::ahead`]).
pub(crate) async fn find(core: &Core, query: Query<'_>) -> Result<Vec<Delivery>, Error> {
    let Query { tenant, filter, after, limit } = query;
    let mut found = BTreeMap::new();
    for group in core.rows_handle().groups() {
        let place = Place::Group(group);
        if !filter.is_exact() {
            scan_group(core, &query, &place, &mut found).await?;
        } else if after.is_none()
            && let Some(row) = core.rows_handle().get(&place, key(tenant, filter.as_str())).await?
        {
            let delivery = delivery(tenant, filter.as_str(), row.value, core.wall_ms_now());
            delivery.into_iter().for_each(|delivery| keep_newest(&mut found, filter.as_str(), delivery));
        }
    }
    Ok(found.into_values().take(limit).collect())
}

async fn scan_group(
    core: &Core,
    query: &Query<'_>,
    place: &Place,
    found: &mut BTreeMap<String, Delivery>,
) -> Result<(), Error> {
    let start = key(query.tenant, "").len();
    let prefix = key(query.tenant, query.filter.literal_prefix());
    let mut from = query.after.map_or_else(Bytes::new, |subject| behind(&key(query.tenant, subject)));
    let (mut matches, mut rows_max) = (0, query.limit.clamp(SOUGHT_ROWS, SCAN_ROWS));
    let now = core.wall_ms_now();
    for scans in 1.. {
        if scans % SCANS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
        let rows = core.rows_handle().scan(place, prefix.clone(), from, rows_max).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        from = behind(&last.key);
        let is_last = rows.len() < rows_max;
        // Subjects below this do not match.
        let mut sought = String::new();
        for row in rows {
            let Ok(subject) = std::str::from_utf8(&row.key[start..]) else { continue };
            if *subject < *sought {
                continue;
            }
            if !query.filter.matches(subject) {
                match query.filter.ahead(subject) {
                    Ahead::Next => {}
                    Ahead::Seek(to) => sought = to,
                    Ahead::End => return Ok(()),
                }
                continue;
            }
            // An expired message does not count: a page without a message would look like the end.
            let Some(delivery) = delivery(query.tenant, subject, row.value, now) else { continue };
            keep_newest(found, subject, delivery);
            matches += 1;
            if matches == query.limit {
                return Ok(());
            }
        }
        let sought = key(query.tenant, &sought);
        if is_last || (sought > from && !sought.starts_with(&prefix)) {
            return Ok(());
        }
        rows_max = if sought > from { SOUGHT_ROWS } else { (rows_max * 2).min(SCAN_ROWS) };
        from = from.max(sought);
    }
    Ok(())
}

/// Of a subject whose row lies in two groups, because it has moved ([`gather`](crate::gather)), the newer one counts.
fn keep_newest(found: &mut BTreeMap<String, Delivery>, subject: &str, delivery: Delivery) {
    let written_ms = |delivery: &Delivery| Some(delivery.batch.records().ok()?.get(0)?.timestamp());
    match found.entry(subject.to_owned()) {
        Entry::Vacant(entry) => {
            entry.insert(delivery);
        }
        Entry::Occupied(mut entry) => {
            if written_ms(&delivery) > written_ms(entry.get()) {
                entry.insert(delivery);
            }
        }
    }
}

/// The first key after this one.
fn behind(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// How far a round over all retained messages has come: the group, by its place among all, and the key to go on from.
#[derive(Debug, Default)]
pub(crate) struct Round {
    group: usize,
    from: Bytes,
}

/// Goes on with a round: removes what has expired, unless another message took its place meanwhile. Answers where to go on;
/// `None` at the end.
pub(crate) async fn remove_expired(rows: &Rows, now: i64, round: Round) -> Result<Option<Round>, Error> {
    let Round { mut group, mut from } = round;
    let groups = rows.groups();
    for _ in 0..ROUND_SCANS {
        let Some(place) = groups.get(group).copied().map(Place::Group) else { return Ok(None) };
        let page = rows.scan(&place, Bytes::from_static(b"r"), from, ROUND_ROWS).await?;
        (group, from) = match page.last() {
            Some(last) if page.len() == ROUND_ROWS => (group, behind(&last.key)),
            Some(_) | None => (group + 1, Bytes::new()),
        };
        let expired = page.into_iter().filter(|row| {
            let records = Records::decode(&row.value, MAX_DECODED_BATCH_BYTES);
            records.is_ok_and(|records| records.get(0).is_some_and(|record| has_expired(&record, now)))
        });
        let removals: Vec<_> = expired
            .map(|row| {
                let unchanged = vec![Check::Version { key: row.key.clone(), version: row.version }];
                rows.submit(&place, unchanged, vec![RowWrite::Delete { key: row.key }])
            })
            .collect();
        for removal in removals {
            // Refused: there is a newer one.
            removal.await?;
        }
    }
    Ok(Some(Round { group, from }))
}

fn has_expired(record: &RecordRef<'_>, now: i64) -> bool {
    let at = record.header(header_name::EXPIRES_AT).flatten();
    let at = at.and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse::<i64>().ok());
    at.is_some_and(|at| at <= now)
}

fn delivery(tenant: &TenantId, subject: &str, value: Bytes, now: i64) -> Option<Delivery> {
    // A retained message stands for its subject, wherever the record is stored.
    let batch = Batch::unstored(tenant, subject, value)?;
    let expired = has_expired(&batch.records().ok()?.get(0)?, now);
    (!expired).then(|| Delivery { batch: Arc::new(batch), picked: Picked::All(Arc::new([])) })
}
