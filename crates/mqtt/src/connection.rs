//! A client that is connected: what its packets change, what it is told, and how it leaves. Hot path.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Broker, Keep, Place, SessionLease};
use model::ErrorKind;
use net::Turn;
use tracing::{debug, warn};
use wire::mqtt::{
    Ack, AckKind, Disconnect, Exchange, Packet, Peer, ReasonCode, Version, encode_ack, encode_pingresp,
};

use crate::aliases::Used;
use crate::error::{disconnect_reason, publish_reason, reason_of_refusal, reason_string};
use crate::exclusive::{Asking, Exclusives};
use crate::handlers::auth::ProofExchange;
use crate::inbox::{Farewell, Inbox, InboxSink, Told};
use crate::incoming::{AckOf, Incoming, Received, ReceivedRows};
use crate::metrics::{DropReason, PacketType};
use crate::observe::Presence;
use crate::outgoing::{Link, Outgoing, SUBSCRIPTIONS_MAX};
use crate::pace::Pace;
use crate::rights::{self, Rights};
use crate::saver::{Saver, Waiting};
use crate::session::Shared;
use crate::state::{State, StoredWill};
use crate::template::Who;
use crate::will::Will;

/// Bound: answers that wait for the session's state to be durable before the socket is no longer read.
const WAITING_MAX: usize = 256;

/// So long after its time, the end of a client's silence says more about us than about the client.
const LATE: Duration = Duration::from_millis(200);
/// How long a client is listened to before it is judged in that case.
const GRACE: Duration = Duration::from_secs(1);

