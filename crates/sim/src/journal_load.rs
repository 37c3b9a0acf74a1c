//! Random work on one journal stripe, and the oracle of what a crash may leave.
//!
//! An append is all or nothing, and appends are written in order. So after a crash the journal holds exactly what some
//! prefix of the appends left, and that prefix includes every append that was acknowledged as synced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use model::GroupId;
use parking_lot::Mutex;
use rt::{Rng, SeededRng, SimDisk};
use storage::journal::{
    Driver, Durability, Entry, EntryKind, Identity, Journal, JournalConfig, JournalError, LogPosition,
    Payload, Recovered,
};

/// Groups that share the stripe.
const GROUPS: u64 = 3;
const DIR: &str = "/data";

/// What one group should look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Group {
    entries: BTreeMap<u64, (LogPosition, Payload)>,
    purged: Option<LogPosition>,
    vote: Option<Payload>,
    committed: Option<Payload>,
}

impl Group {
    fn last(&self) -> u64 {
        let purged = self.purged.map_or(0, |purged| purged.index);
        self.entries.keys().next_back().copied().unwrap_or(0).max(purged)
    }

    fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index) + 1
    }
}

type Groups = BTreeMap<GroupId, Group>;

/// How far the journal has acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    /// The first so many appends are durable.
    synced: usize,
    /// Appends completed in any way; they complete in order.
    completed: usize,
    /// The first error.
    error: Option<JournalError>,
}

/// A journal under load.
pub struct JournalLoad {
    disk: SimDisk,
    journal: Journal,
    rng: Arc<SeededRng>,
    /// What was there when it was opened.
    base: Groups,
    /// What is there if all of `history` is.
    head: Groups,
    history: Vec<Vec<Entry>>,
    acknowledged: Arc<Mutex<Acknowledged>>,
    /// Makes each payload different.
    serial: u64,
}

impl JournalLoad {
    /// An empty journal on `disk`. All further choices follow from `seed`.
    pub fn start(disk: SimDisk, seed: u64) -> Result<JournalLoad, JournalError> {
        let rng = Arc::new(SeededRng::new(seed));
        let (journal, recovered) = open(&disk, &rng)?;
        assert!(recovered.groups.is_empty(), "a new disk holds nothing");
        let groups = Groups::new();
        Ok(JournalLoad {
            disk,
            journal,
            rng,
            base: groups.clone(),
            head: groups,
            history: Vec::new(),
            acknowledged: Arc::default(),
            serial: 0,
        })
    }

    /// Queues one random append and does a random part of the work that waits.
    pub fn step(&mut self) {
        let entries = self.entries();
        let durability = if self.chance(3) { Durability::OsBuffered } else { Durability::Sync };
        let number = self.history.len() + 1;
        for entry in &entries {
            apply(&mut self.head, entry);
        }
        self.history.push(entries.clone());
        let (acknowledged, disk) = (Arc::clone(&self.acknowledged), self.disk.clone());
        let done = Box::new(move |outcome: Result<_, JournalError>| {
            let mut acknowledged = acknowledged.lock();
            assert_eq!(acknowledged.completed + 1, number, "completions come in append order");
            acknowledged.completed = number;
            match outcome {
                Ok(_) if durability == Durability::Sync => {
                    acknowledged.synced = number;
                    disk.mark(number as u64);
                }
                Ok(_) => {}
                Err(err) => acknowledged.error = acknowledged.error.take().or(Some(err)),
            }
        });
        self.journal.append(entries, durability, done).expect("the queue is larger than the load");
        for _ in 0..self.rng.below(3) {
            self.journal.turn();
        }
        if self.chance(16) {
            self.recycle();
        }
    }

    /// Does all work that waits.
    pub fn settle(&self) {
        while self.journal.turn() {}
    }

    /// The first error that an append was answered with.
    pub fn error(&self) -> Option<JournalError> {
        self.acknowledged.lock().error.clone()
    }

    /// How many appends are acknowledged as durable since it was opened.
    pub fn synced(&self) -> usize {
        self.acknowledged.lock().synced
    }

    /// Cuts the power, opens what is left, checks it, and answers with the new disk and the load that goes on there.
    pub fn crash(mut self) -> Result<(SimDisk, JournalLoad), JournalError> {
        let seed = self.rng.next_u64();
        self.disk = self.disk.crash(seed);
        if self.chance(2) {
            // The power fails again while it opens, at any point.
            let after = self.rng.below(6);
            self.disk.inject(rt::Fault::PowerCut { after }).expect("not about a file");
            let opened = open(&self.disk, &self.rng).map(drop);
            drop(opened);
            self.disk = self.disk.crash(self.rng.next_u64());
        }
        let synced = self.acknowledged.lock().synced;
        let (journal, recovered) = open(&self.disk, &self.rng)?;
        let base = self.check(&journal, &recovered, synced);
        let disk = self.disk.clone();
        let load = JournalLoad {
            journal,
            head: base.clone(),
            base,
            history: Vec::new(),
            acknowledged: Arc::default(),
            disk: self.disk,
            rng: self.rng,
            serial: self.serial,
        };
        Ok((disk, load))
    }

