//! The journal on a disk that loses power.

use rt::{DiskOp, Fault, Rng, SeededRng, SimDisk};
use sim::{JournalLoad, each_seed};
use storage::journal::JournalError;

/// Work, lose power at a random change of the disk, open, check, go on.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_invented() {
    let mut appends = 0;
    each_seed(200, |seed| {
        let choices = SeededRng::new(!seed);
        let mut disk = SimDisk::new();
        let mut load = JournalLoad::start(disk.clone(), seed).unwrap();
        for _ in 0..4 {
            disk.inject(Fault::PowerCut { after: choices.below(400) }).unwrap();
            for _ in 0..150 {
                load.step();
                if load.error().is_some() {
                    break;
                }
            }
            appends += load.synced();
            (disk, load) = load.crash().unwrap();
        }
    });
    assert!(appends > 200, "the load must get somewhere: {appends}");
}

/// Stop at every single change of the disk, with several outcomes of the power loss at each.
#[test]
fn every_crash_point_of_a_run_opens_to_what_was_acknowledged() {
    for seed in 0..4 {
        let disk = SimDisk::new();
        disk.record();
        let mut load = JournalLoad::start(disk.clone(), seed).unwrap();
        for _ in 0..120 {
            load.step();
        }
        load.settle();
        assert!(load.error().is_none());
        let ops = disk.recorded();
        assert!(ops.iter().any(|op| matches!(op, DiskOp::Rename { .. })), "the run must change segments");
        let mut synced = 0;
        for end in 1..=ops.len() {
            if let DiskOp::Mark(number) = ops[end - 1] {
                synced = number as usize;
            }
            for outcome in 0..2 {
                let crashed = SimDisk::replay(&ops[..end]).unwrap().crash(seed ^ (end as u64) << 8 ^ outcome);
                if let Err(err) = load.check_copy(&crashed, synced) {
                    panic!("seed {seed}, after change {end} ({:?}): {err}", ops[end - 1]);
                }
            }
        }
        assert_eq!(synced, load.synced());
    }
}

/// Spec: storage 3. Each sync of a run fails once, and the disk answers well again afterwards.
#[test]
fn whichever_sync_fails_nothing_is_acknowledged_on_the_strength_of_a_later_one() {
    let mut sealed = 0;
    for after in 0..120 {
        let disk = SimDisk::new();
        disk.inject(Fault::SyncError { after }).unwrap();
        // The first spare is made while it opens.
        let Ok(mut load) = JournalLoad::start(disk, after) else { continue };
        for _ in 0..150 {
            load.step();
            if load.error().is_some() {
                break;
            }
        }
        load.settle();
        if let Some(JournalError::Sealed) = load.error() {
            let synced = load.synced();
            for _ in 0..10 {
                load.step();
            }
            load.settle();
            assert_eq!(load.synced(), synced, "sync {after}: the failure is for good");
            sealed += 1;
        }
        load.crash().unwrap();
    }
    assert!(sealed > 60, "most syncs are of frames: {sealed}");
}
