//! `[mqtt]`: the MQTT 3.1.1 and 5.0 front.

use model::{Resource as _, ResourceError};

use super::section::{Faults, section};
use super::values::{Bind, ByteSize, TimeSpan, choice};

section! {
    /// MQTT 3.1.1 and 5.0.
    pub struct Mqtt ["mqtt"] {
        /// Where to listen. Port 0 takes a free one.
        pub bind: Bind,
        /// Connections of this listener that are open at once. They count towards `limits.max_connections` as well.
        pub max_connections: Option<u32>,
        /// Connections that this listener lets in per second. Those that come faster wait; none is refused for it.
        pub max_accepts_per_second: Option<u32>,
        /// Messages per second that all clients of this listener together may publish; above, those who publish are not
        /// read for a while. Nothing is dropped.
        pub total_messages_per_second: Option<u32>,
        /// Bytes per second that all clients of this listener together may send; above, those who send are not read for a
        /// while.
        pub total_bytes_per_second: Option<ByteSize>,
        /// Versions of MQTT that this listener serves; others are answered that theirs is not supported. 3 is 3.1 and
        /// 3.1.1.
        pub versions: Versions,
        /// The largest packet that a client may send; told to MQTT 5.0 clients. Above `limits.max_message_bytes` by
        /// room for topic and properties.
        pub max_packet_bytes: ByteSize,
        /// The longest time for which a session outlives its connection. A client that asks for more is told.
        pub max_session_expiry: Option<TimeSpan>,
        /// Messages of QoS 1 and 2 that a client may have unacknowledged towards the broker; told to MQTT 5.0 clients.
        pub receive_maximum: u16,
        /// Messages of QoS 1 and 2 that the broker has unacknowledged towards a client, which may ask for fewer.
        pub max_inflight: u16,
        /// How long a new connection may take until its CONNECT packet is complete.
        pub connect_timeout: TimeSpan,
        /// The longest keep alive. A client that asks for more, or for none, is given this one; MQTT 3.1.1 clients,
        /// which cannot be told, keep their own.
        pub max_keep_alive: Option<TimeSpan>,
        /// The keep alive of every MQTT 5.0 client, whatever it asks for. 0s: what it asks for.
        pub server_keep_alive: TimeSpan,
        /// How many topic aliases a client may use, and the broker uses towards a client that permits as many. 0: none.
        pub max_topic_alias: u16,
        /// What MQTT 5.0 clients that ask for Response Information are told, such as `"answers/${clientid}"`. Empty:
        /// nothing. `${clientid}`, `${username}` and `${host}` (the client's address) are filled in.
        pub response_information: String,
        /// Whether `$exclusive/{filter}` is a subscription that one client at a time may have. If not, it is refused.
        pub exclusive_subscriptions: bool,
        /// Other names for topics and filters, as `"ACTION FILTER PATTERN TOPIC"`: the action is `publish`, `subscribe` or
        /// `all`, the pattern a regular expression that has to match as well, and the topic may have `$1` to `$99`,
        /// `${clientid}`, `${username}` and `${host}`. The first rule that matches is applied, and rules of this list are tried
        /// before those that operators store over `/api/v1/rewrite-rules`.
        pub rewrite: Vec<String>,
        /// Subscriptions that every client has without asking, as `"FILTER OPTIONS"`: the filter may have `${clientid}`,
        /// `${username}` and `${host}`; options are `qos=0` (or 1, 2), `no-local`, `retain-as-published`, and
        /// `retain=always` (or `new`, `never`). Operators store more over `/api/v1/auto-subscriptions`.
        pub auto_subscribe: Vec<String>,
        /// Messages per second that one client may publish; above, it is not read for a while. 0: as many as it can.
        pub max_messages_per_second: u32,
        /// Bytes per second that one client may send; above, it is not read for a while.
        pub max_bytes_per_second: Option<ByteSize>,
        /// How often the values under `$SYS` are published while somebody subscribes to them. 0s: once, when somebody
        /// subscribes.
        pub sys_interval: TimeSpan,
        /// Of how many clients the last events (connected, refused, disconnected and why) are kept in memory, about 2 KiB
        /// each. 0: of none.
        pub history_clients: u32,
        /// Whether the slowest subscriptions are ranked: by the time from a message's timestamp to its sending.
        pub slow_subscriptions: bool,
        /// From which delay on a subscription is slow.
        pub slow_threshold: TimeSpan,
        /// Entries of the ranking.
        pub slow_entries: u16,
        /// A subscription that was not slow again for so long leaves the ranking.
        pub slow_expiry: TimeSpan,
        /// Topics and filters whose messages are counted, such as `["sensor/#", "orders"]`; at most 512. Operators store more over
        /// `/api/v1/topic-metrics`.
        pub topic_metrics: Vec<String>,
        /// Connects of one client id within `mqtt.flapping_window` that are in order. With one more it is banned for
        /// `mqtt.flapping_ban`, on all nodes. 15 is a number to begin with.
        pub flapping_connects: Option<u32>,
        /// The time in which connects are counted, from the first of them on.
        pub flapping_window: TimeSpan,
        /// How long a client that flaps is kept out.
        pub flapping_ban: TimeSpan,
        /// How a shared subscription (`$share/name/filter`) chooses the member for a message.
        pub shared_strategy: SharedStrategy,
        /// What becomes of a client that publishes what it may not. With `ignore`, MQTT 5.0 clients are told for QoS 1 and 2, and
        /// older ones, which cannot be told, are answered as if it had been stored.
        pub denied_publish: DeniedPublish,
    }
}

