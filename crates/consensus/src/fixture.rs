//! What the tests of this crate stand on: a journal in a temporary directory, and a machine that remembers
//! what it was given.

use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{GroupId, NodeId};
use parking_lot::Mutex;
use rt::{Disk, SeededRng, SimDisk, StdDisk};
use storage::journal::{Driver, Identity, Journal, JournalConfig, Payload, RecoveredGroup};

use crate::machine::{Committed, MachineFailed, StateMachine};

/// A machine that keeps (index, head) of each entry and replies with the number of entries so far. What it
/// has is durable at once: it outlives its group in `shared`.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) shared: Arc<Mutex<TallyState>>,
}

#[derive(Default)]
pub(crate) struct TallyState {
    pub(crate) entries: Vec<(u64, Bytes)>,
    pub(crate) turns: u64,
    pub(crate) applied: u64,
    /// What a restart finds: `None` means everything.
    pub(crate) flushed: Option<u64>,
    pub(crate) fail_turn: bool,
}

impl Tally {
    pub(crate) fn heads(&self) -> Vec<Bytes> {
        self.shared.lock().entries.iter().map(|(_, head)| head.clone()).collect()
    }

    /// The machine as it comes back after a crash: what was not flushed is gone.
    pub(crate) fn crashed(&self) -> Tally {
        let state = self.shared.lock();
        let flushed = state.flushed.unwrap_or(state.applied);
        let entries = state.entries.iter().filter(|(index, _)| *index <= flushed).cloned().collect();
        let state = TallyState { entries, applied: flushed, flushed: state.flushed, ..TallyState::default() };
        Tally { shared: Arc::new(Mutex::new(state)) }
    }
}

impl StateMachine for Tally {
    fn apply(&mut self, entry: Committed) -> Bytes {
        let mut state = self.shared.lock();
        assert!(state.entries.last().is_none_or(|(last, _)| *last < entry.index), "applied twice");
        state.entries.push((entry.index, entry.payload.head));
        Bytes::copy_from_slice(&(state.entries.len() as u64).to_le_bytes())
    }

    fn turn_ended(&mut self, applied: u64) -> Result<(), MachineFailed> {
        let mut state = self.shared.lock();
        if state.fail_turn {
            return Err(MachineFailed::new("end a turn", "the test says so"));
        }
        state.turns += 1;
        state.applied = applied;
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.shared.lock().applied
    }

    fn flushed(&self) -> u64 {
        let state = self.shared.lock();
        state.flushed.unwrap_or(state.applied)
    }

    fn checkpoint(&mut self) -> Result<Bytes, MachineFailed> {
        let mut out = BytesMut::new();
        for (index, head) in &self.shared.lock().entries {
            out.put_u64_le(*index);
            out.put_u32_le(head.len() as u32);
            out.put_slice(head);
        }
        Ok(out.freeze())
    }

    fn restore(&mut self, applied: u64, mut checkpoint: Bytes) -> Result<(), MachineFailed> {
        let mut state = self.shared.lock();
        state.entries.clear();
        while checkpoint.has_remaining() {
            let index = checkpoint.get_u64_le();
            let len = checkpoint.get_u32_le() as usize;
            state.entries.push((index, checkpoint.split_to(len)));
        }
        state.applied = applied;
        Ok(())
    }
}

/// Where a test's journal lies.
pub(crate) enum TestJournal {
    /// In a directory that goes away with it.
    Real(tempfile::TempDir),
    /// On a disk in memory.
    Simulated(SimDisk),
}

impl TestJournal {
    pub(crate) fn new() -> TestJournal {
        TestJournal::Real(tempfile::tempdir().unwrap())
    }

    /// Opens it, and says what it recovered of a group.
    pub(crate) fn open(&self, group: GroupId) -> (Arc<Journal>, RecoveredGroup) {
        let (disk, dir): (Arc<dyn Disk>, &Path) = match self {
            TestJournal::Real(dir) => (Arc::new(StdDisk), dir.path()),
            TestJournal::Simulated(disk) => (Arc::new(disk.clone()), Path::new("/journal")),
        };
        let config = JournalConfig {
            segment_bytes: 1 << 20,
            ..JournalConfig::new(dir, Identity { cluster: 7, node: NODE.0 })
        };
        let opened = Journal::open(config, disk, Arc::new(SeededRng::new(1)), Driver::Threads);
        let (journal, mut recovered) = opened.unwrap();
        (Arc::new(journal), recovered.groups.remove(&group).unwrap_or_default())
    }
}

/// The node of all tests.
pub(crate) const NODE: NodeId = NodeId(11);

pub(crate) fn payload(head: impl Into<Bytes>) -> Payload {
    Payload::of_head(head.into())
}
