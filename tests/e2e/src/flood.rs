//! Publishers and a subscriber that run flat out over a broker that is killed again and again, and keep exact account.
//!
//! A publisher numbers its messages from 0; the payload is the number. It resumes its session after each crash and
//! resends what was not answered, in the order in which it was sent first, as the standard wants.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use wire::mqtt::{AckKind, Delivery, Qos, ReasonCode};

use crate::socket::{Incoming, Opening, Socket};
use crate::wait::{pass, wait_until};

/// Bound: messages that wait for an answer. Below the broker's receive maximum of 1024.
const WINDOW: usize = 200;
/// How long a client of a broker that is down waits before it tries again.
const RETRY: Duration = Duration::from_millis(10);
/// How long a reader waits at most before it looks whether it shall stop.
const GLANCE: Duration = Duration::from_millis(100);

/// What a publisher knows in the end.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// How many messages it sent.
    pub sent: u64,
    /// Those that were acknowledged: PUBACK, or PUBREC at QoS 2.
    pub acknowledged: BTreeSet<u64>,
    /// How often it had to connect again.
    pub reconnects: u64,
}

/// A publisher in a thread of its own.
pub struct Publisher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Ledger>,
}

impl Publisher {
    /// Starts to publish to `topic` at QoS 1 or 2.
    pub fn start(address: SocketAddr, topic: &str, qos: Qos) -> Publisher {
        let stop = Arc::new(AtomicBool::new(false));
        let flood = Flood {
            topic: topic.to_owned(),
            qos,
            inflight: VecDeque::new(),
            next_id: 0,
            ledger: Ledger::default(),
        };
        let stopped = Arc::clone(&stop);
        Publisher { stop, thread: thread::spawn(move || flood.run(address, &stopped)) }
    }

    /// Sends nothing new, waits for the answers that are due and returns the account.
    pub fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the publisher keeps its own rules")
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// PUBLISH was sent.
    Published,
    /// PUBREC came, PUBREL was sent (QoS 2).
    Released,
}

struct Flood {
    topic: String,
    qos: Qos,
    /// In the order in which they were sent first.
    inflight: VecDeque<(NonZeroU16, u64, Stage)>,
    next_id: u16,
    ledger: Ledger,
}

impl Flood {
    fn run(mut self, address: SocketAddr, stop: &AtomicBool) -> Ledger {
        let client_id = format!("flood-{}", self.topic.replace('/', "-"));
        let mut had_session = false;
        while !(stop.load(Ordering::Relaxed) && self.inflight.is_empty()) {
            let mut socket = connect(address, &client_id);
            assert!(socket.session_present || !had_session, "the session of {client_id} is lost");
            self.ledger.reconnects += u64::from(had_session);
            had_session = true;
            // An error is the crash that this is about.
            if self.serve(&mut socket, stop).is_ok() {
                break;
            }
        }
        self.ledger
    }

    fn serve(&mut self, socket: &mut Socket, stop: &AtomicBool) -> Result<()> {
        for (id, number, stage) in &self.inflight {
            match stage {
                Stage::Published => {
                    socket.put_publish(
                        &self.topic,
                        number.to_string().as_bytes(),
                        delivery(self.qos, *id, true),
                    );
                }
                Stage::Released => socket.put_ack(AckKind::Pubrel, *id),
            }
        }
        loop {
            while !stop.load(Ordering::Relaxed) && self.inflight.len() < WINDOW {
                self.publish_next(socket);
            }
            socket.flush()?;
            if self.inflight.is_empty() {
                socket.put_disconnect();
                return socket.flush();
            }
            let mut packet = Some(socket.read()?);
            while let Some(incoming) = packet {
                self.settle(socket, &incoming)?;
                packet = socket.read_arrived();
            }
        }
    }

    fn publish_next(&mut self, socket: &mut Socket) {
        let number = self.ledger.sent;
        // Identifiers in flight lie close together, so the next one round the circle is free.
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        let id = NonZeroU16::new(self.next_id).expect("never 0");
        self.inflight.push_back((id, number, Stage::Published));
        self.ledger.sent += 1;
        socket.put_publish(&self.topic, number.to_string().as_bytes(), delivery(self.qos, id, false));
    }

