//! The file formats: round trips, lookups against a naive search, damage, and the fixtures that later releases must go on
//! reading.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{EngineKind, GroupId, Offset, ShardId, TopicNumber};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::log::{BatchFlags, Change};

fn shard(number: u32) -> ShardId {
    ShardId::new(EngineKind::Segment, GroupId(1), TopicNumber(number), 0)
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        0..3_u64,
        1..2000_u32,
        0..5_u64,
        any::<i64>(),
        any::<u32>(),
        any::<u32>(),
        any::<u16>(),
        any::<[bool; 2]>(),
    );
    (0..1_u64 << 40, vec(row, 1..6)).prop_map(|(first, drawn)| {
        let (mut base, mut index) = (first, first / 7);
        let row = |(gap, count, step, timestamp_max, offset, len, ordinal, bits): (
            u64,
            u32,
            u64,
            i64,
            u32,
            u32,
            u16,
            [bool; 2],
        )| {
            base += gap;
            index += step;
            let flags = if bits[0] { BatchFlags::AT_MOST_ONCE } else { BatchFlags::NONE };
            let extent =
                Extent { base, index, timestamp_max, segment: 9, offset, len, count, ordinal, flags };
            let mark = bits[1].then_some(Mark {
                base,
                producer: timestamp_max,
                epoch: ordinal as i16,
                sequence: offset as i32,
            });
            base += u64::from(count);
            Row { extent, mark }
        };
        drawn.into_iter().map(row).collect()
    })
}

fn change() -> impl Strategy<Value = Change> {
    (0..3, 0..200_u32, any::<i64>()).prop_map(|(kind, number, argument)| match kind {
        0 => Change::Trim { shard: shard(number), to: Offset(argument as u64) },
        1 => Change::Drop { shard: shard(number) },
        _ => Change::ExpireProducers { before: argument },
    })
}

fn contents() -> impl Strategy<Value = Contents> {
    let sections = btree_map((0..200_u32, 1..3_u32), rows(), 0..90);
    let ranges = btree_map(0..5_u32, any::<[u64; 3]>(), 0..4);
    let changes = btree_map((0..5_u32, any::<u64>()), change(), 0..5);
    (sections, ranges, changes).prop_map(|(sections, ranges, changes)| Contents {
        seq: 9,
        groups: ranges
            .into_iter()
            .map(|(group, [first, last, applied])| GroupRange { group: GroupId(group), first, last, applied })
            .collect(),
        changes: changes
            .into_iter()
            .map(|((group, index), change)| Changed { group: GroupId(group), index, change })
            .collect(),
        sections: sections
            .into_iter()
            .map(|((number, group), rows)| Section { shard: shard(number), group: GroupId(group), rows })
            .collect(),
    })
}

proptest! {
    #[test]
    fn a_footer_comes_back_and_every_section_is_found_alone(contents in contents()) {
        let footer = Footer::decode(&encode(&contents).into()).expect("what was encoded");
        prop_assert_eq!(footer.seq, contents.seq);
        prop_assert_eq!(&footer.groups, &contents.groups);
        prop_assert_eq!(&footer.changes, &contents.changes);
        let sections: Vec<_> = footer.sections().collect::<Result<_, _>>().expect("what was encoded");
        prop_assert_eq!(&sections, &contents.sections);
        for number in 0..200 {
            for group in 1..3 {
                let found = footer.rows(shard(number), GroupId(group)).expect("what was encoded");
                let expected = sections.iter().find(|s| (s.shard, s.group) == (shard(number), GroupId(group)));
                prop_assert_eq!(&found, &expected.map(|section| section.rows.clone()).unwrap_or_default());
            }
        }
    }

    #[test]
    fn a_footer_with_any_bit_flipped_or_any_end_missing_is_refused(
        contents in contents(), at in any::<proptest::sample::Index>(), bit in 0..8_u8,
    ) {
        let mut file = encode(&contents);
        prop_assert!(Footer::decode(&Bytes::copy_from_slice(&file[..at.index(file.len())])).is_err());
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(Footer::decode(&file.into()).is_err());
    }

    /// Behind a right checksum, any bytes are read without panic or huge allocation.
    #[test]
    fn any_body_is_read_or_refused(body in vec(any::<u8>(), 0..400)) {
        let mut file = envelope::begin();
        file.extend_from_slice(&body);
        let footer = Footer::decode(&envelope::close(file.clone(), FileKind::Footer).into());
        if let Ok(footer) = footer {
            prop_assert!(footer.sections().count() <= body.len());
            let _ = footer.rows(shard(1), GroupId(1));
            let _ = Tails::default().fold(&footer);
        }
        if let Ok(tails) = Tails::decode(&envelope::close(file, FileKind::Tails).into()) {
            prop_assert_eq!(Tails::decode(&tails.encode().into()), Ok(tails));
        }
    }

    #[test]
    fn tails_come_back_and_folding_twice_changes_nothing(contents in contents()) {
        let footer = Footer::decode(&encode(&contents).into()).expect("what was encoded");
        let mut tails = Tails::default();
        tails.fold(&footer).expect("sound");
        prop_assert_eq!(&Tails::decode(&tails.encode().into()).expect("what was encoded"), &tails);
        let once = tails.clone();
        tails.fold(&footer).expect("sound");
        prop_assert_eq!(tails, once);
    }
}

