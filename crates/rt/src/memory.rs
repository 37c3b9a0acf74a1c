//! How much memory the process uses, and how much there is for it.

use std::fs;
use std::path::Path;

/// Bytes of memory that only this process uses: resident pages that are not of files. Costs some ten microseconds. `None`
/// where the system does not tell.
pub fn memory_in_use() -> Option<u64> {
    bytes_of(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// Bytes of memory that this process may use: those of the machine, or of its control group if that has fewer. `None` where
/// the system does not tell.
pub fn memory_available() -> Option<u64> {
    let machine =
        fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(|text| bytes_of(text, "MemTotal:"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().filter_map(|line| group_bytes(Path::new("/sys/fs/cgroup"), line)).min();
    machine.into_iter().chain(group).min()
}

/// `NAME:  16384 kB`, a line of `meminfo` or `status`.
fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit on the way from a control group to the root, for a line `number:controllers:/path`.
fn group_bytes(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    let (folder, file) = match controllers {
        "" => (root.to_owned(), "memory.max"),
        "memory" => (root.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let own = folder.join(path);
    let way = own.ancestors().take_while(|folder| folder.starts_with(root));
    // "max" is no number, and so no limit.
    way.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).min()
}

/// Asks the system for small pages only, for this process and as long as it lives. A huge one is filled with zeros when it is first
/// touched: milliseconds in which a thread that serves connections does nothing else. A system that does not know this goes on as it did.
pub fn avoid_huge_pages() {
    // Safety: the call takes numbers only, and changes nothing that Rust knows of.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        let text = "MemFree: 3 kB\nMemTotal:       16 kB\n";
        assert_eq!(bytes_of(text, "MemTotal:"), Some(16 * 1024));
        assert_eq!(bytes_of(text, "RssAnon:"), None);
        assert_eq!(bytes_of("MemTotal: much\n", "MemTotal:"), None);
    }

    #[test]
    fn the_least_limit_on_the_way_counts() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("outer/inner");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_bytes(root.path(), "0::/outer/inner"), None);
        fs::write(root.path().join("outer/memory.max"), "4096\n").unwrap();
        assert_eq!(group_bytes(root.path(), "0::/outer/inner"), Some(4096));
        assert_eq!(group_bytes(root.path(), "1:cpu:/outer/inner"), None);
        assert_eq!(group_bytes(root.path(), "0::/elsewhere"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_less_than_there_is() {
        let (used, available) = (memory_in_use().unwrap(), memory_available().unwrap());
        assert!(used > 0 && used < available, "{used} of {available}");
    }
}
