//! Bytes, time and good or bad luck into MQTT connections over a whole broker core: no panic, and whatever a client sends, what
//! it is told keeps to the standard.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use broker::Core;
use bytes::{Buf, BytesMut};
use libfuzzer_sys::fuzz_target;
use mqtt::{Event, Front, MqttConfig, Rewrite, RewriteAction, Session};
use net::{Closed, Mailbox, Output, Session as _, Turn};
use testkit::TestNode;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;
use wire::mqtt::{
    Ack, AckKind, Connect, Decoded, Decoder, Delivery, Disconnect, Exchange, Expect, Packet, Peer,
    Properties, PropertiesBuf, Property, Publish, Qos, ReasonCode, RetainHandling, SubscribeOptions, Version,
    Will,
};

/// Connections at a time: enough for take-over and for messages from one to another.
const CLIENTS: usize = 3;
/// How long nothing has to come for any connection until the core counts as idle: a row takes about half of it.
const QUIET: Duration = Duration::from_millis(1);
const PACKET_BYTES_MAX: u32 = 4096;
const NAMES: [&str; 3] = ["a", "b", ""];
const TOPICS: [&str; 8] = ["t", "t/u", "t/u/v", "r/x", "$SYS/x", "bad", "long/topic/of/many/levels", ""];
const FILTERS: [&str; 12] = [
    "t",
    "t/#",
    "+/u",
    "#",
    "r/+",
    "$exclusive/t",
    "$exclusive/t/+",
    "$share/g/t",
    "a#",
    "$SYS/#",
    "bad",
    "t/u",
];

thread_local! {
    // Leaked: a node is not taken apart while its thread is.
    static HOUSE: &'static House = Box::leak(Box::new(House::build()));
}

/// What lives as long as the process.
struct House {
    runtime: Runtime,
    local: LocalSet,
    front: Front<Core>,
    _node: TestNode,
}

impl House {
    fn build() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = LocalSet::new();
        let config = MqttConfig {
            packet_bytes_max: PACKET_BYTES_MAX,
            receive_maximum: NonZeroU16::new(4).expect("not zero"),
            topic_alias_max: 3,
            rewrites: vec![
                Rewrite::new(RewriteAction::All, "bad", "", "x/#/y").expect("a rule"),
                Rewrite::new(RewriteAction::Publish, "r/+", "^r/(.)", "t/$1").expect("a rule"),
            ],
            auto_subscribe: vec!["auto/${clientid} qos=2".parse().expect("a subscription")],
            ..MqttConfig::default()
        };
        let (node, front) = local.block_on(&runtime, async {
            let node = TestNode::start().await;
            let front = Front::new(config, node.core.clone());
            front.recover().await.expect("an empty store");
            (node, front)
        });
        Self { runtime, local, front, _node: node }
    }
}

fuzz_target!(|input: &[u8]| {
    HOUSE.with(|house| {
        let _entered = house.runtime.enter();
        house.local.block_on(&house.runtime, play(&house.front, Input(input)));
    });
});

/// The choices that the fuzzer makes.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A byte, or 0 at the end.
    fn any(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    fn bit(&mut self) -> bool {
        self.any() & 1 != 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.any()) % from.len()]
    }

    fn take(&mut self, most: usize) -> &'a [u8] {
        let len = usize::from(self.any()).min(most).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn id(&mut self) -> NonZeroU16 {
        NonZeroU16::new(u16::from(self.any() % 5) + 1).unwrap_or(NonZeroU16::MIN)
    }
}

async fn play(front: &Front<Core>, mut input: Input<'_>) {
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(front)).collect();
    while let Some(choice) = input.byte() {
        let at = usize::from(choice) % CLIENTS;
        let client = &mut clients[at];
        match choice / CLIENTS as u8 % 24 {
            0..=2 => client.connect(&mut input),
            3..=7 => client.publish(&mut input),
            8..=10 => client.subscribe(&mut input),
            11 => client.unsubscribe(&mut input),
            12..=14 => client.acknowledge(&mut input),
            15 => client.disconnect(&mut input),
            16 => client.send_unknown(input.take(64)),
            17 => client.send(b"\xc0\x00"),
            18 => client.pass(Duration::from_millis(u64::from(input.any()) * 50)),
            19 => {
                client.end(Closed::Broken);
                clients[at] = Client::new(front);
            }
            20 => client.turn(|session, turn| session.handle_drained(turn)),
            21 => {
                client.turn(|session, turn| session.handle_shutdown(turn));
                client.end(Closed::Shutdown);
                clients[at] = Client::new(front);
            }
            _ => settle(&mut clients).await,
        }
        if clients[at].closing {
            clients[at].check();
            clients[at].end(Closed::BySession);
            clients[at] = Client::new(front);
        }
    }
    settle(&mut clients).await;
    clients.iter_mut().for_each(|client| client.end(Closed::ByPeer));
    tokio::task::yield_now().await;
}

