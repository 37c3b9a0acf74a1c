//! A group's Raft log: an index in memory over what the journal holds. `index` is the data structure,
//! `writer` brings entries into the journal, `store` is what openraft sees of both.

#[cfg(test)]
mod crash;
mod index;
mod store;
#[cfg(test)]
mod suite;
mod writer;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use index::{LogIndex, Shape, Slot};
pub(crate) use store::{GroupLog, Reader};
pub(crate) use writer::{Stripe, Writer};

/// What writer, readers and the journal's completions of one group share.
///
/// Lock order: `turn`, `flow`, `index`. The latter two are held for lines, and never while the journal is
/// called.
struct Shared {
    index: Mutex<LogIndex>,
    flow: Mutex<writer::Flow>,
    /// Held while entries are put into the journal's queue: they must get there in order.
    turn: tokio::sync::Mutex<()>,
    /// Told whenever entries became durable.
    located: Notify,
    /// Told when a full disk refused entries.
    refused: Notify,
}

impl Shared {
    fn new(index: LogIndex) -> Shared {
        Shared {
            index: Mutex::new(index),
            flow: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            located: Notify::new(),
            refused: Notify::new(),
        }
    }
}
