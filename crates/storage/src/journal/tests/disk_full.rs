//! A full disk: log entries are refused, what frees space is not, reads go on, and it ends without a restart.

use super::*;
use rt::Fault;

fn fill_until_full(journal: &Journal) -> u64 {
    for index in 1..1000 {
        match write(journal, vec![append_entry(index, &[1; 6000])], Durability::Sync) {
            Ok(_) => settle(journal),
            Err(JournalError::Full) => return index,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("never full");
}

#[test]
fn appends_are_refused_retriably_and_go_on_once_space_returns() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    settle(&journal);
    disk.inject(Fault::Capacity { bytes: 8 * u64::from(SEGMENT) }).unwrap();
    let next = fill_until_full(&journal);
    assert_eq!(journal.state(), JournalState::Full);
    assert!(journal.counters().refused_full >= 1);
    assert_eq!(journal.spares_ready(), 2, "the reserve is untouched");
    assert!(JournalError::Full.is_retriable());
    let place = open(&disk.fork()).1.groups[&G].entries[0].location;
    assert_eq!(journal.read_payload(place).unwrap().bodies[0].len(), 6000, "reads go on");

    // Votes and purges go on through the reserve, far beyond what is left of the segment.
    let vote = |i: u64| entry(EntryKind::Vote, G, 0, format!("vote {i}").as_bytes());
    for i in 0..20 {
        sync(&journal, vec![vote(i)]);
    }
    let refused = write(&journal, vec![append_entry(next, &[1; 6000])], Durability::Sync);
    assert!(matches!(refused, Err(JournalError::Full)), "{refused:?}");

    sync(&journal, vec![entry(EntryKind::Purge, G, next - 1, b"")]);
    for info in journal.segments().iter().filter(|info| info.sealed) {
        journal.recycle(info.seq).unwrap();
    }
    settle(&journal);
    sync(&journal, vec![append_entry(next, &[1; 6000])]);
    assert_eq!(journal.state(), JournalState::Open);
    let (_, recovered) = open(&disk.kill());
    assert_eq!(indexes(&recovered), [next]);
    assert_eq!(recovered.groups[&G].vote.as_ref().unwrap().head, "vote 19");
}

#[test]
fn more_space_from_outside_is_noticed_and_a_hole_is_never_made() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    settle(&journal);
    disk.inject(Fault::Capacity { bytes: 6 * u64::from(SEGMENT) }).unwrap();
    let next = fill_until_full(&journal);
    disk.inject(Fault::Capacity { bytes: 1 << 30 }).unwrap();
    // An append that was queued behind the refused one must not be taken before that one is sent again.
    let gap = write(&journal, vec![append_entry(next + 1, b"x")], Durability::Sync);
    assert!(matches!(gap, Err(JournalError::Gap { .. })), "{gap:?}");
    sync(&journal, vec![append_entry(next, &[1; 6000]), append_entry(next + 1, b"x")]);
}

#[test]
fn a_mixed_frame_keeps_what_frees_space() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    settle(&journal);
    disk.inject(Fault::Capacity { bytes: 6 * u64::from(SEGMENT) }).unwrap();
    let next = fill_until_full(&journal);
    let outcomes: Arc<Mutex<Vec<&str>>> = Arc::default();
    let submit = |entry: Entry, name: &'static str| {
        let outcomes = Arc::clone(&outcomes);
        let done: Completion = Box::new(move |outcome| {
            outcomes.lock().push(match outcome {
                Ok(_) => name,
                Err(JournalError::Full) => "full",
                Err(_) => "other",
            });
        });
        journal.append(vec![entry], Durability::Sync, done).unwrap();
    };
    submit(append_entry(next, &[1; 6000]), "append");
    submit(entry(EntryKind::Vote, G, 0, b"v"), "vote");
    submit(entry(EntryKind::Purge, G, next - 1, b""), "purge");
    settle(&journal);
    assert_eq!(*outcomes.lock(), ["full", "vote", "purge"]);
}

#[test]
fn a_disk_without_space_for_a_first_segment_is_told_clearly() {
    let disk = SimDisk::new();
    disk.inject(Fault::Capacity { bytes: 1000 }).unwrap();
    assert!(matches!(open_with(&disk, config(), 1), Err(JournalError::Full)));
}

#[test]
fn a_journal_opens_on_a_full_disk() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    settle(&journal);
    sync(&journal, vec![append_entry(1, b"x")]);
    drop(journal);
    disk.inject(Fault::Capacity { bytes: 1 }).unwrap();
    let (journal, recovered) = open(&disk);
    assert_eq!(indexes(&recovered), [1]);
    sync(&journal, vec![append_entry(2, b"fits the open segment")]);
}

#[test]
fn without_a_spare_the_slow_path_is_taken_and_counted() {
    let disk = SimDisk::new();
    let (journal, _) = open(&disk);
    // No turn between appends prepares a spare.
    let done = || -> Completion { Box::new(|outcome| assert!(outcome.is_ok())) };
    for index in 1..=30 {
        journal.append(vec![append_entry(index, &[3; 6000])], Durability::Sync, done()).unwrap();
    }
    settle(&journal);
    assert!(journal.counters().slow_segments > 0);
    assert_eq!(indexes(&open(&disk.crash(5)).1), (1..=30).collect::<Vec<_>>());
}
