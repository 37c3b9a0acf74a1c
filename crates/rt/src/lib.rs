//! Where every non-determinism enters: time, randomness, tasks, shutdown and files.
//!
//! The rest of the house takes these as handles, so that a simulation can put seeded ones in their place. This crate
//! knows nothing of what is run or stored, and imports nothing in-house.

mod clock;
mod disk;
mod failpoint;
mod memory;
mod rng;
mod shutdown;
mod tasks;

pub use clock::{Clock, Instant, ManualClock, SystemClock};
pub use disk::{Disk, DiskFile, DiskLock, DiskOp, Fault, SimDisk, StdDisk, is_full};
pub use failpoint::{FAILPOINTS, failpoint, failpoint_after};
pub use memory::{avoid_huge_pages, memory_available, memory_in_use};
pub use rng::{Rng, SeededRng, SystemRng};
pub use shutdown::Shutdown;
pub use tasks::{OnFailure, OnShutdown, TaskHandle, TaskKind, TaskOutput, Tasks};