/// What the fixtures of format version 1 hold. They are never written again: a new version gets a directory of its own.
fn fixture_contents() -> Contents {
    let row = |base, count, index, mark| Row {
        extent: Extent {
            base,
            index,
            timestamp_max: 1_700_000_000_000 + base as i64,
            segment: 3,
            offset: 4096 + 200 * base as u32,
            len: 150 + count,
            count,
            ordinal: 1,
            flags: if mark { BatchFlags::NONE } else { BatchFlags::AT_MOST_ONCE },
        },
        mark: mark.then_some(Mark { base, producer: 1000, epoch: 2, sequence: i32::MAX }),
    };
    let sections = (0..70).map(|number| Section {
        shard: shard(number),
        group: GroupId(1),
        rows: vec![row(10, 3, 100 + u64::from(number), number % 2 == 0), row(13, 1, 200, false)],
    });
    Contents {
        seq: 3,
        groups: vec![
            GroupRange { group: GroupId(0), first: 5, last: 7, applied: 7 },
            GroupRange { group: GroupId(1), first: 100, last: 250, applied: 240 },
        ],
        changes: vec![
            Changed {
                group: GroupId(1),
                index: 210,
                change: Change::Trim { shard: shard(1), to: Offset(12) },
            },
            Changed { group: GroupId(1), index: 211, change: Change::Drop { shard: shard(2) } },
            Changed { group: GroupId(1), index: 212, change: Change::ExpireProducers { before: -1 } },
        ],
        sections: sections.collect(),
    }
}

fn fixture_tails() -> Tails {
    let mut tails = Tails::default();
    tails.fold(&Footer::decode(&encode(&fixture_contents()).into()).expect("sound")).expect("sound");
    tails
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/index-v1")
}

fn fixture(name: &str) -> Bytes {
    std::fs::read(fixtures().join(name)).unwrap_or_else(|err| panic!("{name}: {err}")).into()
}

#[test]
fn storage_55_format_version_1_is_read_and_written_as_ever() {
    assert_eq!(&fixture("footer")[..], encode(&fixture_contents()), "the format changed: raise the version");
    let footer = Footer::decode(&fixture("footer")).expect("a sound fixture");
    assert_eq!(footer.sections().collect::<Result<Vec<_>, _>>(), Ok(fixture_contents().sections));
    assert_eq!(Tails::decode(&fixture("tails")), Ok(fixture_tails()));
    assert_eq!(&fixture("tails")[..], fixture_tails().encode(), "the format changed: raise the version");
}

#[test]
fn damaged_fixtures_are_refused() {
    let damaged = ["empty", "header-only", "cut", "bit-flip", "trailing-byte", "wrong-kind", "zeros"];
    for name in damaged {
        let file = fixture(&format!("damaged/{name}"));
        assert_eq!(Footer::decode(&file).map(|_| ()), Err(Unusable::Damaged), "{name}");
        assert_eq!(Tails::decode(&file).map(|_| ()), Err(Unusable::Damaged), "{name}");
    }
    let later = fixture("damaged/version-2");
    assert_eq!(Footer::decode(&later).map(|_| ()), Err(Unusable::Version(2)));
}