    /// Checks that `disk`, a crashed copy of this load's disk, holds everything up to append number `synced` and at most
    /// what came after it. Answers with the journal opened on it.
    pub fn check_copy(&self, disk: &SimDisk, synced: usize) -> Result<Journal, JournalError> {
        let (journal, recovered) = open(disk, &self.rng)?;
        self.check(&journal, &recovered, synced);
        Ok(journal)
    }

    /// Which state was found; it must be one that a prefix of the history left.
    fn check(&self, journal: &Journal, recovered: &Recovered, synced: usize) -> Groups {
        assert!(recovered.quarantined.is_empty(), "a crash is not damage: {:?}", recovered.quarantined);
        assert!(recovered.missing_segments.is_empty(), "{:?}", recovered.missing_segments);
        let found = found(journal, recovered);
        let mut state = self.base.clone();
        for (number, entries) in self.history.iter().enumerate() {
            if number >= synced && state == found {
                return found;
            }
            for entry in entries {
                apply(&mut state, entry);
            }
        }
        assert_eq!(found, state, "not what any prefix from {synced} of {} appends left", self.history.len());
        found
    }

    fn chance(&self, one_in: u64) -> bool {
        self.rng.below(one_in) == 0
    }

    /// One append: a few entries, mostly of one group.
    fn entries(&mut self) -> Vec<Entry> {
        let mut head = self.head.clone();
        let mut group = GroupId(self.rng.below(GROUPS) as u32);
        let mut entries = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            if self.chance(8) {
                group = GroupId(self.rng.below(GROUPS) as u32);
            }
            let entry = self.entry(group, head.entry(group).or_default());
            apply(&mut head, &entry);
            entries.push(entry);
        }
        entries
    }

    fn entry(&mut self, group: GroupId, state: &Group) -> Entry {
        self.serial += 1;
        let (first, last) = (state.first(), state.last());
        let inside = first + self.rng.below(last + 1 - first.min(last + 1));
        let (kind, index) = match self.rng.below(20) {
            0 => (EntryKind::Vote, 0),
            1 => (EntryKind::Committed, 0),
            2 => (EntryKind::Truncate, inside),
            3 => (EntryKind::Purge, inside),
            // A leader's log that replaces the tail without a Truncate.
            4 => (EntryKind::Append, inside),
            _ => (EntryKind::Append, last + 1),
        };
        let size = match (kind, self.rng.below(10)) {
            (EntryKind::Append, 0) => self.rng.below(12_000),
            (EntryKind::Append, _) => self.rng.below(600),
            _ => 0,
        };
        let head = Bytes::from(format!("{} {kind:?}", self.serial));
        let body = Bytes::from(vec![self.serial as u8; size as usize]);
        Entry {
            kind,
            group,
            index,
            term: self.serial,
            node: 1,
            payload: Payload { head, bodies: vec![body] },
        }
    }

    /// Recycles every sealed segment in which all is purged.
    fn recycle(&mut self) {
        self.settle();
        let purged = |group| self.head.get(&group).and_then(|group| group.purged).map_or(0, |p| p.index);
        for info in self.journal.segments().into_iter().filter(|info| info.sealed) {
            if info.groups.iter().all(|(group, _, last)| *last <= purged(*group)) {
                // Refused only when the power is gone already.
                let _ = self.journal.recycle(info.seq);
            }
        }
    }
}

fn open(disk: &SimDisk, rng: &Arc<SeededRng>) -> Result<(Journal, Recovered), JournalError> {
    let mut config = JournalConfig::new(Path::new(DIR), Identity { cluster: 1, node: 1 });
    config.segment_bytes = 64 << 10;
    let rng: Arc<dyn Rng> = Arc::clone(rng) as Arc<dyn Rng>;
    Journal::open(config, Arc::new(disk.clone()), rng, Driver::Manual { wake: Arc::new(|| {}) })
}

/// What an entry does, told in the plainest way.
fn apply(groups: &mut Groups, entry: &Entry) {
    let group = groups.entry(entry.group).or_default();
    let position = LogPosition { index: entry.index, term: entry.term, node: entry.node };
    match entry.kind {
        EntryKind::Append => {
            group.entries.retain(|index, _| *index < entry.index);
            group.entries.insert(entry.index, (position, entry.payload.clone()));
        }
        EntryKind::Truncate => group.entries.retain(|index, _| *index < entry.index),
        EntryKind::Purge => {
            group.entries.retain(|index, _| *index > entry.index);
            group.purged = Some(position);
        }
        EntryKind::Vote => group.vote = Some(entry.payload.clone()),
        EntryKind::Committed => group.committed = Some(entry.payload.clone()),
        EntryKind::Checkpoint => unreachable!("the load writes none"),
    }
}

/// What the journal says it holds, every payload read and verified.
fn found(journal: &Journal, recovered: &Recovered) -> Groups {
    let mut groups = Groups::new();
    for (id, found) in &recovered.groups {
        assert!(found.gaps().is_empty(), "{id}: {:?}", found.gaps());
        let group = groups.entry(*id).or_default();
        group.purged = found.purged;
        group.vote = found.vote.clone();
        group.committed = found.committed.clone();
        for entry in &found.entries {
            let payload = journal.read_payload(entry.location).expect("a live entry is readable");
            group.entries.insert(entry.position.index, (entry.position, payload));
        }
    }
    groups
}
