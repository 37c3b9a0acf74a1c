//! Where index files lie and how they are replaced: whole, synced, renamed, directory synced. What is in them is not
//! known here.
//!
//! ```text
//!   <dir>/<seq, 16 hex digits>.idx    footer of a sealed segment
//!   <dir>/tails                       the state that outlives recycled segments
//!   <dir>/*.tmp                       a write that a crash cut short; removed on opening
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rt::Disk;

const TAILS: &str = "tails";
const FOOTER_SUFFIX: &str = ".idx";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// The index directory of one stripe.
pub(crate) struct IndexFiles {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl IndexFiles {
    /// Opens the directory, creating it if needed and removing unfinished files.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> io::Result<IndexFiles> {
        disk.create_dir_all(&dir)?;
        for name in disk.list(&dir)? {
            if name.ends_with(TEMPORARY_SUFFIX) {
                disk.remove(&dir.join(name))?;
            }
        }
        Ok(IndexFiles { disk, dir })
    }

    /// The segments that have a footer, sound or not, ascending.
    pub(crate) fn footers(&self) -> io::Result<Vec<u64>> {
        let seq = |name: &String| u64::from_str_radix(name.strip_suffix(FOOTER_SUFFIX)?, 16).ok();
        let mut found: Vec<u64> = self.disk.list(&self.dir)?.iter().filter_map(seq).collect();
        found.sort_unstable();
        Ok(found)
    }

    pub(crate) fn read_footer(&self, seq: u64) -> io::Result<Option<Bytes>> {
        self.read(&footer_name(seq))
    }

    pub(crate) fn write_footer(&self, seq: u64, file: &[u8]) -> io::Result<()> {
        self.write(&footer_name(seq), file)
    }

    /// Removes footers; durable when a crash may no longer bring them back is of no interest, so nothing is synced.
    pub(crate) fn remove_footer(&self, seq: u64) -> io::Result<()> {
        match self.disk.remove(&self.dir.join(footer_name(seq))) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    pub(crate) fn read_tails(&self) -> io::Result<Option<Bytes>> {
        self.read(TAILS)
    }

    pub(crate) fn write_tails(&self, file: &[u8]) -> io::Result<()> {
        self.write(TAILS, file)
    }

    fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        let file = match self.disk.open(&self.dir.join(name)) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        };
        let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes.into()))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join(format!("{name}{TEMPORARY_SUFFIX}"));
        let created = match self.disk.create(&temporary) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&temporary)?;
                self.disk.create(&temporary)
            }
            created => created,
        };
        let file = created?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        rt::failpoint("footer.written");
        self.disk.rename(&temporary, &self.dir.join(name))?;
        self.disk.sync_dir(&self.dir)
    }
}

fn footer_name(seq: u64) -> String {
    format!("{seq:016x}{FOOTER_SUFFIX}")
}
