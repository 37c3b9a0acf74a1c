//! Groups on a real journal: order, durability, restart, purge, bounds, failures.

use std::sync::Arc;

use bytes::Bytes;
use model::GroupId;
use rt::{DiskOp, Fault, Shutdown, SimDisk, Tasks};
use storage::journal::{Journal, LogPosition, Payload, RecoveredGroup};

use crate::fixture::{NODE, Tally, TestJournal, payload};
use crate::{GroupHandle, Groups, Limits, OpenError, ProposeError};

const GROUP: GroupId = GroupId(5);

/// Deadline of a test that would otherwise hang.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") })
}

async fn open(journal: &TestJournal, machine: &Tally) -> (Groups, GroupHandle) {
    let (journal, recovered) = journal.open(GROUP);
    start(journal, recovered, machine, Limits::default()).await.unwrap()
}

async fn start(
    journal: Arc<Journal>,
    recovered: RecoveredGroup,
    machine: &Tally,
    limits: Limits,
) -> Result<(Groups, GroupHandle), OpenError> {
    let groups = Groups::new(NODE, journal, Tasks::new(Shutdown::new()), limits);
    let handle = groups.open(GROUP, recovered, Box::new(machine.clone())).await?;
    Ok((groups, handle))
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Bytes> {
    range.map(|n| Bytes::copy_from_slice(&n.to_le_bytes())).collect()
}

async fn propose_all(handle: &GroupHandle, heads: Vec<Bytes>) -> Vec<u64> {
    let proposed: Vec<_> = heads.into_iter().map(|head| handle.propose(payload(head))).collect();
    let mut replies = Vec::new();
    for reply in proposed {
        let reply = reply.await.unwrap();
        replies.push(u64::from_le_bytes(reply[..].try_into().unwrap()));
    }
    replies
}

#[test]
fn proposals_are_applied_and_answered_in_order() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (groups, handle) = open(&journal, &machine).await;
        let replies = propose_all(&handle, numbers(0..300)).await;
        assert_eq!(replies, (1..=300).collect::<Vec<u64>>());
        assert_eq!(machine.heads(), numbers(0..300));
        assert_eq!(handle.status().applied_index, 301, "a membership, a blank, then the proposals");
        assert_eq!(handle.in_flight(), 0);
        groups.shutdown().await;
    });
}

#[test]
fn handles_work_from_other_threads() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (groups, handle) = open(&journal, &machine).await;
        let (done, finished) = tokio::sync::oneshot::channel();
        let remote = handle.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            done.send(runtime.block_on(propose_all(&remote, numbers(0..50)))).unwrap();
        });
        assert_eq!(finished.await.unwrap(), (1..=50).collect::<Vec<u64>>());
        thread.join().unwrap();
        groups.shutdown().await;
    });
}

#[test]
fn a_restarted_group_applies_again_what_was_not_flushed() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (groups, handle) = open(&journal, &machine).await;
        propose_all(&handle, numbers(0..200)).await;
        machine.shared.lock().flushed = Some(100);
        groups.shutdown().await;
        drop((groups, handle));

        let machine = machine.crashed();
        assert_eq!(machine.heads(), numbers(0..99));
        let (groups, handle) = open(&journal, &machine).await;
        assert_eq!(machine.heads(), numbers(0..200), "replayed before the group serves");
        assert_eq!(propose_all(&handle, numbers(200..210)).await[9], 210);
        assert!(handle.status().term > 1, "a restart is a new term");
        groups.shutdown().await;
    });
}

#[test]
fn what_is_flushed_is_purged_and_the_group_lives_on_without_it() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (groups, handle) = open(&journal, &machine).await;
        propose_all(&handle, numbers(0..50)).await;
        machine.shared.lock().flushed = Some(31);
        handle.purge().await.unwrap();
        propose_all(&handle, numbers(50..60)).await;
        while handle.status().purged_index != Some(31) {
            handle.purge().await.unwrap();
            tokio::task::yield_now().await;
        }
        groups.shutdown().await;
        drop((groups, handle));

        let (opened, recovered) = journal.open(GROUP);
        assert_eq!(recovered.purged.map(|purged| purged.index), Some(31));
        assert_eq!(recovered.entries.front().map(|entry| entry.position.index), Some(32));
        let machine = machine.crashed();
        let (groups, handle) = start(opened, recovered, &machine, Limits::default()).await.unwrap();
        assert_eq!(machine.heads(), numbers(0..60));
        assert_eq!(propose_all(&handle, numbers(60..61)).await, [61], "the voter is still known");
        groups.shutdown().await;
    });
}

