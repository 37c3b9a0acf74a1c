//! What a simulated disk remembers: for each file what is visible and what would survive, and every operation.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::rng::{Rng, SeededRng};

/// What survives a power loss is decided per sector.
pub(super) const SECTOR: usize = 512;

/// One change of a simulated disk, as recorded. Files are named by number, so that a rename does not confuse a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOp {
    /// A directory, durable at once.
    CreateDir(PathBuf),
    /// A new empty file.
    Create {
        /// Its number.
        file: u64,
        /// Its name.
        path: PathBuf,
    },
    /// Bytes written.
    Write {
        /// The file's number.
        file: u64,
        /// Where.
        offset: u64,
        /// What.
        data: Bytes,
        /// Whether these bytes are durable afterwards.
        durable: bool,
    },
    /// The length changed.
    SetLen {
        /// The file's number.
        file: u64,
        /// The new length.
        len: u64,
    },
    /// Everything written to the file is durable.
    Sync {
        /// The file's number.
        file: u64,
    },
    /// A name changed.
    Rename {
        /// Old name.
        from: PathBuf,
        /// New name.
        to: PathBuf,
    },
    /// A name went.
    Remove(PathBuf),
    /// The names in the directory are durable.
    SyncDir(PathBuf),
    /// A note of the test, such as "append 7 was acknowledged".
    Mark(u64),
}

/// A file: what reads see, what is on the platter, and the versions of each sector in between.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) data: Vec<u8>,
    durable: Vec<u8>,
    /// Contents that a sector had since it was last durable, oldest first.
    pending: BTreeMap<u64, Vec<[u8; SECTOR]>>,
}

impl Inode {
    fn sector(bytes: &[u8], sector: u64) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        let start = (sector as usize * SECTOR).min(bytes.len());
        let end = (start + SECTOR).min(bytes.len());
        out[..end - start].copy_from_slice(&bytes[start..end]);
        out
    }

    fn write(&mut self, offset: usize, data: &[u8], durable: bool) {
        let end = offset + data.len();
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[offset..end].copy_from_slice(data);
        for sector in (offset / SECTOR) as u64..end.div_ceil(SECTOR) as u64 {
            if durable {
                self.pending.remove(&sector);
                let start = sector as usize * SECTOR;
                let stop = (start + SECTOR).min(self.data.len());
                if self.durable.len() < stop {
                    self.durable.resize(stop, 0);
                }
                self.durable[start..stop].copy_from_slice(&self.data[start..stop]);
            } else {
                let content = Inode::sector(&self.data, sector);
                self.pending.entry(sector).or_default().push(content);
            }
        }
    }

    fn set_len(&mut self, len: usize) {
        self.data.resize(len, 0);
    }

    fn sync(&mut self) {
        self.durable.resize(self.data.len(), 0);
        let len = self.data.len();
        for sector in std::mem::take(&mut self.pending).into_keys() {
            let start = (sector as usize * SECTOR).min(len);
            let end = (start + SECTOR).min(len);
            self.durable[start..end].copy_from_slice(&self.data[start..end]);
        }
    }

    /// What a failed sync leaves: the system takes the pages for clean, so they never reach the platter.
    pub(super) fn lose_pending(&mut self) {
        self.pending.clear();
    }

    pub(super) fn flip(&mut self, offset: usize, bit: u8) {
        for bytes in [&mut self.data, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// The file after a power loss: each unsynced sector is as it was, or as any of the writes left it.
    fn survive(&self, rng: &SeededRng) -> Inode {
        let mut kept = self.durable.clone();
        if rng.below(2) == 0 {
            kept.resize(self.data.len(), 0);
        }
        for (sector, versions) in &self.pending {
            // As likely as not nothing of the sector arrived.
            let pick = rng.below(2 * versions.len() as u64) as usize;
            let Some(content) = versions.get(pick) else { continue };
            let start = (*sector as usize * SECTOR).min(kept.len());
            let end = (start + SECTOR).min(kept.len());
            kept[start..end].copy_from_slice(&content[..end - start]);
        }
        Inode { data: kept.clone(), durable: kept, pending: BTreeMap::new() }
    }
}

/// A directory: names as seen, names on the platter, and the changes in between.
#[derive(Debug, Clone, Default)]
struct Dir {
    names: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
}

#[derive(Debug, Clone)]
struct NameChange {
    /// The name that goes, and the file that it must still name for that.
    gone: Option<(String, u64)>,
    /// The name that comes.
    come: Option<(String, u64)>,
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        if let Some((name, file)) = &self.gone
            && names.get(name) == Some(file)
        {
            names.remove(name);
        }
        if let Some((name, file)) = &self.come {
            names.insert(name.clone(), *file);
        }
    }
}

