//! Sans-IO codecs of the protocols that the broker speaks.
//!
//! Invariant: this crate knows no socket, no clock and no other crate of ours. Bytes from a peer never make it panic
//! and never make it take memory beyond the limits it was given.

#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "mqtt")]
pub mod mqtt;
