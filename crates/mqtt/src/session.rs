//! [`Session`]: an MQTT connection as the network driver runs it. Hot path.
//!
//! ```text
//!    New --CONNECT--> [Proving --AUTH-->] Claiming --session is ours--> Open --DISCONNECT, fault, take-over, silence--> Closed
//! ```
//!
//! What is sent behind CONNECT waits unread while the session is claimed [MQTT-3.1.4-6].

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use broker::Broker;
use bytes::{Buf, BytesMut};
use model::TenantId;
use net::{Arrival, Closed, Mailbox, Turn};
use slab::Slab;
use tracing::debug;
use wire::mqtt::{Connect, Decoded, Decoder, Expect, Packet, Peer, PropertiesBuf, ReasonCode, Version};

use crate::config::MqttConfig;
use crate::connection::{Close, Connection};
use crate::exclusive;
use crate::handlers::auth::{Proving, Step};
use crate::handlers::connect::{self, Opening};
use crate::inbox::{Event, Inbox, Told};
use crate::metrics::{Metrics, PacketType};
use crate::observe::{Departure, Observatory, Presence};
use crate::protection::{Newcomer, Protection, Unwelcome};
use crate::rules::{InForce, Rules};
use crate::will;

/// Output above which a connection is no longer read. Deliveries stop long before; what is left is answers to a client that
/// goes on asking without reading.
const CHOKE_BYTES: usize = 4 << 20;

/// A CONNACK of 5.0 without properties.
const CONNACK_BYTES: u32 = 5;

/// MQTT on one core: makes a [`Session`] for each connection that the listener accepts.
pub struct Front<B: Broker> {
    shared: Rc<Shared<B>>,
}

/// What the connections of one core share.
pub(crate) struct Shared<B: Broker> {
    pub(crate) config: MqttConfig,
    /// What renames, and what clients subscribe to without asking.
    pub(crate) rules: InForce,
    pub(crate) protection: Protection,
    pub(crate) broker: B,
    pub(crate) tenant: TenantId,
    pub(crate) metrics: Arc<Metrics>,
    /// Those that hear of changed rights.
    pub(crate) present: RefCell<Slab<Rc<Inbox>>>,
    /// Of the node.
    pub(crate) observatory: Observatory,
    /// Properties under construction: borrowed for one packet at a time.
    pub(crate) properties: RefCell<PropertiesBuf>,
}

impl<B: Broker> Shared<B> {
    /// This node, as rows name it.
    pub(crate) fn node(&self) -> u64 {
        self.broker.node_id().0
    }

    /// Runs what takes time on this core. It is dropped with the core, and tells what it found through an inbox.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(future);
    }

    /// Runs what mostly has nothing to wait for, and answers at once then. If it has, it goes on as a task, and what comes of it is
    /// told to `later`.
    pub(crate) fn run<T: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
        later: impl FnOnce(T) + 'static,
    ) -> Option<T> {
        let mut future = Box::pin(future);
        // If it is not ready it is polled again as a task, which is what will be woken.
        if let Poll::Ready(found) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(found);
        }
        self.spawn(async move { later(future.await) });
        None
    }
}

impl<B: Broker> Front<B> {
    /// The front of one core, in the default tenant. To be used on that core's `LocalSet`. It is observed alone, and has the rules of its settings only.
    pub fn new(config: MqttConfig, broker: B) -> Self {
        let observatory = Observatory::default();
        Self::among(config, broker, (&observatory, &Rules::new(&observatory)), Protection::default())
    }

