//! The delivery engine: what one subscription has been given, has settled and is owed. A deterministic state
//! machine over positions; it knows no protocol, reads no clock, and leaves fetching records, sending them and
//! storing facts to its owner.
//!
//! ```text
//!            floor                         end
//!   ...ssssss|i s s r i s d s i f f f f f f |        s settled   i in flight   r returned
//!   settled   holes above the floor  fresh   not     d delayed or dead         f fresh
//!                                            offered
//! ```
//!
//! Fresh positions are runs and settled ones bits, so what costs memory is what is between the two.

mod facts;
mod machine;
mod policy;
mod progress;
mod rows;
mod settled;
mod varint;

#[cfg(test)]
mod tests;

pub use facts::{Facts, Past};
pub use machine::{Counters, Dead, Delivery, Handle, View};
pub use policy::{Acknowledge, ConsumerId, Policy, Reason, Returned};
pub use progress::Progress;
pub use rows::{Row, RowKey};
pub use varint::DecodeError;