#[test]
fn evicted_payloads_are_read_back_from_the_journal() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (opened, recovered) = journal.open(GROUP);
        let limits = Limits { cached_bytes_max: 0, in_flight_max: 64, ..Limits::default() };
        let (groups, handle) = start(opened, recovered, &machine, limits).await.unwrap();
        propose_all(&handle, numbers(0..100)).await;
        assert_eq!(machine.heads(), numbers(0..100));
        groups.shutdown().await;
    });
}

#[test]
fn large_entries_that_arrive_together_go_into_several_appends() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (opened, recovered) = journal.open(GROUP);
        let limits = Limits { in_flight_max: 64, ..Limits::default() };
        let (groups, handle) = start(opened, recovered, &machine, limits).await.unwrap();
        let heads: Vec<Bytes> = (0..20_u8).map(|n| Bytes::from(vec![n; 200_000])).collect();
        propose_all(&handle, heads.clone()).await;
        assert_eq!(machine.heads(), heads);
        groups.shutdown().await;
    });
}

#[test]
fn bodies_and_their_places_reach_the_machine() {
    run(async {
        struct Places(Arc<Journal>, Tally);
        impl crate::StateMachine for Places {
            fn apply(&mut self, entry: crate::Committed) -> Bytes {
                let body = entry.payload.body_location(entry.location, 1).unwrap();
                self.0.read(body).unwrap()
            }
            fn turn_ended(&mut self, applied: u64) -> Result<(), crate::MachineFailed> {
                self.1.turn_ended(applied)
            }
            fn applied(&self) -> u64 {
                self.1.applied()
            }
            fn flushed(&self) -> u64 {
                self.1.flushed()
            }
            fn checkpoint(&mut self) -> Result<Bytes, crate::MachineFailed> {
                self.1.checkpoint()
            }
            fn restore(&mut self, applied: u64, checkpoint: Bytes) -> Result<(), crate::MachineFailed> {
                self.1.restore(applied, checkpoint)
            }
        }
        let journal = TestJournal::new();
        let (opened, recovered) = journal.open(GROUP);
        let groups = Groups::new(NODE, opened.clone(), Tasks::new(Shutdown::new()), Limits::default());
        let machine = Box::new(Places(opened, Tally::default()));
        let handle = groups.open(GROUP, recovered, machine).await.unwrap();
        let bodies = vec![Bytes::from_static(b"first"), Bytes::from_static(b"second")];
        let reply = handle.propose(Payload { head: Bytes::new(), bodies }).await;
        assert_eq!(reply, Ok(Bytes::from_static(b"second")));
        groups.shutdown().await;
    });
}

#[test]
fn a_full_queue_refuses_and_ready_says_when_to_come_back() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (opened, recovered) = journal.open(GROUP);
        let limits = Limits { in_flight_max: 1, waiting_max: 2, ..Limits::default() };
        let (groups, handle) = start(opened, recovered, &machine, limits).await.unwrap();
        // Nothing runs between these calls: this is a single-threaded runtime.
        let taken: Vec<_> = numbers(0..2).into_iter().map(|head| handle.propose(payload(head))).collect();
        assert_eq!(handle.propose(payload("third")).await, Err(ProposeError::Full));
        handle.ready().await.unwrap();
        assert_eq!((handle.in_flight(), machine.heads().len()), (0, 2));
        for taken in taken {
            taken.await.unwrap();
        }
        let large = vec![0; 600 << 10];
        let refused = handle.propose(payload(large)).await;
        assert!(matches!(refused, Err(ProposeError::TooLarge { bytes: 614_408, .. })), "{refused:?}");
        groups.shutdown().await;
    });
}

#[test]
fn shutdown_answers_what_was_taken_and_refuses_the_rest() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (groups, handle) = open(&journal, &machine).await;
        let taken: Vec<_> = numbers(0..40).into_iter().map(|head| handle.propose(payload(head))).collect();
        groups.shutdown().await;
        for taken in taken {
            taken.await.unwrap();
        }
        assert_eq!(machine.heads(), numbers(0..40));
        assert_eq!(handle.propose(payload("late")).await, Err(ProposeError::Stopped));
        assert_eq!(handle.ready().await, Err(ProposeError::Stopped));
        assert_eq!(handle.read_barrier().await, Err(ProposeError::Stopped));
    });
}

