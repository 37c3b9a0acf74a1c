//! Files of format version 1, as they were written once. A change that cannot read them, or writes others, fails here.

use super::*;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/journal-v1");

/// A short history over two segments with every kind of entry.
fn history() -> Vec<(u64, Vec<u8>)> {
    let disk = SimDisk::new();
    let (journal, _) = open_with(&disk, config(), 42).unwrap();
    sync(&journal, vec![entry(EntryKind::Vote, G, 0, b"vote of term 1"), append_entry(1, b"one")]);
    sync(&journal, (2..=5).map(|i| append_entry(i, &[i as u8; 7000])).collect());
    sync(&journal, vec![entry(EntryKind::Truncate, G, 5, b""), append_entry(5, b"five, again")]);
    sync(&journal, vec![append_entry(6, &[6; 14_000])]);
    sync(&journal, vec![entry(EntryKind::Committed, G, 0, b"committed 6"), append_entry(7, b"seven")]);
    sync(&journal, vec![entry(EntryKind::Purge, G, 1, b""), append_entry(8, b"eight")]);
    sync(&journal, vec![append_entry(9, b"nine")]);
    sync(&journal, vec![append_entry(10, b"ten")]);
    image(&disk, &journal)
}

fn fixture(name: &str, seq: u64) -> Vec<u8> {
    let path = Path::new(DIR).join(name).join(format!("{seq:016x}.seg"));
    let mut bytes = std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    // The zeros at the end are not in the repository.
    bytes.resize(SEGMENT as usize, 0);
    bytes
}

fn open_fixture(name: &str) -> Result<(Journal, Recovered), JournalError> {
    let disk = disk_of(&[(1, fixture(name, 1)), (2, fixture(name, 2))]);
    open_with(&disk, config(), 1)
}

/// Set `JOURNAL_WRITE_FIXTURES` to write them anew: only for a new format version, and a new directory.
#[test]
fn this_build_writes_version_1_byte_by_byte() {
    if std::env::var_os("JOURNAL_WRITE_FIXTURES").is_some() {
        write_fixtures();
    }
    for (seq, bytes) in history() {
        assert!(fixture("intact", seq) == bytes, "segment {seq} differs");
    }
}

#[test]
fn version_1_is_read() {
    let (journal, recovered) = open_fixture("intact").unwrap();
    let group = &recovered.groups[&G];
    assert_eq!(group.vote.as_ref().unwrap().head, "vote of term 1");
    assert_eq!(group.committed.as_ref().unwrap().head, "committed 6");
    assert_eq!(group.purged.unwrap().index, 1);
    assert_eq!(indexes(&recovered), (2..=10).collect::<Vec<_>>());
    assert_eq!(live(&journal, &recovered)[3], (5, Bytes::from("five, again")));
    assert_eq!((recovered.cut_bytes, recovered.quarantined.len()), (0, 0));
}

#[test]
fn the_torn_fixture_is_cut_and_the_rotten_one_quarantined() {
    let (_, torn) = open_fixture("torn").unwrap();
    assert_eq!(indexes(&torn), (2..=9).collect::<Vec<_>>());
    assert!(torn.quarantined.is_empty() && torn.cut_bytes > 0);
    let (_, rotten) = open_fixture("rotten").unwrap();
    assert_eq!(rotten.quarantined.len(), 1);
    assert_eq!(rotten.quarantined[0].segment, 1);
    assert_eq!(rotten.groups[&G].gaps(), [(2, 4)], "what the rotten frame held");
    assert_eq!(rotten.groups[&G].vote.as_ref().unwrap().head, "vote of term 1");
}

#[test]
fn the_newer_fixture_is_refused() {
    assert!(matches!(open_fixture("newer").map(|_| ()), Err(JournalError::Version { found: 2, .. })));
}

/// Writes the fixtures.
fn write_fixtures() {
    use crate::journal::format::{SEGMENT_HEADER_LEN, crc32c};
    let write = |name: &str, change: &dyn Fn(u64, &mut Vec<u8>)| {
        std::fs::create_dir_all(Path::new(DIR).join(name)).unwrap();
        for (seq, mut bytes) in history() {
            change(seq, &mut bytes);
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            let path = Path::new(DIR).join(name).join(format!("{seq:016x}.seg"));
            std::fs::write(path, &bytes[..end]).unwrap();
        }
    };
    write("intact", &|_, _| {});
    write("torn", &|seq, bytes| {
        if seq == 2 {
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes[end - 3..].fill(0);
        }
    });
    write("rotten", &|seq, bytes| {
        if seq == 1 {
            bytes[20_000] ^= 1;
        }
    });
    write("newer", &|seq, bytes| {
        if seq == 2 {
            bytes[8] = 2;
            let crc = crc32c(&bytes[..SEGMENT_HEADER_LEN - 4], &[]);
            bytes[SEGMENT_HEADER_LEN - 4..SEGMENT_HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        }
    });
}
