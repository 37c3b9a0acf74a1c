//! The bytes of a segment, version 1. Pure: no I/O.

/// Frames start at multiples of this.
pub(crate) const ALIGN: usize = 4096;
/// Length of the header at the start of each segment.
pub(crate) const SEGMENT_HEADER_LEN: usize = 4096;
