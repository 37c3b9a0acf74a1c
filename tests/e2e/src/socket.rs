//! A thin MQTT client over a socket: it keeps exact account of what was sent and what was answered, which no library
//! tells as precisely, and it is quick. Errors of the connection are returned, since a killed broker causes them.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use bytes::BytesMut;
use wire::mqtt::{
    Ack, AckKind, Connect, Decoded, Decoder, Delivery, Disconnect, Exchange, Expect, Packet, Peer,
    Properties, PropertiesBuf, Property, Publish, Qos, ReasonCode, SubscribeOptions, Version, Will,
    encode_ack,
};

/// A persistent session outlives any test.
const SESSION_SECONDS: u32 = 3600;
const READ_BYTES: usize = 64 * 1024;

/// How a connection is opened.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    /// The client identifier.
    pub client_id: &'a str,
    /// 3.1.1 or 5.0.
    pub version: Version,
    /// Whether the session before is thrown away; without it the session also outlives the connection.
    pub clean: bool,
    /// Keep alive in seconds; 0 is none.
    pub keep_alive: u16,
    /// Topic and payload of a will with QoS 1.
    pub will: Option<(&'a str, &'a [u8])>,
}

impl<'a> Opening<'a> {
    /// 5.0 with a clean session and no keep alive.
    pub fn clean(client_id: &'a str) -> Opening<'a> {
        Opening { client_id, version: Version::V5, clean: true, keep_alive: 0, will: None }
    }

    /// 5.0 with a session that persists and no keep alive.
    pub fn persistent(client_id: &'a str) -> Opening<'a> {
        Opening { clean: false, ..Opening::clean(client_id) }
    }
}

/// A packet that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message.
    Publish {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
        /// QoS, packet identifier and DUP.
        delivery: Delivery,
        /// RETAIN.
        retain: bool,
    },
    /// A step of a QoS 1 or 2 exchange.
    Ack(AckKind, NonZeroU16, ReasonCode),
    /// The answer to CONNECT, for who did not wait for it: whether there is a session, and the reason.
    Connack {
        /// Session Present.
        session_present: bool,
        /// Success, or why not.
        reason: ReasonCode,
    },
    /// The answer to SUBSCRIBE.
    Suback(Vec<ReasonCode>),
    /// The broker goes away, or sends the client away.
    Disconnect(ReasonCode),
    /// Anything else.
    Other,
}

/// A connection.
pub struct Socket {
    stream: TcpStream,
    peer: Peer,
    decoder: Decoder,
    input: BytesMut,
    output: BytesMut,
    /// Whether the broker had a session.
    pub session_present: bool,
}

impl Socket {
    /// Connects and waits for CONNACK. A refusal is an error of kind `ConnectionRefused`.
    pub fn open(address: SocketAddr, opening: &Opening<'_>) -> Result<Socket> {
        let mut socket = Socket::dial(address, opening)?;
        socket.flush()?;
        socket.stream.set_read_timeout(Some(crate::PATIENCE))?;
        let (present, reason) = socket.read_packet(|packet| match packet {
            Packet::Connack(connack) => (connack.session_present, connack.reason),
            other => panic!("before CONNACK came {other:?}"),
        })?;
        if reason != ReasonCode::Success {
            return Err(Error::new(ErrorKind::ConnectionRefused, format!("{reason:?}")));
        }
        socket.session_present = present;
        Ok(socket)
    }

    /// Connects without waiting for CONNACK, for who drives many connections with [`Socket::receive`] and [`Socket::send`].
    pub fn begin(address: SocketAddr, opening: &Opening<'_>) -> Result<Socket> {
        let mut socket = Socket::dial(address, opening)?;
        socket.stream.set_nonblocking(true)?;
        socket.send()?;
        Ok(socket)
    }

    fn dial(address: SocketAddr, opening: &Opening<'_>) -> Result<Socket> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut socket = Socket {
            stream,
            peer: Peer::new(opening.version),
            decoder: Decoder { expect: Expect::FromServer(opening.version), packet_size_max: u32::MAX },
            input: BytesMut::new(),
            output: BytesMut::new(),
            session_present: false,
        };
        socket.put_connect(opening);
        Ok(socket)
    }

    /// Takes what has arrived, without waiting; [`Socket::read_arrived`] has it then.
    pub fn receive(&mut self) -> Result<()> {
        let mut bytes = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what is queued, as far as that is possible without waiting. Whether all of it is sent.
    pub fn send(&mut self) -> Result<bool> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => bytes::Buf::advance(&mut self.output, count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// For `poll`.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// How long [`Socket::read`] waits before it gives up with `WouldBlock` or `TimedOut`.
    pub fn set_patience(&self, patience: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(patience))
    }

    /// Queues a PUBLISH.
    pub fn put_publish(&mut self, topic: &str, payload: &[u8], delivery: Delivery) {
        let publish = Publish { delivery, retain: false, topic, properties: Properties::EMPTY, payload };
        publish.encode(&mut self.output, &self.peer).expect("small enough");
    }

    /// Queues a PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub fn put_ack(&mut self, kind: AckKind, id: NonZeroU16) {
        encode_ack(kind, id, &mut self.output);
    }

