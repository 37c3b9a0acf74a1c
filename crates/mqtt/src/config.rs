//! Limits of the front. Plain data: the server's configuration maps onto it.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::auto::AutoSubscribe;
use crate::pace::RateLimit;
use crate::rewrite::Rewrite;
use crate::template::Template;
use broker::Strategy;
use broker::access::Listener;
use wire::mqtt::Version;

/// Versions of the protocol that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// All that there are.
    #[default]
    All,
    /// 3.1 and 3.1.1.
    Three,
    /// 5.0.
    Five,
}

impl Versions {
    /// Whether a client of this version is served.
    pub(crate) fn serve(self, version: Version) -> bool {
        match self {
            Versions::All => true,
            Versions::Three => version != Version::V5,
            Versions::Five => version == Version::V5,
        }
    }
}

/// Limits of the MQTT front.
#[derive(Debug, Clone)]
pub struct MqttConfig {
    /// Versions of the protocol that are served; clients of another one are told that theirs is not.
    pub versions: Versions,
    /// Largest packet that a client may send, in bytes, fixed header included. Told to 5.0 clients; a larger packet is
    /// refused from its header [MQTT-3.2.2-15].
    pub packet_bytes_max: u32,
    /// Publications of QoS 1 and 2 that a client may have unacknowledged towards us. Told to 5.0 clients and held
    /// against them; older clients are slowed by not reading instead.
    pub receive_maximum: NonZeroU16,
    /// Publications of QoS 1 and 2 that we have unacknowledged towards a client. A 5.0 client may ask for fewer.
    pub in_flight_max: NonZeroU16,
    /// Bytes that one client may have in flight towards the log before its socket is no longer read.
    pub incoming_bytes_max: usize,
    /// How long a new connection may take until its CONNECT is complete.
    pub connect_timeout: Duration,
    /// The longest keep alive, in seconds. A 5.0 client that asks for more, or for none, is given this one and told;
    /// older clients, which cannot be told, keep their own. `None`: whatever a client asks for.
    pub keep_alive_max: Option<NonZeroU16>,
    /// The keep alive, in seconds, of every 5.0 client, whatever it asks for: it is told as Server Keep Alive and held
    /// against it [MQTT-3.2.2-22]. `None`: as the client asks, up to `keep_alive_max`.
    pub server_keep_alive: Option<NonZeroU16>,
    /// The longest time, in seconds, for which a session outlives its connection; a client that asks for more is told.
    /// `None`: for ever, if a client asks for that.
    pub session_expiry_max: Option<u32>,
    /// Where the clients come in.
    pub listener: Listener,
    /// Whether a client that publishes what it may not is disconnected. If not, an older client, which cannot be told, is
    /// answered as if it had been stored.
    pub disconnects_denied: bool,
    /// How a shared subscription chooses the member for a message.
    pub shared_strategy: Strategy,
    /// The greatest topic alias, in both directions: told to 5.0 clients, and not gone beyond where a client permits more.
    /// 0: none. Each alias in use costs its topic in memory.
    pub topic_alias_max: u16,
    /// Response Information for a 5.0 client that asks for some: where it may expect its responses (section 3.2.2.3.15).
    /// `None`: nobody is told.
    pub response_information: Option<Template>,
    /// Whether `$exclusive/{filter}` is a subscription that one client at a time may have; if not, it is refused.
    pub exclusive_subscriptions: bool,
    /// How fast one client may send. It is slowed by not reading.
    pub rate_limit: RateLimit,
    /// Other names for topics and filters; the first rule that matches is applied. They are tried before those that are stored.
    pub rewrites: Vec<Rewrite>,
    /// Subscriptions that every client has from its CONNACK on, without asking, beside those that are stored.
    pub auto_subscribe: Vec<AutoSubscribe>,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            versions: Versions::All,
            packet_bytes_max: 9 << 20,
            receive_maximum: const { NonZeroU16::new(1024).expect("not zero") },
            in_flight_max: const { NonZeroU16::new(1024).expect("not zero") },
            incoming_bytes_max: 4 << 20,
            connect_timeout: Duration::from_secs(10),
            keep_alive_max: None,
            server_keep_alive: None,
            session_expiry_max: None,
            listener: Listener { name: "mqtt".into(), loopback: true },
            disconnects_denied: false,
            shared_strategy: Strategy::RoundRobin,
            topic_alias_max: 32,
            response_information: None,
            exclusive_subscriptions: true,
            rate_limit: RateLimit::default(),
            rewrites: Vec::new(),
            auto_subscribe: Vec::new(),
        }
    }
}
