//! Votes, entries and truncations through power losses. What openraft was told is durable is there; what is there includes
//! everything that was asked for before it, in the order in which it was asked for. (Spec: storage 10, 11, 12.)

use std::sync::Arc;

use bytes::Bytes;
use model::GroupId;
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use rt::{DiskOp, Fault, Rng, SeededRng, SimDisk};
use storage::journal::Journal;

use super::{GroupLog, LogIndex, Stripe};
use crate::codec::decode_vote;
use crate::fixture::{TestJournal, payload};
use crate::health::Health;
use crate::types::{Command, Entry, Types, Vote, log_id};

const GROUP: GroupId = GroupId(3);
/// Requests of a run.
const STEPS: u64 = 40;

/// What a log holds: the vote, and index, term and payload of each entry.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    vote: Option<Vote>,
    entries: Vec<(u64, u64, Bytes)>,
}

impl Held {
    fn term(&self) -> u64 {
        self.vote.as_ref().map_or(0, |vote| vote.leader_id.term)
    }
}

fn open(disk: &SimDisk) -> (Arc<Journal>, GroupLog) {
    let (journal, found) = TestJournal::Simulated(disk.clone()).open(GROUP);
    assert!(found.vote.is_none() && found.entries.is_empty(), "a new disk holds nothing");
    let stripe = Stripe::new(journal.clone());
    (journal, GroupLog::new(GROUP, stripe, LogIndex::new(1 << 20), Arc::new(Health::default())))
}

/// What a restart finds.
fn recover(disk: &SimDisk) -> Held {
    let (journal, found) = TestJournal::Simulated(disk.clone()).open(GROUP);
    assert!(found.gaps().is_empty(), "a hole: {:?}", found.gaps());
    let entries = found.entries.iter().map(|entry| {
        let read = journal.read_payload(entry.location).expect("what was recovered is readable");
        (entry.position.index, entry.position.term, read.head)
    });
    let vote = found.vote.map(|vote| decode_vote(&vote.head).expect("what was encoded"));
    Held { vote, entries: entries.collect() }
}

/// A log that is asked for random things, and what it should hold after each.
struct Load {
    journal: Arc<Journal>,
    log: GroupLog,
    disk: SimDisk,
    rng: SeededRng,
    /// `history[n]` is the state after the first `n` requests.
    history: Vec<Held>,
}

impl Load {
    fn new(seed: u64) -> Load {
        let disk = SimDisk::new();
        disk.record();
        let (journal, log) = open(&disk);
        Load { journal, log, disk, rng: SeededRng::new(seed), history: vec![Held::default()] }
    }

    /// Waits for the thread that makes spare segments: it syncs, too, and must not meet a fault that is meant for a vote.
    fn calm(&self) {
        while self.journal.spares_ready() < 2 {
            std::thread::yield_now();
        }
    }

    fn held(&self) -> Held {
        self.history.last().cloned().unwrap_or_default()
    }

    /// One request. Marks the disk with its number when it is said to be durable.
    async fn step(&mut self) {
        let held = self.held();
        match self.rng.below(6) {
            0 | 1 => self.vote(held).await,
            2 if !held.entries.is_empty() => self.truncate(held).await,
            _ if held.vote.is_some() => self.append(held).await,
            _ => self.vote(held).await,
        }
    }

    async fn vote(&mut self, mut held: Held) {
        // A candidate's vote, then a leader's of the same term, or a later term's.
        let (term, node) = (held.term(), self.rng.below(3));
        let vote = match held.vote {
            Some(vote) if !vote.is_committed() && self.rng.below(2) == 0 => {
                Vote::new_committed(term, vote.leader_id.voted_for)
            }
            Some(_) | None => Vote::new(term + 1 + self.rng.below(2), node),
        };
        held.vote = Some(vote);
        self.history.push(held);
        self.log.save_vote(&vote).await.expect("the disk is well");
        self.disk.mark(self.history.len() as u64 - 1);
    }

