//! Torn tails, rotten bits, cut and missing files: what opening makes of them.

use std::collections::BTreeSet;

use super::append::fill;
use super::*;
use crate::journal::format::{ALIGN, FrameHeader, SEGMENT_HEADER_LEN, crc32c};

/// One segment with one frame per entry 1..=n, with distinct sizes.
fn one_segment(n: u64) -> Vec<u8> {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    for index in 1..=n {
        sync(&journal, vec![append_entry(index, &vec![index as u8; 100 * index as usize])]);
    }
    image(&disk, &journal).remove(0).1
}

/// Offsets and lengths of the frames of a segment.
fn frames(segment: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER_LEN;
    while let Some(header) = segment.get(at..).and_then(FrameHeader::decode) {
        found.push((at, header.len as usize));
        at += (header.len as usize).next_multiple_of(ALIGN);
    }
    found
}

/// Opens, checks that the log goes on, and answers what was found.
fn reopen_and_go_on(disk: &SimDisk, expect: &[u64]) -> Recovered {
    let (journal, recovered) = open(disk);
    assert_eq!(indexes(&recovered), expect);
    let next = expect.last().map_or(1, |last| last + 1);
    sync(&journal, vec![append_entry(next, b"after")]);
    drop(journal);
    let (journal, again) = open(disk);
    let entries = live(&journal, &again);
    assert_eq!(entries.last().unwrap(), &(next, Bytes::from("after")));
    assert_eq!(entries.len(), expect.len() + 1);
    recovered
}

#[test]
fn a_torn_last_frame_is_cut_at_every_byte_length() {
    let whole = one_segment(3);
    let (at, len) = *frames(&whole).last().unwrap();
    for (filler, from) in [(0u8, 0), (0xa5, 0)] {
        for kept in from..len {
            let mut torn = whole.clone();
            torn[at + kept..].fill(filler);
            // The filler may happen to be what was there.
            if torn[at..at + len] == whole[at..at + len] {
                continue;
            }
            let recovered = reopen_and_go_on(&disk_of(&[(1, torn)]), &[1, 2]);
            assert!(recovered.quarantined.is_empty(), "kept {kept} of {len}");
        }
    }
}

#[test]
fn a_file_that_ends_inside_the_last_frame_is_cut() {
    let whole = one_segment(3);
    let (at, len) = *frames(&whole).last().unwrap();
    for kept in [0, 1, 31, 32, 100, len - 1] {
        let (journal, recovered) = open(&disk_of(&[(1, whole[..at + kept].to_vec())]));
        assert_eq!(indexes(&recovered), [1, 2]);
        sync(&journal, vec![append_entry(3, b"again")]);
    }
}

#[test]
fn a_zero_filled_tail_is_not_data() {
    let whole = one_segment(2);
    let end = frames(&whole).last().map(|(at, len)| at + len).unwrap();
    assert!(whole[end..].iter().all(|byte| *byte == 0));
    let recovered = reopen_and_go_on(&disk_of(&[(1, whole)]), &[1, 2]);
    assert_eq!(recovered.cut_bytes, 0);
}

#[test]
fn every_flipped_byte_of_a_frame_with_later_ones_is_quarantined_and_the_rest_kept() {
    let whole = one_segment(4);
    let frames = frames(&whole);
    for (i, (at, len)) in frames[..3].iter().enumerate() {
        for offset in *at..at + len {
            let mut bytes = whole.clone();
            bytes[offset] ^= 1 << (offset % 8);
            let (journal, recovered) = open(&disk_of(&[(1, bytes)]));
            let expect: Vec<u64> = (1..=4).filter(|index| *index != i as u64 + 1).collect();
            assert_eq!(indexes(&recovered), expect, "byte {offset}");
            let damage = Quarantined { segment: 1, offset: *at as u64, len: (frames[i + 1].0 - at) as u64 };
            assert_eq!(recovered.quarantined, [damage], "byte {offset}");
            let gaps = recovered.groups[&G].gaps();
            assert_eq!(gaps.is_empty(), i == 0, "a hole inside the log is reported: {gaps:?}");
            assert_eq!(journal.counters().quarantined, 1);
            sync(&journal, vec![append_entry(5, b"after")]);
        }
    }
}

#[test]
fn a_flip_in_the_last_frame_is_a_torn_tail_and_one_in_the_padding_is_nothing() {
    let whole = one_segment(3);
    let (at, len) = *frames(&whole).last().unwrap();
    for offset in at..at + len {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x10;
        let (_, recovered) = open(&disk_of(&[(1, bytes)]));
        assert_eq!(indexes(&recovered), [1, 2], "byte {offset}");
        assert!(recovered.quarantined.is_empty());
    }
    let mut bytes = whole;
    bytes[at + len + 5] ^= 0x10;
    assert_eq!(indexes(&open(&disk_of(&[(1, bytes)])).1), [1, 2, 3]);
}

#[test]
fn a_damaged_segment_header_costs_no_entry() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let next = fill(&journal, 1, 2);
    let image = image(&disk, &journal);
    for which in 0..image.len() {
        for offset in [0, 9, 40, 50, 57, 65, 4000, 4095] {
            let mut damaged = image.clone();
            damaged[which].1[offset] ^= 4;
            let (journal, recovered) = open(&disk_of(&damaged));
            assert_eq!(indexes(&recovered), (1..next).collect::<Vec<_>>(), "segment {which} byte {offset}");
            assert_eq!(recovered.quarantined.len(), 1);
            assert_eq!((recovered.quarantined[0].offset, recovered.quarantined[0].len), (0, 4096));
            sync(&journal, vec![append_entry(next, b"after")]);
        }
    }
}