/// Lets the core work until nothing comes for anybody for a while.
async fn settle(clients: &mut [Client]) {
    let mut heard_at = Instant::now();
    while heard_at.elapsed() < QUIET {
        let heard = clients.iter_mut().map(Client::hear).fold(false, |all, one| all | one);
        if heard {
            heard_at = Instant::now();
        }
        tokio::task::yield_now().await;
    }
}

/// One connection, and what its client knows.
struct Client {
    session: Session<Core>,
    mailbox: Mailbox<Event>,
    output: Output,
    input: BytesMut,
    said: BytesMut,
    now: Instant,
    closing: bool,
    ended: bool,
    version: Version,
    packet_size_max: u32,
    receive_maximum: usize,
    alias_max: u16,
    /// It has sent something: only a first CONNECT counts.
    spoke: bool,
    /// It has sent bytes that the fuzzer made up. They may be a CONNECT or acknowledgements, or the beginning of what comes
    /// after them: from here on it is not known what the client permits and what is in flight.
    unknown: bool,
    accepted: bool,
    /// Of exchanges that the broker began and that are not over.
    in_flight: BTreeSet<u16>,
    aliases: BTreeMap<u16, String>,
}

impl Client {
    fn new(front: &Front<Core>) -> Self {
        let (session, mailbox) = front.session(net::Peer::tcp(&"mqtt".into(), ([127, 0, 0, 1], 1).into()));
        Self {
            session,
            mailbox,
            output: Output::new(),
            input: BytesMut::new(),
            said: BytesMut::new(),
            now: Instant::now(),
            closing: false,
            ended: false,
            version: Version::V5,
            packet_size_max: u32::MAX,
            receive_maximum: usize::from(u16::MAX),
            alias_max: 0,
            spoke: false,
            unknown: false,
            accepted: false,
            in_flight: BTreeSet::new(),
            aliases: BTreeMap::new(),
        }
    }

    // What it does.

    fn connect(&mut self, input: &mut Input<'_>) {
        let version = input.pick(&[Version::V5, Version::V5, Version::V311, Version::V31]);
        let mut properties = PropertiesBuf::new();
        let limits = input.any();
        let (receive_maximum, alias_max, packet_size_max) = (
            u16::from(limits % 4),
            u16::from(limits / 4 % 4),
            [0u32, 20, 60, 4000][usize::from(limits / 16 % 4)],
        );
        let said = [
            input.bit().then_some(Property::SessionExpiryInterval(u32::from(limits) % 3)),
            NonZeroU16::new(receive_maximum).map(Property::ReceiveMaximum),
            (alias_max > 0).then_some(Property::TopicAliasMaximum(alias_max)),
            std::num::NonZeroU32::new(packet_size_max).map(Property::MaximumPacketSize),
            input.bit().then_some(Property::RequestProblemInformation(limits & 1 != 0)),
        ];
        for property in said.into_iter().flatten() {
            let _ = properties.push(property);
        }
        let will = input.bit().then(|| Will {
            qos: Qos::ExactlyOnce,
            retain: limits & 8 != 0,
            properties: Properties::EMPTY,
            topic: "t",
            payload: b"will",
        });
        let mut bytes = BytesMut::new();
        let connect = Connect {
            version,
            clean_start: input.bit(),
            keep_alive: u16::from(limits % 3),
            properties: properties.view(),
            client_id: input.pick(&NAMES),
            will,
            user_name: None,
            password: None,
        };
        if connect.encode(&mut bytes, &Peer::new(version)).is_err() {
            return;
        }
        if !std::mem::replace(&mut self.spoke, true) {
            self.version = version;
            if version == Version::V5 {
                if receive_maximum > 0 {
                    self.receive_maximum = usize::from(receive_maximum);
                }
                if packet_size_max > 0 {
                    self.packet_size_max = packet_size_max;
                }
                self.alias_max = alias_max;
            }
        }
        self.send(&bytes);
    }

