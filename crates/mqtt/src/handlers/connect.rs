//! CONNECT (section 3.1), in two steps: what the packet wants, then what the session registry answers.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use broker::access::{self, Credentials, Verified};
use broker::{Broker, Keep, Place, SessionLease};
use bytes::Bytes;
use model::Error;
use net::Turn;
use tracing::{info, warn};
use wire::mqtt::{Connack, Connect, Peer, PropertiesBuf, Property, ReasonCode, Version, Will as WillPacket};

use crate::aliases::Used;
use crate::config::MqttConfig;
use crate::connection::{Connection, keep_of};
use crate::error::{connect_reason, reason_string};
use crate::exclusive::{Exclusives, Grant};
use crate::handlers::auth::{ProofExchange, is_proved};
use crate::inbox::{Farewell, Inbox, InboxSink, Told};
use crate::incoming::{Received, ReceivedRows};
use crate::metrics::PacketType;
use crate::observe::Presence;
use crate::outgoing::{Outgoing, is_shared};
use crate::pace::Pace;
use crate::rewrite;
use crate::rights::{self, Rights, refusal_reason};
use crate::saver::Saver;
use crate::session::Shared;
use crate::state::State;
use crate::subscription::EXCLUSIVE;
use crate::template::Who;
use crate::will::{self, Kept, Will};

/// Rows that one scan asks for.
const SCAN_ROWS: usize = 1024;

/// What a CONNECT wants.
pub(crate) struct Opening {
    peer: Peer,
    client: Arc<str>,
    /// We chose the client identifier.
    is_assigned: bool,
    clean_start: bool,
    /// Seconds; 0 is for ever.
    keep_alive: u16,
    is_keep_alive_ours: bool,
    /// Seconds for which the session outlives the connection.
    expiry: u32,
    is_expiry_ours: bool,
    limit: u16,
    /// Greatest topic alias towards the client.
    alias_max: u16,
    will: Option<Box<Will>>,
    /// What it says of itself.
    credentials: Rc<Credentials>,
    /// Its proof, if it named a method.
    proof: Option<Proof>,
    /// What the client is told of where its responses go.
    response_information: Option<Box<str>>,
}

/// Who the client is, without a password.
struct Proof {
    verified: Verified,
    exchange: Box<ProofExchange>,
}

/// A session that is ours.
pub(crate) struct Claimed {
    rights: access::Grant,
    lease: SessionLease,
    incarnation: u64,
    /// The session that comes back.
    state: Option<State>,
    received: BTreeMap<u16, Received>,
    /// Its exclusive subscriptions.
    grant: Option<Grant>,
    /// The row of the client's will.
    will: Option<Kept>,
}

