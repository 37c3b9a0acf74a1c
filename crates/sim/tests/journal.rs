//! The journal on a disk that loses power.

use rt::{DiskOp, Fault, Rng, SeededRng, SimDisk};
use sim::{JournalLoad, each_seed};

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