choice! {
    /// What becomes of a client that publishes what it may not.
    pub enum DeniedPublish: "\"ignore\" or \"disconnect\"" {
        /// It stays.
        Ignore = "ignore",
        /// It is disconnected.
        Disconnect = "disconnect",
    }
}

choice! {
    /// Versions of MQTT.
    pub enum Versions: "\"all\", \"3\" or \"5\"" {
        /// All of them.
        All = "all",
        /// 3.1 and 3.1.1.
        Three = "3",
        /// 5.0.
        Five = "5",
    }
}

choice! {
    /// How a shared subscription chooses the member for a message.
    pub enum SharedStrategy: "\"round_robin\", \"least_in_flight\", \"sticky\", \"hash_topic\", \"hash_publisher\" or \"local_first\"" {
        /// In turns, among those that have room.
        RoundRobin = "round_robin",
        /// Whoever has the fewest messages unacknowledged.
        LeastInFlight = "least_in_flight",
        /// One member gets everything until it leaves.
        Sticky = "sticky",
        /// One topic's messages go to one member.
        HashTopic = "hash_topic",
        /// One publisher's messages go to one member.
        HashPublisher = "hash_publisher",
        /// Members of the same node first, in turns.
        LocalFirst = "local_first",
    }
}

impl Default for Mqtt {
    fn default() -> Mqtt {
        Mqtt {
            bind: Bind::loopback(1883),
            max_connections: None,
            max_accepts_per_second: None,
            total_messages_per_second: None,
            total_bytes_per_second: None,
            versions: Versions::All,
            max_packet_bytes: ByteSize::mib(9),
            max_session_expiry: None,
            receive_maximum: 1024,
            max_inflight: 1024,
            connect_timeout: TimeSpan::seconds(10),
            max_keep_alive: None,
            shared_strategy: SharedStrategy::RoundRobin,
            denied_publish: DeniedPublish::Ignore,
            server_keep_alive: TimeSpan::seconds(0),
            max_topic_alias: 32,
            response_information: String::new(),
            exclusive_subscriptions: true,
            rewrite: Vec::new(),
            auto_subscribe: Vec::new(),
            max_messages_per_second: 0,
            max_bytes_per_second: None,
            sys_interval: TimeSpan::seconds(10),
            history_clients: 5_000,
            slow_subscriptions: false,
            slow_threshold: TimeSpan::millis(500),
            slow_entries: 10,
            slow_expiry: TimeSpan::seconds(300),
            topic_metrics: Vec::new(),
            flapping_connects: None,
            flapping_window: TimeSpan::seconds(60),
            flapping_ban: TimeSpan::seconds(300),
        }
    }
}

/// Bound: a CONNECT packet with a will of ordinary size fits.
const PACKET_MIN: ByteSize = ByteSize::kib(1);
/// Spec: the remaining length has at most four bytes [MQTT 5.0, 1.5.5].
const PACKET_MAX: ByteSize = ByteSize::mib(256);
/// Spec: keep alive and session expiry are counted in seconds, keep alive in 16 bits [MQTT-3.1.2-21].
const KEEP_ALIVE: (TimeSpan, TimeSpan) = (TimeSpan::seconds(1), TimeSpan::seconds(65_535));

/// Bound: what a rate counts in 32 bits, and less than a packet per second is no rate.
const BYTES_PER_SECOND: std::ops::RangeInclusive<ByteSize> = ByteSize::kib(1)..=ByteSize::mib(4095);

/// Bound: a few GiB of memory.
const HISTORY_CLIENTS_MAX: u32 = 1_000_000;
/// Bound: they are compared one by one whenever something is slow.
const SLOW_ENTRIES_MAX: u16 = 1_000;

