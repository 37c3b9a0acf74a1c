//! The broker: topics, publishing, routing, subscriptions, sessions, retained messages, scheduled publications.
//!
//! Invariant: this crate knows no protocol. A front translates its packets into one call of [`Broker`] and
//! translates the answer back. It does not know how a batch becomes durable or who replicates it either: that
//! is `cluster`.

mod announce;
mod broker;
mod captures;
mod core_thread;
mod delivery;
mod dispatch;
mod endings;
mod gather;
mod lifecycle;
mod local;
mod message;
mod node;
mod outbox;
mod partition;
mod publisher;
mod retained;
mod retention;
pub mod routing;
mod rows;
mod rows_store;
mod sample;
mod schedule;
mod sessions;
mod share;
mod subscriber;
mod topic;
mod topics;
mod uptime;
pub mod view;

pub use broker::{Broker, Event, Keep, SessionLease, Sink, TakeOver};
pub use core_thread::Core;
pub use delivery::{Batch, CatchUp, Cursor, Delivery, Pick, Picked, Start, Subscriber, subject_of};
pub use message::{Guarantee, Message, Published, Publisher, Retain};
pub use node::{BrokerConfig, Counters, Foundation, Offload, Outside, Shared};
pub use rows::{Check, Place, Row, RowWrite, Rows, RowsOutcome};
pub use sample::Sample;
pub use schedule::{ScheduleId, Scheduled};
pub use share::{Receipt, ShareJoin, ShareKey, ShareMember, SharedDelivery, Strategy, Taken};
pub use topic::{Origin, Retention, Topic, TopicConfig, TopicSpec};

/// Access control, as fronts ask it: [`Broker::access`] is the handle. They need not know where it comes from.
pub mod access {
    pub use auth::scram::{Mechanism, ScramError, ScramServer, Verified};
    pub use auth::{
        Access, Action, Author, Credentials, Decision, Grant, Listener, Object, Principal, Refusal, Request,
        Secret,
    };
}

/// What is stored of a front's own kinds of resource, as it follows them; it need not know `meta`.
pub use meta::{Change, Follower, News};
/// What the seam's signatures say of the log below, so that a front need not know `storage`.
pub use storage::{Append, BatchFlags, Offsets, Position, StoredBatch, TimeHit, TimeQuery, Watch, Watched};
