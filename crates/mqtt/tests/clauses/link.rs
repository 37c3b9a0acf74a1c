//! A broker with the front on a real socket, and a client that speaks packets or bytes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use model::Resource;
use mqtt::{Front, MqttConfig, Observatory, ObserveConfig, Protection, Rules};
use net::{Address, CertificateUser, CoreIo, Entrance, Transport, WebSocketRules, drive};
use tempfile::TempDir;
use testkit::{SteppedClock, TestNode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::mqtt::{
    Ack, AckKind, Auth, Connect, Decoded, Decoder, Delivery, Disconnect, Exchange, Expect, Packet, Peer,
    Properties, PropertiesBuf, Property, Publish, Qos, ReasonCode, SubscribeOptions, Version, Will,
    encode_pingreq,
};

use crate::hand::Hand;

/// How long a client waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The request of a WebSocket client.
const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A node with an MQTT listener.
pub(crate) struct Broker {
    node: TestNode,
    front: Rc<Front<broker::Core>>,
    observatory: Observatory,
    rules: Rules,
    address: SocketAddr,
}

impl Broker {
    pub(crate) async fn start() -> Broker {
        Broker::with(MqttConfig::default()).await
    }

    pub(crate) async fn with(config: MqttConfig) -> Broker {
        Broker::over(TestNode::start().await, config, ObserveConfig::default()).await
    }

    /// One whose wall clock is the test's.
    pub(crate) async fn with_clock(clock: Arc<SteppedClock>) -> Broker {
        Broker::over(TestNode::start_with(clock).await, MqttConfig::default(), ObserveConfig::default()).await
    }

    /// One that is looked at.
    pub(crate) async fn observed(config: ObserveConfig) -> Broker {
        Broker::over(TestNode::start().await, MqttConfig::default(), config).await
    }

    async fn over(node: TestNode, config: MqttConfig, observed: ObserveConfig) -> Broker {
        let observatory = Observatory::new(observed);
        let rules = Rules::new(&observatory);
        let shared = (&observatory, &rules);
        let front = Rc::new(Front::among(config, node.core.clone(), shared, Protection::default()));
        let (observes, core) = (observatory.clone(), node.core.clone());
        tokio::task::spawn_local(async move { observes.run(core).await });
        front.recover().await.expect("wills can be read");
        tokio::task::spawn_local(rules.follow(&node.core).await.expect("rules can be read"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::task::spawn_local(front.follow_rights());
        let served = Rc::clone(&front);
        tokio::task::spawn_local(async move {
            let io = CoreIo::new();
            while let Ok((stream, peer)) = listener.accept().await {
                let (session, mailbox) = session_of(&served, peer);
                tokio::task::spawn_local(drive(stream, io.clone(), session, mailbox, ()));
            }
        });
        Broker { node, front, observatory, rules, address }
    }

    /// What is observed.
    pub(crate) fn observatory(&self) -> &Observatory {
        &self.observatory
    }

    /// Stores a rule. When this returns, it holds.
    pub(crate) async fn store<R: Resource>(&self, rule: &R) {
        self.rules.caught_up(self.node.put(rule).await).await;
    }

    /// Removes one. When this returns, it holds no more.
    pub(crate) async fn remove<R: Resource>(&self, rule: &R) {
        self.rules.caught_up(self.node.delete::<R>(&rule.key()).await).await;
    }

    /// The node below it.
    pub(crate) fn node(&self) -> &TestNode {
        &self.node
    }

    /// A connection without a socket, whose time the test moves.
    pub(crate) fn hand(&self) -> Hand {
        let (session, mailbox) = session_of(&self.front, ([127, 0, 0, 1], 1).into());
        Hand::new(session, mailbox)
    }

    /// The same, through a listener with other settings.
    pub(crate) fn hand_with(&self, config: MqttConfig) -> Hand {
        let (session, mailbox) =
            session_of(&Front::new(config, self.node.core.clone()), ([127, 0, 0, 1], 1).into());
        Hand::new(session, mailbox)
    }

    /// The value of a counter, summed over its labels.
    pub(crate) fn counted(&self, name: &str, label: &str) -> u64 {
        let samples = self.front.metrics().samples();
        let wanted = samples.iter().filter(|sample| sample.name == name && sample.label.1 == label);
        wanted.map(|sample| sample.value).sum()
    }

    /// A socket that has said nothing yet.
    pub(crate) async fn socket(&self, version: Version) -> Client {
        let stream = TcpStream::connect(self.address).await.expect("the broker accepts");
        stream.set_nodelay(true).expect("an open socket");
        Client { stream, version, received: BytesMut::new() }
    }

    /// A WebSocket whose handshake is done. What it says and hears is frames.
    pub(crate) async fn websocket(&self) -> Client {
        let rules = WebSocketRules {
            path: "/mqtt".to_owned(),
            require_sub_protocol: true,
            frame_bytes_max: u64::from(MqttConfig::default().packet_bytes_max),
        };
        let entrance = Entrance {
            name: "mqtt".into(),
            transport: Transport::WebSocket,
            proxy: None,
            tls: None,
            websocket: Some(Arc::new(rules)),
            user: CertificateUser::None,
            timeout: PATIENCE,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("it listens");
        let served = Rc::clone(&self.front);
        tokio::task::spawn_local(async move {
            let (stream, peer) = listener.accept().await.expect("a connection");
            let io = CoreIo::new();
            let entered = entrance.enter_tcp(stream, Address::Ip(peer), &io).await.expect("a WebSocket");
            let (session, mailbox) = served.session(entered.peer);
            drive(entered.io, io, session, mailbox, ()).await;
        });
        let mut client = Client { stream, version: Version::V5, received: BytesMut::new() };
        client.send(UPGRADE).await;
        let mut answer = BytesMut::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.unsplit(client.take(1).await);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("Protocol: mqtt\r\n"), "{answer}");
        client
    }

    /// A client that is accepted.
    pub(crate) async fn client(&self, version: Version, id: &str) -> Client {
        let mut client = self.socket(version).await;
        client.connect(&Hello { id, ..Hello::default() }).await;
        assert_eq!(client.connack().await, (false, ReasonCode::Success));
        client
    }

    /// On what another one left.
    pub(crate) async fn start_on(dir: TempDir) -> Broker {
        Broker::over(TestNode::start_on(dir).await, MqttConfig::default(), ObserveConfig::default()).await
    }

    /// Stops it in order. What still runs on this core must end before its directory can be used again.
    pub(crate) async fn stop(self) -> TempDir {
        self.node.stop().await
    }
}

fn session_of(
    front: &Front<broker::Core>,
    peer: SocketAddr,
) -> (mqtt::Session<broker::Core>, net::Mailbox<mqtt::Event>) {
    front.session(net::Peer::tcp(&"mqtt".into(), peer))
}

/// A directory that goes from one core to the next.
#[derive(Default)]
pub(crate) struct Kept(RefCell<Option<TempDir>>);

impl Kept {
    pub(crate) fn put(&self, dir: TempDir) {
        *self.0.borrow_mut() = Some(dir);
    }

    pub(crate) fn take(&self) -> TempDir {
        self.0.borrow_mut().take().expect("the core before has put it there")
    }
}

/// What a CONNECT says.
#[derive(Clone, Copy)]
pub(crate) struct Hello<'a> {
    pub(crate) id: &'a str,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive: u16,
    pub(crate) expiry: Option<u32>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) packet_size_max: Option<u32>,
    pub(crate) topic_alias_maximum: Option<u16>,
    pub(crate) response_information: Option<bool>,
    pub(crate) problem_information: Option<bool>,
    pub(crate) will: Option<Will<'a>>,
    /// Name and password.
    pub(crate) user: Option<(&'a str, &'a str)>,
}

impl Default for Hello<'_> {
    fn default() -> Self {
        Hello {
            id: "c",
            clean_start: true,
            keep_alive: 0,
            expiry: None,
            receive_maximum: None,
            packet_size_max: None,
            topic_alias_maximum: None,
            response_information: None,
            problem_information: None,
            will: None,
            user: None,
        }
    }
}

