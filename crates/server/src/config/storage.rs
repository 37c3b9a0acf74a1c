//! `[storage]`: the journal and what is kept of it in memory.

use super::limits::Limits;
use super::section::{Faults, section};
use super::values::ByteSize;

section! {
    /// The journal and what is kept of it in memory.
    pub struct Storage ["storage"] {
        /// Size of a journal file. Files are written in advance and used again. A multiple of 4 KiB.
        pub segment_bytes: ByteSize,
        /// Memory for the most recent records of all shards, from which readers that keep up are served.
        pub tail_cache_bytes: ByteSize,
    }
}

impl Default for Storage {
    fn default() -> Storage {
        Storage { segment_bytes: ByteSize::mib(64), tail_cache_bytes: ByteSize::mib(256) }
    }
}

/// The least and the most that a journal file may hold.
const SEGMENT: (ByteSize, ByteSize) = (ByteSize::kib(64), ByteSize::mib(1024));
/// Files are written in pages.
const PAGE: ByteSize = ByteSize::kib(4);

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
    }
}
