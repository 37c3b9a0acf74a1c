//! Segment files that wait for use: pre-written, or recycled. Keeps the reserve for a full disk.
//!
//! ```text
//! <id>.tmp --pre-write, sync--> <id>.spare --rotate--> <seq>.seg --recycle--> <id>.spare or removed
//! ```
//!
//! A `.tmp` is worthless and removed at opening; a `.spare` may be used whatever is in it, because nothing in it
//! can pass for a frame of the segment it becomes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rt::{Disk, DiskFile};

use super::error::io_error;
use super::table::{Counters, segment_path};
use super::{JournalConfig, JournalError};

/// Spares that only entries which free or protect space may use when the disk is full.
const RESERVE: usize = 2;
/// Bytes between two syncs while a file is pre-written.
const PREWRITE_CHUNK: u64 = 1 << 20;

/// A file of `segment_bytes` that is not in use.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Whether taking it broke into the reserve.
    pub(crate) of_reserve: bool,
}

/// Who wants a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Log entries: they leave the reserve alone.
    Append,
    /// Votes, purges, truncates, hints and the journal's own entries: they may use the reserve.
    Reserve,
}

/// The pool. Its jobs are done by one thread (or by hand, in simulation).
///
/// Lock order: a leaf; not held over I/O.
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    config: JournalConfig,
    counters: Arc<Counters>,
    pool: Mutex<Pool>,
    wake: Condvar,
}

#[derive(Default)]
struct Pool {
    ready: VecDeque<Spare>,
    /// Recycled segments whose files wait to be renamed.
    retired: VecDeque<(u64, Arc<dyn DiskFile>, u64)>,
    next_id: u64,
    /// The last attempt to make a spare failed; do not try again before somebody asks.
    stuck: bool,
    closing: bool,
}