impl<'a> Hello<'a> {
    /// Of a session that lasts, in either version.
    pub(crate) fn lasting(id: &'a str) -> Hello<'a> {
        Hello { id, clean_start: false, expiry: Some(3600), ..Hello::default() }
    }
}

/// One client.
pub(crate) struct Client {
    stream: TcpStream,
    version: Version,
    received: BytesMut,
}

/// A PUBLISH that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: Qos,
    pub(crate) id: Option<u16>,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) properties: String,
}

pub(crate) fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

impl Client {
    // What it says.

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A broker that has closed already is found out by what follows.
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn connect(&mut self, hello: &Hello<'_>) {
        let mut properties = PropertiesBuf::new();
        let said = [
            hello.expiry.map(Property::SessionExpiryInterval),
            hello.receive_maximum.and_then(NonZeroU16::new).map(Property::ReceiveMaximum),
            hello.packet_size_max.and_then(NonZeroU32::new).map(Property::MaximumPacketSize),
            hello.topic_alias_maximum.map(Property::TopicAliasMaximum),
            hello.response_information.map(Property::RequestResponseInformation),
            hello.problem_information.map(Property::RequestProblemInformation),
        ];
        for property in said.into_iter().flatten() {
            properties.push(property).unwrap();
        }
        let connect = Connect {
            version: self.version,
            clean_start: hello.clean_start,
            keep_alive: hello.keep_alive,
            properties: properties.view(),
            client_id: hello.id,
            will: hello.will,
            user_name: hello.user.map(|(name, _)| name),
            password: hello.user.map(|(_, password)| password.as_bytes()),
        };
        self.encode(|out, peer| connect.encode(out, peer).unwrap()).await;
    }

