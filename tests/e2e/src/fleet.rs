//! Many sessions over a broker that dies again and again: publishers that resume and send again, subscribers that
//! take account of every message as it comes. A few threads drive them all.
//!
//! Lane `n` has a publisher with QoS 1 and one with QoS 2, each with a topic of its own (`fleet/1/n`, `fleet/2/n`), and
//! subscribers to both topics, half of them with QoS 1 and half with QoS 2. Payloads are counts from 0.

use std::collections::HashMap;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use wire::mqtt::{Qos, ReasonCode};

use crate::collector::Intake;
use crate::flood::Flood;
use crate::socket::{Incoming, Opening, Socket};
use crate::wait::wait_until;

/// Threads that drive the sessions.
const THREADS: usize = 2;
/// How long a thread waits at most for its sockets before it connects those that are down.
const GLANCE_MS: libc::c_int = 10;
/// Bound: messages of a publisher that wait for an answer.
const WINDOW: usize = 4;

/// How many sessions.
#[derive(Clone, Copy, Debug)]
pub struct FleetSize {
    /// Pairs of publishers.
    pub lanes: usize,
    /// Subscribers of a lane with QoS 1, and as many with QoS 2.
    pub subscribers: usize,
}

impl FleetSize {
    /// All sessions.
    pub fn sessions(self) -> usize {
        self.lanes * 2 * (1 + self.subscribers)
    }
}

/// The sessions. Each breach of a promise is a panic, in their threads at first, then in [`Fleet::check`].
pub struct Fleet {
    size: FleetSize,
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Progress {
    /// Messages that each publisher shall have sent.
    total: AtomicU64,
    /// Sessions that are there with all that they subscribe to.
    ready: AtomicU64,
    /// Messages that were answered to the end.
    answered: AtomicU64,
    /// Messages that came, not counting those that came again.
    received: AtomicU64,
    reconnects: AtomicU64,
    stop: AtomicBool,
}

impl Fleet {
    /// Connects all sessions and returns when all subscriptions are granted.
    pub fn start(address: SocketAddr, size: FleetSize) -> Fleet {
        let progress = Arc::new(Progress::default());
        let mut crews: Vec<Vec<Member>> = (0..THREADS).map(|_| Vec::new()).collect();
        for (number, member) in (0..size.lanes).flat_map(|lane| members(lane, size)).enumerate() {
            crews[number % THREADS].push(member);
        }
        let threads = crews.into_iter().map(|members| {
            let crew = Crew { address, members, progress: Arc::clone(&progress) };
            thread::spawn(move || crew.run())
        });
        let fleet = Fleet { size, threads: threads.collect(), progress };
        let sessions = size.sessions() as u64;
        fleet.wait(&format!("{sessions} sessions are ready"), |progress| {
            progress.ready.load(Ordering::Relaxed) == sessions
        });
        fleet
    }

    /// Has each publisher send `count` more.
    pub fn publish(&self, count: u64) {
        self.progress.total.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether all was answered and has come to every subscriber.
    pub fn is_settled(&self) -> bool {
        self.check();
        self.is_done(&self.progress)
    }

    /// Waits for that.
    pub fn settle(&self) {
        self.wait("every message has come to all its subscribers", |progress| self.is_done(progress));
    }

    /// Publishes until `is_over`.
    pub fn publish_until(&self, what: &str, mut is_over: impl FnMut() -> bool) {
        wait_until(what, || {
            if is_over() {
                return Some(());
            }
            if self.is_settled() {
                self.publish(WINDOW as u64);
            }
            None
        });
    }

    /// Panics if a promise was broken.
    pub fn check(&self) {
        let ended = self.threads.iter().any(JoinHandle::is_finished);
        assert!(!ended, "a promise was broken; what it was is said above");
    }

    /// Messages that each publisher has sent, and how often a session came back.
    pub fn finish(self) -> (u64, u64) {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no promise is broken"));
        let progress = &self.progress;
        (progress.total.load(Ordering::Relaxed), progress.reconnects.load(Ordering::Relaxed))
    }

    fn is_done(&self, progress: &Progress) -> bool {
        let sent = 2 * self.size.lanes as u64 * progress.total.load(Ordering::Relaxed);
        let due = sent * 2 * self.size.subscribers as u64;
        progress.answered.load(Ordering::Relaxed) == sent && progress.received.load(Ordering::Relaxed) == due
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut(&Progress) -> bool) {
        wait_until(what, || {
            self.check();
            is_so(&self.progress).then_some(())
        });
    }
}

fn topic(qos: Qos, lane: usize) -> String {
    format!("fleet/{}/{lane}", qos as u8)
}

fn members(lane: usize, size: FleetSize) -> impl Iterator<Item = Member> {
    const BOTH: [Qos; 2] = [Qos::AtLeastOnce, Qos::ExactlyOnce];
    let publishers = BOTH.map(|qos| {
        let flood = Flood::new(&topic(qos, lane), qos, WINDOW);
        Member::new(format!("publisher-{}-{lane}", qos as u8), Role::Publisher { flood, answered: 0 })
    });
    let subscribers = BOTH.into_iter().flat_map(move |qos| {
        (0..size.subscribers).map(move |number| {
            let topics = BOTH
                .map(|of| (topic(of, lane), Track { next: 0, exactly_once: qos == of && qos == BOTH[1] }));
            let role = Role::Subscriber {
                qos,
                intake: Intake::default(),
                tracks: topics.into_iter().collect(),
                has_subscribed: false,
            };
            Member::new(format!("subscriber-{}-{lane}-{number}", qos as u8), role)
        })
    });
    publishers.into_iter().chain(subscribers)
}

/// Who is driven by one thread.
struct Crew {
    address: SocketAddr,
    members: Vec<Member>,
    progress: Arc<Progress>,
}

/// One session.
struct Member {
    client_id: String,
    role: Role,
    socket: Option<Socket>,
    /// CONNACK has come, on this connection or ever.
    is_up: bool,
    had_session: bool,
}

enum Role {
    Publisher { flood: Flood, answered: u64 },
    Subscriber { qos: Qos, intake: Intake, tracks: HashMap<String, Track>, has_subscribed: bool },
}

/// What has come on one topic.
struct Track {
    next: u64,
    exactly_once: bool,
}

impl Crew {
    fn run(mut self) {
        while !self.progress.stop.load(Ordering::Relaxed) {
            self.connect();
            let ready = self.poll();
            for (member, is_ready) in self.members.iter_mut().zip(ready) {
                // An error is the crash that this is about.
                if member.socket.is_some() && member.turn(is_ready, &self.progress).is_err() {
                    member.socket = None;
                    member.is_up = false;
                }
            }
        }
    }