#[test]
fn a_machine_that_fails_gives_no_replies_and_stops_its_group_alone() {
    run(async {
        let (journal, machine, other) = (TestJournal::new(), Tally::default(), Tally::default());
        let (groups, handle) = open(&journal, &machine).await;
        let neighbour =
            groups.open(GroupId(6), RecoveredGroup::default(), Box::new(other.clone())).await.unwrap();
        machine.shared.lock().fail_turn = true;
        assert_eq!(handle.propose(payload("lost")).await, Err(ProposeError::MachineFailed));
        assert_eq!(handle.propose(payload("refused")).await, Err(ProposeError::MachineFailed));
        assert_eq!(propose_all(&neighbour, numbers(0..3)).await, [1, 2, 3]);
        groups.shutdown().await;
    });
}

#[test]
fn a_barrier_sees_everything_that_was_acknowledged_and_writes_nothing() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (groups, handle) = open(&journal, &machine).await;
        propose_all(&handle, numbers(0..7)).await;
        let before = handle.status();
        assert_eq!(handle.read_barrier().await, Ok(8));
        assert_eq!(handle.status(), before);
        assert_eq!(before.leader, Some(NODE));
        groups.shutdown().await;
    });
}

#[test]
fn a_group_that_does_not_fit_its_log_is_not_started() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (groups, handle) = open(&journal, &machine).await;
        propose_all(&handle, numbers(0..20)).await;
        while handle.status().purged_index != Some(21) {
            handle.purge().await.unwrap();
            tokio::task::yield_now().await;
        }
        groups.shutdown().await;
        drop((groups, handle));

        let (opened, recovered) = journal.open(GROUP);
        let refuse = async |recovered: RecoveredGroup, machine: &Tally| {
            let started = start(opened.clone(), recovered, machine, Limits::default()).await;
            started.err().expect("it does not fit")
        };
        let lost = refuse(recovered.clone(), &Tally::default()).await;
        assert!(matches!(lost, OpenError::MachineBehind { applied: 0, purged: 21 }), "{lost:?}");
        let ahead = refuse(RecoveredGroup::default(), &machine).await;
        assert!(matches!(ahead, OpenError::LogBehind { applied: 21, last: None }), "{ahead:?}");
        let gap = RecoveredGroup {
            purged: Some(LogPosition { index: 19, term: 1, node: 0 }),
            entries: recovered.entries.clone(),
            ..recovered.clone()
        };
        let mut gap = gap;
        gap.entries.extend(recovered_at(25));
        let gap = refuse(gap, &machine).await;
        assert!(matches!(gap, OpenError::Gap { first: 20, last: 24 }), "{gap:?}");
        let damaged = RecoveredGroup { vote: Some(payload("junk")), ..recovered };
        let damaged = refuse(damaged, &machine).await;
        assert!(matches!(damaged, OpenError::Damaged(_)), "{damaged:?}");
    });
}

fn recovered_at(index: u64) -> Option<storage::journal::RecoveredEntry> {
    let location = storage::journal::Location { segment: 0, offset: 0, len: 0 };
    Some(storage::journal::RecoveredEntry { position: LogPosition { index, term: 1, node: 0 }, location })
}

#[test]
fn a_group_is_open_once() {
    run(async {
        let (journal, machine) = (TestJournal::new(), Tally::default());
        let (groups, _handle) = open(&journal, &machine).await;
        let again = groups.open(GROUP, RecoveredGroup::default(), Box::new(machine.clone())).await;
        assert!(matches!(again, Err(OpenError::AlreadyOpen(GROUP))));
        groups.shutdown().await;
    });
}