impl Spares {
    pub(crate) fn new(disk: Arc<dyn Disk>, config: &JournalConfig, counters: Arc<Counters>) -> Spares {
        Spares {
            disk,
            dir: config.stripe_dir(),
            config: config.clone(),
            counters,
            pool: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Takes over a spare file found at opening; removes it if it has another size or there are enough.
    pub(crate) fn adopt(&self, name: &str) -> Result<(), JournalError> {
        let path = self.dir.join(name);
        let Some(id) = name.strip_suffix(".spare").and_then(|digits| u64::from_str_radix(digits, 16).ok())
        else {
            return self.disk.remove(&path).map_err(io_error("remove", path));
        };
        let file = self.disk.open_rw(&path).map_err(io_error("open", &path))?;
        let len = file.len().map_err(io_error("measure", &path))?;
        let mut pool = self.pool.lock();
        pool.next_id = pool.next_id.max(id + 1);
        if len == u64::from(self.config.segment_bytes) && pool.ready.len() < self.config.spares_max {
            pool.ready.push_back(Spare { path, file, of_reserve: false });
            return Ok(());
        }
        drop(pool);
        self.disk.remove(&path).map_err(io_error("remove", path))
    }

    /// A file for the next segment. Prefers a pre-written one; else makes one on the slow path, reserved but not
    /// pre-written. `Full` if that would touch the reserve of another [`Need`].
    pub(crate) fn take(&self, need: Need) -> Result<Spare, JournalError> {
        let of_reserve = self.possible()? <= RESERVE as u64;
        if need == Need::Append && of_reserve {
            return Err(JournalError::Full);
        }
        let ready = self.pool.lock().ready.pop_front();
        // After it is gone: who is told before finds everything there and goes back to sleep.
        self.wake.notify_one();
        let spare = match ready {
            Some(spare) => spare,
            None => {
                Counters::add(&self.counters.slow_segments, 1);
                self.make(Prepare::Reserve)?
            }
        };
        Ok(Spare { of_reserve, ..spare })
    }

    /// Whether the reserve is whole again.
    pub(crate) fn reserve_is_whole(&self) -> Result<bool, JournalError> {
        Ok(self.possible()? >= RESERVE as u64)
    }

    /// How many segments log entries can still begin.
    pub(crate) fn left(&self) -> Result<u64, JournalError> {
        Ok(self.measure()?.saturating_sub(RESERVE as u64))
    }

    /// How many spares there are or could be made. Asks for more, as this is called when one is needed.
    fn possible(&self) -> Result<u64, JournalError> {
        let possible = self.measure()?;
        self.pool.lock().stuck = false;
        self.wake.notify_one();
        Ok(possible)
    }

    fn measure(&self) -> Result<u64, JournalError> {
        let free = self.disk.free_bytes(&self.dir).map_err(io_error("measure", &self.dir))?;
        Ok(self.ready() as u64 + free / u64::from(self.config.segment_bytes))
    }

    /// Puts back what was taken and not used.
    pub(crate) fn put_back(&self, spare: Spare) {
        self.pool.lock().ready.push_front(spare);
    }

    /// Hands over the file of a segment whose recycling is on disk.
    pub(crate) fn retire(&self, seq: u64, file: Arc<dyn DiskFile>, bytes: u64) {
        self.pool.lock().retired.push_back((seq, file, bytes));
        self.wake.notify_one();
    }

    /// Bytes of all files here.
    pub(crate) fn bytes(&self) -> u64 {
        let pool = self.pool.lock();
        let retired: u64 = pool.retired.iter().map(|(_, _, bytes)| bytes).sum();
        pool.ready.len() as u64 * u64::from(self.config.segment_bytes) + retired
    }

    /// How many files are ready for use.
    pub(crate) fn ready(&self) -> usize {
        self.pool.lock().ready.len()
    }

    /// Does one job, if there is one: renames a retired file, or pre-writes a spare.
    pub(crate) fn turn(&self) -> bool {
        let mut pool = self.pool.lock();
        if let Some((seq, file, bytes)) = pool.retired.pop_front() {
            rt::failpoint("recycle.recorded");
            let keep =
                bytes == u64::from(self.config.segment_bytes) && pool.ready.len() < self.config.spares_max;
            drop(pool);
            if let Err(err) = self.rename_retired(seq, file, keep) {
                // The next opening does it: the recycling is on disk.
                tracing::warn!(%err, segment = seq, "recycled segment not renamed");
            }
            return true;
        }
        if pool.stuck || pool.closing || pool.ready.len() >= self.config.spares {
            return false;
        }
        drop(pool);
        match self.make(Prepare::PreWrite) {
            Ok(spare) => self.pool.lock().ready.push_back(spare),
            // The end came in the middle of it.
            Err(JournalError::Closed) => {}
            Err(err) => {
                self.pool.lock().stuck = true;
                tracing::warn!(%err, "no spare segment could be made");
            }
        }
        true
    }

    /// Works until [`close`](Spares::close).
    pub(crate) fn run(&self) {
        loop {
            if self.turn() {
                continue;
            }
            let mut pool = self.pool.lock();
            let idle = pool.stuck || pool.ready.len() >= self.config.spares;
            if pool.closing && pool.retired.is_empty() {
                return;
            }
            if pool.retired.is_empty() && (idle || pool.closing) {
                self.wake.wait(&mut pool);
            }
        }
    }

    pub(crate) fn close(&self) {
        self.pool.lock().closing = true;
        self.wake.notify_all();
    }

    /// Makes a spare now.
    pub(crate) fn make(&self, prepare: Prepare) -> Result<Spare, JournalError> {
        let id = {
            let mut pool = self.pool.lock();
            pool.next_id += 1;
            pool.next_id
        };
        let temporary = self.dir.join(format!("{id:016x}.tmp"));
        let path = self.dir.join(format!("{id:016x}.spare"));
        let made = self.write_spare(&temporary, &path, prepare);
        if made.is_err() {
            // What remains is removed at the next opening if this fails too.
            let _ = self.disk.remove(&temporary);
        }
        made.map(|file| Spare { path, file, of_reserve: false })
    }

    fn write_spare(
        &self,
        temporary: &Path,
        path: &Path,
        prepare: Prepare,
    ) -> Result<Arc<dyn DiskFile>, JournalError> {
        let size = u64::from(self.config.segment_bytes);
        let file = self.disk.create(temporary).map_err(io_error("create", temporary))?;
        match prepare {
            Prepare::Reserve => file.preallocate(size).map_err(io_error("reserve", temporary))?,
            Prepare::PreWrite => {
                let mut at = 0;
                while at < size {
                    let end = (at + PREWRITE_CHUNK).min(size);
                    file.write_zeros_durable(at..end).map_err(io_error("pre-write", temporary))?;
                    at = end;
                    if self.pool.lock().closing {
                        return Err(JournalError::Closed);
                    }
                }
            }
        }
        file.sync_all().map_err(io_error("sync", temporary))?;
        self.disk.rename(temporary, path).map_err(io_error("rename", temporary))?;
        self.disk.sync_dir(&self.dir).map_err(io_error("sync", &self.dir))?;
        Ok(file)
    }

    fn rename_retired(&self, seq: u64, file: Arc<dyn DiskFile>, keep: bool) -> Result<(), JournalError> {
        let from = segment_path(&self.dir, seq);
        if !keep {
            self.disk.remove(&from).map_err(io_error("remove", from))?;
            return self.disk.sync_dir(&self.dir).map_err(io_error("sync", &self.dir));
        }
        let id = {
            let mut pool = self.pool.lock();
            pool.next_id += 1;
            pool.next_id
        };
        let path = self.dir.join(format!("{id:016x}.spare"));
        self.disk.rename(&from, &path).map_err(io_error("rename", from))?;
        rt::failpoint("recycle.renamed");
        self.disk.sync_dir(&self.dir).map_err(io_error("sync", &self.dir))?;
        self.pool.lock().ready.push_back(Spare { path, file, of_reserve: false });
        Ok(())
    }
}

/// How a new file is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prepare {
    /// Zeros written and synced: later writes change no metadata.
    PreWrite,
    /// Space reserved only: quick, but each later write costs a journal commit of the file system.
    Reserve,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rt::SimDisk;

    use super::*;
    use crate::journal::Identity;

    #[test]
    fn what_is_taken_is_made_again_whenever_it_is_taken() {
        let mut config = JournalConfig::new("/data", Identity { cluster: 1, node: 1 });
        config.segment_bytes = 64 << 10;
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        disk.create_dir_all(&config.stripe_dir()).unwrap();
        let spares = Spares::new(disk, &config, Arc::default());
        std::thread::scope(|scope| {
            scope.spawn(|| spares.run());
            let until = Instant::now() + Duration::from_secs(20);
            // At any moment between the last spare's being pushed and the thread's going to sleep.
            for taken in 0..2000 {
                spares.take(Need::Reserve).unwrap();
                while spares.ready() < config.spares && Instant::now() < until {
                    std::hint::spin_loop();
                }
                let ready = spares.ready();
                if ready < config.spares {
                    spares.close();
                    panic!("{ready} spares are left after {taken} were taken, and nobody makes more");
                }
            }
            spares.close();
        });
    }
}
