//! Publishers that run flat out over a broker that is killed again and again, and keep exact account.
//!
//! A publisher numbers its messages from 0; the payload is the number. It resumes its session after each crash and
//! resends what was not answered, in the order in which it was sent first, as the standard wants.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wire::mqtt::{AckKind, Delivery, Qos, ReasonCode};

use crate::socket::{Incoming, Opening, Socket};
use crate::wait::{pass, wait_until};

/// How long a client of a broker that is down waits before it tries again.
const RETRY: Duration = Duration::from_millis(10);

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
    /// Starts to publish to `topic` at QoS 1 or 2, with at most `window` messages that wait for an answer.
    pub fn start(address: SocketAddr, topic: &str, qos: Qos, window: usize) -> Publisher {
        let stop = Arc::new(AtomicBool::new(false));
        let flood = Flood::new(topic, qos, window);
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

/// A publisher's state: what outlives its connections.
pub(crate) struct Flood {
    topic: String,
    qos: Qos,
    window: usize,
    /// In the order in which they were sent first.
    inflight: VecDeque<(NonZeroU16, u64, Stage)>,
    next_id: u16,
    pub(crate) ledger: Ledger,
}

impl Flood {
    pub(crate) fn new(topic: &str, qos: Qos, window: usize) -> Flood {
        let topic = topic.to_owned();
        Flood { topic, qos, window, inflight: VecDeque::new(), next_id: 0, ledger: Ledger::default() }
    }

    /// How many messages were answered to the end.
    pub(crate) fn settled(&self) -> u64 {
        self.ledger.sent - self.inflight.len() as u64
    }

    /// On a new connection: queues again what was not answered.
    pub(crate) fn resume(&self, socket: &mut Socket) {
        for (id, number, stage) in &self.inflight {
            match stage {
                Stage::Published => {
                    let delivery = delivery(self.qos, *id, true);
                    socket.put_publish(&self.topic, number.to_string().as_bytes(), delivery);
                }
                Stage::Released => socket.put_ack(AckKind::Pubrel, *id),
            }
        }
    }

    /// Queues new messages until `total` are sent or the window is full.
    pub(crate) fn fill(&mut self, socket: &mut Socket, total: u64) {
        while self.ledger.sent < total && self.inflight.len() < self.window {
            self.publish_next(socket);
        }
    }

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
        self.resume(socket);
        loop {
            if !stop.load(Ordering::Relaxed) {
                self.fill(socket, u64::MAX);
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

    /// Takes an answer.
    pub(crate) fn settle(&mut self, socket: &mut Socket, incoming: &Incoming) -> Result<()> {
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

/// Connects with a session that persists, as soon as the broker is up.
pub(crate) fn connect(address: SocketAddr, client_id: &str) -> Socket {
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
