//! A disk in memory that can lose power, tear writes, run full and fail, for simulation and crash tests.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::sim_state::{DiskOp, Files};
use super::{Disk, DiskFile, DiskLock};

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// After this many more successful syncs (of files and directories) one fails with an I/O error. As on a real system the
    /// unsynced bytes are lost for good, and later syncs answer well again.
    SyncError {
        /// Syncs that still succeed.
        after: u64,
    },
    /// After this many more successful writes one fails with an I/O error, having written nothing.
    WriteError {
        /// Writes that still succeed.
        after: u64,
    },
    /// After this many more changes the power fails: everything answers with an I/O error until
    /// [`crash`](SimDisk::crash) shows what is left.
    PowerCut {
        /// Changes (writes, syncs, renames, ..) that still happen.
        after: u64,
    },
    /// All files together may not grow beyond this many bytes. Lifted by a larger bound.
    Capacity {
        /// The bound.
        bytes: u64,
    },
    /// A write takes at most this many bytes, and says so.
    ShortWrites {
        /// The most that one call writes.
        max: usize,
    },
    /// One bit rots.
    BitFlip {
        /// In this file.
        path: PathBuf,
        /// At this byte.
        offset: u64,
        /// 0 to 7.
        bit: u8,
    },
}

/// An in-memory disk. Clones are handles of the same disk.
///
/// It keeps, apart from what reads see, what has been synced; [`crash`](SimDisk::crash) answers a disk on which every
/// unsynced 512-byte sector, length and name is old or new at the choice of a seed. With
/// [`record`](SimDisk::record) it keeps all operations, so that [`replay`](SimDisk::replay) can stop at each of them.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: Files,
    powered_off: bool,
    locks: BTreeSet<PathBuf>,
    recorded: Option<Vec<DiskOp>>,
    syncs_left: Option<u64>,
    writes_left: Option<u64>,
    changes_left: Option<u64>,
    capacity: Option<u64>,
    write_max: Option<usize>,
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        SimDisk::with(Files::default())
    }

    fn with(files: Files) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(State { files, ..State::default() })) }
    }

    /// The disk after these operations, as if they had just been done on an empty one.
    ///
    /// Errors: an operation that cannot be done, such as a write to a file that was not created.
    pub fn replay(ops: &[DiskOp]) -> io::Result<SimDisk> {
        let mut files = Files::default();
        for op in ops {
            files.apply(op)?;
        }
        Ok(SimDisk::with(files))
    }

    /// Cuts the power: this disk and its open files fail from now on, and the answer is what is found afterwards. Every
    /// choice (which sectors, lengths and names made it) is taken by `seed`.
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut state = self.state.lock();
        state.powered_off = true;
        SimDisk::with(state.files.survive(seed))
    }

    /// Cuts the process and not the power: as [`crash`](SimDisk::crash), but everything that was written is there.
    pub fn kill(&self) -> SimDisk {
        let mut state = self.state.lock();
        state.powered_off = true;
        SimDisk::with(state.files.clone())
    }

    /// A second disk in the same state, synced or not; without faults and locks. This one goes on.
    pub fn fork(&self) -> SimDisk {
        SimDisk::with(self.state.lock().files.clone())
    }

    /// Starts to keep all operations.
    pub fn record(&self) {
        self.state.lock().recorded = Some(Vec::new());
    }

    /// What has been recorded.
    pub fn recorded(&self) -> Vec<DiskOp> {
        self.state.lock().recorded.clone().unwrap_or_default()
    }

    /// Puts a note between the recorded operations.
    pub fn mark(&self, note: u64) {
        if let Some(ops) = &mut self.state.lock().recorded {
            ops.push(DiskOp::Mark(note));
        }
    }

    /// Arranges a fault.
    ///
    /// Errors: `NotFound` for a bit flip in a file that is not there.
    pub fn inject(&self, fault: Fault) -> io::Result<()> {
        let mut state = self.state.lock();
        match fault {
            Fault::SyncError { after } => state.syncs_left = Some(after),
            Fault::WriteError { after } => state.writes_left = Some(after),
            Fault::PowerCut { after } => state.changes_left = Some(after),
            Fault::Capacity { bytes } => state.capacity = Some(bytes),
            Fault::ShortWrites { max } => state.write_max = Some(max.max(1)),
            Fault::BitFlip { path, offset, bit } => {
                let file = state.files.lookup(&path)?;
                state.files.inode(file)?.flip(offset as usize, bit);
            }
        }
        Ok(())
    }

    /// A copy of a file's bytes as reads see them.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock();
        let file = state.files.lookup(path)?;
        Ok(state.files.inode(file)?.data.clone())
    }

    fn do_op(&self, op: DiskOp) -> io::Result<()> {
        self.state.lock().run(op)
    }

    fn handle(&self, file: u64, writable: bool) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), file, writable })
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// Counts down; `true` when the fault is due, which also ends it.
fn is_due(left: &mut Option<u64>) -> bool {
    match left {
        None => false,
        Some(0) => {
            *left = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
    }
}

impl State {
    fn check_power(&self) -> io::Result<()> {
        if self.powered_off { Err(broken()) } else { Ok(()) }
    }

    fn run(&mut self, op: DiskOp) -> io::Result<()> {
        self.check_power()?;
        if is_due(&mut self.changes_left) {
            self.powered_off = true;
            return Err(broken());
        }
        match &op {
            DiskOp::Write { file, offset, data, durable } => {
                self.reserve(*file, offset + data.len() as u64)?;
                if is_due(&mut self.writes_left) {
                    return Err(broken());
                }
                if *durable && is_due(&mut self.syncs_left) {
                    let op =
                        DiskOp::Write { file: *file, offset: *offset, data: data.clone(), durable: false };
                    self.files.apply(&op)?;
                    self.files.inode(*file)?.lose_pending();
                    return Err(broken());
                }
            }
            DiskOp::Sync { file } if is_due(&mut self.syncs_left) => {
                self.files.inode(*file)?.lose_pending();
                return Err(broken());
            }
            DiskOp::SyncDir(_) if is_due(&mut self.syncs_left) => return Err(broken()),
            DiskOp::Sync { .. }
            | DiskOp::SyncDir(_)
            | DiskOp::CreateDir(_)
            | DiskOp::Create { .. }
            | DiskOp::SetLen { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Remove(_)
            | DiskOp::Mark(_) => {}
        }
        self.files.apply(&op)?;
        if let Some(ops) = &mut self.recorded {
            ops.push(op);
        }
        Ok(())
    }

    fn reserve(&mut self, file: u64, end: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let grows = end.saturating_sub(self.files.inode(file)?.data.len() as u64);
        if grows > 0 && self.files.used() + grows > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let file = state.files.next_file();
        state.run(DiskOp::Create { file, path: path.to_path_buf() })?;
        drop(state);
        Ok(self.handle(file, true))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        state.check_power()?;
        let file = state.files.lookup(path)?;
        drop(state);
        Ok(self.handle(file, false))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        state.check_power()?;
        let file = state.files.lookup(path)?;
        drop(state);
        Ok(self.handle(file, true))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.do_op(DiskOp::Rename { from: from.to_path_buf(), to: to.to_path_buf() })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.do_op(DiskOp::Remove(path.to_path_buf()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.check_power()?;
        state.files.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.do_op(DiskOp::SyncDir(dir.to_path_buf()))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.files.has_dir(dir) {
            return state.check_power();
        }
        state.run(DiskOp::CreateDir(dir.to_path_buf()))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.state.lock();
        state.check_power()?;
        if !state.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf() }))
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        state.check_power()?;
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.files.used())))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.path);
    }
}

