//! Simulation: the real code on a seeded disk, clock and randomness, with a model beside it that knows what must be there.
//!
//! Each layer brings a *load*: it does random work on the layer, remembers what was promised, and checks after a crash
//! that all of it, and nothing else, is found. Everything random comes from one seed. Development only.

mod broker_load;
mod journal_load;
mod lives;
mod producer;
mod seeds;
mod turns;

pub use broker_load::BrokerLoad;
pub use journal_load::JournalLoad;
pub use lives::Lives;
pub use seeds::each_seed;
pub use turns::{patiently, step};