    /// A packet of the test's own.
    pub(crate) async fn say(&mut self, write: impl FnOnce(&mut BytesMut, &Peer)) {
        self.encode(write).await;
    }

    /// A step of SCRAM-SHA-256.
    pub(crate) async fn auth(&mut self, reason: ReasonCode, data: &[u8]) {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::AuthenticationMethod("SCRAM-SHA-256")).unwrap();
        properties.push(Property::AuthenticationData(data)).unwrap();
        let auth = Auth { reason, properties: properties.view() };
        self.encode(|out, peer| auth.encode(out, peer).unwrap()).await;
    }

    pub(crate) async fn encode(&mut self, write: impl FnOnce(&mut BytesMut, &Peer)) {
        let mut out = BytesMut::new();
        write(&mut out, &Peer::new(self.version));
        self.send(&out).await;
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: Qos) {
        let codes = self.subscribe_with(filter, SubscribeOptions::new(qos), None).await;
        assert_eq!(codes, [ReasonCode::from_u8(qos as u8).unwrap()]);
    }

    /// Subscribes and waits for the answer.
    pub(crate) async fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscribeOptions,
        identifier: Option<u32>,
    ) -> Vec<ReasonCode> {
        let mut properties = PropertiesBuf::new();
        if let Some(identifier) = identifier.and_then(NonZeroU32::new) {
            properties.push(Property::SubscriptionIdentifier(identifier)).unwrap();
        }
        let exchange = Exchange { packet_id: id(77), properties: properties.view() };
        self.encode(|out, peer| exchange.encode_subscribe(&[(filter, options)], out, peer).unwrap()).await;
        self.codes().await
    }

    /// SUBSCRIBE alone, without waiting for the answer.
    pub(crate) async fn send_subscribe(&mut self, filter: &str, options: SubscribeOptions) {
        let exchange = Exchange { packet_id: id(79), properties: Properties::EMPTY };
        self.encode(|out, peer| exchange.encode_subscribe(&[(filter, options)], out, peer).unwrap()).await;
    }

    /// UNSUBSCRIBE alone, without waiting for the answer.
    pub(crate) async fn send_unsubscribe(&mut self, filter: &str) {
        let exchange = Exchange { packet_id: id(78), properties: Properties::EMPTY };
        self.encode(|out, peer| exchange.encode_unsubscribe(&[filter], out, peer).unwrap()).await;
    }

    /// Subscribes to many filters with one packet.
    pub(crate) async fn subscribe_all(&mut self, filters: &[String]) -> Vec<ReasonCode> {
        let options = SubscribeOptions::new(Qos::AtMostOnce);
        let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options)).collect();
        let exchange = Exchange { packet_id: id(76), properties: Properties::EMPTY };
        self.encode(|out, peer| exchange.encode_subscribe(&filters, out, peer).unwrap()).await;
        self.codes().await
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) -> Vec<ReasonCode> {
        self.send_unsubscribe(filter).await;
        self.codes().await
    }

    async fn codes(&mut self) -> Vec<ReasonCode> {
        self.read(|packet| match packet {
            Packet::Suback(ack) | Packet::Unsuback(ack) => ack.codes().collect(),
            other => panic!("SUBACK or UNSUBACK was expected: {other:?}"),
        })
        .await
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], delivery: Delivery) {
        self.publish_with(topic, payload, delivery, (false, Properties::EMPTY)).await;
    }

    pub(crate) async fn publish_retained(&mut self, topic: &str, payload: &[u8], delivery: Delivery) {
        self.publish_with(topic, payload, delivery, (true, Properties::EMPTY)).await;
    }

    pub(crate) async fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        delivery: Delivery,
        how: (bool, Properties<'_>),
    ) {
        let publish = Publish { delivery, retain: how.0, topic, properties: how.1, payload };
        self.encode(|out, peer| publish.encode(out, peer).unwrap()).await;
    }

    /// Publishes with QoS 1 and waits for PUBACK.
    pub(crate) async fn publish_durably(&mut self, topic: &str, payload: &[u8]) {
        self.publish(topic, payload, Delivery::AtLeastOnce { id: id(1), dup: false }).await;
        assert_eq!(self.ack().await, (AckKind::Puback, 1, ReasonCode::Success));
    }

    pub(crate) async fn acknowledge(&mut self, kind: AckKind, number: u16) {
        self.acknowledge_with(kind, number, ReasonCode::Success).await;
    }

    pub(crate) async fn acknowledge_with(&mut self, kind: AckKind, number: u16, reason: ReasonCode) {
        let ack = Ack { packet_id: id(number), reason, properties: Properties::EMPTY };
        self.encode(|out, peer| ack.encode(kind, out, peer).unwrap()).await;
    }

    pub(crate) async fn disconnect(&mut self, reason: ReasonCode, properties: Properties<'_>) {
        let disconnect = Disconnect { reason, properties };
        self.encode(|out, peer| disconnect.encode(out, peer).unwrap()).await;
    }

    /// Good-bye, and the broker has closed: the session is given up.
    pub(crate) async fn leave(mut self) {
        self.disconnect(ReasonCode::Success, Properties::EMPTY).await;
        self.closed().await;
    }

    /// Good-bye; everything that still came before the broker closed.
    pub(crate) async fn leave_with_rest(mut self) -> Vec<u8> {
        self.disconnect(ReasonCode::Success, Properties::EMPTY).await;
        loop {
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            if read.expect("the broker closes in time").unwrap_or(0) == 0 {
                return self.received.to_vec();
            }
        }
    }

    // What it hears.

    /// The next packet, as `look` sees it.
    pub(crate) async fn read<R>(&mut self, look: impl FnOnce(Packet<'_>) -> R) -> R {
        let decoder = Decoder { expect: Expect::FromServer(self.version), packet_size_max: u32::MAX };
        loop {
            match decoder.decode(&self.received) {
                Decoded::Packet(packet, len) => {
                    let seen = look(packet);
                    self.received.advance(len);
                    return seen;
                }
                Decoded::NeedMore(_) => {}
                Decoded::Malformed(malformed) => panic!("the broker sent rubbish: {malformed:?}"),
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            let count = read.expect("a packet comes in time").expect("the connection is whole");
            assert_ne!(count, 0, "the broker closed the connection");
        }
    }

    pub(crate) async fn connack(&mut self) -> (bool, ReasonCode) {
        self.read(|packet| match packet {
            Packet::Connack(connack) => (connack.session_present, connack.reason),
            other => panic!("CONNACK was expected: {other:?}"),
        })
        .await
    }

    /// The answer to a step of a proof: AUTH, or CONNACK at its end.
    pub(crate) async fn proof(&mut self) -> (ReasonCode, Vec<u8>) {
        self.read(|packet| {
            let (reason, properties) = match packet {
                Packet::Auth(auth) => (auth.reason, auth.properties),
                Packet::Connack(connack) => (connack.reason, connack.properties),
                other => panic!("AUTH or CONNACK was expected: {other:?}"),
            };
            (reason, properties.authentication_data().unwrap_or_default().to_vec())
        })
        .await
    }

    pub(crate) async fn ack(&mut self) -> (AckKind, u16, ReasonCode) {
        self.read(|packet| {
            let (kind, ack) = match packet {
                Packet::Puback(ack) => (AckKind::Puback, ack),
                Packet::Pubrec(ack) => (AckKind::Pubrec, ack),
                Packet::Pubrel(ack) => (AckKind::Pubrel, ack),
                Packet::Pubcomp(ack) => (AckKind::Pubcomp, ack),
                other => panic!("an acknowledgement was expected: {other:?}"),
            };
            (kind, ack.packet_id.get(), ack.reason)
        })
        .await
    }

    pub(crate) async fn message(&mut self) -> Message {
        self.message_or_ack().await.expect("PUBLISH was expected")
    }

    /// The next PUBLISH; none if it is PUBACK that comes.
    pub(crate) async fn message_or_ack(&mut self) -> Option<Message> {
        self.read(|packet| match packet {
            Packet::Puback(_) => None,
            Packet::Publish(publish) => Some(Message {
                topic: publish.topic.to_owned(),
                payload: publish.payload.to_vec(),
                qos: publish.delivery.qos(),
                id: publish.delivery.packet_id().map(NonZeroU16::get),
                dup: matches!(
                    publish.delivery,
                    Delivery::AtLeastOnce { dup: true, .. } | Delivery::ExactlyOnce { dup: true, .. }
                ),
                retain: publish.retain,
                properties: format!("{:?}", publish.properties),
            }),
            other => panic!("PUBLISH was expected: {other:?}"),
        })
        .await
    }

    /// The payloads of the next messages, each acknowledged if it has to be.
    pub(crate) async fn payloads(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::new();
        while payloads.len() < count {
            let message = self.message().await;
            payloads.push(String::from_utf8(message.payload).unwrap());
            if let (Qos::AtLeastOnce, Some(number)) = (message.qos, message.id) {
                self.acknowledge(AckKind::Puback, number).await;
            }
        }
        payloads
    }

    /// Nothing is on its way: a PINGREQ is answered first.
    pub(crate) async fn nothing(&mut self) {
        let mut ping = BytesMut::new();
        encode_pingreq(&mut ping);
        self.send(&ping).await;
        self.read(|packet| assert_eq!(packet, Packet::Pingresp)).await;
    }

    /// The reason of the DISCONNECT that comes now.
    pub(crate) async fn disconnected(&mut self) -> ReasonCode {
        let reason = self
            .read(|packet| match packet {
                Packet::Disconnect(disconnect) => disconnect.reason,
                other => panic!("DISCONNECT was expected: {other:?}"),
            })
            .await;
        self.closed().await;
        reason
    }

    /// The broker closes, and says nothing before.
    pub(crate) async fn closed(&mut self) {
        assert!(self.received.is_empty(), "{:?} was not read", self.received);
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        let count = read.expect("the broker closes in time").unwrap_or(0);
        assert_eq!(count, 0, "the broker said {:x?}", &self.received[..]);
    }

    /// So many bytes of what the broker says next.
    pub(crate) async fn take(&mut self, count: usize) -> BytesMut {
        while self.received.len() < count {
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            let came = read.expect("bytes come in time").expect("the connection is whole");
            assert_ne!(came, 0, "the broker closed the connection");
        }
        self.received.split_to(count)
    }

    /// What the broker says next is exactly this.
    pub(crate) async fn hears(&mut self, bytes: &[u8], name: &str) {
        while self.received.len() < bytes.len() {
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            let count = read.unwrap_or_else(|_| panic!("{name}: only {:x?} came", self.received));
            assert_ne!(count.unwrap_or(0), 0, "{name}: the broker closed after {:x?}", self.received);
        }
        assert_eq!(self.received.split_to(bytes.len()), bytes, "{name}");
    }

    /// Ends its side of the connection in the middle, and waits until the broker has noticed.
    pub(crate) async fn vanish(mut self) {
        // It may be closed already.
        let _ = self.stream.shutdown().await;
        self.closed().await;
    }
}
