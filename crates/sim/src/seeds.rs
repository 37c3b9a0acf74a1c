//! Which seeds a simulation runs, and how a failing one is told.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs `simulate` for the seeds `0..count`; or, if the environment variable `SIM_SEED` is set, for that one only.
///
/// A failing seed is printed before its panic goes on: run it again with `SIM_SEED`, and commit it as a test of its own.
pub fn each_seed(count: u64, mut simulate: impl FnMut(u64)) {
    let chosen = std::env::var("SIM_SEED").ok().map(|text| text.parse().expect("SIM_SEED is a number"));
    let seeds = match chosen {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
            #[allow(clippy::print_stderr, reason = "the seed is what the reader of a failed test needs")]
            {
                eprintln!("simulation failed: SIM_SEED={seed}");
            }
            resume_unwind(panic);
        }
    }
}