#[test]
fn a_failed_sync_seals_the_journal_and_every_proposer_hears_of_it() {
    run(async {
        let (disk, machine) = (SimDisk::new(), Tally::default());
        let (groups, handle) = open(&TestJournal::Simulated(disk.clone()), &machine).await;
        propose_all(&handle, numbers(0..3)).await;
        disk.inject(Fault::SyncError { after: 0 }).unwrap();
        let taken: Vec<_> = numbers(3..40).into_iter().map(|head| handle.propose(payload(head))).collect();
        for taken in taken {
            assert_eq!(taken.await, Err(ProposeError::JournalSealed));
        }
        assert_eq!(handle.propose(payload("late")).await, Err(ProposeError::JournalSealed));
        assert_eq!(handle.ready().await, Err(ProposeError::JournalSealed));
        assert_eq!(machine.heads(), numbers(0..3), "nothing that was not durable is applied");
        groups.shutdown().await;
    });
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    run(async {
        let (disk, machine) = (SimDisk::new(), Tally::default());
        let (groups, handle) = open(&TestJournal::Simulated(disk.clone()), &machine).await;
        propose_all(&handle, numbers(0..3)).await;
        disk.inject(Fault::Capacity { bytes: 0 }).unwrap();
        // Segments are pre-written: the disk is full when the reserve is all that is left.
        let mut taken = Vec::new();
        let mut heads = numbers(0..3);
        while !handle.is_stalled() {
            let head = Bytes::from(vec![taken.len() as u8; 100_000]);
            heads.push(head.clone());
            taken.push(handle.propose(payload(head)));
            if let Err(refused) = handle.ready().await {
                assert_eq!(refused, ProposeError::DiskFull);
            }
            if taken.len() > 200 {
                panic!("the disk never ran full");
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(handle.propose(payload("refused")).await, Err(ProposeError::DiskFull));
        assert!(machine.heads().len() < heads.len(), "the last one waits");
        disk.inject(Fault::Capacity { bytes: u64::MAX }).unwrap();
        for taken in taken {
            taken.await.unwrap();
        }
        assert_eq!(machine.heads(), heads);
        assert!(!handle.is_stalled());
        propose_all(&handle, numbers(3..5)).await;
        groups.shutdown().await;
    });
}

#[test]
fn no_power_loss_loses_what_was_acknowledged() {
    for seed in 0..40 {
        run(async {
            let (disk, machine) = (SimDisk::new(), Tally::default());
            let (groups, handle) = open(&TestJournal::Simulated(disk.clone()), &machine).await;
            let mut acknowledged = 0;
            let proposed: Vec<_> =
                numbers(0..60).into_iter().map(|head| handle.propose(payload(head))).collect();
            let mut after = None;
            for (n, reply) in proposed.into_iter().enumerate() {
                acknowledged += usize::from(reply.await.is_ok());
                if n as u64 == seed {
                    after = Some(disk.crash(seed));
                }
            }
            groups.shutdown().await;
            drop((groups, handle));

            machine.shared.lock().flushed = Some(0);
            let machine = machine.crashed();
            let (groups, handle) = open(&TestJournal::Simulated(after.unwrap()), &machine).await;
            let heads = machine.heads();
            assert!(
                heads.len() >= acknowledged.min(seed as usize + 1),
                "seed {seed}: acknowledged entries are gone"
            );
            assert_eq!(heads, numbers(0..heads.len() as u32), "seed {seed}");
            let next = heads.len() as u32;
            assert_eq!(propose_all(&handle, numbers(next..next + 1)).await, [u64::from(next) + 1]);
            groups.shutdown().await;
        });
    }
}

/// Spec: storage 10. A node of one voter votes for itself at every start: were a vote lost, it would lead a term twice.
#[test]
fn no_power_loss_brings_a_term_back() {
    run(async {
        let (disk, machine) = (SimDisk::new(), Tally::default());
        disk.record();
        for life in 0..3 {
            let (groups, handle) = open(&TestJournal::Simulated(disk.clone()), &machine).await;
            disk.mark(handle.status().term);
            propose_all(&handle, numbers(life * 5..life * 5 + 5)).await;
            groups.shutdown().await;
        }
        let (ops, mut term) = (disk.recorded(), 0);
        for end in 1..=ops.len() {
            if let DiskOp::Mark(served) = ops[end - 1] {
                assert!(served > term, "every start is a new term");
                term = served;
            }
            let after = SimDisk::replay(&ops[..end]).unwrap().crash(end as u64);
            let (groups, handle) = open(&TestJournal::Simulated(after), &Tally::default()).await;
            assert!(handle.status().term > term, "after change {end}: term {term} was served before");
            groups.shutdown().await;
        }
        assert!(term >= 3, "three lives: {term}");
    });
}