impl Dir {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    /// The directory after a power loss: any subset of the unsynced changes, in order.
    fn survive(&self, rng: &SeededRng) -> Dir {
        let mut names = self.durable.clone();
        for change in &self.pending {
            if rng.below(2) == 0 {
                change.apply(&mut names);
            }
        }
        Dir { names: names.clone(), durable: names, pending: Vec::new() }
    }
}

/// All files and directories.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    inodes: BTreeMap<u64, Inode>,
    dirs: BTreeMap<PathBuf, Dir>,
    next_file: u64,
}

fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(Path::new("")).to_path_buf(), name.to_owned()))
}

impl Files {
    pub(super) fn next_file(&self) -> u64 {
        self.next_file + 1
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<u64> {
        let (dir, name) = split(path)?;
        self.dirs
            .get(&dir)
            .and_then(|dir| dir.names.get(&name))
            .copied()
            .ok_or(io::ErrorKind::NotFound.into())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let dir = self.dirs.get(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok(dir.names.keys().cloned().collect())
    }

    pub(super) fn has_dir(&self, dir: &Path) -> bool {
        self.dirs.contains_key(dir)
    }

    pub(super) fn inode(&mut self, file: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&file).ok_or(io::ErrorKind::NotFound.into())
    }

    /// Bytes of all files that have a name.
    pub(super) fn used(&self) -> u64 {
        let named = self.dirs.values().flat_map(|dir| dir.names.values());
        named.filter_map(|file| self.inodes.get(file)).map(|inode| inode.data.len() as u64).sum()
    }

    pub(super) fn apply(&mut self, op: &DiskOp) -> io::Result<()> {
        match op {
            DiskOp::Mark(_) => {}
            DiskOp::CreateDir(path) => {
                for dir in path.ancestors() {
                    self.dirs.entry(dir.to_path_buf()).or_default();
                }
            }
            DiskOp::Create { file, path } => {
                let (dir, name) = split(path)?;
                let dir = self.dirs.get_mut(&dir).ok_or(io::ErrorKind::NotFound)?;
                if dir.names.contains_key(&name) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                dir.change(NameChange { gone: None, come: Some((name, *file)) });
                self.inodes.insert(*file, Inode::default());
                self.next_file = self.next_file.max(*file);
            }
            DiskOp::Write { file, offset, data, durable } => {
                self.inode(*file)?.write(*offset as usize, data, *durable);
            }
            DiskOp::SetLen { file, len } => self.inode(*file)?.set_len(*len as usize),
            DiskOp::Sync { file } => self.inode(*file)?.sync(),
            DiskOp::Rename { from, to } => self.rename(from, to)?,
            DiskOp::Remove(path) => {
                let file = self.lookup(path)?;
                let (dir, name) = split(path)?;
                let dir = self.dirs.get_mut(&dir).ok_or(io::ErrorKind::NotFound)?;
                dir.change(NameChange { gone: Some((name, file)), come: None });
            }
            DiskOp::SyncDir(path) => {
                let dir = self.dirs.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
                dir.durable = dir.names.clone();
                dir.pending.clear();
            }
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.lookup(from)?;
        let (from_dir, from_name) = split(from)?;
        let (to_dir, to_name) = split(to)?;
        if !self.dirs.contains_key(&to_dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (mut gone, mut come) = (Some((from_name, file)), Some((to_name, file)));
        if from_dir != to_dir {
            let change = NameChange { gone: None, come: come.take() };
            self.dirs.entry(to_dir).or_default().change(change);
        }
        self.dirs.entry(from_dir).or_default().change(NameChange { gone: gone.take(), come });
        Ok(())
    }

    /// What a power loss leaves; which of the possible outcomes is decided by `seed`.
    pub(super) fn survive(&self, seed: u64) -> Files {
        let rng = SeededRng::new(seed);
        let dirs: BTreeMap<_, _> =
            self.dirs.iter().map(|(path, dir)| (path.clone(), dir.survive(&rng))).collect();
        let inodes = self.inodes.iter().map(|(file, inode)| (*file, inode.survive(&rng))).collect();
        Files { inodes, dirs, next_file: self.next_file }
    }
}
