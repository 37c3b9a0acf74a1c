//! Where every non-determinism enters: time, randomness, tasks, shutdown and files.
//!
//! The rest of the house takes these as handles, so that a simulation can put seeded ones in their place. This crate
//! knows nothing of what is run or stored, and imports nothing in-house.

mod disk;

pub use disk::{Disk, DiskFile, DiskLock, StdDisk, is_full};
