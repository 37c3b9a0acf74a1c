//! A connection that is driven by hand: bytes and time in, bytes out. No socket, no clock of its own.

use std::time::{Duration, Instant};

use broker::Core;
use bytes::{Buf, BytesMut};
use mqtt::{Event, Session};
use net::{Closed, Mailbox, Output, Session as _, Turn};
use wire::mqtt::{Decoded, Decoder, Expect, Packet, ReasonCode, Version};

use crate::link::PATIENCE;

/// One connection, as the driver would run it.
pub(crate) struct Hand {
    session: Session<Core>,
    mailbox: Mailbox<Event>,
    output: Output,
    closing: bool,
    now: Instant,
    /// Sent, and not taken yet.
    input: BytesMut,
    /// The broker stopped wanting it: as the driver does, it is handed over again when it is wanted.
    held: bool,
    /// Said by the broker, and not looked at yet.
    said: BytesMut,
}

/// CONNECT of a 5.0 client; `properties` have their length in front.
pub(crate) fn connect_5(id: &str, keep_alive: u8, properties: &[u8]) -> Vec<u8> {
    let body = [b"\x00\x04MQTT\x05\x02\x00", &[keep_alive][..], properties, &field(id.as_bytes())].concat();
    packet(0x10, &body)
}

/// A packet of at most 127 bytes.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 0x80);
    [&[first, body.len() as u8], body].concat()
}

/// Text or data with its length in front.
pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

impl Hand {
    pub(crate) fn new(session: Session<Core>, mailbox: Mailbox<Event>) -> Hand {
        Hand {
            session,
            mailbox,
            output: Output::new(),
            closing: false,
            now: Instant::now(),
            input: BytesMut::new(),
            held: false,
            said: BytesMut::new(),
        }
    }

    /// An accepted 5.0 client.
    pub(crate) async fn connect(&mut self, id: &str, keep_alive: u8, properties: &[u8]) {
        self.send(&connect_5(id, keep_alive, properties));
        self.until(|said| !said.is_empty()).await;
        let reason = self.packet(|packet| match packet {
            Packet::Connack(connack) => connack.reason,
            other => panic!("{other:?}"),
        });
        assert_eq!(reason, ReasonCode::Success, "{id}");
    }

    /// Bytes from the client.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.hand_over();
    }

    /// Whether the broker would read from the socket.
    pub(crate) fn is_read(&self) -> bool {
        self.session.wants_input()
    }

    /// Bytes that the broker has not taken yet.
    pub(crate) fn unread(&self) -> usize {
        self.input.len()
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) =
            self.session.deadline().filter(|deadline| *deadline <= end && !self.closing)
        {
            self.now = self.now.max(deadline);
            self.turn(|session, turn| session.handle_deadline(turn));
            self.go_on();
        }
        self.now = end;
    }

    /// Time passes in which the broker's core does not run.
    pub(crate) fn stand_still(&mut self, time: Duration) {
        self.now += time;
        if self.session.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.turn(|session, turn| session.handle_deadline(turn));
        }
    }

    /// The broker goes down.
    pub(crate) fn shut_down(mut self) -> BytesMut {
        self.turn(|session, turn| session.handle_shutdown(turn));
        self.session.handle_closed(Closed::Shutdown);
        std::mem::take(&mut self.said)
    }

    /// The connection breaks, or is over because the broker closed it.
    pub(crate) fn vanish(mut self) {
        let why = if self.closing { Closed::BySession } else { Closed::Broken };
        self.session.handle_closed(why);
    }

    /// Said by the broker, and not looked at yet.
    pub(crate) fn said(&self) -> &[u8] {
        &self.said
    }

    /// The first bytes of it, which are looked at now.
    pub(crate) fn take_said(&mut self, count: usize) -> BytesMut {
        self.said.split_to(count)
    }

    /// What the broker says next, once `enough` of it is there.
    pub(crate) async fn until(&mut self, enough: impl Fn(&[u8]) -> bool) {
        let wait = async {
            loop {
                self.hear();
                if enough(&self.said) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, wait).await;
        assert!(in_time.is_ok(), "only {:x?} came", self.said);
    }

    /// The broker says exactly this next.
    pub(crate) async fn hears(&mut self, bytes: &[u8], name: &str) {
        self.until(|said| said.len() >= bytes.len()).await;
        assert_eq!(self.said.split_to(bytes.len()), bytes, "{name}");
    }

    /// The reason of the DISCONNECT that comes now, and that the broker then closes.
    pub(crate) async fn disconnected(&mut self) -> u8 {
        self.until(|said| !said.is_empty()).await;
        let reason = self.packet(|packet| match packet {
            Packet::Disconnect(disconnect) => disconnect.reason as u8,
            other => panic!("{other:?}"),
        });
        assert!(self.closing && self.said.is_empty());
        self.session.handle_closed(Closed::BySession);
        reason
    }

    /// Whether the broker has closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    fn packet<R>(&mut self, look: impl FnOnce(Packet<'_>) -> R) -> R {
        let decoder = Decoder { expect: Expect::FromServer(Version::V5), packet_size_max: u32::MAX };
        let Decoded::Packet(packet, len) = decoder.decode(&self.said) else { panic!("{:x?}", self.said) };
        let seen = look(packet);
        self.said.advance(len);
        seen
    }

    /// Takes what the broker left for the client, events included.
    pub(crate) fn hear(&mut self) {
        while !self.closing
            && let Some(event) = self.mailbox.take()
        {
            self.turn(|session, turn| session.handle_event(event, turn));
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        if self.held {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        while !self.input.is_empty() && !self.closing && self.session.wants_input() {
            let mut input = std::mem::take(&mut self.input);
            let before = input.len();
            self.turn(|session, turn| session.handle_input(&mut input, turn));
            let stuck = input.len() == before;
            self.input = input;
            if stuck {
                break;
            }
        }
        self.held = !self.input.is_empty() && !self.session.wants_input();
    }

    fn turn(&mut self, work: impl FnOnce(&mut Session<Core>, &mut Turn<'_>)) {
        let mut turn = Turn::new(self.now, &mut self.output, &mut self.closing);
        work(&mut self.session, &mut turn);
        self.said.extend_from_slice(&self.output.take());
    }
}
