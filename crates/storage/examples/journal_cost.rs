//! Measures the journal against the disk below it, in one run: durable appends per second and latency, beside synced
//! writes of the same frame size to a pre-written file.
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
/// Size of the file for raw writes, as large as a segment.
const RAW_FILE: u64 = 64 << 20;

struct Case {
    producers: u32,
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
        "| producers x in flight x bytes | appends/s | MB/s | p50 us | p99 us | frames/s | frame bytes | raw frames/s | raw p50 | ratio (worst) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let small = [(1, 1), (64, 1), (2, 1000)].into_iter();
    let small = small.flat_map(|(producers, in_flight)| [128, 1024].map(|size| (producers, in_flight, size)));
    // What a group really appends: bundles of many records.
    let rows = small.chain([(2, 16, 16 << 10), (2, 16, 128 << 10)]).enumerate();
    for (_, (producers, in_flight, size)) in rows.filter(|(i, _)| row.is_none_or(|row| row == *i)) {
        run_case(&dir, seconds, &Case { producers, in_flight, size });
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
        case.producers,
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
    let mut total = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=case.producers)
            .map(|group| {
                let journal = &journal;
                scope.spawn(move || produce(journal, GroupId(group), case, start + seconds))
            })
            .collect();
        for thread in threads {
            let (sent, took) = thread.join().unwrap();
            total += sent;
            times.extend(took);
        }
    });
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

/// What a producer shares with its completions: one allocation, touched once per append.
struct Progress {
    completed: AtomicU64,
    waiting: AtomicBool,
    thread: std::thread::Thread,
    times: Mutex<Vec<u64>>,
}

/// Keeps `in_flight` appends going until `end`; answers how many were completed, and how long some of them took.
fn produce(journal: &Journal, group: GroupId, case: &Case, end: Instant) -> (u64, Vec<u64>) {
    /// Of how many appends one is timed, so that the clock is not what is measured.
    const SAMPLE: u64 = 16;
    let body: &'static [u8] = Box::leak(vec![0x5a; case.size].into_boxed_slice());
    let progress = Arc::new(Progress {
        completed: AtomicU64::new(0),
        waiting: AtomicBool::new(false),
        thread: std::thread::current(),
        times: Mutex::default(),
    });
    let mut sent = 0;
    loop {
        let over = Instant::now() >= end;
        let in_flight = sent - progress.completed.load(Ordering::SeqCst);
        if over && in_flight == 0 {
            return (sent, std::mem::take(&mut *progress.times.lock()));
        }
        if in_flight >= case.in_flight || over {
            progress.waiting.store(true, Ordering::SeqCst);
            // Look again: a completion may have come in between and seen nobody waiting.
            if sent - progress.completed.load(Ordering::SeqCst) == in_flight {
                std::thread::park();
            }
            progress.waiting.store(false, Ordering::SeqCst);
            continue;
        }
        for _ in in_flight..case.in_flight {
            sent += 1;
            let payload = Payload { head: Bytes::new(), bodies: vec![Bytes::from_static(body)] };
            let entry = Entry { kind: EntryKind::Append, group, index: sent, term: 1, node: 1, payload };
            let start = (case.in_flight == 1 || sent.is_multiple_of(SAMPLE)).then(Instant::now);
            let progress = Arc::clone(&progress);
            let done: Completion = Box::new(move |outcome| {
                outcome.unwrap();
                if let Some(start) = start {
                    progress.times.lock().push(start.elapsed().as_micros() as u64);
                }
                progress.completed.fetch_add(1, Ordering::SeqCst);
                if progress.waiting.load(Ordering::SeqCst) && progress.waiting.swap(false, Ordering::SeqCst) {
                    progress.thread.unpark();
                }
            });
            journal.append(vec![entry], Durability::Sync, done).unwrap();
        }
    }
}
