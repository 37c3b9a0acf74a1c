//! How much space the disk still has. Records are refused while there is still some for the entries that make more.
//!
//! ```text
//!   segments that log entries can begin
//!   0        low                 low + 2
//!   |---------|--------------------|------------->
//!   | full:   | only what brings   | everything
//!   | nothing | no record          |
//! ```
//!
//! Between the marks it is as it was before. An entry that the journal has refused can no longer be overtaken: it must not
//! come to that while retention could make space, because a trim is an entry as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use storage::journal::Journal;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

/// Records are taken again when there are this many segments more than when they were refused: one whole segment at least.
const MORE_AGAIN: u64 = 2;
/// A look costs a system call. It is due when this part of a segment was proposed, or...
const PARTS_BETWEEN: u64 = 8;
/// ...when this time has gone by, as others fill the disk too.
const TIME_BETWEEN: Duration = Duration::from_secs(1);

/// What one journal's disk has left. Shared by the node's groups.
pub(crate) struct Space {
    journal: Arc<Journal>,
    /// Records are refused when no more segments are left.
    low_mark: u64,
    opened: Instant,
    /// When the last look was, ms since `opened`.
    looked_ms: AtomicU64,
    /// Bytes that were proposed since.
    proposed: AtomicU64,
    is_low: AtomicBool,
    /// Told when it begins to be low.
    began: Notify,
}

impl Space {
    /// `in_flight_max`: bytes of entries that may be on their way to the journal when records begin to be refused.
    pub(crate) fn new(journal: Arc<Journal>, in_flight_max: usize) -> Self {
        let low_mark = (in_flight_max as u64).div_ceil(journal.segment_bytes()) + 1;
        let space = Self {
            journal,
            low_mark,
            opened: Instant::now(),
            looked_ms: AtomicU64::new(0),
            proposed: AtomicU64::new(0),
            is_low: AtomicBool::new(false),
            began: Notify::new(),
        };
        space.look();
        space
    }

    /// Whether records are to be refused, as of the last look.
    pub(crate) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Acquire)
    }

    /// Resolves when it is low. Costs nothing while it is not.
    pub(crate) async fn low(&self) {
        loop {
            let began = self.began.notified();
            if self.is_low() {
                return;
            }
            began.await;
        }
    }

    /// As [`low`](Space::low), a while later: whoever makes space comes again in this rhythm.
    pub(crate) async fn still_low(&self) {
        loop {
            self.low().await;
            tokio::time::sleep(TIME_BETWEEN).await;
            if self.is_low() {
                return;
            }
        }
    }

    /// Counts bytes that are proposed.
    pub(crate) fn count(&self, bytes: usize) {
        self.proposed.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Looks, if enough was proposed or enough time has gone by since the last time.
    pub(crate) fn look_if_due(&self) {
        let by_bytes = self.proposed.load(Ordering::Relaxed) >= self.journal.segment_bytes() / PARTS_BETWEEN;
        let looked = Duration::from_millis(self.looked_ms.load(Ordering::Relaxed));
        if by_bytes || self.opened.elapsed().saturating_sub(looked) >= TIME_BETWEEN {
            self.look();
        }
    }

    /// Asks the disk. Where it does not answer, everything stays as it is.
    pub(crate) fn look(&self) {
        self.looked_ms.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.proposed.store(0, Ordering::Relaxed);
        let Ok(left) = self.journal.segments_left() else { return };
        if left <= self.low_mark {
            if !self.is_low.swap(true, Ordering::AcqRel) {
                warn!(
                    segments = left,
                    "the disk is nearly full: records are refused until there is more space"
                );
                self.began.notify_waiters();
            }
        } else if left >= self.low_mark + MORE_AGAIN && self.is_low.swap(false, Ordering::AcqRel) {
            info!(segments = left, "there is space again: records are taken");
        }
    }
}