struct SimFile {
    disk: SimDisk,
    file: u64,
    writable: bool,
}

impl SimFile {
    fn write(&self, buf: &[u8], offset: u64, durable: bool) -> io::Result<usize> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut state = self.disk.state.lock();
        let len = state.write_max.map_or(buf.len(), |max| buf.len().min(max));
        let data = Bytes::copy_from_slice(&buf[..len]);
        state.run(DiskOp::Write { file: self.file, offset, data, durable })?;
        Ok(len)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.check_power()?;
        let data = &state.files.inode(self.file)?.data;
        let start = (offset as usize).min(data.len());
        let len = buf.len().min(data.len() - start);
        buf[..len].copy_from_slice(&data[start..start + len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.write(buf, offset, false)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.write(&bufs.iter().flat_map(|buf| buf.iter().copied()).collect::<Vec<u8>>(), offset, false)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.check_power()?;
        Ok(state.files.inode(self.file)?.data.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.do_op(DiskOp::SetLen { file: self.file, len })
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check_power()?;
        state.reserve(self.file, len)?;
        if state.files.inode(self.file)?.data.len() as u64 >= len {
            return Ok(());
        }
        state.run(DiskOp::SetLen { file: self.file, len })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.do_op(DiskOp::Sync { file: self.file })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn write_durable_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let n = self.write(buf, offset, true)?;
            buf = &buf[n..];
            offset += n as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const DIR: &str = "/d";

    fn disk_with(name: &str, bytes: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        let file = disk.create(&Path::new(DIR).join(name)).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        (disk, file)
    }

    #[test]
    fn synced_bytes_survive_every_crash_and_unsynced_ones_tear_by_sector() {
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let (disk, file) = disk_with("f", &[1; 2048]);
            file.write_all_at(&[2; 1024], 512).unwrap();
            let after = disk.crash(seed);
            assert!(file.write_all_at(&[3], 0).is_err(), "the old handle is dead");
            let bytes = after.contents(&Path::new(DIR).join("f")).unwrap();
            assert_eq!((bytes[..512].to_vec(), bytes[1536..].to_vec()), (vec![1; 512], vec![1; 512]));
            seen.insert((bytes[512], bytes[1024]));
        }
        assert_eq!(seen, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]), "every subset turns up");
    }

