//! The suite that every log engine passes, as a library function: what [`Log`] promises, called from outside. It knows no
//! engine by name; what differs between them, a [`Subject`] says.

mod cases;
mod harness;
mod journal;
mod random;

pub use harness::{Harness, Made, batch, shard};
pub use journal::MemoryJournal;

use std::sync::Arc;

use bytes::Bytes;
use model::EngineKind;

use crate::journal::Location;
use crate::log::Log;

/// An engine under test, and the way to stop and start it.
pub trait Subject {
    /// Which shards it holds.
    fn engine(&self) -> EngineKind;

    /// Its log of group 1.
    fn log(&self) -> Arc<dyn Log>;

    /// Puts a committed batch where the log can read it back.
    fn store(&mut self, bytes: &Bytes) -> Location;

    /// Kills the process and opens the log again: what was not made durable is gone.
    fn restart(&mut self);

    /// Ends a journal segment and does all background work that can be done.
    fn settle(&mut self);

    /// Whether records survive a restart.
    fn is_durable(&self) -> bool;
}

/// Runs every case on a fresh subject each, then `seeds` random histories against a naive model.
///
/// # Panics
/// If the engine breaks a promise; the message names it, or the seed.
pub fn log_suite(make: &dyn Fn() -> Box<dyn Subject>, seeds: u64) {
    for (name, case) in cases::ALL {
        let mut harness = Harness::new(make());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&mut harness)));
        assert!(outcome.is_ok(), "engine {} breaks: {name}", harness.subject.engine());
    }
    for seed in 0..seeds {
        let mut harness = Harness::new(make());
        let run = std::panic::AssertUnwindSafe(|| random::history(&mut harness, seed));
        assert!(
            std::panic::catch_unwind(run).is_ok(),
            "engine {}: seed {seed} fails",
            harness.subject.engine()
        );
    }
}
