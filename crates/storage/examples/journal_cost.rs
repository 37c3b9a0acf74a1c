//! Measures the journal against the disk below it, in one run: durable appends per second and latency, beside synced
//! writes of the same frame size to a pre-written file. One thread appends for all groups, as the consensus thread does.
//!
//! `cargo run --release -p storage --example journal_cost [DIR] [SECONDS] [ROW]`. DIR must be on the disk in question; ROW
//! (from 0) measures one row only.

#![allow(clippy::print_stdout, reason = "the table is the product")]
#![allow(clippy::unwrap_used, reason = "a failed measurement should stop")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::GroupId;
use parking_lot::Mutex;
use rt::{Disk, DiskFile, StdDisk, SystemRng};
use storage::journal::{
    Completion, Driver, Durability, Entry, EntryKind, Identity, Journal, JournalConfig, Payload,
};

/// As in the broker.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Size of the file for raw writes, as large as a segment.
const RAW_FILE: u64 = 64 << 20;

struct Case {
    groups: u32,
    in_flight: u64,
    size: usize,
}

struct Latency {
    p50: u64,
    p99: u64,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_else(|| "journal-cost".into()));
    let seconds = Duration::from_secs_f64(args.next().map_or(3.0, |text| text.parse().unwrap()));
    let row: Option<usize> = args.next().map(|text| text.parse().unwrap());
    StdDisk.create_dir_all(&dir).unwrap();
    raw_table(&dir, seconds / 3);
    println!();
    println!(
        "| groups x in flight x bytes | appends/s | MB/s | p50 us | p99 us | frames/s | frame bytes | raw frames/s | raw p50 | ratio (worst) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let small = [(1, 1), (64, 1), (2, 1000)].into_iter();
    let small = small.flat_map(|(groups, in_flight)| [128, 1024].map(|size| (groups, in_flight, size)));
    // What a group really appends: bundles of many records.
    let rows = small.chain([(2, 16, 16 << 10), (2, 16, 128 << 10)]).enumerate();
    for (_, (groups, in_flight, size)) in rows.filter(|(i, _)| row.is_none_or(|row| row == *i)) {
        run_case(&dir, seconds, &Case { groups, in_flight, size });
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The choices of padding and of how to sync, on this disk.
fn raw_table(dir: &Path, seconds: Duration) {
    println!(
        "| raw write, pre-written file | pwrite + fdatasync /s (p50, p99 us) | pwritev2 RWF_DSYNC /s (p50, p99 us) |"
    );
    println!("|---|---|---|");
    for size in [512, 4096, 65_536, 1 << 20] {
        let cell = |how| {
            let (rate, latency) = raw(dir, size, seconds, how);
            format!("{rate:.0} ({}, {})", latency.p50, latency.p99)
        };
        println!("| {size} | {} | {} |", cell(HowSynced::Fdatasync), cell(HowSynced::Dsync));
    }
}

#[derive(Clone, Copy)]
enum HowSynced {
    Fdatasync,
    Dsync,
}

fn raw(dir: &Path, size: usize, seconds: Duration, how: HowSynced) -> (f64, Latency) {
    let path = dir.join("raw");
    let file = StdDisk.create(&path).unwrap();
    let chunk = vec![0u8; 1 << 20];
    for at in (0..RAW_FILE).step_by(chunk.len()) {
        file.write_all_at(&chunk, at).unwrap();
    }
    file.sync_all().unwrap();
    let data = vec![0x5a; size];
    let (start, mut at, mut times) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < seconds {
        if at + size as u64 > RAW_FILE {
            at = 0;
        }
        let before = Instant::now();
        write_synced(&*file, &data, at, how);
        times.push(before.elapsed().as_micros() as u64);
        at += size as u64;
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    StdDisk.remove(&path).unwrap();
    (rate, percentiles(times))
}

fn write_synced(file: &dyn DiskFile, data: &[u8], at: u64, how: HowSynced) {
    match how {
        HowSynced::Dsync => file.write_durable_at(data, at).unwrap(),
        HowSynced::Fdatasync => {
            file.write_all_at(data, at).unwrap();
            file.sync_data().unwrap();
        }
    }
}

fn percentiles(mut times: Vec<u64>) -> Latency {
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or(0);
    Latency { p50: at(0.5), p99: at(0.99) }
}

/// What one round of a case brought.
struct Round {
    appends: f64,
    frames: f64,
    frame_bytes: u64,
    raw_frames: f64,
    raw_p50: u64,
    slow_segments: u64,
}

/// Rounds of journal and raw writes take turns, because the machine may be busy with something else at any time; the
/// median of their ratios counts.
fn run_case(dir: &Path, seconds: Duration, case: &Case) {
    let mut times = Vec::new();
    let mut rounds: Vec<Round> = (0..5).map(|_| run_round(dir, seconds / 5, case, &mut times)).collect();
    rounds.sort_by(|a, b| (a.frames / a.raw_frames).total_cmp(&(b.frames / b.raw_frames)));
    let worst = rounds[0].frames / rounds[0].raw_frames;
    let median = &rounds[rounds.len() / 2];
    let latency = percentiles(times);
    println!(
        "| {} x {} x {} | {:.0} | {:.0} | {} | {} | {:.0} | {} | {:.0} | {} | {:.0} % ({:.0}) |",
        case.groups,
        case.in_flight,
        case.size,
        median.appends,
        median.appends * case.size as f64 / 1e6,
        latency.p50,
        latency.p99,
        median.frames,
        median.frame_bytes,
        median.raw_frames,
        median.raw_p50,
        100.0 * median.frames / median.raw_frames,
        100.0 * worst,
    );
    let slow: u64 = rounds.iter().map(|round| round.slow_segments).sum();
    if slow > 0 {
        println!("({slow} segments started without a pre-written spare)");
    }
}

fn run_round(dir: &Path, seconds: Duration, case: &Case, times: &mut Vec<u64>) -> Round {
    let (journal, retention) = open(dir);
    let before = journal.counters();
    let start = Instant::now();
    let total = produce(&journal, case, start + seconds, times);
    let elapsed = start.elapsed().as_secs_f64();
    let after = journal.counters();
    drop(journal);
    retention.join().unwrap();
    let frames = after.frames - before.frames;
    let frame_bytes = (after.bytes - before.bytes) / frames;
    let padded = frame_bytes.next_multiple_of(4096) as usize;
    let (dsync, dsync_latency) = raw(dir, padded, seconds / 2, HowSynced::Dsync);
    let (fdatasync, fdatasync_latency) = raw(dir, padded, seconds / 2, HowSynced::Fdatasync);
    Round {
        appends: total as f64 / elapsed,
        frames: frames as f64 / elapsed,
        frame_bytes,
        raw_frames: dsync.max(fdatasync),
        raw_p50: if dsync > fdatasync { dsync_latency.p50 } else { fdatasync_latency.p50 },
        slow_segments: after.slow_segments,
    }
}

/// A journal whose sealed segments are recycled at once, as in a broker that is in balance with its retention.
fn open(dir: &Path) -> (Arc<Journal>, std::thread::JoinHandle<()>) {
    let data = dir.join("data");
    let mut config = JournalConfig::new(&data, Identity { cluster: 1, node: 1 });
    config.spares = 4;
    config.spares_max = 8;
    let _ = std::fs::remove_dir_all(&data);
    let (journal, _) =
        Journal::open(config, Arc::new(StdDisk::new()), Arc::new(SystemRng), Driver::Threads).unwrap();
    while journal.spares_ready() < 4 {
        std::thread::yield_now();
    }
    let journal = Arc::new(journal);
    let (sender, receiver) = mpsc::channel();
    journal.on_seal(Box::new(move |info| {
        // The other end is gone only when the measurement is over.
        let _ = sender.send(info.seq);
    }));
    let weak = Arc::downgrade(&journal);
    let retention = std::thread::spawn(move || {
        for seq in receiver {
            if let Some(journal) = weak.upgrade() {
                journal.recycle(seq).unwrap();
            }
        }
    });
    (journal, retention)
}

/// What the producer shares with the completions: touched once per append.
struct Progress {
    completed: Vec<AtomicU64>,
    waiting: AtomicBool,
    thread: std::thread::Thread,
    times: Mutex<Vec<u64>>,
}

impl Progress {
    fn completed(&self, group: usize, sent_at: Option<Instant>) {
        if let Some(sent_at) = sent_at {
            self.times.lock().push(sent_at.elapsed().as_micros() as u64);
        }
        self.completed[group].fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) && self.waiting.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

/// Keeps `in_flight` appends of every group going until `end`; answers how many were completed, and adds how long some
/// of them took to `times`.
fn produce(journal: &Journal, case: &Case, end: Instant, times: &mut Vec<u64>) -> u64 {
    /// Of how many appends one is timed, so that the clock is not what is measured.
    const SAMPLE: u64 = 16;
    let body: &'static [u8] = Box::leak(vec![0x5a; case.size].into_boxed_slice());
    let progress = Arc::new(Progress {
        completed: (0..case.groups).map(|_| AtomicU64::new(0)).collect(),
        waiting: AtomicBool::new(false),
        thread: std::thread::current(),
        times: Mutex::default(),
    });
    let mut sent = vec![0; case.groups as usize];
    loop {
        progress.waiting.store(true, Ordering::SeqCst);
        let over = Instant::now() >= end;
        let mut room = 0;
        let mut in_flight = 0;
        for (group, sent) in sent.iter_mut().enumerate() {
            let mut mine = *sent - progress.completed[group].load(Ordering::SeqCst);
            while mine < case.in_flight && !over {
                (*sent, mine, room) = (*sent + 1, mine + 1, room + 1);
                let payload = Payload { head: Bytes::new(), bodies: vec![Bytes::from_static(body)] };
                let (id, index) = (GroupId(group as u32 + 1), *sent);
                let entry = Entry { kind: EntryKind::Append, group: id, index, term: 1, node: 1, payload };
                let is_timed = case.in_flight == 1 || index.is_multiple_of(SAMPLE);
                let sent_at = is_timed.then(Instant::now);
                let progress = Arc::clone(&progress);
                let done: Completion = Box::new(move |outcome| {
                    outcome.unwrap();
                    progress.completed(group, sent_at);
                });
                journal.append(vec![entry], Durability::Sync, done).unwrap();
            }
            in_flight += mine;
        }
        if over && in_flight == 0 {
            times.append(&mut progress.times.lock());
            return sent.into_iter().sum();
        }
        if room == 0 {
            std::thread::park();
        }
    }
}
