//! Files: the seam through which every byte reaches a disk.
//!
//! Holds the two traits and nothing else. [`StdDisk`](crate::StdDisk) is the real one,
//! [`SimDisk`](crate::SimDisk) the one that forgets what was not synced. It knows nothing of what is stored.

mod sim;
mod sim_state;
mod std_disk;

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use self::sim::{Fault, SimDisk};
pub use self::sim_state::DiskOp;
pub use self::std_disk::StdDisk;

/// An open file. Cheap to share: all positions are arguments, there is no cursor.
///
/// Durability: nothing that was written is safe from a power loss before a later
/// [`sync_data`](DiskFile::sync_data), [`sync_all`](DiskFile::sync_all) or
/// [`write_durable_at`](DiskFile::write_durable_at) of the same bytes has answered `Ok`. Until then any subset of the
/// written 512-byte sectors may survive, in any order. A new file, a rename and a removal are safe only after
/// [`Disk::sync_dir`] of the directory.
///
/// Errors are those of the operating system. After a failed sync the state of everything written since the last
/// good one is unknown **and a later sync that answers `Ok` proves nothing about it**: a caller that promised
/// durability must stop using the file.
///
/// Reads see all writes that returned before them, durable or not. Calls may come from any thread; overlapping
/// writes that run at the same time leave an unspecified mix.
pub trait DiskFile: Send + Sync {
    /// Reads at most `buf.len()` bytes at `offset`; `Ok(0)` at or past the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at most `buf.len()` bytes at `offset` and says how many (at least one, unless `buf` is empty). Writing
    /// past the end grows the file; a gap reads as zeros.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;

    /// As [`write_at`](DiskFile::write_at) for several buffers, one after the other; may stop anywhere.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file or extends it with zeros (without reserving space for them).
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves space so that the file is at least `len` bytes long and writes below `len` do not run out of
    /// space. New bytes read as zeros. `StorageFull` if the space is not there; the length is then unspecified.
    fn preallocate(&self, len: u64) -> io::Result<()>;

    /// Makes all bytes written so far durable, and the length as far as it is needed to read them.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`sync_data`](DiskFile::sync_data), with all metadata.
    fn sync_all(&self) -> io::Result<()>;

    /// Reads exactly `buf.len()` bytes; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }

    /// Writes all of `buf`. After an error any part of it may have been written.
    fn write_all_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.write_at(buf, offset)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => {
                    buf = &buf[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }

    /// Writes all of `buf` and makes **these** bytes durable before it returns; bytes written earlier are not promised
    /// anything. An error counts as a failed sync.
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(buf, offset)?;
        self.sync_data()
    }

    /// Writes zeros over the bytes of `range` and makes **these** bytes durable before it returns, so that a later write
    /// there changes nothing but data. Where the system can, they do not pass through its cache: nobody reads them. An error
    /// counts as a failed sync.
    fn write_zeros_durable(&self, range: Range<u64>) -> io::Result<()> {
        write_zeros(self, range)
    }
}

/// Zeros that a device can take as they lie there.
#[repr(align(4096))]
struct Zeros([u8; 256 * 1024]);

static ZEROS: Zeros = Zeros([0; 256 * 1024]);

/// [`DiskFile::write_zeros_durable`] by its other methods.
fn write_zeros<F: DiskFile + ?Sized>(file: &F, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let len = ZEROS.0.len().min((range.end - at) as usize);
        file.write_all_at(&ZEROS.0[..len], at)?;
        at += len as u64;
    }
    file.sync_data()
}

/// Keeps an advisory lock for as long as it lives.
pub trait DiskLock: Send + Sync {}

/// A file system. Paths are used as given; the caller keeps to the directories it owns.
///
/// All calls block; none may be made from a thread that serves connections.
pub trait Disk: Send + Sync {
    /// Creates a file for reading and writing; `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading; `NotFound` if there is none. Writes through it fail.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing; `NotFound` if there is none.
    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in one step, replacing what had that name. Open handles go on. Durable after
    /// [`sync_dir`](Disk::sync_dir) of both directories; after a power loss before that, the old name, the new one or
    /// (across directories) both may be found.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; open handles go on reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names (not paths) in a directory, sorted; `NotFound` if there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes creations, renames and removals in this directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Creates a directory and its parents, durable on return; no error if it is there.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of a file, which is created if needed; `WouldBlock` if anybody (this process included)
    /// holds it. Released when the answer is dropped and when the process dies.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Bytes that may still be written below this directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// Whether this error means that the disk (or the quota) is full: retriable once space returns.
pub fn is_full(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
