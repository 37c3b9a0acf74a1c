//! Why a group stopped or stalls: set by whoever noticed, read by whoever has to answer for it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::sync::Notify;

/// The first cause that stopped a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The group was shut down.
    Stopped = 1,
    /// The journal no longer takes writes.
    JournalSealed = 2,
    /// The state machine failed.
    MachineFailed = 3,
}

/// The health of one group.
#[derive(Debug, Default)]
pub(crate) struct Health {
    cause: AtomicU8,
    stalled: AtomicBool,
    /// Told of every change here, and whenever the group's queue became shorter.
    pub(crate) changed: Notify,
    /// Told only when entries begin or cease to wait for space.
    pub(crate) stall_changed: Notify,
}

impl Health {
    /// Records a cause, unless there is one already.
    pub(crate) fn fail(&self, cause: Cause) {
        let _ = self.cause.compare_exchange(0, cause as u8, Ordering::AcqRel, Ordering::Acquire);
        self.changed.notify_waiters();
    }

    /// The recorded cause.
    pub(crate) fn cause(&self) -> Option<Cause> {
        match self.cause.load(Ordering::Acquire) {
            1 => Some(Cause::Stopped),
            2 => Some(Cause::JournalSealed),
            3 => Some(Cause::MachineFailed),
            _ => None,
        }
    }

    /// Records whether the disk is too full for the group's entries.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Release);
        self.changed.notify_waiters();
        self.stall_changed.notify_waiters();
    }

    /// Whether entries wait for space on the disk.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }
}
