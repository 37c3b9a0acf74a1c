//! The broker: topics, publishing, routing, subscriptions, sessions, retained messages, scheduled publications.
//!
//! Invariant: this crate knows no protocol. A front translates its packets into one call of [`Broker`] and
//! translates the answer back. It does not know how a batch becomes durable or who replicates it either: that
//! is `cluster`.

mod broker;
mod delivery;
mod message;
pub mod routing;
mod rows;
mod topic;
pub mod view;

pub use broker::{Broker, Event, SessionLease, Sink};
pub use delivery::{Batch, CatchUp, Cursor, Delivery, Start, Subscriber};
pub use message::{Guarantee, Message, Published, Publisher, Retain};
pub use rows::{Check, Place, Row, RowWrite, Rows, RowsOutcome};
pub use topic::{Origin, Retention, Topic, TopicConfig, TopicSpec};