impl Mqtt {
    pub(crate) fn check(&self, faults: &mut Faults) {
        let mut fault = |key, rule| faults.add("mqtt", key, rule);
        if !(PACKET_MIN..=PACKET_MAX).contains(&self.max_packet_bytes) {
            fault("max_packet_bytes", format!("must be from {PACKET_MIN} to {PACKET_MAX}"));
        }
        for (key, value) in [("receive_maximum", self.receive_maximum), ("max_inflight", self.max_inflight)] {
            if value == 0 {
                fault(key, "must be at least 1".to_owned());
            }
        }
        let counts = [
            ("max_connections", self.max_connections),
            ("max_accepts_per_second", self.max_accepts_per_second),
            ("total_messages_per_second", self.total_messages_per_second),
            ("flapping_connects", self.flapping_connects),
        ];
        for (key, _) in counts.into_iter().filter(|(_, value)| *value == Some(0)) {
            fault(key, "must be at least 1".to_owned());
        }
        let (_, most) = KEEP_ALIVE;
        let is_whole = |span: TimeSpan| span.duration().subsec_nanos() == 0;
        if self.server_keep_alive > most || !is_whole(self.server_keep_alive) {
            fault("server_keep_alive", format!("must be whole seconds, at most {most}"));
        }
        if let Err(error) = mqtt::Template::parse(&self.response_information) {
            fault("response_information", format!("is not valid: {error}"));
        }
        for line in &self.rewrite {
            if let Err(error) = line.parse::<mqtt::Rewrite>() {
                fault("rewrite", format!("has a rule that is not valid, {line:?}: {error}"));
            }
        }
        for line in &self.auto_subscribe {
            if let Err(error) = line.parse::<mqtt::AutoSubscribe>() {
                fault("auto_subscribe", format!("has a subscription that is not valid, {line:?}: {error}"));
            }
        }
        for (key, span) in [("flapping_window", self.flapping_window), ("flapping_ban", self.flapping_ban)] {
            if span < TimeSpan::seconds(1) {
                fault(key, "must be at least 1s".to_owned());
            }
        }
        if self.connect_timeout < TimeSpan::millis(1) {
            fault("connect_timeout", "must be at least 1ms".to_owned());
        }
        let rates = [
            ("total_bytes_per_second", self.total_bytes_per_second),
            ("max_bytes_per_second", self.max_bytes_per_second),
        ];
        check_rates("mqtt", rates, faults);
        check_keep_alive("mqtt", self.max_keep_alive, faults);
        self.check_observed(faults);
    }

    fn check_observed(&self, faults: &mut Faults) {
        let mut fault = |key, rule| faults.add("mqtt", key, rule);
        if self.sys_interval != TimeSpan::seconds(0) && self.sys_interval < TimeSpan::seconds(1) {
            fault("sys_interval", "must be 0s or at least 1s".to_owned());
        }
        if self.history_clients > HISTORY_CLIENTS_MAX {
            fault("history_clients", format!("must be at most {HISTORY_CLIENTS_MAX}"));
        }
        if !(1..=SLOW_ENTRIES_MAX).contains(&self.slow_entries) {
            fault("slow_entries", format!("must be from 1 to {SLOW_ENTRIES_MAX}"));
        }
        for (key, span) in [("slow_threshold", self.slow_threshold), ("slow_expiry", self.slow_expiry)] {
            if span < TimeSpan::millis(1) {
                fault(key, "must be at least 1ms".to_owned());
            }
        }
        for filter in &self.topic_metrics {
            if let Err(ResourceError::Invalid { rule, .. }) = mqtt::CountedTopic::new(filter).validate() {
                fault("topic_metrics", format!("cannot have {filter:?}: it {rule}"));
            }
        }
        let most = mqtt::CountedTopic::COUNT_MAX;
        if self.topic_metrics.len() > most {
            fault("topic_metrics", format!("must have at most {most}"));
        }
    }
}

/// Rates in bytes, of `[mqtt]` or of a listener.
pub(super) fn check_rates(section: &str, rates: [(&'static str, Option<ByteSize>); 2], faults: &mut Faults) {
    for (key, rate) in rates {
        if rate.is_some_and(|size| !BYTES_PER_SECOND.contains(&size)) {
            let (least, most) = (BYTES_PER_SECOND.start(), BYTES_PER_SECOND.end());
            faults.add(section, key, format!("must be from {least} to {most}"));
        }
    }
}

/// The longest keep alive, of `[mqtt]` or of a listener.
pub(super) fn check_keep_alive(section: &str, longest: Option<TimeSpan>, faults: &mut Faults) {
    let (least, most) = KEEP_ALIVE;
    if longest.is_some_and(|span| span < least || span > most) {
        faults.add(section, "max_keep_alive", format!("must be from {least} to {most}"));
    }
}