    #[test]
    fn names_are_lost_unless_the_directory_was_synced() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..32 {
            let (disk, file) = disk_with("old", &[1]);
            disk.rename(&Path::new(DIR).join("old"), &Path::new(DIR).join("new")).unwrap();
            file.sync_all().unwrap();
            match disk.crash(seed).list(Path::new(DIR)).unwrap().as_slice() {
                [name] if name == "old" => lost += 1,
                [name] if name == "new" => kept += 1,
                other => panic!("a rename is all or nothing: {other:?}"),
            }
        }
        assert!(lost > 0 && kept > 0);
    }

    #[test]
    fn after_a_failed_sync_a_good_one_proves_nothing() {
        let (disk, file) = disk_with("f", &[1; 512]);
        file.write_all_at(&[2; 512], 0).unwrap();
        disk.inject(Fault::SyncError { after: 0 }).unwrap();
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        let mut seen = [0; 1];
        file.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(seen, [2], "reads see the page cache");
        assert_eq!(disk.crash(1).contents(&Path::new(DIR).join("f")).unwrap(), vec![1; 512]);
    }

    #[test]
    fn a_durable_write_covers_its_own_bytes_only() {
        for seed in 0..32 {
            let (disk, file) = disk_with("f", &[1; 1536]);
            file.write_all_at(&[2; 512], 0).unwrap();
            file.write_durable_at(&[3; 512], 1024).unwrap();
            let bytes = disk.crash(seed).contents(&Path::new(DIR).join("f")).unwrap();
            assert!(bytes[0] == 1 || bytes[0] == 2);
            assert_eq!((bytes[512], bytes[1024]), (1, 3));
        }
    }

    #[test]
    fn a_full_disk_refuses_growth_and_takes_overwrites() {
        let (disk, file) = disk_with("f", &[1; 512]);
        disk.inject(Fault::Capacity { bytes: 600 }).unwrap();
        assert_eq!(disk.free_bytes(Path::new(DIR)).unwrap(), 88);
        file.write_all_at(&[2; 512], 0).unwrap();
        assert!(crate::is_full(&file.write_all_at(&[2; 512], 512).unwrap_err()));
        assert!(crate::is_full(&file.preallocate(4096).unwrap_err()));
        disk.inject(Fault::Capacity { bytes: 1 << 20 }).unwrap();
        file.write_all_at(&[2; 512], 512).unwrap();
    }

    #[test]
    fn a_replay_of_what_was_recorded_is_the_same_disk() {
        let disk = SimDisk::new();
        disk.record();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        let path = Path::new(DIR).join("f");
        let file = disk.create(&path).unwrap();
        disk.inject(Fault::ShortWrites { max: 3 }).unwrap();
        file.write_all_at(b"0123456789", 5).unwrap();
        disk.mark(7);
        disk.rename(&path, &Path::new(DIR).join("g")).unwrap();
        let ops = disk.recorded();
        assert!(ops.contains(&DiskOp::Mark(7)));
        let again = SimDisk::replay(&ops).unwrap();
        let g = Path::new(DIR).join("g");
        assert_eq!(again.contents(&g).unwrap(), disk.contents(&g).unwrap());
        assert!(again.contents(&path).is_err());
    }

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped() {
        let (disk, _) = disk_with("f", &[]);
        let path = Path::new(DIR).join("lock");
        let lock = disk.lock(&path).unwrap();
        assert_eq!(disk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        disk.lock(&path).unwrap();
    }
}
