//! Waiting for what another process does: with a deadline, and only at this outermost layer.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that must happen may take. Generous: two busy cores start a Java machine in seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition that nobody announces is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until `look` finds something and returns it. Panics after [`PATIENCE`], naming `what` did not happen.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// Lets time pass, for what is defined by time: how much an idle broker works, how long a killed one was up.
pub(crate) fn pass(time: Duration) {
    thread::sleep(time);
}