    /// The same, with what all fronts of a node share, and what the fronts of the listener share on all cores.
    pub fn among(
        mut config: MqttConfig,
        broker: B,
        (observatory, rules): (&Observatory, &Rules),
        protection: Protection,
    ) -> Self {
        let shared = Shared {
            rules: InForce::new(&mut config, rules),
            config,
            protection,
            broker,
            tenant: TenantId::default(),
            metrics: observatory.add_front(),
            observatory: observatory.clone(),
            present: RefCell::default(),
            properties: RefCell::default(),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Takes up what a restart interrupted (wills that wait for their delay, exclusive subscriptions): once per node, on one core, before
    /// connections are accepted.
    pub async fn recover(&self) -> Result<(), model::Error> {
        will::recover(&self.shared).await?;
        exclusive::recover(&self.shared).await
    }

    /// Ends the connections of those who may not stay, whenever users, permissions or bans change: for as long as the front is
    /// used, beside it.
    pub fn follow_rights(&self) -> impl Future<Output = ()> + use<B> {
        let shared = Rc::clone(&self.shared);
        let mut changes = shared.broker.access().changes();
        async move {
            while changes.changed().await.is_ok() {
                for (_, inbox) in shared.present.borrow().iter() {
                    inbox.post(Told::RightsChanged);
                }
            }
        }
    }

    /// A new connection, for [`net::drive`].
    pub fn session(&self, peer: net::Peer) -> (Session<B>, Mailbox<Event>) {
        self.receive(peer, None, None)
    }

    /// The same for one that has a place among those who arrive, and for one that only comes in to hear that there is no
    /// room.
    pub fn receive(
        &self,
        peer: net::Peer,
        arrival: Option<Arrival>,
        unwelcome: Option<Unwelcome>,
    ) -> (Session<B>, Mailbox<Event>) {
        let mailbox = Mailbox::new();
        if let Some(arrival) = &arrival {
            let mailbox = mailbox.clone();
            arrival.when_turned_away(move || {
                // One that is gone needs no telling.
                let _ = mailbox.post(Event(Told::TurnedAway));
            });
        }
        let newcomer = Newcomer { arrival, unwelcome };
        let timeout = newcomer.connect_timeout(self.shared.config.connect_timeout);
        let session = Session {
            shared: Rc::clone(&self.shared),
            inbox: Inbox::new(mailbox.clone()),
            peer: Rc::new(peer),
            presence: None,
            phase: Phase::New(Box::new(newcomer)),
            // The driver's clock is tokio's as well.
            connect_by: tokio::time::Instant::now().into_std() + timeout,
            choked: false,
        };
        (session, mailbox)
    }

    /// What this core's front counts. The metrics endpoint may read it from another thread.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }
}

/// One MQTT connection. See [`net::Session`] for who calls what.
pub struct Session<B: Broker> {
    shared: Rc<Shared<B>>,
    inbox: Rc<Inbox>,
    peer: Rc<net::Peer>,
    /// What CONNECT said, until it is answered.
    presence: Option<Box<Presence>>,
    phase: Phase<B>,
    connect_by: Instant,
    /// The peer does not read what we send: we do not read what it sends.
    choked: bool,
}

enum Phase<B: Broker> {
    New(Box<Newcomer>),
    /// The client proves who it is, packet by packet.
    Proving(Box<Proving>),
    Claiming(Box<Opening>),
    Open(Box<Connection<B>>),
    Closed,
}

impl<B: Broker> net::Session for Session<B> {
    type Event = Event;

    fn handle_input(&mut self, input: &mut BytesMut, turn: &mut Turn<'_>) {
        let unwritten = turn.output.len();
        if let Phase::Open(connection) = &mut self.phase {
            connection.hear(turn.now);
        }
        let mut at = 0;
        while at < input.len() && !turn.is_closing() && self.wants_input() {
            match self.handle_packet(&input[at..], turn) {
                Some(taken) => at += taken,
                None => break,
            }
        }
        input.advance(at);
        if let Phase::Open(connection) = &mut self.phase {
            connection.ease(turn.now);
        }
        self.shared.metrics.bytes_in.add(at as u64);
        self.finish(unwritten, turn);
    }

    fn handle_event(&mut self, event: Event, turn: &mut Turn<'_>) {
        let unwritten = turn.output.len();
        match (event.0, &mut self.phase) {
            (Told::Claimed(claimed), Phase::Claiming(_)) => self.open(*claimed, turn),
            (told, Phase::Open(connection)) => {
                let handled = connection.handle_told(told, turn);
                self.end_if(handled, turn);
            }
            (Told::TurnedAway, Phase::New(_)) => {
                debug!(peer = %self.peer, "no CONNECT came, and others wait");
                self.drop_unanswered(turn);
            }
            // The connection is on its way out.
            (_, Phase::New(_) | Phase::Proving(_) | Phase::Claiming(_) | Phase::Closed) => {}
        }
        self.finish(unwritten, turn);
    }

    fn handle_deadline(&mut self, turn: &mut Turn<'_>) {
        let unwritten = turn.output.len();
        match &mut self.phase {
            Phase::New(_) | Phase::Proving(_) => {
                debug!(peer = %self.peer, "no CONNECT came in time, or no proof");
                self.drop_unanswered(turn);
            }
            Phase::Open(connection) => {
                if self.choked {
                    // We do not listen: the silence is ours.
                    connection.hear(turn.now);
                }
                let handled = connection.handle_deadline(turn);
                self.end_if(handled, turn);
            }
            Phase::Claiming(_) | Phase::Closed => {}
        }
        self.finish(unwritten, turn);
    }

    fn handle_drained(&mut self, turn: &mut Turn<'_>) {
        let unwritten = turn.output.len();
        self.choked = false;
        if let Phase::Open(connection) = &mut self.phase {
            connection.with_outgoing(turn, |outgoing, link| outgoing.advance(link));
        }
        self.finish(unwritten, turn);
    }

    fn handle_shutdown(&mut self, turn: &mut Turn<'_>) {
        let unwritten = turn.output.len();
        self.end_if(Err(Close::fault(ReasonCode::ServerShuttingDown)), turn);
        self.finish(unwritten, turn);
    }

    fn handle_closed(&mut self, closed: Closed) {
        debug!(peer = %self.peer, why = ?closed, "connection closed");
        if let Phase::Open(connection) = std::mem::replace(&mut self.phase, Phase::Closed) {
            connection.note_departure(&Departure::of_connection(closed));
            (*connection).leave(true);
        }
        self.inbox.close();
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::New(_) | Phase::Proving(_) => Some(self.connect_by),
            Phase::Open(connection) => connection.deadline(),
            Phase::Claiming(_) | Phase::Closed => None,
        }
    }

    fn wants_input(&self) -> bool {
        match &self.phase {
            Phase::New(_) | Phase::Proving(_) => true,
            Phase::Open(connection) => !self.choked && connection.wants_input(),
            Phase::Claiming(_) | Phase::Closed => false,
        }
    }
}

impl<B: Broker> Session<B> {
    /// Handles the packet at the front of `bytes`. Answers its length; none if it is not complete or the connection
    /// is over.
    #[inline]
    fn handle_packet(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Option<usize> {
        let packet_size_max = self.shared.config.packet_bytes_max;
        let connection = match &mut self.phase {
            Phase::Open(connection) => connection,
            Phase::Proving(_) => return self.handle_proof(bytes, turn),
            Phase::New(_) | Phase::Claiming(_) | Phase::Closed => return self.handle_first(bytes, turn),
        };
        let decoder = Decoder { expect: Expect::FromClient(connection.peer.version), packet_size_max };
        match decoder.decode(bytes) {
            Decoded::Packet(packet, len) => {
                let handled = connection.handle_packet(&packet, turn);
                if connection.is_asking() {
                    // It is looked at again.
                    return None;
                }
                let is_publish = matches!(packet, Packet::Publish(_));
                self.shared.metrics.note_received(bytes, len, is_publish);
                connection.note_taken(len, is_publish, turn.now);
                self.end_if(handled, turn);
                Some(len)
            }
            Decoded::NeedMore(_) => None,
            Decoded::Malformed(malformed) => {
                debug!(client = %connection.client, clause = malformed.clause, "malformed packet");
                self.end_if(Err(Close::because(malformed.reason, malformed.clause)), turn);
                None
            }
        }
    }

    /// The first packet has to be CONNECT; whatever else it is closes the connection without an answer
    /// [MQTT-3.1.0-1].
    fn handle_first(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Option<usize> {
        let decoder =
            Decoder { expect: Expect::Connect, packet_size_max: self.shared.config.packet_bytes_max };
        match decoder.decode(bytes) {
            Decoded::Packet(Packet::Connect(packet), len) => {
                self.shared.metrics.note_received(bytes, len, false);
                let now = self.shared.broker.wall_ms();
                self.presence = Some(Box::new(Presence::new(&self.peer, &packet, now)));
                let step = match self.refusal(&packet) {
                    Some(reason) => Err(reason),
                    None => Opening::of(&self.shared, &packet, &self.peer)
                        .and_then(|opening| Proving::begin(opening, &packet, &self.shared)),
                };
                match step {
                    Ok(step) => self.go_on(step, turn),
                    Err(reason) => {
                        self.note_refused(packet.client_id, reason);
                        self.refuse(&connect::peer_of(&packet), reason, turn);
                    }
                }
                Some(len)
            }
            Decoded::NeedMore(_) => None,
            Decoded::Packet(..) => {
                self.drop_unanswered(turn);
                None
            }
            Decoded::Malformed(malformed) => {
                debug!(peer = %self.peer, clause = malformed.clause, "refused CONNECT");
                match malformed.connack {
                    // How much the client takes is not known: only the code is sent.
                    Some(version) => {
                        let peer = Peer { packet_size_max: CONNACK_BYTES, ..Peer::new(version) };
                        self.refuse(&peer, malformed.reason, turn);
                    }
                    None => self.drop_unanswered(turn),
                }
                None
            }
        }
    }

    /// Why a CONNECT is refused before it is looked at. It has got to the point, and makes room for others who arrive.
    fn refusal(&mut self, packet: &Connect<'_>) -> Option<ReasonCode> {
        let Phase::New(newcomer) = &mut self.phase else { return None };
        newcomer.arrival = None;
        let shared = &self.shared;
        if let Some(connects) = &shared.protection.connects
            && !packet.client_id.is_empty()
        {
            connects.note(&shared.tenant, packet.client_id);
        }
        newcomer.refusal(packet.version, shared.config.versions)
    }

    /// Between CONNECT and CONNACK there is nothing but AUTH (section 4.12), or a good-bye.
    fn handle_proof(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Option<usize> {
        let packet_size_max = self.shared.config.packet_bytes_max;
        let decoder = Decoder { expect: Expect::FromClient(Version::V5), packet_size_max };
        let (packet, len) = match decoder.decode(bytes) {
            Decoded::Packet(packet, len) => (packet, len),
            Decoded::NeedMore(_) => return None,
            Decoded::Malformed(_) => {
                self.drop_unanswered(turn);
                return None;
            }
        };
        let Phase::Proving(proving) = std::mem::replace(&mut self.phase, Phase::Closed) else { return None };
        self.shared.metrics.note_received(bytes, len, false);
        let (peer, client) = (*proving.peer(), proving.client());
        let step = match packet {
            Packet::Auth(auth) => proving.take(&auth, &self.shared),
            Packet::Disconnect(_) => {
                self.drop_unanswered(turn);
                return Some(len);
            }
            _ => Err(ReasonCode::ProtocolError),
        };
        match step {
            Ok(step) => self.go_on(step, turn),
            Err(reason) => {
                self.note_refused(&client, reason);
                self.refuse(&peer, reason, turn);
            }
        }
        Some(len)
    }

    fn go_on(&mut self, step: Step, turn: &mut Turn<'_>) {
        match step {
            Step::Ask(proving) => {
                proving.ask(&self.shared.metrics, turn);
                self.phase = Phase::Proving(proving);
            }
            Step::Claim(opening) => {
                let claimed = opening.claim(&self.shared, &self.inbox);
                self.phase = Phase::Claiming(opening);
                if let Some(claimed) = claimed {
                    self.open(claimed, turn);
                }
            }
        }
    }

    /// The session is ours, or cannot be had: answers CONNECT.
    fn open(&mut self, claimed: Result<connect::Claimed, ReasonCode>, turn: &mut Turn<'_>) {
        let Phase::Claiming(opening) = std::mem::replace(&mut self.phase, Phase::Closed) else { return };
        match claimed {
            Ok(claimed) => {
                let Some(presence) = self.presence.take() else { return };
                let parts = (Rc::clone(&self.shared), Rc::clone(&self.inbox), presence);
                let connection = connect::accept(*opening, claimed, parts, turn);
                let stays = match self.inbox.is_wanted() {
                    // Somebody claimed the session while we did, and was told to wait for us.
                    true => Err(Close::fault(ReasonCode::SessionTakenOver)),
                    // It was let in before it could hear of changed rights.
                    false => connection.check_standing(),
                };
                self.phase = Phase::Open(connection);
                self.end_if(stays, turn);
            }
            Err(reason) => {
                self.note_refused(opening.client(), reason);
                self.refuse(opening.peer(), reason, turn);
            }
        }
    }

    /// A CONNECT of this client is refused.
    fn note_refused(&self, client: &str, reason: ReasonCode) {
        if let Some(presence) = &self.presence {
            let event = presence.refused(reason, self.shared.broker.wall_ms());
            self.shared.observatory.history().add(client, event);
        }
    }

    fn refuse(&mut self, peer: &Peer, reason: ReasonCode, turn: &mut Turn<'_>) {
        self.shared.metrics.connects_refused.add(1);
        self.shared.metrics.note_sent(PacketType::Connack);
        connect::refuse(peer, reason, turn);
        self.phase = Phase::Closed;
        turn.close();
    }

    fn drop_unanswered(&mut self, turn: &mut Turn<'_>) {
        self.phase = Phase::Closed;
        turn.close();
    }

    /// Ends the connection if a handler says so.
    #[inline]
    fn end_if(&mut self, handled: Result<(), Close>, turn: &mut Turn<'_>) {
        let Err(close) = handled else { return };
        let Phase::Open(connection) = std::mem::replace(&mut self.phase, Phase::Closed) else { return };
        connection.say_good_bye(close, turn);
        turn.close();
        connection.note_departure(&Departure::of_close(close));
        (*connection).leave(close.publishes_will());
        self.inbox.close();
    }

    /// The end of each call, which began with so many bytes `unwritten`: begins the writes that it asked for.
    #[inline]
    fn finish(&mut self, unwritten: usize, turn: &mut Turn<'_>) {
        if let Phase::Open(connection) = &mut self.phase {
            connection.finish(turn);
        }
        self.shared.metrics.bytes_out.add((turn.output.len() - unwritten) as u64);
        self.choked = turn.output.is_full() && turn.output.len() > CHOKE_BYTES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bound: what an idle connection costs here, beside its socket and its task.
    #[test]
    fn an_idle_connection_is_small() {
        let session = size_of::<Session<broker::Core>>();
        let connection = size_of::<Connection<broker::Core>>();
        assert!(session <= 96, "{session}");
        assert!(connection <= 360, "{connection}");
    }
}
