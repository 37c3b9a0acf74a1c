//! Who this data directory belongs to: a small text file, replaced in one step at every start.

use std::io;
use std::path::Path;

use rt::Disk;

use crate::node::{NodeConfig, OpenError, Outside};

const FILE: &str = "identity";
const VERSION: u32 = 1;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredIdentity {
    pub(crate) cluster: u128,
    pub(crate) node: u64,
    pub(crate) data_groups: u32,
    /// Counts starts: what must not be used twice is derived from it.
    pub(crate) starts: u64,
}

/// Reads the identity, or makes one for an empty directory; counts this start.
pub(crate) fn load_or_create(
    dir: &Path,
    config: &NodeConfig,
    outside: &Outside,
) -> Result<StoredIdentity, OpenError> {
    let file = dir.join(FILE);
    let failed = |source| OpenError::Directory { dir: dir.to_owned(), source };
    let mut identity = match read(&file, &*outside.disk).map_err(failed)? {
        Some(text) => parse(&text).ok_or_else(|| OpenError::Identity { file: file.clone() })?,
        None => StoredIdentity {
            cluster: (u128::from(outside.rng.next_u64()) << 64) | u128::from(outside.rng.next_u64()),
            node: 1,
            data_groups: config.data_groups.clamp(1, 1024),
            starts: 0,
        },
    };
    identity.starts += 1;
    write(dir, &identity, &*outside.disk).map_err(failed)?;
    if identity.data_groups != config.data_groups {
        tracing::warn!(
            configured = config.data_groups,
            stored = identity.data_groups,
            "the number of data groups is fixed when a data directory is made"
        );
    }
    Ok(identity)
}

/// A cluster's name: its id in base 62, 22 characters.
pub(crate) fn name_of(mut cluster: u128) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut name = String::with_capacity(22);
    for _ in 0..22 {
        name.push(char::from(DIGITS[(cluster % 62) as usize]));
        cluster /= 62;
    }
    name
}

fn read(file: &Path, disk: &dyn Disk) -> io::Result<Option<String>> {
    let file = match disk.open(file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; file.len()?.min(4096) as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn parse(text: &str) -> Option<StoredIdentity> {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
    };
    if field("version")?.parse::<u32>().ok()? != VERSION {
        return None;
    }
    Some(StoredIdentity {
        cluster: u128::from_str_radix(field("cluster")?, 16).ok()?,
        node: field("node")?.parse().ok()?,
        data_groups: field("data_groups")?.parse().ok()?,
        starts: field("starts")?.parse().ok()?,
    })
}

fn write(dir: &Path, identity: &StoredIdentity, disk: &dyn Disk) -> io::Result<()> {
    let text = format!(
        "version = {VERSION}\ncluster = {:032x}\nnode = {}\ndata_groups = {}\nstarts = {}\n",
        identity.cluster, identity.node, identity.data_groups, identity.starts
    );
    let fresh = dir.join("identity.new");
    match disk.remove(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = disk.create(&fresh)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_all()?;
    disk.rename(&fresh, &dir.join(FILE))?;
    disk.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let disk = rt::SimDisk::new();
        let dir = Path::new("/data");
        disk.create_dir_all(dir).expect("a directory");
        let identity = StoredIdentity { cluster: 7 << 99, node: 1, data_groups: 2, starts: 3 };
        write(dir, &identity, &disk).expect("written");
        let text = read(&dir.join(FILE), &disk).expect("read").expect("there");
        assert_eq!(parse(&text), Some(identity));
        assert_eq!(parse(&text.replace("version = 1", "version = 2")), None);
        assert_eq!(name_of(7 << 99).len(), 22);
    }
}
