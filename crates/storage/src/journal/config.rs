//! The journal's settings and identity.

use std::path::PathBuf;
use std::time::Duration;

use super::JournalError;
use super::format::{ALIGN, SEGMENT_HEADER_LEN};

/// Settings of one stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// Data directory; the stripe lives in `stripe-<k>` below it.
    pub dir: PathBuf,
    /// Number of the stripe.
    pub stripe: u16,
    /// Whose data this is; checked against what is on disk.
    pub identity: Identity,
    /// Size of a segment file in bytes: a multiple of 4096 from 64 KiB to 1 GiB. Default 64 MiB. May change between runs;
    /// files keep the size they were made with.
    pub segment_bytes: u32,
    /// Pre-written segments that are kept ready. Default and least 2: they are also the reserve for a full disk.
    pub spares: usize,
    /// Recycled segments beyond this many spares are deleted. Default 4.
    pub spares_max: usize,
    /// A frame takes no further append once it has this many bytes. Default 1 MiB.
    pub frame_bytes: usize,
    /// Bound of the queue in bytes of payload. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Bound of the queue in append calls. Default 65,536.
    pub queue_len_max: usize,
    /// How long bytes that nobody waits for may stay unsynced. Default 200 ms.
    pub sync_interval: Duration,
}

/// Whose data a journal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u128,
    /// The node in it.
    pub node: u64,
}

impl JournalConfig {
    /// Default settings for stripe 0 below `dir`.
    pub fn new(dir: impl Into<PathBuf>, identity: Identity) -> JournalConfig {
        JournalConfig {
            dir: dir.into(),
            stripe: 0,
            identity,
            segment_bytes: 64 << 20,
            spares: 2,
            spares_max: 4,
            frame_bytes: 1 << 20,
            queue_bytes_max: 64 << 20,
            queue_len_max: 65_536,
            sync_interval: Duration::from_millis(200),
        }
    }

    /// The directory of this stripe.
    pub fn stripe_dir(&self) -> PathBuf {
        self.dir.join(format!("stripe-{}", self.stripe))
    }

    pub(crate) fn check(&self) -> Result<(), JournalError> {
        let reason = if !self.segment_bytes.is_multiple_of(ALIGN as u32) {
            "segment_bytes is not a multiple of 4096"
        } else if self.segment_bytes < 64 << 10 || self.segment_bytes > 1 << 30 {
            "segment_bytes is not from 64 KiB to 1 GiB"
        } else if self.spares < 2 || self.spares_max < self.spares {
            "spares must be at least 2 and at most spares_max"
        } else if self.frame_bytes < SEGMENT_HEADER_LEN
            || self.queue_bytes_max == 0
            || self.queue_len_max == 0
        {
            "frame_bytes must be at least 4096, queue bounds at least 1"
        } else {
            return Ok(());
        };
        Err(JournalError::Config { reason })
    }
}