    fn publish(&mut self, input: &mut Input<'_>) {
        let mut properties = PropertiesBuf::new();
        let choice = input.any();
        if choice & 1 != 0 {
            let alias = NonZeroU16::new(u16::from(choice / 2 % 4) + 1).unwrap_or(NonZeroU16::MIN);
            let _ = properties.push(Property::TopicAlias(alias));
        }
        if choice & 16 != 0 {
            let _ = properties.push(Property::MessageExpiryInterval(u32::from(choice / 32)));
            let _ = properties.push(Property::UserProperty("k", "v"));
        }
        let (id, dup) = (input.id(), input.bit());
        let delivery = input.pick(&[
            Delivery::AtMostOnce,
            Delivery::AtLeastOnce { id, dup },
            Delivery::ExactlyOnce { id, dup },
        ]);
        let (retain, topic) = (input.bit(), input.pick(&TOPICS));
        let payload = input.take(100);
        let publish = Publish { delivery, retain, topic, properties: properties.view(), payload };
        self.encode(|out, peer| publish.encode(out, peer).is_ok());
    }

    fn subscribe(&mut self, input: &mut Input<'_>) {
        let mut filters = Vec::new();
        for _ in 0..=input.any() % 3 {
            let options = input.any();
            let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
            let options = SubscribeOptions {
                qos: [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(options % 3)],
                no_local: options & 4 != 0,
                retain_as_published: options & 8 != 0,
                retain_handling: handling[usize::from(options / 16 % 3)],
            };
            filters.push((input.pick(&FILTERS), options));
        }
        let mut properties = PropertiesBuf::new();
        if let Some(number) = std::num::NonZeroU32::new(u32::from(input.any() % 3)) {
            let _ = properties.push(Property::SubscriptionIdentifier(number));
        }
        let exchange = Exchange { packet_id: input.id(), properties: properties.view() };
        self.encode(|out, peer| exchange.encode_subscribe(&filters, out, peer).is_ok());
    }

    fn unsubscribe(&mut self, input: &mut Input<'_>) {
        let filters = [input.pick(&FILTERS), input.pick(&FILTERS)];
        let exchange = Exchange { packet_id: input.id(), properties: Properties::EMPTY };
        self.encode(|out, peer| exchange.encode_unsubscribe(&filters, out, peer).is_ok());
    }