#[test]
fn a_sealed_segment_that_lost_its_end_is_damage_and_later_segments_are_kept() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let next = fill(&journal, 1, 2);
    let sealed = journal.segments()[0].clone();
    let image = image(&disk, &journal);
    let last_frame = frames(&image[0].1).last().unwrap().0;
    for keep in [last_frame, last_frame + 100, 8192, 100] {
        let mut cut = image.clone();
        cut[0].1.truncate(keep);
        let (_, recovered) = open(&disk_of(&cut));
        assert!(recovered.quarantined.iter().any(|range| range.segment == 1), "keep {keep}: {recovered:?}");
        let kept: BTreeSet<u64> = indexes(&recovered).into_iter().collect();
        let later: BTreeSet<u64> = (sealed.groups[0].2 + 1..next).collect();
        assert!(kept.is_superset(&later), "keep {keep}");
    }
    let mut zeroed = image.clone();
    zeroed[0].1[last_frame..].fill(0);
    let (_, recovered) = open(&disk_of(&zeroed));
    assert_eq!(recovered.quarantined.len(), 1);
    assert!(!recovered.groups[&G].gaps().is_empty());
}

#[test]
fn the_end_of_a_segment_is_known_after_its_successor_was_recycled() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    fill(&journal, 1, 2);
    journal.recycle(2).unwrap();
    settle(&journal);
    for round in 0..2 {
        let whole = image(&disk, &journal);
        assert!(open(&disk_of(&whole)).1.quarantined.is_empty(), "round {round}");
        let mut cut = whole;
        let last_frame = frames(&cut[0].1).last().unwrap().0;
        cut[0].1[last_frame..].fill(0);
        let damage = open(&disk_of(&cut)).1.quarantined;
        assert_eq!(damage.len(), 1, "round {round}: {damage:?}");
        // Once more with the record of the recycling in an older segment.
        fill(&journal, journal.segments().last().unwrap().groups[0].2 + 1, 1);
    }
}

#[test]
fn a_missing_segment_is_reported() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    fill(&journal, 1, 3);
    let mut image = image(&disk, &journal);
    image.remove(1);
    let (_, recovered) = open(&disk_of(&image));
    assert_eq!(recovered.missing_segments, [2]);
    assert!(!recovered.groups[&G].gaps().is_empty());
}

#[test]
fn a_recycling_that_was_recorded_is_finished_at_the_next_opening() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let next = fill(&journal, 1, 2);
    sync(&journal, vec![entry(EntryKind::Purge, G, next - 2, b"")]);
    let before = image(&disk, &journal);
    journal.recycle(1).unwrap();
    settle(&journal);
    let mut after = image(&disk, &journal);
    // The record is there, the rename was lost.
    after.insert(0, before[0].clone());
    let disk = disk_of(&after);
    let (journal, recovered) = open(&disk);
    assert!(recovered.missing_segments.is_empty() && recovered.quarantined.is_empty());
    assert!(journal.segments().iter().all(|info| info.seq != 1));
    settle(&journal);
    assert!(disk.contents(&segment_file(1)).is_err(), "the file was given back");
}

#[test]
fn the_first_frame_of_the_last_segment_cannot_be_torn() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let next = fill(&journal, 1, 1);
    let mut image = image(&disk, &journal);
    let last = image.last_mut().unwrap();
    last.1[SEGMENT_HEADER_LEN + 40] ^= 1;
    let disk = disk_of(&image);
    let (journal, recovered) = open(&disk);
    assert_eq!(recovered.quarantined.len(), 1, "it had its name only after a sync");
    let lost = next - 1;
    assert_eq!(indexes(&recovered), (1..lost).collect::<Vec<_>>());
    sync(&journal, vec![append_entry(lost, b"again")]);
    drop(journal);
    let (_, recovered) = open(&disk);
    assert_eq!(indexes(&recovered), (1..=lost).collect::<Vec<_>>());
    assert_eq!(recovered.quarantined.len(), 1, "the damage stays reported until the segment is recycled");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let mut bytes = one_segment(1);
    bytes[8] = 2;
    let crc = crc32c(&bytes[..SEGMENT_HEADER_LEN - 4], &[]);
    bytes[SEGMENT_HEADER_LEN - 4..SEGMENT_HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    let disk = disk_of(&[(1, bytes.clone())]);
    let refused = open_with(&disk, config(), 1).map(|_| ());
    assert!(matches!(refused, Err(JournalError::Version { found: 2, supported: 1, .. })), "{refused:?}");
    assert_eq!(disk.contents(&segment_file(1)).unwrap(), bytes);
}

#[test]
fn read_payload_sees_rot_that_read_does_not() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    let place = sync(&journal, vec![append_entry(1, b"body")])[0];
    let path = segment_file(1);
    disk.inject(rt::Fault::BitFlip { path, offset: u64::from(place.offset) + 13, bit: 0 }).unwrap();
    assert!(matches!(journal.read_payload(place), Err(JournalError::Corrupt { segment: 1, .. })));
    assert_eq!(journal.read(place).unwrap().len(), place.len as usize);
    let outside = Location { segment: 1, offset: SEGMENT - 10, len: 100 };
    assert!(matches!(journal.read(outside), Err(JournalError::Corrupt { .. })));
}
