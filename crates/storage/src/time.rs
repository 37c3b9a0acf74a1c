//! Finding a record by its timestamp inside a batch: the one place where the log decodes records.

use model::Offset;
use model::batch::Records;

use crate::log::{StoredBatch, TimeHit, TimeQuery};

/// Bound: decompressed bytes of a batch that is searched. A larger one is answered with its first offset.
const DECOMPRESSED_MAX: usize = 64 << 20;

/// A search over the batches of a shard, given in offset order.
pub(crate) struct Search {
    query: TimeQuery,
    start: Offset,
    best: Option<TimeHit>,
    /// For the largest: batches below are not opened, because one at or above is known to exist.
    floor: i64,
}

impl Search {
    /// A search among the records at or after `start`.
    pub(crate) fn new(query: TimeQuery, start: Offset) -> Search {
        Search { query, start, best: None, floor: i64::MIN }
    }

    /// Says that some batch has this largest timestamp, so that a search for the largest need not open the others.
    pub(crate) fn expect(mut self, timestamp_max: i64) -> Search {
        self.floor = timestamp_max;
        self
    }

    pub(crate) fn start(&self) -> Offset {
        self.start
    }

    /// Whether batches with this largest timestamp can change the answer.
    pub(crate) fn is_of_interest(&self, timestamp_max: i64) -> bool {
        match (self.query, self.best) {
            (TimeQuery::AtOrAfter(_), Some(_)) => false,
            (TimeQuery::AtOrAfter(timestamp), None) => timestamp_max >= timestamp,
            (TimeQuery::Largest, best) => {
                timestamp_max >= self.floor && best.is_none_or(|best| timestamp_max > best.timestamp)
            }
        }
    }

    /// Looks into a batch that is of interest.
    pub(crate) fn look(&mut self, batch: &StoredBatch) {
        for hit in hits(batch, self.start) {
            let better = match self.query {
                TimeQuery::AtOrAfter(timestamp) => self.best.is_none() && hit.timestamp >= timestamp,
                TimeQuery::Largest => self.best.is_none_or(|best| hit.timestamp > best.timestamp),
            };
            if better {
                self.best = Some(hit);
            }
        }
    }

    pub(crate) fn best(self) -> Option<TimeHit> {
        self.best
    }
}

/// The records of a batch at or after `start`. One that cannot be decoded counts as a single record with the header's
/// timestamp: a poisoned batch must not hide what lies behind it.
fn hits(batch: &StoredBatch, start: Offset) -> Vec<TimeHit> {
    let hits = match Records::decode(&batch.bytes, DECOMPRESSED_MAX) {
        Ok(records) => records
            .iter()
            .map(|record| TimeHit {
                offset: batch.base.saturating_add(u64::from(record.offset_delta())),
                timestamp: record.timestamp(),
            })
            .collect(),
        Err(_) => vec![TimeHit { offset: batch.base.max(start), timestamp: batch.timestamp_max }],
    };
    hits.into_iter().filter(|hit| hit.offset >= start).collect()
}
