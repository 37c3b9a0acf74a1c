//! Many independent Raft groups on one thread, over one journal: payload in, reply out. openraft is inside
//! and does not show.
//!
//! A group is opened with what the journal recovered of it and a [`StateMachine`]; its [`GroupHandle`] takes
//! proposals from any thread. A proposal is answered when its entry is durable, committed and applied.
//!
//! Invariant: this crate knows neither topics nor metadata, and never looks into a payload. It does not know
//! what a machine stores, when it flushes, or how callers are bundled into one entry. Nothing but this crate
//! imports openraft.

mod apply;
mod codec;
mod error;
#[cfg(test)]
mod fixture;
mod groups;
mod handle;
mod health;
mod log;
mod machine;
mod peers;
mod proposals;
#[cfg(test)]
mod tests;
mod types;

pub use codec::Damaged;
pub use error::{OpenError, ProposeError};
pub use groups::Groups;
pub use handle::{GroupHandle, GroupStatus};
pub use machine::{Committed, MachineFailed, StateMachine};
pub use proposals::{Done, Limits};
