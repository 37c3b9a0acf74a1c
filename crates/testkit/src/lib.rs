//! For tests: a whole broker core inside the test's own thread, on a real disk in a temporary directory. Real code all
//! the way down; no doubles.

mod clock;
mod inbox;
mod node;
mod scram;

pub use clock::SteppedClock;
pub use inbox::Inbox;
pub use node::{TestNode, on_core};
pub use scram::ScramClient;
