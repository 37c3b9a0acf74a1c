//! What consensus costs on this machine: start, latency of one proposal, CPU per entry under load, CPU while
//! idle.
//!
//! `cargo run --release -p consensus --example measure [DIR]`

#![allow(clippy::print_stdout)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consensus::{Committed, GroupHandle, Groups, Limits, MachineFailed, ProposeError, StateMachine};
use model::{GroupId, NodeId};
use rt::{Shutdown, StdDisk, SystemRng, Tasks};
use storage::journal::{Driver, Identity, Journal, JournalConfig, Payload, RecoveredGroup};

const GROUPS: u32 = 16;

/// Does nothing, so that what is measured is consensus.
#[derive(Default)]
struct Nothing(u64);

impl StateMachine for Nothing {
    fn apply(&mut self, _entry: Committed) -> Bytes {
        Bytes::new()
    }
    fn turn_ended(&mut self, applied: u64) -> Result<(), MachineFailed> {
        self.0 = applied;
        Ok(())
    }
    fn applied(&self) -> u64 {
        self.0
    }
    fn flushed(&self) -> u64 {
        self.0
    }
    fn checkpoint(&mut self) -> Result<Bytes, MachineFailed> {
        Ok(Bytes::new())
    }
    fn restore(&mut self, applied: u64, _checkpoint: Bytes) -> Result<(), MachineFailed> {
        self.0 = applied;
        Ok(())
    }
}

fn main() {
    let dir = std::env::args().nth(1).map(PathBuf::from).unwrap_or_else(|| "target/measure".into());
    let config = JournalConfig::new(&dir, Identity { cluster: 1, node: 1 });
    let disk = Arc::new(StdDisk);
    let (journal, _) = Journal::open(config, disk, Arc::new(SystemRng), Driver::Threads).expect("a journal");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(measure(Arc::new(journal)));
    std::fs::remove_dir_all(&dir).expect("the directory was made above");
}

async fn measure(journal: Arc<Journal>) {
    let groups = Groups::new(NodeId(1), journal, Tasks::new(Shutdown::new()), Limits::default());
    let mut handles = Vec::new();
    let started = Instant::now();
    for group in 0..GROUPS {
        let opened = groups.open(GroupId(group), RecoveredGroup::default(), Box::<Nothing>::default()).await;
        handles.push(opened.expect("a group"));
    }
    println!("start: {:?} for {GROUPS} new groups", started.elapsed());
    one_at_a_time(&handles[0]).await;
    under_load(&handles[..1], 64).await;
    under_load(&handles[..4], 64).await;
    under_load(&handles[..1], 64 << 10).await;
    idle().await;
    groups.shutdown().await;
}

async fn one_at_a_time(group: &GroupHandle) {
    let mut took = Vec::new();
    let cpu = cpu();
    for _ in 0..3000 {
        let started = Instant::now();
        group.propose(payload(128)).await.expect("a reply");
        took.push(started.elapsed());
    }
    took.sort();
    println!("one at a time: p50 {:?} p99 {:?}, each {}", took[1500], took[2970], cpu.each(3000));
}

async fn under_load(groups: &[GroupHandle], bytes: usize) {
    const ENTRIES: u32 = 20_000;
    let entries = if bytes > 1024 { ENTRIES / 10 } else { ENTRIES };
    let (started, cpu) = (Instant::now(), cpu());
    let mut replies = VecDeque::<Pin<Box<dyn Future<Output = Result<Bytes, ProposeError>>>>>::new();
    for n in 0..entries {
        let group = &groups[n as usize % groups.len()];
        while replies.len() >= 8 * groups.len() {
            replies.pop_front().expect("it is not empty").await.expect("a reply");
        }
        replies.push_back(Box::pin(group.propose(payload(bytes))));
    }
    for reply in replies {
        reply.await.expect("a reply");
    }
    let rate = f64::from(entries) / started.elapsed().as_secs_f64();
    println!("{} group(s), {bytes} bytes: {rate:.0} entries/s, each {}", groups.len(), cpu.each(entries));
}

async fn idle() {
    let cpu = cpu();
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!("idle for 20 s with {GROUPS} groups: {}", cpu.each(1));
}

fn payload(bytes: usize) -> Payload {
    Payload { head: Bytes::from_static(b"head"), bodies: vec![Bytes::from(vec![7; bytes])] }
}

/// CPU time of this thread, and of all threads.
fn cpu() -> Cpu {
    let read = |path: PathBuf| {
        let stat = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
        Duration::from_nanos(nanos)
    };
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux");
    let all = threads.map(|thread| read(thread.expect("a thread").path())).sum();
    Cpu { here: read("/proc/thread-self".into()), all }
}

/// CPU time, here and everywhere.
#[derive(Clone, Copy)]
struct Cpu {
    here: Duration,
    all: Duration,
}

impl Cpu {
    /// What each of so many things cost since then.
    fn each(self, count: u32) -> String {
        let now = cpu();
        let (here, all) = ((now.here - self.here) / count, (now.all - self.all) / count);
        format!("{here:?} CPU on the consensus thread, {all:?} with the journal")
    }
}
