//! Files that had an earlier life, and sealed segments that are read once more.

use super::append::fill;
use super::*;
use crate::journal::format::{ALIGN, FrameHeader, SEGMENT_HEADER_LEN, SegmentHeader};

/// Whether intact frames of an earlier life stand in a segment.
fn holds_old_frames(segment: &[u8]) -> bool {
    let own = SegmentHeader::decode(&segment[..SEGMENT_HEADER_LEN]).unwrap().salt as u32;
    let blocks = (SEGMENT_HEADER_LEN..segment.len()).step_by(ALIGN);
    blocks.map(|at| &segment[at..]).any(|rest| {
        let header = FrameHeader::decode(rest).filter(|header| header.salt != own);
        let frame = header.and_then(|header| Some((header, rest.get(..header.len as usize)?)));
        frame.is_some_and(|(header, bytes)| header.is_intact(bytes))
    })
}

#[test]
fn old_frames_stay_dead_at_every_step_into_a_recycled_file() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let mut next = fill(&journal, 1, 4);
    sync(&journal, vec![entry(EntryKind::Purge, G, next - 2, b"")]);
    for seq in 1..=4 {
        journal.recycle(seq).unwrap();
    }
    settle(&journal);
    let (first, mut over_old) = (next - 1, 0);
    while over_old < 12 {
        // Of different lengths, so that what stands behind the newest frame begins anywhere in an old one.
        let len = 1500 * (1 + next as usize % 5);
        sync(&journal, vec![append_entry(next, &vec![next as u8; len])]);
        settle(&journal);
        next += 1;
        assert!(next < 400, "no recycled file comes into use");
        let active = journal.segments().last().unwrap().seq;
        over_old += usize::from(holds_old_frames(&disk.contents(&segment_file(active)).unwrap()));
        for after in [disk.fork().kill(), disk.fork().crash(next)] {
            let (reopened, recovered) = open(&after);
            assert!(recovered.quarantined.is_empty() && recovered.missing_segments.is_empty());
            assert_eq!(recovered.groups[&G].purged.unwrap().index, first - 1);
            let entries = live(&reopened, &recovered);
            assert_eq!(
                entries.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
                (first..next).collect::<Vec<_>>()
            );
            assert!(entries.iter().all(|(index, body)| body.iter().all(|byte| *byte == *index as u8)));
        }
    }
}

/// Index, term and first body of each entry.
fn told(journal: &Journal, entries: &VecDeque<RecoveredEntry>) -> Vec<(u64, u64, Bytes)> {
    let told = |entry: &RecoveredEntry| {
        let payload = journal.read_payload(entry.location).unwrap();
        (entry.position.index, entry.position.term, payload.bodies.first().cloned().unwrap_or_default())
    };
    entries.iter().map(told).collect()
}

#[test]
fn a_sealed_segment_tells_its_entries_again_also_purged_ones() {
    let other = GroupId(9);
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let again = |index: u64| Entry { term: 2, ..append_entry(index, b"again") };
    sync(&journal, (1..=5).map(|index| append_entry(index, b"first")).collect());
    sync(&journal, vec![entry(EntryKind::Append, other, 70, b""), again(4), again(5)]);
    sync(&journal, vec![entry(EntryKind::Truncate, G, 5, b""), again(5)]);
    let next = fill(&journal, 6, 2);
    let last = journal.segments()[0].groups.iter().find(|(group, ..)| *group == G).unwrap().2;
    sync(&journal, vec![entry(EntryKind::Purge, G, next - 1, b""), entry(EntryKind::Purge, other, 70, b"")]);
    drop(journal);

    let (journal, recovered) = open(&disk);
    assert!(recovered.groups.values().all(|group| group.entries.is_empty()), "all of it is purged");
    let entries = journal.entries_of(1).unwrap();
    assert_eq!(entries[&other].iter().map(|entry| entry.position.index).collect::<Vec<_>>(), [70]);
    let found = told(&journal, &entries[&G]);
    let expect = |index, term, body: &'static str| (index, term, Bytes::from(body));
    let begun = [(1, 1, "first"), (2, 1, "first"), (3, 1, "first"), (4, 2, "again"), (5, 2, "again")];
    assert_eq!(found[..5], begun.map(|(index, term, body)| expect(index, term, body)));
    assert_eq!(found.iter().map(|(index, ..)| *index).collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>());

    let open_one = journal.segments().last().unwrap().seq;
    for seq in [open_one, 99] {
        assert!(matches!(journal.entries_of(seq), Err(JournalError::NoSegment { .. })), "{seq}");
    }
    let path = segment_file(2);
    disk.inject(rt::Fault::BitFlip { path, offset: 5000, bit: 0 }).unwrap();
    assert!(matches!(journal.entries_of(2), Err(JournalError::Corrupt { segment: 2, .. })));
}