    fn acknowledge(&mut self, input: &mut Input<'_>) {
        // Retained messages come in the turn of the SUBSCRIBE: what is acknowledged has been read.
        self.check();
        let kind = input.pick(&[AckKind::Puback, AckKind::Pubrec, AckKind::Pubrel, AckKind::Pubcomp]);
        // What is in flight, mostly.
        let known =
            self.in_flight.iter().copied().nth(usize::from(input.any() % 4)).and_then(NonZeroU16::new);
        let packet_id = known.unwrap_or(input.id());
        let failed = input.any() & 7 == 7 && matches!(kind, AckKind::Puback | AckKind::Pubrec);
        let reason = if failed { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
        let ack = Ack { packet_id, reason, properties: Properties::EMPTY };
        if kind == AckKind::Puback || kind == AckKind::Pubcomp || failed {
            // Whether it settles the exchange is the broker's business: the client counts it as over.
            self.in_flight.remove(&packet_id.get());
        }
        self.encode(|out, peer| ack.encode(kind, out, peer).is_ok());
        if known.is_none() && !self.input.is_empty() {
            // It waits, and may settle what comes in the meantime.
            self.unknown = true;
        }
    }

    fn disconnect(&mut self, input: &mut Input<'_>) {
        let mut properties = PropertiesBuf::new();
        if self.version == Version::V5 && input.bit() {
            let _ = properties.push(Property::SessionExpiryInterval(u32::from(input.any() % 3)));
        }
        let reason = match self.version {
            Version::V5 => input.pick(&[ReasonCode::Success, ReasonCode::DisconnectWithWill]),
            Version::V31 | Version::V311 => ReasonCode::Success,
        };
        let disconnect = Disconnect { reason, properties: properties.view() };
        self.encode(|out, peer| disconnect.encode(out, peer).is_ok());
    }

    fn encode(&mut self, write: impl FnOnce(&mut BytesMut, &Peer) -> bool) {
        let mut bytes = BytesMut::new();
        if write(&mut bytes, &Peer::new(self.version)) {
            self.send(&bytes);
        }
    }

    // As the driver would run it.

    fn send_unknown(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.check();
            self.unknown = true;
            self.send(bytes);
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.spoke = true;
        self.input.extend_from_slice(bytes);
        self.go_on();
    }

    fn go_on(&mut self) {
        while !self.input.is_empty() && !self.closing && !self.ended && self.session.wants_input() {
            let mut input = std::mem::take(&mut self.input);
            let before = input.len();
            self.turn(|session, turn| session.handle_input(&mut input, turn));
            let stuck = input.len() == before;
            self.input = input;
            if stuck {
                let waits = self.closing || !self.session.wants_input();
                assert!(waits || before <= PACKET_BYTES_MAX as usize, "more is buffered than a packet has");
                return;
            }
        }
    }

    /// Whether something was told.
    fn hear(&mut self) -> bool {
        let mut heard = false;
        while !self.closing
            && !self.ended
            && let Some(event) = self.mailbox.take()
        {
            heard = true;
            self.turn(|session, turn| session.handle_event(event, turn));
        }
        self.go_on();
        self.check();
        heard
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while !self.closing
            && let Some(deadline) = self.session.deadline().filter(|deadline| *deadline <= end)
        {
            self.now = self.now.max(deadline);
            self.turn(|session, turn| session.handle_deadline(turn));
            let next = self.session.deadline();
            assert!(self.closing || next.is_none_or(|next| next > self.now), "a deadline that is not over");
            self.go_on();
        }
        self.now = end;
    }

    fn turn(&mut self, work: impl FnOnce(&mut Session<Core>, &mut Turn<'_>)) {
        if self.ended || self.closing {
            return;
        }
        let mut turn = Turn::new(self.now, &mut self.output, &mut self.closing);
        work(&mut self.session, &mut turn);
        let output = self.output.take();
        self.said.extend_from_slice(&output);
    }

    fn end(&mut self, closed: Closed) {
        if !std::mem::replace(&mut self.ended, true) {
            self.session.handle_closed(closed);
        }
    }

    // What it is told.

    fn check(&mut self) {
        let said = std::mem::take(&mut self.said);
        if self.unknown && !self.accepted {
            // The answer to a made-up CONNECT may be of another version.
            return;
        }
        let mut rest = &said[..];
        let decoder = Decoder { expect: Expect::FromServer(self.version), packet_size_max: u32::MAX };
        while !rest.is_empty() {
            assert!(self.accepted || rest[0] == 0x20, "CONNACK comes first");
            match decoder.decode(rest) {
                Decoded::Packet(packet, len) => {
                    if self.accepted && !self.unknown {
                        assert!(
                            len <= self.packet_size_max as usize,
                            "{packet:?} is too large for the client"
                        );
                    }
                    self.check_packet(&packet);
                    rest.advance(len);
                }
                other => panic!("the broker sent {rest:x?}: {other:?}"),
            }
        }
    }

    fn check_packet(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Connack(connack) => {
                assert!(!std::mem::replace(&mut self.accepted, true), "CONNACK comes once");
                assert!(connack.reason == ReasonCode::Success || !connack.session_present);
            }
            Packet::Publish(publish) => self.check_publish(publish),
            Packet::Disconnect(_) => assert!(self.closing, "the broker closes after DISCONNECT"),
            _ => {}
        }
    }

    fn check_publish(&mut self, publish: &Publish<'_>) {
        if let Some(alias) = publish.properties.topic_alias() {
            assert!(self.unknown || alias.get() <= self.alias_max, "an alias above the client's maximum");
            match publish.topic {
                "" => assert!(self.aliases.contains_key(&alias.get()), "an alias that was never set"),
                topic => {
                    self.aliases.insert(alias.get(), topic.to_owned());
                }
            }
        } else {
            assert!(!publish.topic.is_empty());
        }
        let dup = match publish.delivery {
            Delivery::AtMostOnce => return,
            Delivery::AtLeastOnce { dup, .. } | Delivery::ExactlyOnce { dup, .. } => dup,
        };
        if let Some(id) = publish.delivery.packet_id()
            && !self.unknown
        {
            let is_new = self.in_flight.insert(id.get());
            assert!(is_new, "identifier {id} is in flight (dup {dup})");
            assert!(self.in_flight.len() <= self.receive_maximum, "above the client's Receive Maximum");
        }
    }
}