/// An accepted connection.
pub(crate) struct Connection<B: Broker> {
    pub(crate) shared: Rc<Shared<B>>,
    pub(crate) inbox: Rc<Inbox>,
    pub(crate) client: Arc<str>,
    pub(crate) peer: Peer,
    pub(crate) rights: Box<Rights>,
    /// Its place among those that hear of changed rights.
    pub(crate) place: usize,
    /// Exchanges that we may have in flight towards the client.
    pub(crate) limit: u16,
    /// Silence that the client is allowed; zero: any.
    pub(crate) silence_max: Duration,
    pub(crate) heard: Instant,
    /// Its silence was judged late once. Until it is heard, that is not done again.
    pub(crate) was_spared: bool,
    /// Seconds for which the session outlives the connection.
    pub(crate) expiry: u32,
    pub(crate) incarnation: u64,
    pub(crate) lease: SessionLease,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) incoming: Option<Box<Incoming>>,
    pub(crate) outgoing: Option<Box<Outgoing>>,
    pub(crate) saver: Saver,
    /// Exclusive subscriptions, once there are some.
    pub(crate) exclusive: Option<Box<Exclusives>>,
    /// How fast it may send, where that is limited.
    pub(crate) pace: Option<Box<Pace>>,
    /// Its proof of identity, if it named a method.
    pub(crate) exchange: Option<Box<ProofExchange>>,
    /// What is said of it to others.
    pub(crate) presence: Box<Presence>,
    /// Topic aliases towards a client that permits some.
    pub(crate) aliases: Option<Box<Used>>,
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Close {
    /// What a 5.0 client is told.
    tell: Option<(ReasonCode, &'static str)>,
    publishes_will: bool,
}

impl Close {
    /// The client did something wrong, or we cannot go on.
    pub(crate) fn fault(reason: ReasonCode) -> Self {
        Self::because(reason, reason.meaning())
    }

    /// The same, and what was wrong in words, for the Reason String.
    pub(crate) const fn because(reason: ReasonCode, why: &'static str) -> Self {
        Self { tell: Some((reason, why)), publishes_will: true }
    }

    /// The client said good-bye.
    pub(crate) const fn by_client(publishes_will: bool) -> Self {
        Self { tell: None, publishes_will }
    }

    /// What a 5.0 client is told; none if it said good-bye itself.
    pub(crate) fn told(self) -> Option<ReasonCode> {
        self.tell.map(|(reason, _)| reason)
    }

    pub(crate) fn publishes_will(self) -> bool {
        self.publishes_will
    }
}

/// How long a session with this expiry interval is kept.
pub(crate) fn keep_of(expiry: u32) -> Keep {
    match expiry {
        u32::MAX => Keep::Forever,
        seconds => Keep::For(u64::from(seconds) * 1000),
    }
}

impl<B: Broker> Connection<B> {
    // What comes in.

    /// Bytes came: the client is there [MQTT-3.1.2-22].
    #[inline]
    pub(crate) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.was_spared = false;
    }

    #[inline]
    pub(crate) fn handle_packet(&mut self, packet: &Packet<'_>, turn: &mut Turn<'_>) -> Result<(), Close> {
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish, turn),
            Packet::Puback(ack) => self.handle_puback(ack, turn),
            Packet::Pubrec(ack) => self.handle_pubrec(ack, turn),
            Packet::Pubrel(ack) => self.handle_pubrel(ack, turn),
            Packet::Pubcomp(ack) => self.handle_pubcomp(ack, turn),
            Packet::Subscribe(subscribe) => self.handle_subscribe(subscribe, turn),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(unsubscribe, turn),
            Packet::Pingreq => {
                encode_pingresp(turn.output.buffer());
                self.shared.metrics.note_sent(PacketType::Pingresp);
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.handle_disconnect(disconnect),
            Packet::Auth(auth) => self.handle_auth(auth, turn),
            // A server's, or CONNECT again: the decoder does not let them through.
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => {
                Err(Close::because(ReasonCode::ProtocolError, "this packet has no place here"))
            }
        }
    }

    pub(crate) fn handle_told(&mut self, told: Told, turn: &mut Turn<'_>) -> Result<(), Close> {
        match told {
            Told::Decided(published) => {
                if let Some(incoming) = &mut self.incoming
                    && !published.tickets.is_empty()
                {
                    incoming.acks.decide(&published);
                    return self.send_acks(turn);
                }
            }
            Told::Delivery(delivery) => {
                self.with_outgoing(turn, |outgoing, link| outgoing.take(delivery, link));
            }
            Told::Shared(shared) => {
                self.with_outgoing(turn, |outgoing, link| outgoing.take_shared(shared, link));
            }
            Told::TakenOver => return Err(Close::fault(ReasonCode::SessionTakenOver)),
            Told::Saved(saved) => return self.handle_saved(saved, turn),
            Told::Released(released) => return self.handle_released(released, turn),
            Told::CaughtUp => self.with_outgoing(turn, |outgoing, link| outgoing.caught_up(link)),
            Told::Retained(page) => {
                self.with_outgoing(turn, |outgoing, link| outgoing.retained_read(*page, link));
            }
            Told::Loaded(Ok(loaded)) => {
                self.with_outgoing(turn, |outgoing, link| outgoing.loaded(loaded, link));
            }
            Told::Loaded(Err(kind)) => return Err(Close::fault(disconnect_reason(kind))),
            Told::Exclusive(Ok(mut grant)) => {
                let exclusive = self.exclusive.get_or_insert_default();
                exclusive.held.extend(grant.take());
                exclusive.asking = Asking::Answered;
            }
            Told::Exclusive(Err(kind)) => {
                warn!(client = %self.client, err = %kind, "an exclusive subscription could not be stored");
                return Err(Close::fault(disconnect_reason(kind)));
            }
            Told::RightsChanged => return self.check_standing(),
            // Only a connection that is not accepted yet hears these.
            Told::Claimed(_) | Told::TurnedAway => {}
        }
        Ok(())
    }

    pub(crate) fn handle_deadline(&mut self, turn: &mut Turn<'_>) -> Result<(), Close> {
        if let Some(pace) = &mut self.pace
            && pace.go_on(turn.now)
        {
            // It could not be heard until now.
            self.heard = turn.now;
        }
        if self.rights.until.is_some_and(|until| until <= turn.now) {
            debug!(client = %self.client, "what the client proved has ended");
            return Err(Close::because(ReasonCode::NotAuthorized, "what was proved is no longer valid"));
        }
        if self.silence_max.is_zero() || turn.now < self.heard + self.silence_max {
            return Ok(());
        }
        if !self.wants_input() {
            // We do not listen: the silence is ours.
            self.heard = turn.now;
            return Ok(());
        }
        let due = self.heard + self.silence_max;
        if turn.now - due > LATE && !std::mem::replace(&mut self.was_spared, true) {
            // This core stood still, or is behind. What the client said meanwhile may be on its way to us.
            self.heard += turn.now - due + GRACE;
            return Ok(());
        }
        debug!(client = %self.client, "keep alive timeout");
        Err(Close::fault(ReasonCode::KeepAliveTimeout))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let silence = (!self.silence_max.is_zero()).then(|| self.heard + self.silence_max);
        [silence, self.saver.deadline(), self.paused_until(), self.rights.until].into_iter().flatten().min()
    }

    pub(crate) fn wants_input(&self) -> bool {
        self.incoming.as_ref().is_none_or(|incoming| {
            incoming.publisher.in_flight_bytes() <= self.shared.config.incoming_bytes_max
                && incoming.releasing.next.len() <= usize::from(u16::MAX)
        }) && self.saver.backlog() <= WAITING_MAX + usize::from(self.limit)
            && self.outgoing.as_ref().is_none_or(|outgoing| outgoing.retained_backlog() <= SUBSCRIPTIONS_MAX)
            && !self.is_asking()
            && self.paused_until().is_none()
    }

    /// A packet of so many bytes was taken.
    #[inline]
    pub(crate) fn note_taken(&mut self, bytes: usize, is_publish: bool, now: Instant) {
        if let Some(pace) = &mut self.pace
            && pace.take(bytes, is_publish, now)
        {
            self.shared.metrics.pauses.add(1);
        }
    }

    /// The end of a turn in which it was read: a publisher gives the node time if that needs some.
    #[inline]
    pub(crate) fn ease(&mut self, now: Instant) {
        if let Some(incoming) = &self.incoming
            && incoming.publisher.in_flight_bytes() != 0
            && let Some(until) = self.shared.protection.pause_of_publisher(now)
        {
            self.pace.get_or_insert_default().pause(until);
        }
    }

    /// Whether the client may stay.
    pub(crate) fn check_standing(&self) -> Result<(), Close> {
        self.rights.standing().map_err(|reason| {
            debug!(client = %self.client, ?reason, "the client may not stay");
            Close::fault(reason)
        })
    }

    fn paused_until(&self) -> Option<Instant> {
        self.pace.as_ref().and_then(|pace| pace.paused_until())
    }

    /// Whether the packet at hand has to be looked at again when rows are there.
    #[inline]
    pub(crate) fn is_asking(&self) -> bool {
        self.exclusive.as_ref().is_some_and(|exclusive| exclusive.asking == Asking::Waiting)
    }

    // What handlers share.

    /// Who the client is, for templates.
    pub(crate) fn who(&self) -> Who<'_> {
        let Presence { user, peer, .. } = &*self.presence;
        Who { client: &self.client, user: user.as_deref(), host: rights::host(peer) }
    }

    /// Whether the session outlives the connection.
    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry != 0
    }

    pub(crate) fn is_v5(&self) -> bool {
        self.peer.version == Version::V5
    }

    pub(crate) fn incoming(&mut self) -> &mut Incoming {
        let (shared, inbox) = (&self.shared, &self.inbox);
        self.incoming.get_or_insert_with(|| {
            let sink = Rc::new(InboxSink(Rc::clone(inbox)));
            Box::new(Incoming::new(shared.broker.publisher(&shared.tenant, sink)))
        })
    }

    /// The deliveries with what they need of the connection; nothing if nothing was ever subscribed.
    #[inline]
    pub(crate) fn with_outgoing(
        &mut self,
        turn: &mut Turn<'_>,
        work: impl FnOnce(&mut Outgoing, &mut Link<'_, B>),
    ) {
        let persistent = self.is_persistent();
        let Some(outgoing) = &mut self.outgoing else { return };
        let mut link = Link {
            shared: &self.shared,
            inbox: &self.inbox,
            saver: &mut self.saver,
            output: turn.output,
            aliases: self.aliases.as_deref_mut(),
            peer: self.peer,
            rights: &self.rights,
            client: &self.client,
            tally: &mut self.presence.tally,
            limit: usize::from(self.limit),
            persistent,
            now: turn.now,
        };
        work(outgoing, &mut link);
    }

    /// Sends the acknowledgements whose turn has come.
    #[inline]
    pub(crate) fn send_acks(&mut self, turn: &mut Turn<'_>) -> Result<(), Close> {
        let Some(incoming) = &mut self.incoming else { return Ok(()) };
        while let Some(owed) = incoming.acks.next() {
            let (kind, packet) = match owed.of {
                AckOf::Qos1 => (AckKind::Puback, PacketType::Puback),
                AckOf::Qos2 => (AckKind::Pubrec, PacketType::Pubrec),
            };
            self.shared.metrics.note_sent(packet);
            let result = owed.result.unwrap_or(Ok(()));
            if owed.of == AckOf::Qos2
                && let Some(Received::Undecided(group)) = incoming.received.get(&owed.id.get()).copied()
            {
                match result {
                    Ok(()) => incoming.received.insert(owed.id.get(), Received::Stored(group)),
                    Err(_) => incoming.received.remove(&owed.id.get()),
                };
            }
            if owed.of == AckOf::Qos2 {
                rt::failpoint("mqtt.pubrec.due");
            }
            match result {
                Ok(()) => encode_ack(kind, owed.id, turn.output.buffer()),
                Err(error) => {
                    debug!(client = %self.client, err = %error, "a publication was not stored");
                    let reason = publish_reason(error);
                    let is_denied = error == ErrorKind::Denied;
                    if is_denied && self.shared.config.disconnects_denied {
                        return Err(Close::fault(reason));
                    }
                    if self.peer.version != Version::V5 {
                        if is_denied {
                            // It would send the message again and again [MQTT-3.3.5-2].
                            encode_ack(kind, owed.id, turn.output.buffer());
                            continue;
                        }
                        // An older client can only be told by closing: it sends the message again.
                        return Err(Close::fault(reason));
                    }
                    let why = reason_string(error.name());
                    let ack = Ack { packet_id: owed.id, reason, properties: why.view() };
                    // An acknowledgement of five bytes fits every client; what explains it is left out if need be.
                    let _ = ack.encode(kind, turn.output.buffer(), &self.peer);
                }
            }
        }
        Ok(())
    }

    fn handle_saved(&mut self, saved: Result<(), ErrorKind>, turn: &mut Turn<'_>) -> Result<(), Close> {
        let covered = self.saver.finish();
        if let Err(kind) = saved {
            warn!(client = %self.client, err = %kind, "the session could not be stored");
            return Err(Close::fault(disconnect_reason(kind)));
        }
        for waiting in covered {
            match waiting {
                Waiting::Publish(id) => {
                    rt::failpoint("mqtt.publish.held");
                    self.with_outgoing(turn, |outgoing, link| outgoing.send_held(id, link));
                }
                Waiting::Release(id) => {
                    rt::failpoint("mqtt.pubrel.due");
                    self.with_outgoing(turn, |outgoing, link| outgoing.release(id, link));
                }
                answer @ (Waiting::Suback { .. } | Waiting::Unsuback { .. }) => self.answer(answer, turn),
            }
        }
        Ok(())
    }

    /// Answers SUBSCRIBE or UNSUBSCRIBE: at once, or when the session that it changed is durable.
    pub(crate) fn answer_durably(&mut self, answer: Waiting, turn: &mut Turn<'_>) {
        match self.is_persistent() {
            true => self.saver.wait(answer),
            false => self.answer(answer, turn),
        }
    }

    fn answer(&mut self, answer: Waiting, turn: &mut Turn<'_>) {
        match answer {
            Waiting::Suback { packet_id, codes, jobs } => {
                let why = reason_of_refusal(&codes);
                let exchange = Exchange { packet_id, properties: why.view() };
                let encoded = exchange.encode_suback(&codes, turn.output.buffer(), &self.peer);
                self.note_answered(PacketType::Suback, encoded.is_err());
                self.with_outgoing(turn, |outgoing, link| outgoing.send_retained(jobs, link));
            }
            Waiting::Unsuback { packet_id, codes } => {
                let why = reason_of_refusal(&codes);
                let exchange = Exchange { packet_id, properties: why.view() };
                let encoded = exchange.encode_unsuback(&codes, turn.output.buffer(), &self.peer);
                self.note_answered(PacketType::Unsuback, encoded.is_err());
            }
            Waiting::Publish(_) | Waiting::Release(_) => {}
        }
    }

    fn note_answered(&self, packet: PacketType, unsayable: bool) {
        if unsayable {
            debug!(client = %self.client, "an answer is larger than the client accepts");
        } else {
            self.shared.metrics.note_sent(packet);
        }
    }

    /// The rows of released packet identifiers are gone: they may be used again.
    fn handle_released(&mut self, released: Result<(), ErrorKind>, turn: &mut Turn<'_>) -> Result<(), Close> {
        let Some(incoming) = &mut self.incoming else { return Ok(()) };
        let ids = std::mem::take(&mut incoming.releasing.under_way);
        if let Err(kind) = released {
            warn!(client = %self.client, err = %kind, "packet identifiers could not be released");
            return Err(Close::fault(disconnect_reason(kind)));
        }
        rt::failpoint("mqtt.pubcomp.due");
        for id in ids {
            incoming.received.remove(&id.get());
            encode_ack(AckKind::Pubcomp, id, turn.output.buffer());
            self.shared.metrics.note_sent(PacketType::Pubcomp);
        }
        Ok(())
    }

    // What is written.

    /// The end of a call: begins the writes that became due.
    #[inline]
    pub(crate) fn finish(&mut self, turn: &mut Turn<'_>) {
        if self.saver.begin(turn.now) {
            let state = self.state(StoredWill::None).encode();
            let saved = self.lease.save(state, keep_of(self.expiry));
            let joining = self.outgoing.as_mut().map(|outgoing| outgoing.take_joining()).unwrap_or_default();
            let inbox = Rc::clone(&self.inbox);
            self.shared.spawn(async move {
                let mut saved = saved.await;
                for joined in joining {
                    saved = saved.and(joined.await);
                }
                inbox.post(Told::Saved(saved.map_err(|error| error.kind())));
            });
        }
        self.begin_release();
    }

    fn begin_release(&mut self) {
        let Some(incoming) = &mut self.incoming else { return };
        let releasing = &mut incoming.releasing;
        if releasing.next.is_empty() || !releasing.under_way.is_empty() {
            return;
        }
        let ids = std::mem::take(&mut releasing.next);
        releasing.under_way = ids.iter().map(|(id, _)| *id).collect();
        let (rows, keys) = (self.shared.broker.rows(), ReceivedRows::of(self.incarnation));
        let mut transactions = Vec::new();
        for group in rows.groups() {
            let here = ids.iter().filter(|(_, known)| known.is_none_or(|known| known == group));
            let writes: Vec<_> = here.map(|(id, _)| keys.delete(*id)).collect();
            if !writes.is_empty() {
                transactions.push(rows.submit(&Place::Group(group), Vec::new(), writes));
            }
        }
        let inbox = Rc::clone(&self.inbox);
        self.shared.spawn(async move {
            let mut released = Ok(());
            for transaction in transactions {
                if let Err(error) = transaction.await {
                    released = Err(error.kind());
                }
            }
            inbox.post(Told::Released(released));
        });
    }

    /// The session as it would come back.
    fn state(&mut self, will: StoredWill) -> State {
        let mut state = State { incarnation: self.incarnation, will, ..State::default() };
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.pass_over(&self.inbox);
            outgoing.describe(&mut state);
        }
        state
    }

    // The end.

    /// Tells a 5.0 client why.
    pub(crate) fn say_good_bye(&self, close: Close, turn: &mut Turn<'_>) {
        if let Some((reason, why)) = close.tell
            && self.is_v5()
        {
            let why = reason_string(why);
            let disconnect = Disconnect { reason, properties: why.view() };
            // A DISCONNECT of three bytes fits every client; what explains it is left out if need be.
            let _ = disconnect.encode(turn.output.buffer(), &self.peer);
            self.shared.metrics.note_sent(PacketType::Disconnect);
        }
    }

    /// Publishes the will if there is one, and gives the session up.
    pub(crate) fn leave(mut self, publishes_will: bool) {
        self.shared.present.borrow_mut().remove(self.place);
        let will = match self.will.take() {
            Some(will) if publishes_will => self.publish_will(*will),
            Some(will) => {
                will.forget(&self.shared, &self.client);
                StoredWill::None
            }
            None => StoredWill::None,
        };
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.leave_shares(self.expiry != 0);
        }
        let state = self.is_persistent().then(|| {
            let mut state = self.state(will);
            if let Some(outgoing) = &self.outgoing {
                outgoing.describe_unsent(&mut state);
            }
            state.encode()
        });
        if let Some(exclusive) = self.exclusive.take()
            && (self.expiry == 0 || !self.inbox.is_wanted())
        {
            exclusive.leave(&self.shared, &self.client, self.expiry);
        }
        let farewell = Farewell { lease: self.lease, state, keep: keep_of(self.expiry) };
        // A publication of QoS 2 whose fate is open: the session is given up, or its rows are removed, when its identifier is known.
        let has_rows = self.expiry != 0 || farewell.lease.has_own_rows();
        let pushed = match &self.incoming {
            Some(incoming) if has_rows && incoming.has_undecided_qos2() => incoming.pushed,
            Some(_) | None => 0,
        };
        self.inbox.depart(pushed, farewell);
    }

    /// At once, or when its delay is over, but not later than the session [MQTT-3.1.3-9].
    fn publish_will(&self, will: Will) -> StoredWill {
        if !will.is_allowed(&self.rights) {
            debug!(client = %self.client, "the will may not be published any more");
            self.shared.metrics.drop_one(DropReason::Denied);
            will.forget(&self.shared, &self.client);
            return StoredWill::None;
        }
        let delay = will.delay.min(self.expiry);
        if delay == 0 {
            will.publish(&self.shared, &self.client);
            return StoredWill::None;
        }
        if self.inbox.is_wanted() {
            return will.stored_inline(&self.shared, (&self.client, &self.rights.author()));
        }
        will.publish_later(&self.shared, (&self.client, &self.rights.author()), delay)
    }
}