    /// Connects who is down, as long as somebody answers.
    fn connect(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.socket.is_none()) {
            match Socket::begin(self.address, &Opening::persistent(&member.client_id)) {
                Ok(socket) => member.socket = Some(socket),
                Err(_) => return,
            }
        }
    }

    /// Waits until something comes; who has something to read.
    fn poll(&self) -> Vec<bool> {
        let mut watched: Vec<_> = self
            .members
            .iter()
            .map(|member| libc::pollfd {
                // A negative one is passed over.
                fd: member.socket.as_ref().map_or(-1, Socket::descriptor),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        // Safety: the list is as long as is said, and lives through the call.
        let found = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, GLANCE_MS) };
        watched.iter().map(|watched| found > 0 && watched.revents != 0).collect()
    }
}

impl Member {
    fn new(client_id: String, role: Role) -> Member {
        Member { client_id, role, socket: None, is_up: false, had_session: false }
    }

    fn turn(&mut self, is_ready: bool, progress: &Progress) -> Result<()> {
        let Some(mut socket) = self.socket.take() else { return Ok(()) };
        if is_ready {
            // What came before the end counts.
            let received = socket.receive();
            while let Some(incoming) = socket.read_arrived() {
                self.take(&mut socket, incoming, progress)?;
            }
            received?;
        }
        if let (true, Role::Publisher { flood, .. }) = (self.is_up, &mut self.role) {
            flood.fill(&mut socket, progress.total.load(Ordering::Relaxed));
        }
        socket.send()?;
        self.socket = Some(socket);
        Ok(())
    }

    fn take(&mut self, socket: &mut Socket, incoming: Incoming, progress: &Progress) -> Result<()> {
        if let Incoming::Connack { session_present, reason } = incoming {
            assert_eq!(reason, ReasonCode::Success, "{} is refused", self.client_id);
            return self.begin(socket, session_present, progress);
        }
        match &mut self.role {
            Role::Publisher { flood, answered } => {
                flood.settle(socket, &incoming)?;
                let settled = flood.settled();
                progress.answered.fetch_add(settled - *answered, Ordering::Relaxed);
                *answered = settled;
            }
            Role::Subscriber { tracks, has_subscribed, intake, .. } => {
                if let Incoming::Suback(codes) = &incoming {
                    assert!(codes.iter().all(|code| (*code as u8) < 0x80), "refused: {codes:?}");
                    if !std::mem::replace(has_subscribed, true) {
                        progress.ready.fetch_add(1, Ordering::Relaxed);
                    }
                }
                if let Some((topic, payload)) = intake.take(socket, incoming) {
                    let track = tracks.get_mut(&topic).expect("a topic that was subscribed to");
                    let number = payload.parse().expect("a number");
                    let is_new = track.note(number, || format!("{} on {topic}", self.client_id));
                    progress.received.fetch_add(u64::from(is_new), Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, socket: &mut Socket, session_present: bool, progress: &Progress) -> Result<()> {
        assert!(session_present || !self.had_session, "the session of {} is lost", self.client_id);
        progress.reconnects.fetch_add(u64::from(self.had_session), Ordering::Relaxed);
        self.is_up = true;
        let had_session = std::mem::replace(&mut self.had_session, true);
        match &self.role {
            Role::Publisher { flood, .. } => {
                flood.resume(socket);
                progress.ready.fetch_add(u64::from(!had_session), Ordering::Relaxed);
            }
            Role::Subscriber { has_subscribed: true, .. } => {}
            Role::Subscriber { qos, tracks, .. } => {
                let filters: Vec<_> = tracks.keys().map(String::as_str).collect();
                socket.put_subscribe(&filters, *qos);
            }
        }
        Ok(())
    }
}

impl Track {
    /// Whether a message is new: those come in order, without a gap.
    fn note(&mut self, number: u64, whose: impl Fn() -> String) -> bool {
        assert!(number <= self.next, "{} came {number} instead of {}", whose(), self.next);
        let is_new = number == self.next;
        assert!(is_new || !self.exactly_once, "{} came {number} again", whose());
        self.next += u64::from(is_new);
        is_new
    }
}