impl Opening {
    /// Checks and translates a CONNECT.
    pub(crate) fn of<B: Broker>(
        shared: &Shared<B>,
        packet: &Connect<'_>,
        network: &net::Peer,
    ) -> Result<Self, ReasonCode> {
        let (config, properties) = (&shared.config, &packet.properties);
        let is_v5 = packet.version == Version::V5;
        let is_assigned = packet.client_id.is_empty();
        let client: Arc<str> = match is_assigned {
            true => format!("auto-{:016x}{:016x}", shared.broker.random(), shared.broker.random()).into(),
            false => packet.client_id.into(),
        };
        let wanted = match (is_v5, packet.clean_start) {
            (true, _) => properties.session_expiry_interval().unwrap_or(0),
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        let expiry = wanted.min(config.session_expiry_max.unwrap_or(u32::MAX));
        let keep_alive = if is_v5 { keep_alive(config, packet.keep_alive) } else { packet.keep_alive };
        let receive_maximum = properties.receive_maximum().unwrap_or(NonZeroU16::MAX);
        let place = (&shared.tenant, &config.listener);
        let credentials = Rc::new(rights::credentials(packet, &client, network, place));
        let who = Who { client: &client, user: credentials.user.as_deref(), host: credentials.peer };
        let rules = shared.rules.set();
        let will = match &packet.will {
            Some(will) => {
                let topic = rewrite::topic(&rules.rewrites, will.topic, &who);
                let topic = topic.map_err(|_| ReasonCode::TopicNameInvalid)?;
                let will = WillPacket { topic: &topic, ..*will };
                let (bytes_max, wall_ms) = (shared.broker.message_bytes_max(), shared.broker.wall_ms());
                Some(Box::new(Will::of(&will, bytes_max, wall_ms)?))
            }
            None => None,
        };
        let response_information = match &config.response_information {
            Some(template) if properties.request_response_information() == Some(true) => template.fill(&who),
            Some(_) | None => None,
        };
        Ok(Self {
            peer: peer_of(packet),
            proof: None,
            response_information: response_information.map(String::into_boxed_str),
            credentials,
            client,
            is_assigned,
            clean_start: packet.clean_start,
            keep_alive,
            is_keep_alive_ours: keep_alive != packet.keep_alive,
            expiry,
            is_expiry_ours: expiry != wanted,
            limit: receive_maximum.min(config.in_flight_max).get(),
            alias_max: properties.topic_alias_maximum().unwrap_or(0).min(config.topic_alias_max),
            will,
        })
    }

    pub(crate) fn client(&self) -> &Arc<str> {
        &self.client
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The client has proved who it is, and is not somebody else by its user name.
    pub(crate) fn prove(&mut self, verified: Verified, exchange: ProofExchange) -> Result<(), ReasonCode> {
        if !is_proved(&self.credentials, &verified) {
            return Err(ReasonCode::BadUserNameOrPassword);
        }
        self.proof = Some(Proof { verified, exchange: Box::new(exchange) });
        Ok(())
    }

    /// Makes the connection the owner of its session. Answers at once where nothing has to be waited for, as with most clients that
    /// have no session; else what comes of it is told to the inbox.
    pub(crate) fn claim<B: Broker>(
        &self,
        shared: &Rc<Shared<B>>,
        inbox: &Rc<Inbox>,
    ) -> Option<Result<Claimed, ReasonCode>> {
        let (task, told) = (Rc::clone(shared), Rc::clone(inbox));
        let (client, expiry) = (Arc::clone(&self.client), self.expiry);
        shared.run(self.claiming(shared, inbox), move |claimed| match claimed {
            // The client did not wait for its answer.
            Ok(claimed) if told.is_closed() => claimed.abandon(&task, &told, (&client, expiry)),
            claimed => told.post(Told::Claimed(Box::new(claimed))),
        })
    }

    fn claiming<B: Broker>(
        &self,
        shared: &Rc<Shared<B>>,
        inbox: &Rc<Inbox>,
    ) -> impl Future<Output = Result<Claimed, ReasonCode>> + use<B> {
        let (shared, inbox) = (Rc::clone(shared), Rc::clone(inbox));
        let (client, clean_start, expiry) = (Arc::clone(&self.client), self.clean_start, self.expiry);
        let credentials = Rc::clone(&self.credentials);
        let verified = self.proof.as_ref().map(|proof| proof.verified.clone());
        let will = self.will.clone();
        async move {
            let rights = admit(&shared, &credentials, verified.as_ref(), will.as_deref()).await?;
            let author = rights.author();
            let kept = will.map(|will| will.keep(&shared, (&client, &author), expiry));
            let claimed = claim(&shared, &inbox, (&client, rights), (clean_start, expiry)).await;
            // Both are written at once: a will costs a client that has a session no time.
            let claimed = match (claimed, kept) {
                (Ok(claimed), Some(kept)) => kept.await.map(|kept| Claimed { will: Some(kept), ..claimed }),
                (claimed, _) => claimed,
            };
            claimed.map_err(|error| {
                warn!(client = %client, err = %error, "a session could not be claimed");
                connect_reason(error.kind())
            })
        }
    }
}

/// What the client says of what may be sent to it.
pub(crate) fn peer_of(packet: &Connect<'_>) -> Peer {
    let properties = &packet.properties;
    Peer {
        version: packet.version,
        packet_size_max: properties.maximum_packet_size().map_or(u32::MAX, NonZeroU32::get),
        problem_information: properties.request_problem_information().unwrap_or(true),
    }
}

/// The keep alive of a 5.0 client that asks for `wanted` seconds.
fn keep_alive(config: &MqttConfig, wanted: u16) -> u16 {
    if let Some(ours) = config.server_keep_alive {
        return ours.get();
    }
    match config.keep_alive_max {
        Some(most) if wanted == 0 || wanted > most.get() => most.get(),
        Some(_) | None => wanted,
    }
}

impl Claimed {
    fn abandon<B: Broker>(self, shared: &Rc<Shared<B>>, inbox: &Inbox, whose: (&str, u32)) {
        let (client, expiry) = whose;
        if let Some(mut grant) = self.grant
            && !inbox.is_wanted()
        {
            Exclusives::of(grant.take()).leave(shared, client, expiry);
        }
        let state = self.state.unwrap_or(State { incarnation: self.incarnation, ..State::default() });
        let state = (expiry != 0).then(|| state.encode());
        inbox.depart(0, Farewell { lease: self.lease, state, keep: keep_of(expiry) });
    }
}

/// Whether the client may come in, and may leave its will.
async fn admit<B: Broker>(
    shared: &Rc<Shared<B>>,
    credentials: &Credentials,
    verified: Option<&Verified>,
    will: Option<&Will>,
) -> Result<access::Grant, ReasonCode> {
    let access = shared.broker.access();
    let admitted = match verified {
        Some(verified) => access.admit_verified(credentials, verified),
        None => access.admit(credentials).await,
    };
    let client = &credentials.client_id;
    let grant = admitted.map_err(|refusal| {
        info!(%client, user = credentials.user.as_deref(), peer = %credentials.peer, why = %refusal, "a client was refused");
        refusal_reason(refusal)
    })?;
    match will {
        Some(will) if !will.may_be_left(&grant) => {
            info!(%client, "a client was refused because it may not publish its will");
            Err(ReasonCode::NotAuthorized)
        }
        Some(_) | None => Ok(grant),
    }
}

/// `whose`: the client, and what it may do. `how`: Clean Start, and the session expiry interval.
async fn claim<B: Broker>(
    shared: &Rc<Shared<B>>,
    inbox: &Rc<Inbox>,
    whose: (&str, access::Grant),
    how: (bool, u32),
) -> Result<Claimed, Error> {
    let ((client, rights), (clean_start, expiry)) = (whose, how);
    let sink = Rc::new(InboxSink(Rc::clone(inbox)));
    let (lease, stored) = shared.broker.claim_session(&shared.tenant, client, sink).await?;
    let was_stored = stored.is_some();
    let bytes = stored.clone().unwrap_or_default();
    let state = stored.filter(|bytes| !bytes.is_empty()).and_then(|bytes| {
        let state = State::decode(bytes);
        if state.is_none() {
            warn!(client, "a stored session cannot be read; it begins anew");
        }
        state
    });
    match state {
        Some(state) if !clean_start => resume(shared, (lease, state, bytes), (client, rights), expiry).await,
        old => {
            if let Some(old) = old {
                shared.broker.forget_shares(&shared.tenant, client);
                forget(shared, old, client).await;
            }
            let incarnation = shared.broker.random();
            if expiry != 0 {
                lease.owns_rows(ReceivedRows::of(incarnation).prefix());
            }
            let state = State { incarnation, ..State::default() };
            // What was stored must not come back after a crash; what is to last must be there.
            if expiry != 0 {
                lease.save(state.encode(), keep_of(expiry)).await?;
            } else if was_stored {
                lease.save(Bytes::new(), keep_of(0)).await?;
            }
            Ok(Claimed {
                rights,
                lease,
                incarnation,
                state: None,
                received: BTreeMap::new(),
                grant: None,
                will: None,
            })
        }
    }
}

/// `session`: its lease, its state, and that as it was found.
async fn resume<B: Broker>(
    shared: &Rc<Shared<B>>,
    session: (SessionLease, State, Bytes),
    whose: (&str, access::Grant),
    expiry: u32,
) -> Result<Claimed, Error> {
    let ((lease, mut state, found), (client, rights)) = (session, whose);
    lease.owns_rows(ReceivedRows::of(state.incarnation).prefix());
    will::settle(shared, client, std::mem::take(&mut state.will), false).await;
    let received = received(shared, state.incarnation).await?;
    let grant = exclusives(shared, client, expiry, &mut state).await?;
    match expiry {
        // It ends with this connection, also by a crash.
        0 => lease.save(Bytes::new(), keep_of(0)).await?,
        // It is stored so already: a client that is back to stay costs no write.
        u32::MAX if lease.kept() == Some(Keep::Forever) && state.encode() == found => {}
        // What was said the last time holds no more; its time counts from the end of this connection on.
        _ => lease.save(state.encode(), keep_of(expiry)).await?,
    }
    let incarnation = state.incarnation;
    Ok(Claimed { rights, lease, incarnation, state: Some(state), received, grant, will: None })
}

/// Takes what the session has alone; what another client has by now is no subscription of it any more.
async fn exclusives<B: Broker>(
    shared: &Rc<Shared<B>>,
    client: &str,
    expiry: u32,
    state: &mut State,
) -> Result<Option<Grant>, Error> {
    let texts = exclusive_texts(state);
    if texts.is_empty() {
        return Ok(None);
    }
    let grant = Grant::of(shared, client, expiry, texts).await?;
    state.subscriptions.retain(|known| !known.text.starts_with(EXCLUSIVE) || grant.holds(&known.text));
    Ok(Some(grant))
}

fn exclusive_texts(state: &State) -> Vec<Box<str>> {
    let texts = state.subscriptions.iter().map(|known| &known.text);
    texts.filter(|text| text.starts_with(EXCLUSIVE)).cloned().collect()
}

/// Packet identifiers of QoS 2 publications that were stored and not released, from all groups [MQTT-4.3.3-10].
async fn received<B: Broker>(
    shared: &Rc<Shared<B>>,
    incarnation: u64,
) -> Result<BTreeMap<u16, Received>, Error> {
    let (rows, keys) = (shared.broker.rows(), ReceivedRows::of(incarnation));
    let mut received = BTreeMap::new();
    for group in rows.groups() {
        let mut from = Bytes::new();
        loop {
            let page = rows.scan(&Place::Group(group), keys.prefix(), from, SCAN_ROWS).await?;
            let ids = page.iter().filter_map(|row| ReceivedRows::id_of(&row.key));
            received.extend(ids.map(|id| (id.get(), Received::Stored(Some(group)))));
            match page.last() {
                Some(last) if page.len() == SCAN_ROWS => from = [&last.key[..], &[0]].concat().into(),
                Some(_) | None => break,
            }
        }
    }
    Ok(received)
}

/// The session ends [MQTT-3.1.2-4]: its will is due, and its packet identifiers mean nothing any more.
async fn forget<B: Broker>(shared: &Rc<Shared<B>>, old: State, client: &str) {
    let texts = exclusive_texts(&old);
    if !texts.is_empty() {
        // What is got here is given back at once.
        if let Err(error) = Grant::of(shared, client, 0, texts).await {
            warn!(client, err = %error, "exclusive subscriptions could not be given up");
        }
    }
    will::settle(shared, client, old.will, true).await;
    let task = Rc::clone(shared);
    let incarnation = old.incarnation;
    shared.spawn(async move {
        let Ok(received) = received(&task, incarnation).await else { return };
        let (rows, keys) = (task.broker.rows(), ReceivedRows::of(incarnation));
        for (id, received) in received {
            let (Some(id), Received::Stored(Some(group))) = (NonZeroU16::new(id), received) else { continue };
            // Left over if this fails: no later session asks for it.
            let _ = rows.transact(&Place::Group(group), Vec::new(), vec![keys.delete(id)]).await;
        }
    });
}

/// The session is ours: answers CONNECT, and goes on with a session that comes back.
pub(crate) fn accept<B: Broker>(
    opening: Opening,
    claimed: Claimed,
    parts: (Rc<Shared<B>>, Rc<Inbox>, Box<Presence>),
    turn: &mut Turn<'_>,
) -> Box<Connection<B>> {
    let (shared, inbox, mut presence) = parts;
    let is_present = claimed.state.is_some();
    answer(&opening, is_present, &shared, turn);
    let mut will = opening.will;
    if let (Some(will), Some(kept)) = (&mut will, claimed.will) {
        will.accept(kept);
    }
    let rights = Box::new(Rights::new(claimed.rights, turn.now, shared.broker.wall_ms()));
    if let Some(user) = rights.user() {
        presence.user = Some(user);
    }
    let place = shared.present.borrow_mut().insert(Rc::clone(&inbox));
    presence.keep_alive = opening.keep_alive;
    let mut connection = Box::new(Connection {
        client: opening.client,
        peer: opening.peer,
        rights,
        place,
        exchange: opening.proof.map(|proof| proof.exchange),
        limit: opening.limit,
        // One and a half times the keep alive [MQTT-3.1.2-22].
        silence_max: Duration::from_millis(u64::from(opening.keep_alive) * 1500),
        heard: turn.now,
        was_spared: false,
        expiry: opening.expiry,
        incarnation: claimed.incarnation,
        lease: claimed.lease,
        will,
        incoming: None,
        outgoing: None,
        saver: Saver::default(),
        aliases: Used::new(opening.alias_max),
        exclusive: claimed.grant.map(|mut grant| Box::new(Exclusives::of(grant.take()))),
        pace: Pace::new(shared.config.rate_limit, shared.protection.pace.as_ref(), turn.now),
        presence,
        shared,
        inbox,
    });
    connection.note_arrival(is_present);
    if !claimed.received.is_empty() {
        connection.incoming().received = claimed.received;
    }
    if let Some(state) = claimed.state.filter(|state| state.cursor.is_some()) {
        let (broker, tenant) = (&connection.shared.broker, &connection.shared.tenant);
        let sink = Rc::new(InboxSink(Rc::clone(&connection.inbox)));
        let outgoing = Outgoing::restored(broker.subscriber(tenant, sink), &state);
        connection.outgoing = Some(Box::new(outgoing));
        for subscription in state.subscriptions.iter().filter(|known| is_shared(&known.text)) {
            connection.join_share(&subscription.text, subscription.tag);
        }
        connection.with_outgoing(turn, |outgoing, link| outgoing.advance(link));
    }
    connection.auto_subscribe(turn);
    connection.count_subscriptions();
    connection
}

fn answer<B: Broker>(opening: &Opening, is_present: bool, shared: &Shared<B>, turn: &mut Turn<'_>) {
    let config = &shared.config;
    let mut properties = PropertiesBuf::new();
    if opening.peer.version == Version::V5 {
        let told = [
            opening.is_expiry_ours.then_some(Property::SessionExpiryInterval(opening.expiry)),
            Some(Property::ReceiveMaximum(config.receive_maximum)),
            NonZeroU32::new(config.packet_bytes_max).map(Property::MaximumPacketSize),
            opening.is_assigned.then_some(Property::AssignedClientIdentifier(&opening.client)),
            (config.topic_alias_max != 0).then_some(Property::TopicAliasMaximum(config.topic_alias_max)),
            opening.is_keep_alive_ours.then_some(Property::ServerKeepAlive(opening.keep_alive)),
            opening.response_information.as_deref().map(Property::ResponseInformation),
        ];
        if let Some(proof) = &opening.proof {
            proof.exchange.say(&mut properties);
        }
        for property in told.into_iter().flatten() {
            // One that a property cannot hold is not told.
            let _ = properties.push(property);
        }
    }
    let connack =
        Connack { session_present: is_present, reason: ReasonCode::Success, properties: properties.view() };
    if connack.encode(turn.output.buffer(), &opening.peer).is_err() {
        // A client whose maximum is below the shortest CONNACK cannot be told anything.
        turn.close();
    } else {
        shared.metrics.note_sent(PacketType::Connack);
    }
}

/// Answers a CONNECT that is not accepted.
pub(crate) fn refuse(peer: &Peer, reason: ReasonCode, turn: &mut Turn<'_>) {
    let why = reason_string(reason.meaning());
    let connack = Connack { session_present: false, reason, properties: why.view() };
    // An older version without a return code for this reason is only closed.
    let _ = connack.encode(turn.output.buffer(), peer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ErrorKind;

    #[test]
    fn mqtt_3_2_2_6_a_refusal_never_says_that_there_is_a_session() {
        for version in [Version::V31, Version::V311, Version::V5] {
            let (mut output, mut closing) = (net::Output::new(), false);
            let mut turn = Turn::new(std::time::Instant::now(), &mut output, &mut closing);
            refuse(&Peer::new(version), connect_reason(ErrorKind::Unavailable), &mut turn);
            let bytes = output.take();
            assert_eq!(bytes[2], 0);
            assert_eq!(bytes[3], if version == Version::V5 { 0x88 } else { 3 });
        }
    }
}