    async fn append(&mut self, mut held: Held) {
        let (term, mut index) = (held.term(), held.entries.last().map_or(0, |(index, ..)| index + 1));
        let mut entries = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            let head = Bytes::from(vec![index as u8; self.rng.below(3000) as usize]);
            held.entries.push((index, term, head.clone()));
            let command = EntryPayload::Normal(Command::proposed(payload(head)));
            entries.push(Entry { log_id: log_id(term, index), payload: command });
            index += 1;
        }
        self.history.push(held);
        let (flushed, told) = Types::oneshot();
        self.log.append(entries, IOFlushed::signal(flushed)).await.expect("the disk is well");
        // Not waited for: openraft asks for the next thing meanwhile.
        let (disk, number) = (self.disk.clone(), self.history.len() as u64 - 1);
        tokio::spawn(async move {
            told.await.expect("it is told").expect("the disk is well");
            disk.mark(number);
        });
    }

    async fn truncate(&mut self, mut held: Held) {
        let keep = self.rng.below(held.entries.len() as u64) as usize;
        held.entries.truncate(keep);
        let last = held.entries.last().map(|(index, term, _)| log_id(*term, *index));
        // A conflict is found by a later leader, whose vote comes first.
        held.vote = Some(Vote::new_committed(held.term() + 1, 2));
        self.log.save_vote(&held.vote.expect("just set")).await.expect("the disk is well");
        self.history.push(Held { entries: self.held().entries, vote: held.vote });
        self.history.push(held);
        self.log.truncate_after(last).await.expect("the disk is well");
        self.disk.mark(self.history.len() as u64 - 1);
    }
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test)
}

#[test]
fn every_crash_point_leaves_what_was_promised_and_a_log_that_was_once_asked_for() {
    for seed in 0..4 {
        let (ops, history) = run(async {
            let mut load = Load::new(seed);
            for _ in 0..STEPS {
                load.step().await;
            }
            load.log.save_vote(&Vote::new(1000, 0)).await.expect("the disk is well");
            let mut held = load.held();
            held.vote = Some(Vote::new(1000, 0));
            load.history.push(held);
            load.disk.mark(load.history.len() as u64 - 1);
            (load.disk.recorded(), load.history)
        });
        let (mut durable, mut partial) = (0, 0);
        for end in 1..=ops.len() {
            if let DiskOp::Mark(number) = ops[end - 1] {
                durable = durable.max(number as usize);
            }
            for outcome in 0..2 {
                let seed = seed << 32 | (end as u64) << 8 | outcome;
                let disk = SimDisk::replay(&ops[..end]).expect("what was recorded").crash(seed);
                let found = recover(&disk);
                let known = history[durable..].iter().position(|held| *held == found);
                assert!(known.is_some(), "seed {seed}, change {end}, {durable} durable: {found:?}");
                partial += usize::from(known.is_some_and(|beyond| beyond > 0));
                let last = found.entries.last().map_or(0, |(_, term, _)| *term);
                assert!(last <= found.term(), "entries of term {last}, but the vote is of {}", found.term());
            }
        }
        assert_eq!(durable, history.len() - 1);
        assert!(partial > 0, "some crash must come between a write and its answer");
    }
}

#[test]
fn a_vote_that_could_not_be_synced_is_not_answered_and_a_stopped_log_gives_no_other() {
    run(async {
        let mut load = Load::new(1);
        load.log.save_vote(&Vote::new(1, 0)).await.expect("the disk is well");
        load.calm();
        load.disk.inject(Fault::SyncError { after: 0 }).expect("not about a file");
        load.log.save_vote(&Vote::new(2, 1)).await.expect_err("it is not durable");
        load.log.save_vote(&Vote::new(2, 2)).await.expect_err("the disk is well again, which proves nothing");
        let mut reader = load.log.get_log_reader().await;
        assert_eq!(reader.read_vote().await.ok(), Some(Some(Vote::new(1, 0))));
        for seed in 0..8 {
            let found = recover(&load.disk.fork().crash(seed)).vote.expect("the first one was promised");
            assert_ne!(
                found,
                Vote::new(2, 2),
                "nobody was told of a second vote in term 2, and there is none"
            );
        }
    });
}
