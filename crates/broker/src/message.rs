//! Publishing single messages: what a front pushes and what it hears back. Hot path.

use std::ops::Range;

use model::ErrorKind;

use crate::rows::RowWrite;

pub use crate::outbox::Publisher;

/// One message, borrowed from the connection's read buffer; it is copied once, into the batch.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Canonical subject; a valid topic name.
    pub subject: &'a str,
    /// Key, if the producer gave one. Partitions are chosen by key, else by subject, else by publisher.
    pub key: Option<&'a [u8]>,
    /// Payload; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order, duplicates allowed.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    /// What the publisher waits for.
    pub guarantee: Guarantee,
    /// What becomes of the subject's retained message, in the same committed entry.
    pub retain: Retain,
    /// Rows written in the same committed entry, in the group of the subject's topic (a QoS 2 identifier, say); not if the
    /// message is refused.
    /// Only with [`Guarantee::Durable`].
    pub rows: &'a [RowWrite],
}

impl Message<'_> {
    /// Bytes that its sender decides on: subject, key, payload, and names and values of its headers.
    #[inline]
    pub fn size(&self) -> usize {
        let bytes = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + bytes(*value)).sum();
        self.subject.len() + bytes(self.key) + bytes(self.value) + headers
    }
}

/// What the publisher waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Nothing: subscribers that keep up get it at once, at most once; it is stored in the background.
    Live,
    /// Durability: subscribers get it from the committed log, at least once; the completion is told.
    Durable,
}

/// What a message does to the retained message of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retain {
    /// Nothing.
    Keep,
    /// Becomes it.
    Set,
    /// Removes it.
    Clear,
}

/// Durable messages of one publisher that are decided. Tickets count a publisher's durable pushes from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Which pushes. Ranges of different shards may come in any order; every ticket comes exactly once.
    pub tickets: Range<u64>,
    /// Stored and durable, or why not.
    pub result: Result<(), ErrorKind>,
}
