//! `[storage]`: the journal, its budget on disk, and what "stored" means.

use super::limits::Limits;
use super::section::{Faults, section};
use super::values::{ByteSize, TimeSpan, choice};

section! {
    /// The journal, its budget on disk, and what an acknowledgement promises.
    pub struct Storage ["storage"] {
        /// When a message counts as stored: `sync` after it was flushed to the disk, `interval` when it is handed to
        /// the operating system, which is flushed every `sync_interval`, `os` when it is handed to the operating
        /// system. A killed broker loses nothing at any level; a power cut loses nothing at `sync`.
        pub durability: Durability,
        /// How much a power cut may take at `durability = "interval"`; also how long what nobody waits for stays
        /// unflushed.
        pub sync_interval: TimeSpan,
        /// Size of a journal file. Files are written in advance and used again. A multiple of 4 KiB.
        pub segment_bytes: ByteSize,
        /// What the journal may take on disk. Over it, the oldest survivors are moved out of its way.
        pub hot_bytes: ByteSize,
        /// Memory for the most recent records of all shards, from which readers that keep up are served.
        pub tail_cache_bytes: ByteSize,
    }
}

impl Default for Storage {
    fn default() -> Storage {
        Storage {
            durability: Durability::Sync,
            sync_interval: TimeSpan::millis(200),
            segment_bytes: ByteSize::mib(64),
            hot_bytes: ByteSize::mib(10 << 10),
            tail_cache_bytes: ByteSize::mib(256),
        }
    }
}

choice! {
    /// When a message counts as stored.
    pub enum Durability: "\"sync\", \"interval\" or \"os\"" {
        /// Flushed to the disk.
        Sync = "sync",
        /// Handed to the operating system, flushed in intervals.
        Interval = "interval",
        /// Handed to the operating system.
        Os = "os",
    }
}

/// The least and the most that a journal file may hold.
const SEGMENT: (ByteSize, ByteSize) = (ByteSize::kib(64), ByteSize::mib(1024));
/// Files are written in pages.
const PAGE: ByteSize = ByteSize::kib(4);
/// Bound: the one that is written, two in reserve for a full disk, and one to read.
const SEGMENTS_MIN: u64 = 4;

impl Storage {
    pub(crate) fn check(&self, limits: &Limits, faults: &mut Faults) {
        let mut fault = |key, rule| faults.add("storage", key, rule);
        let (least, most) = SEGMENT;
        let segment = self.segment_bytes;
        if segment < least || segment > most || !segment.bytes().is_multiple_of(PAGE.bytes()) {
            fault("segment_bytes", format!("must be from {least} to {most} and a multiple of {PAGE}"));
        } else if segment.bytes() / 2 < limits.max_message_bytes.bytes() {
            let message = limits.max_message_bytes;
            fault("segment_bytes", format!("must be at least twice limits.max_message_bytes ({message})"));
        }
        if self.hot_bytes.bytes() / SEGMENTS_MIN < segment.bytes() {
            fault(
                "hot_bytes",
                format!("must be at least {SEGMENTS_MIN} times storage.segment_bytes ({segment})"),
            );
        }
        if self.sync_interval < TimeSpan::millis(1) {
            fault("sync_interval", "must be at least 1ms".to_owned());
        }
    }
}
