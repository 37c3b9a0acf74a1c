//! A subscriber with a persistent session over a broker that is killed again and again. It returns after each crash and
//! keeps exact account of what came.

use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use wire::mqtt::{AckKind, Delivery, Qos};

use crate::flood::connect;
use crate::socket::{Incoming, Socket};
use crate::wait::{pass, wait_until};

/// How long a reader waits at most before it looks whether it shall stop.
const GLANCE: Duration = Duration::from_millis(100);

/// Payloads by topic, in the order of arrival.
type Seen = HashMap<String, Vec<String>>;

/// A subscriber in a thread of its own.
pub struct Collector {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

impl Collector {
    /// Subscribes and returns when the subscription is granted.
    pub fn start(address: SocketAddr, filter: &str, qos: Qos) -> Collector {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let client_id = format!("collector-{qos:?}");
        let mut socket = connect(address, &client_id);
        socket.subscribe(filter, qos).expect("the broker is up");
        let mut ear = Ear { stop: Arc::clone(&stop), seen: Arc::clone(&seen), intake: Intake::default() };
        let thread = thread::spawn(move || {
            while !ear.is_over() {
                // An error is the crash that this is about.
                if ear.receive(&mut socket).is_err() {
                    socket = connect(address, &client_id);
                    assert!(socket.session_present, "the session of {client_id} is lost");
                }
            }
        });
        Collector { stop, seen, thread }
    }

    /// Waits until every one of `payloads` has come on `topic`.
    pub fn wait_for(&self, topic: &str, payloads: &BTreeSet<String>) {
        wait_until(&format!("the session has received all {} of {topic}", payloads.len()), || {
            let seen = self.seen.lock();
            let is_due = seen.get(topic).is_some_and(|seen| seen.len() >= payloads.len());
            let seen: BTreeSet<&String> = seen.get(topic).filter(|_| is_due)?.iter().collect();
            let found = payloads.iter().all(|payload| seen.contains(payload)).then_some(());
            if found.is_none() {
                // Looking is dear.
                pass(GLANCE);
            }
            found
        });
    }

    /// Stops and returns the payloads by topic, in the order of arrival.
    pub fn finish(self) -> HashMap<String, Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the collector keeps its own rules");
        std::mem::take(&mut self.seen.lock())
    }
}

/// What the thread has.
struct Ear {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    intake: Intake,
}

impl Ear {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn receive(&mut self, socket: &mut Socket) -> Result<()> {
        socket.set_patience(GLANCE)?;
        while !self.is_over() {
            let mut packet = match socket.read() {
                Ok(packet) => Some(packet),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
                Err(error) => return Err(error),
            };
            while let Some(incoming) = packet {
                if let Some((topic, payload)) = self.intake.take(socket, incoming) {
                    self.seen.lock().entry(topic).or_default().push(payload);
                }
                packet = socket.read_arrived();
            }
            socket.flush()?;
        }
        Ok(())
    }
}

/// What a subscriber owes its broker. Outlives its connections.
#[derive(Default)]
pub(crate) struct Intake {
    /// Identifiers of QoS 2 deliveries that were taken and not released yet: they may be sent again.
    open: BTreeSet<NonZeroU16>,
}

impl Intake {
    /// Queues the answer to a packet. Topic and payload of a message that is new.
    pub(crate) fn take(&mut self, socket: &mut Socket, incoming: Incoming) -> Option<(String, String)> {
        match incoming {
            Incoming::Publish { topic, payload, delivery, .. } => {
                let is_new = match delivery {
                    Delivery::AtMostOnce => true,
                    Delivery::AtLeastOnce { id, .. } => {
                        socket.put_ack(AckKind::Puback, id);
                        true
                    }
                    Delivery::ExactlyOnce { id, .. } => {
                        socket.put_ack(AckKind::Pubrec, id);
                        self.open.insert(id)
                    }
                };
                is_new.then(|| (topic, String::from_utf8(payload).expect("payloads are numbers")))
            }
            Incoming::Ack(AckKind::Pubrel, id, _) => {
                self.open.remove(&id);
                socket.put_ack(AckKind::Pubcomp, id);
                None
            }
            Incoming::Ack(..)
            | Incoming::Connack { .. }
            | Incoming::Suback(_)
            | Incoming::Disconnect(_)
            | Incoming::Other => None,
        }
    }
}
