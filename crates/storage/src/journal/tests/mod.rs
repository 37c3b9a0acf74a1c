//! Tests of the journal on a simulated disk, driven by hand. Random histories and crash points are in crate `sim`.

mod append;
mod damage;
mod disk_full;
mod fixtures;
mod recycled;
mod threads;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rt::{Disk, SeededRng, SimDisk};

use super::*;
use model::GroupId;

pub(super) const SEGMENT: u32 = 64 << 10;
pub(super) const G: GroupId = GroupId(1);

pub(super) fn config() -> JournalConfig {
    let mut config = JournalConfig::new("/data", Identity { cluster: 7, node: 1 });
    config.segment_bytes = SEGMENT;
    config
}

pub(super) fn open_with(
    disk: &SimDisk,
    config: JournalConfig,
    seed: u64,
) -> Result<(Journal, Recovered), JournalError> {
    let driver = Driver::Manual { wake: Arc::new(|| {}) };
    Journal::open(config, Arc::new(disk.clone()), Arc::new(SeededRng::new(seed)), driver)
}

pub(super) fn open(disk: &SimDisk) -> (Journal, Recovered) {
    open_with(disk, config(), 1).unwrap()
}

pub(super) fn entry(kind: EntryKind, group: GroupId, index: u64, head: &[u8]) -> Entry {
    let payload = Payload::of_head(Bytes::copy_from_slice(head));
    Entry { kind, group, index, term: 1, node: 1, payload }
}

pub(super) fn append_entry(index: u64, body: &[u8]) -> Entry {
    let mut entry = entry(EntryKind::Append, G, index, b"h");
    entry.payload.bodies.push(Bytes::copy_from_slice(body));
    entry
}

pub(super) type Outcome = Result<Vec<Location>, JournalError>;

/// Appends and works until it is completed.
pub(super) fn write(journal: &Journal, entries: Vec<Entry>, durability: Durability) -> Outcome {
    let slot: Arc<Mutex<Option<Outcome>>> = Arc::default();
    let answer = Arc::clone(&slot);
    journal.append(entries, durability, Box::new(move |outcome| *answer.lock() = Some(outcome))).unwrap();
    while slot.lock().is_none() {
        assert!(journal.turn(), "nothing to do and not completed");
    }
    slot.lock().take().unwrap()
}

pub(super) fn sync(journal: &Journal, entries: Vec<Entry>) -> Vec<Location> {
    write(journal, entries, Durability::Sync).unwrap()
}

pub(super) fn settle(journal: &Journal) {
    while journal.turn() {}
}

/// Index and first body of each live entry of `G`.
pub(super) fn live(journal: &Journal, recovered: &Recovered) -> Vec<(u64, Bytes)> {
    let Some(group) = recovered.groups.get(&G) else { return Vec::new() };
    group
        .entries
        .iter()
        .map(|entry| {
            let payload = journal.read_payload(entry.location).unwrap();
            (entry.position.index, payload.bodies.first().cloned().unwrap_or_default())
        })
        .collect()
}

pub(super) fn indexes(recovered: &Recovered) -> Vec<u64> {
    recovered
        .groups
        .get(&G)
        .into_iter()
        .flat_map(|group| group.entries.iter().map(|e| e.position.index))
        .collect()
}

pub(super) fn segment_file(seq: u64) -> PathBuf {
    Path::new("/data/stripe-0").join(format!("{seq:016x}.seg"))
}

/// A disk that holds exactly these segments.
pub(super) fn disk_of(segments: &[(u64, Vec<u8>)]) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("/data/stripe-0")).unwrap();
    for (seq, bytes) in segments {
        let file = disk.create(&segment_file(*seq)).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_all().unwrap();
    }
    disk.sync_dir(Path::new("/data/stripe-0")).unwrap();
    disk
}

/// The bytes of all segments.
pub(super) fn image(disk: &SimDisk, journal: &Journal) -> Vec<(u64, Vec<u8>)> {
    journal
        .segments()
        .iter()
        .map(|info| (info.seq, disk.contents(&segment_file(info.seq)).unwrap()))
        .collect()
}
