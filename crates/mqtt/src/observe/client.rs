//! What is known of a connected client, and who is told when something becomes of it.

use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

use broker::{Broker, Guarantee, Message, Retain};
use serde::Serialize;
use wire::mqtt::{ReasonCode, SubscribeOptions, Version};

use super::{Happening, HistoryEvent};
use crate::connection::{Close, Connection};
use crate::metrics::{DropReason, EndedBy};
use crate::session::Shared;

/// A client from its CONNECT on.
pub(crate) struct Presence {
    pub(crate) peer: Rc<net::Peer>,
    /// As it calls itself, until it has proved who it is.
    pub(crate) user: Option<Arc<str>>,
    version: Version,
    clean_start: bool,
    pub(crate) keep_alive: u16,
    /// Wall ms of its CONNECT.
    since_ms: i64,
    pub(crate) tally: Tally,
}

/// What went through one connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) dropped: [u64; DropReason::COUNT],
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) by: EndedBy,
    /// One word, as EMQX has it where it has one.
    pub(crate) reason: Box<str>,
}

impl Presence {
    pub(crate) fn new(peer: &Rc<net::Peer>, packet: &wire::mqtt::Connect<'_>, since_ms: i64) -> Self {
        Self {
            peer: Rc::clone(peer),
            user: packet.user_name.map(Arc::from),
            version: packet.version,
            clean_start: packet.clean_start,
            keep_alive: packet.keep_alive,
            since_ms,
            tally: Tally::default(),
        }
    }

    /// What becomes of CONNECT when it is refused.
    pub(crate) fn refused(&self, reason: ReasonCode, at_ms: i64) -> HistoryEvent {
        let (from, listener) = (self.peer.address.to_string().into(), (*self.peer.listener).into());
        HistoryEvent { at_ms, what: Happening::Refused { from, listener, reason: word(reason) } }
    }

    fn address(&self) -> String {
        self.peer.address.ip().map_or_else(|| "local".to_owned(), |ip| ip.to_string())
    }
}

impl Departure {
    /// A packet, or what was wrong with one, ended it.
    pub(crate) fn of_close(close: Close) -> Self {
        let (by, reason) = match (close.told(), close.publishes_will()) {
            (None, false) => (EndedBy::Client, "normal".into()),
            (None, true) => (EndedBy::Client, "disconnect_with_will".into()),
            (Some(ReasonCode::SessionTakenOver), _) => (EndedBy::Broker, "takenover".into()),
            (Some(ReasonCode::KeepAliveTimeout), _) => (EndedBy::Broker, "keepalive_timeout".into()),
            (Some(reason), _) => (EndedBy::Broker, word(reason)),
        };
        Self { by, reason }
    }

    /// The connection was over.
    pub(crate) fn of_connection(closed: net::Closed) -> Self {
        let (by, reason) = match closed {
            net::Closed::BySession => (EndedBy::Broker, "closed"),
            net::Closed::ByPeer => (EndedBy::Client, "tcp_closed"),
            net::Closed::Broken => (EndedBy::Network, "tcp_error"),
            net::Closed::Shutdown => (EndedBy::Broker, "server_shutting_down"),
        };
        Self { by, reason: reason.into() }
    }
}

/// A reason code's name as one word: `ServerBusy` is `server_busy`.
pub(crate) fn word(reason: ReasonCode) -> Box<str> {
    let mut word = String::new();
    // Writing to a string does not fail.
    let _ = write!(word, "{reason:?}");
    let mut snake = String::with_capacity(word.len() + 4);
    for letter in word.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake.into()
}

/// What every event says.
#[derive(Serialize)]
struct Told<'a, T> {
    clientid: &'a str,
    username: Option<&'a str>,
    ipaddress: String,
    listener: &'a str,
    proto_name: &'static str,
    proto_ver: u8,
    #[serde(flatten)]
    more: T,
    ts: i64,
}

#[derive(Serialize)]
struct Came {
    keepalive: u16,
    clean_start: bool,
    expiry_interval: u32,
    session_present: bool,
    connack: u8,
    connected_at: i64,
}

#[derive(Serialize)]
struct Went<'a> {
    reason: &'a str,
    connected_at: i64,
    disconnected_at: i64,
}

#[derive(Serialize)]
struct Subscribed<'a> {
    topic: &'a str,
    subopts: Options,
    protocol: &'static str,
}

#[derive(Serialize)]
struct Options {
    qos: u8,
    nl: u8,
    rap: u8,
    rh: u8,
}

#[derive(Serialize)]
struct Unsubscribed<'a> {
    topic: &'a str,
    protocol: &'static str,
}

