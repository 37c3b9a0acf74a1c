//! The real thing: threads, a real disk, several producers.

use std::sync::mpsc;

use super::*;
use rt::{StdDisk, SystemRng};

fn open_real(dir: &Path) -> (Journal, Recovered) {
    let mut config = config();
    config.dir = dir.to_path_buf();
    config.segment_bytes = 256 << 10;
    Journal::open(config, Arc::new(StdDisk::new()), Arc::new(SystemRng), Driver::Threads).unwrap()
}

#[test]
fn many_producers_complete_in_order_and_all_is_there_after_reopening() {
    const PRODUCERS: u32 = 4;
    const EACH: u64 = 500;
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open_real(dir.path());
    std::thread::scope(|scope| {
        for producer in 1..=PRODUCERS {
            let journal = &journal;
            scope.spawn(move || {
                let (sender, receiver) = mpsc::channel();
                for index in 1..=EACH {
                    let sender = sender.clone();
                    let entry = entry(EntryKind::Append, GroupId(producer), index, &[0; 300]);
                    let durability = if index % 3 == 0 { Durability::OsBuffered } else { Durability::Sync };
                    let done: Completion =
                        Box::new(move |outcome| sender.send((index, outcome.unwrap())).unwrap());
                    journal.append(vec![entry], durability, done).unwrap();
                }
                drop(sender);
                let order: Vec<u64> = receiver.iter().map(|(index, _)| index).collect();
                assert_eq!(order, (1..=EACH).collect::<Vec<_>>());
            });
        }
    });
    drop(journal);
    let (_, recovered) = open_real(dir.path());
    assert!(recovered.quarantined.is_empty());
    for producer in 1..=PRODUCERS {
        let entries = &recovered.groups[&GroupId(producer)].entries;
        let found: Vec<u64> = entries.iter().map(|entry| entry.position.index).collect();
        assert_eq!(found, (1..=EACH).collect::<Vec<_>>());
    }
}

#[test]
fn dropping_the_handle_completes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open_real(dir.path());
    let (sender, receiver) = mpsc::channel();
    for index in 1..=100 {
        let sender = sender.clone();
        let done: Completion = Box::new(move |outcome| sender.send(outcome.is_ok()).unwrap());
        journal.append(vec![append_entry(index, b"x")], Durability::OsBuffered, done).unwrap();
    }
    drop(sender);
    drop(journal);
    assert_eq!(receiver.iter().filter(|ok| *ok).count(), 100);
    assert_eq!(indexes(&open_real(dir.path()).1).len(), 100);
}

#[test]
fn the_last_handle_may_be_dropped_by_a_completion() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open_real(dir.path()).0);
    let (sender, receiver) = mpsc::channel();
    let held = Arc::clone(&journal);
    let (go, wait) = mpsc::channel::<()>();
    let done: Completion = Box::new(move |_| {
        wait.recv().unwrap();
        drop(held);
        sender.send(()).unwrap();
    });
    journal.append(vec![append_entry(1, b"x")], Durability::Sync, done).unwrap();
    drop(journal);
    go.send(()).unwrap();
    receiver.recv().unwrap();
}
