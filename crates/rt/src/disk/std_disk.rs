//! The real file system, on std and libc.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskFile, DiskLock, ZEROS, write_zeros};

/// The operating system's files. Holds nothing, so copies are free.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdDisk;

impl StdDisk {
    /// The operating system's files.
    pub fn new() -> StdDisk {
        StdDisk
    }
}

struct StdFile {
    file: File,
}

struct StdLock {
    _file: File,
}

impl DiskLock for StdLock {}

impl Disk for StdDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(StdFile { file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(StdFile { file: File::open(path)? }))
    }

    fn open_rw(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(StdFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            self.create_dir_all(parent)?;
        }
        match fs::create_dir(dir) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            Err(err) => return Err(err),
        }
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            Some(_) => self.sync_dir(Path::new(".")),
            None => Ok(()),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // Safety: the descriptor is open for as long as `file` lives.
        let answer = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Box::new(StdLock { _file: file }))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let path = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
        // Safety: all-zero bytes are a valid statvfs, which the call fills in.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        // Safety: both pointers are valid for the call.
        if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl DiskFile for StdFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        retry(|| self.file.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        retry(|| self.file.write_at(buf, offset))
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.pwritev2(bufs, offset, 0)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        // Safety: the descriptor is open; posix_fallocate falls back to writing where the file system cannot reserve.
        match unsafe { libc::posix_fallocate(self.file.as_raw_fd(), 0, to_off(len)?) } {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn write_durable_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.pwritev2(&[IoSlice::new(buf)], offset, libc::RWF_DSYNC)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => {
                    buf = &buf[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }

    fn write_zeros_durable(&self, range: Range<u64>) -> io::Result<()> {
        let is_aligned = |at: u64| at.is_multiple_of(DIRECT_ALIGN as u64);
        if is_aligned(range.start) && is_aligned(range.end) {
            match self.write_zeros_directly(range.clone()) {
                // A file system that cannot, such as one in memory.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                written => return written,
            }
        }
        write_zeros(self, range)
    }
}

/// What every device's blocks divide.
const DIRECT_ALIGN: usize = 4096;

impl StdFile {
    /// Past the page cache: it would copy each byte, only to give the page up again.
    fn write_zeros_directly(&self, range: Range<u64>) -> io::Result<()> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
        let mut at = range.start;
        while at < range.end {
            let len = ZEROS.0.len().min((range.end - at) as usize);
            match retry(|| direct.write_at(&ZEROS.0[..len], at))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => at += n as u64,
            }
        }
        direct.sync_data()
    }

    fn pwritev2(&self, bufs: &[IoSlice<'_>], offset: u64, flags: libc::c_int) -> io::Result<usize> {
        // Bound: IOV_MAX; a caller with more slices sees a short write and goes on.
        let count = bufs.len().min(1024) as libc::c_int;
        let offset = to_off(offset)?;
        retry(|| {
            // Safety: IoSlice has the layout of iovec, and the slices live through the call.
            let n =
                unsafe { libc::pwritev2(self.file.as_raw_fd(), bufs.as_ptr().cast(), count, offset, flags) };
            usize::try_from(n).map_err(|_| io::Error::last_os_error())
        })
    }
}

fn to_off(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_disk_keeps_the_contract() {
        let root = tempfile::tempdir().unwrap();
        let disk = StdDisk::new();
        let dir = root.path().join("a/b");
        disk.create_dir_all(&dir).unwrap();
        disk.create_dir_all(&dir).unwrap();
        let path = dir.join("f");
        let file = disk.create(&path).unwrap();
        assert_eq!(disk.create(&path).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        file.preallocate(8192).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        file.write_durable_at(b"hello", 4000).unwrap();
        let n = file.write_vectored_at(&[IoSlice::new(b"ab"), IoSlice::new(b"cd")], 4005).unwrap();
        assert_eq!(n, 4);
        let mut seen = [0; 10];
        disk.open(&path).unwrap().read_exact_at(&mut seen, 4000).unwrap();
        assert_eq!(&seen, b"helloabcd\0");
        assert_eq!(file.read_at(&mut seen, 9000).unwrap(), 0);
        assert_eq!(file.read_exact_at(&mut seen, 8190).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(disk.open(&path).unwrap().write_at(b"x", 0).is_err());
        disk.rename(&path, &dir.join("g")).unwrap();
        disk.sync_dir(&dir).unwrap();
        assert_eq!(disk.list(&dir).unwrap(), ["g"]);
        disk.remove(&dir.join("g")).unwrap();
        assert_eq!(disk.open_rw(&dir.join("g")).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(disk.free_bytes(&dir).unwrap() > 0);
    }

    #[test]
    fn zeros_are_written_where_they_are_wanted_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let file = StdDisk.create(&root.path().join("f")).unwrap();
        let mut wanted = vec![7; 3 << 20];
        file.write_all_at(&wanted, 0).unwrap();
        // Through the page cache, past it, in several steps, and beyond the end.
        for range in [4000..4003, 8192..12288, 1 << 20..2 << 20, (3 << 20) - 4096..(3 << 20) + 4096] {
            file.write_zeros_durable(range.clone()).unwrap();
            wanted.resize(wanted.len().max(range.end as usize), 0);
            wanted[range.start as usize..range.end as usize].fill(0);
            let mut seen = vec![1; file.len().unwrap() as usize];
            file.read_exact_at(&mut seen, 0).unwrap();
            assert!(seen == wanted, "{range:?}");
        }
    }

    #[test]
    fn a_lock_is_refused_to_a_second_holder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lock");
        let lock = StdDisk.lock(&path).unwrap();
        assert_eq!(StdDisk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        StdDisk.lock(&path).unwrap();
    }
}
