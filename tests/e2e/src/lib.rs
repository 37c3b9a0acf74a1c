//! The harness of the end-to-end tests: it runs the real `broker-server` and real clients as processes and tells the
//! tests what they said. It knows no part of the broker but its command line, its addresses and its protocols.
//!
//! A failed expectation panics, since its callers are tests. Waiting happens only here, always with a deadline.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod binary;
mod broker;
mod collector;
mod fleet;
mod flood;
mod http;
mod kafka;
mod mqtt;
mod process;
mod programs;
mod socket;
mod wait;

pub use broker::{Broker, Listeners, Settings};
pub use collector::Collector;
pub use fleet::{Fleet, FleetSize};
pub use flood::{Ledger, Publisher};
pub use http::{ask, get};
pub use kafka::{Consumer, Fetched, KafkaRecord, Produced};
pub use mqtt::{Message, Subscriber};
pub use process::{Process, allow_open_files};
pub use programs::{Program, missing};
pub use socket::{Incoming, Opening, Socket};
pub use wait::{PATIENCE, wait_until};
