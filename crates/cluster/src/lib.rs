//! The groups of one node: commands are bundled, committed through consensus, applied to the group's log and its
//! key/value rows, and told to whoever observes.
//!
//! Invariant: this crate knows shards, batches and rows, but no topic, no subscription and no protocol. It does not
//! know how bytes become durable (`consensus` and the journal below it do).

mod command;
mod dropped;
mod group;
mod identity;
mod janitor;
mod machine;
mod node;
mod rebuild;
mod space;

pub use command::{AppendCommand, Command, Reply};
pub use group::{Completion, Group, SubmitError};
pub use machine::{AppliedBatch, Observer};
pub use node::{JournalDriver, Node, NodeConfig, OpenError, Outside, RowStores};