impl<B: Broker> Connection<B> {
    /// It was accepted.
    pub(crate) fn note_arrival(&self, session_present: bool) {
        let metrics = &self.shared.metrics;
        metrics.connects_accepted.add(1);
        metrics.connections.add(1);
        self.shared.observatory.client_came();
        self.remember(|| Happening::Connected {
            from: self.presence.peer.address.to_string().into(),
            listener: (*self.presence.peer.listener).into(),
            protocol: match self.presence.version {
                Version::V31 => "MQTT 3.1",
                Version::V311 => "MQTT 3.1.1",
                Version::V5 => "MQTT 5.0",
            },
            session_present,
        });
        self.tell("connected", || Came {
            keepalive: self.presence.keep_alive,
            clean_start: self.presence.clean_start,
            expiry_interval: self.expiry,
            session_present,
            connack: 0,
            connected_at: self.presence.since_ms,
        });
    }

    /// It ends.
    pub(crate) fn note_departure(&self, departure: &Departure) {
        let metrics = &self.shared.metrics;
        metrics.connections.subtract(1);
        metrics.disconnects[departure.by as usize].add(1);
        self.shared.observatory.client_left();
        let Tally { received, sent, dropped } = self.presence.tally;
        let named = DropReason::NAMES.into_iter().zip(dropped);
        self.remember(|| Happening::Disconnected {
            by: departure.by.name(),
            reason: departure.reason.clone(),
            lasted_ms: self
                .shared
                .broker
                .wall_ms()
                .saturating_sub(self.presence.since_ms)
                .max(0)
                .unsigned_abs(),
            messages_received: received,
            messages_sent: sent,
            dropped: named.filter(|(_, count)| *count != 0).collect(),
        });
        self.tell("disconnected", || Went {
            reason: &departure.reason,
            connected_at: self.presence.since_ms,
            disconnected_at: self.shared.broker.wall_ms(),
        });
    }

    /// It has a subscription, or has changed it.
    pub(crate) fn note_subscribed(&self, text: &str, options: SubscribeOptions) {
        self.remember(|| Happening::subscribed(text));
        self.tell("subscribed", || Subscribed {
            topic: text,
            subopts: Options {
                qos: options.qos as u8,
                nl: options.no_local.into(),
                rap: options.retain_as_published.into(),
                rh: options.retain_handling as u8,
            },
            protocol: "mqtt",
        });
    }

    /// It gave a subscription up.
    pub(crate) fn note_unsubscribed(&self, text: &str) {
        self.remember(|| Happening::unsubscribed(text));
        self.tell("unsubscribed", || Unsubscribed { topic: text, protocol: "mqtt" });
    }

    /// Counts its subscriptions anew, after they changed.
    pub(crate) fn count_subscriptions(&mut self) {
        let Shared { observatory, metrics, .. } = &*self.shared;
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.count_subscriptions(observatory, metrics);
        }
    }

    /// Keeps an event in its history.
    fn remember(&self, what: impl FnOnce() -> Happening) {
        let history = self.shared.observatory.history();
        if history.is_on() {
            let event = HistoryEvent { at_ms: self.shared.broker.wall_ms(), what: what() };
            history.add(&self.client, event);
        }
    }

    /// Tells whoever subscribes to events of this client.
    #[inline]
    fn tell<T: Serialize>(&self, event: &str, more: impl FnOnce() -> T) {
        if self.shared.observatory.is_watched() {
            self.tell_watchers(event, more());
        }
    }

    fn tell_watchers<T: Serialize>(&self, event: &str, more: T) {
        let Shared { broker, tenant, .. } = &*self.shared;
        let subject = format!("$SYS/brokers/{}/clients/{}/{event}", broker.node_id().0, self.client);
        if !broker.is_wanted(tenant, &subject) {
            return;
        }
        let presence = &self.presence;
        let (proto_name, proto_ver) = match presence.version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        let told = Told {
            clientid: &self.client,
            username: presence.user.as_deref(),
            ipaddress: presence.address(),
            listener: &presence.peer.listener,
            proto_name,
            proto_ver,
            more,
            ts: broker.wall_ms(),
        };
        let Ok(value) = serde_json::to_vec(&told) else { return };
        let message = Message {
            subject: &subject,
            key: None,
            value: Some(&value),
            headers: &[],
            guarantee: Guarantee::Live,
            retain: Retain::Keep,
            rows: &[],
        };
        // An identifier that is too long for a topic has no events.
        let _ = broker.announce(tenant, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_departure_says_who_and_why() {
        let of = |close| {
            let departure = Departure::of_close(close);
            (departure.by, departure.reason.into_string())
        };
        assert_eq!(of(Close::by_client(false)), (EndedBy::Client, "normal".to_owned()));
        assert_eq!(of(Close::by_client(true)), (EndedBy::Client, "disconnect_with_will".to_owned()));
        let fault = |reason| of(Close::fault(reason));
        assert_eq!(fault(ReasonCode::KeepAliveTimeout).1, "keepalive_timeout");
        assert_eq!(fault(ReasonCode::ReceiveMaximumExceeded).1, "receive_maximum_exceeded");
        assert_eq!(fault(ReasonCode::SessionTakenOver), (EndedBy::Broker, "takenover".to_owned()));
        assert_eq!(Departure::of_connection(net::Closed::ByPeer).reason.as_ref(), "tcp_closed");
    }
}
