//! Where stored batches come from when they are not in memory.

use bytes::Bytes;

use crate::error::LogError;
use crate::journal::{Journal, Location};

/// Reads batches back from the journal. Blocks on disk: for threads that may.
pub trait BatchSource: Send + Sync {
    /// The bytes at a location that an append was completed with. An error if the segment is gone or the bytes are damaged;
    /// what is returned is checked again by the caller.
    fn read(&self, location: Location) -> Result<Bytes, LogError>;
}

impl BatchSource for Journal {
    fn read(&self, location: Location) -> Result<Bytes, LogError> {
        Journal::read(self, location).map_err(|err| LogError::io("read the journal", err))
    }
}