    fn settle(&mut self, socket: &mut Socket, incoming: &Incoming) -> Result<()> {
        let Incoming::Ack(kind, id, reason) = incoming else {
            // A broker that goes down may say so.
            assert!(matches!(incoming, Incoming::Disconnect(_)), "a publisher received {incoming:?}");
            return Err(ErrorKind::ConnectionAborted.into());
        };
        // A broker that had forgotten the identifier before its PUBCOMP got out does not know it any more.
        let over = *kind == AckKind::Pubcomp && *reason == ReasonCode::PacketIdentifierNotFound;
        assert!((*reason as u8) < 0x80 || over, "{kind:?} refuses: {reason:?}");
        let at = self.inflight.iter().position(|(inflight, ..)| inflight == id);
        let at = at.unwrap_or_else(|| panic!("{kind:?} for {id}, which is not in flight"));
        let (_, number, stage) = &mut self.inflight[at];
        match (kind, *stage) {
            (AckKind::Puback, Stage::Published) => {
                self.ledger.acknowledged.insert(*number);
                self.inflight.remove(at);
            }
            (AckKind::Pubrec, Stage::Published) => {
                self.ledger.acknowledged.insert(*number);
                *stage = Stage::Released;
                socket.put_ack(AckKind::Pubrel, *id);
            }
            (AckKind::Pubcomp, Stage::Released) => {
                self.inflight.remove(at);
            }
            (AckKind::Puback | AckKind::Pubrec | AckKind::Pubrel | AckKind::Pubcomp, _) => {
                panic!("{kind:?} for {id} out of turn");
            }
        }
        Ok(())
    }
}

fn delivery(qos: Qos, id: NonZeroU16, dup: bool) -> Delivery {
    match qos {
        Qos::AtMostOnce => Delivery::AtMostOnce,
        Qos::AtLeastOnce => Delivery::AtLeastOnce { id, dup },
        Qos::ExactlyOnce => Delivery::ExactlyOnce { id, dup },
    }
}

fn connect(address: SocketAddr, client_id: &str) -> Socket {
    wait_until(&format!("{client_id} connects"), || {
        match Socket::open(address, &Opening::persistent(client_id)) {
            Ok(socket) => Some(socket),
            Err(_) => {
                pass(RETRY);
                None
            }
        }
    })
}

/// A subscriber at QoS 1 with a persistent session, which returns after each crash.
pub struct Collector {
    stop: Arc<AtomicBool>,
    seen: Seen,
    thread: JoinHandle<()>,
}

/// Payloads by topic, in the order of arrival.
type Seen = Arc<Mutex<HashMap<String, Vec<String>>>>;

impl Collector {
    /// Subscribes and returns when the subscription is granted.
    pub fn start(address: SocketAddr, filter: &str) -> Collector {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Seen::default());
        let mut socket = connect(address, "collector");
        socket.subscribe(filter, Qos::AtLeastOnce).expect("the broker is up");
        let (stopped, kept) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // An error is the crash that this is about.
                if receive(&mut socket, &stopped, &kept).is_err() {
                    socket = connect(address, "collector");
                    assert!(socket.session_present, "the session of the collector is lost");
                }
            }
        });
        Collector { stop, seen, thread }
    }

    /// How many messages of a topic came.
    pub fn count(&self, topic: &str) -> usize {
        self.seen.lock().get(topic).map_or(0, Vec::len)
    }

    /// Waits until every one of `payloads` has come on `topic`.
    pub fn wait_for(&self, topic: &str, payloads: &BTreeSet<String>) {
        wait_until(&format!("the session has received all {} of {topic}", payloads.len()), || {
            pass(GLANCE);
            let seen = self.seen.lock();
            let seen: BTreeSet<&String> = seen.get(topic)?.iter().collect();
            payloads.iter().all(|payload| seen.contains(payload)).then_some(())
        });
    }

    /// Stops and returns the payloads by topic.
    pub fn finish(self) -> HashMap<String, Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the collector keeps its own rules");
        std::mem::take(&mut self.seen.lock())
    }
}

fn receive(socket: &mut Socket, stop: &AtomicBool, seen: &Mutex<HashMap<String, Vec<String>>>) -> Result<()> {
    socket.set_patience(GLANCE)?;
    while !stop.load(Ordering::Relaxed) {
        let mut packet = match socket.read() {
            Ok(packet) => Some(packet),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => return Err(error),
        };
        while let Some(incoming) = packet {
            if let Incoming::Publish { topic, payload, delivery, .. } = incoming {
                let payload = String::from_utf8(payload).expect("payloads are numbers");
                seen.lock().entry(topic).or_default().push(payload);
                if let Some(id) = delivery.packet_id() {
                    socket.put_ack(AckKind::Puback, id);
                }
            }
            packet = socket.read_arrived();
        }
        socket.flush()?;
    }
    Ok(())
}