    /// Queues a SUBSCRIBE.
    pub(crate) fn put_subscribe(&mut self, filters: &[&str], qos: Qos) {
        let exchange = Exchange { packet_id: NonZeroU16::MIN, properties: Properties::EMPTY };
        let filters: Vec<_> = filters.iter().map(|filter| (*filter, SubscribeOptions::new(qos))).collect();
        exchange.encode_subscribe(&filters, &mut self.output, &self.peer).expect("small enough");
    }

    /// Subscribes and waits for the grant; messages that come before it are lost, so subscribe first.
    pub fn subscribe(&mut self, filter: &str, qos: Qos) -> Result<()> {
        self.subscribe_all(&[filter], qos)
    }

    /// As [`Socket::subscribe`], to several filters.
    pub fn subscribe_all(&mut self, filters: &[&str], qos: Qos) -> Result<()> {
        self.put_subscribe(filters, qos);
        self.flush()?;
        loop {
            if let Incoming::Suback(codes) = self.read()? {
                assert!(codes.iter().all(|code| (*code as u8) < 0x80), "refused: {codes:?}");
                return Ok(());
            }
        }
    }

    /// Queues a normal DISCONNECT.
    pub fn put_disconnect(&mut self) {
        let disconnect = Disconnect { reason: ReasonCode::Success, properties: Properties::EMPTY };
        disconnect.encode(&mut self.output, &self.peer).expect("small enough");
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// The next packet, waiting for it if none is there yet.
    pub fn read(&mut self) -> Result<Incoming> {
        self.read_packet(incoming)
    }

    /// The next packet if it has arrived already.
    pub fn read_arrived(&mut self) -> Option<Incoming> {
        self.decode(incoming)
    }

    fn read_packet<T>(&mut self, take: impl Fn(Packet<'_>) -> T) -> Result<T> {
        loop {
            if let Some(packet) = self.decode(&take) {
                return Ok(packet);
            }
            let mut bytes = [0; READ_BYTES];
            let count = self.stream.read(&mut bytes)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&bytes[..count]);
        }
    }

    fn decode<T>(&mut self, take: impl Fn(Packet<'_>) -> T) -> Option<T> {
        let (packet, len) = match self.decoder.decode(&self.input) {
            Decoded::Packet(packet, len) => (take(packet), len),
            Decoded::NeedMore(_) => return None,
            Decoded::Malformed(malformed) => panic!("the broker sent {malformed:?}"),
        };
        bytes::Buf::advance(&mut self.input, len);
        Some(packet)
    }

    fn put_connect(&mut self, opening: &Opening<'_>) {
        let mut properties = PropertiesBuf::new();
        if !opening.clean && opening.version == Version::V5 {
            properties.push(Property::SessionExpiryInterval(SESSION_SECONDS)).expect("a number fits");
        }
        let connect = Connect {
            version: opening.version,
            clean_start: opening.clean,
            keep_alive: opening.keep_alive,
            properties: properties.view(),
            client_id: opening.client_id,
            will: opening.will.map(|(topic, payload)| Will {
                qos: Qos::AtLeastOnce,
                retain: false,
                properties: Properties::EMPTY,
                topic,
                payload,
            }),
            user_name: None,
            password: None,
        };
        connect.encode(&mut self.output, &self.peer).expect("small enough");
    }
}

fn incoming(packet: Packet<'_>) -> Incoming {
    let ack = |kind, ack: Ack<'_>| Incoming::Ack(kind, ack.packet_id, ack.reason);
    match packet {
        Packet::Publish(publish) => Incoming::Publish {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            delivery: publish.delivery,
            retain: publish.retain,
        },
        Packet::Puback(step) => ack(AckKind::Puback, step),
        Packet::Pubrec(step) => ack(AckKind::Pubrec, step),
        Packet::Pubrel(step) => ack(AckKind::Pubrel, step),
        Packet::Pubcomp(step) => ack(AckKind::Pubcomp, step),
        Packet::Suback(answer) => Incoming::Suback(answer.codes().collect()),
        Packet::Disconnect(disconnect) => Incoming::Disconnect(disconnect.reason),
        Packet::Connack(connack) => {
            Incoming::Connack { session_present: connack.session_present, reason: connack.reason }
        }
        Packet::Connect(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::Unsuback(_)
        | Packet::Pingreq
        | Packet::Pingresp
        | Packet::Auth(_) => Incoming::Other,
    }
}
