//! Settings of the Kafka view.

use std::time::Duration;

use broker::access::Listener;

/// Settings of the Kafka view. Each is documented where it stands; the defaults are in `Default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the clients come in.
    pub listener: Listener,
    /// Host and port that clients are told to come back to. `None`: the address that a client connected to, which is right
    /// unless a proxy or a translated address lies between.
    pub advertised: Option<(String, u16)>,
    /// Whether asking for the metadata of an unknown topic creates it, if the client allows it.
    pub auto_create_topics: bool,
    /// Largest Produce request in bytes; others are bounded at 2 MiB.
    pub request_bytes_max: usize,
    /// Largest record batch in bytes that a topic takes unless it has a setting of its own.
    pub message_bytes_max: usize,
    /// Most bytes of records in one Fetch response, whatever the client allows.
    pub fetch_bytes_max: usize,
    /// Longest time that a Fetch may wait.
    pub fetch_wait_max: Duration,
    /// Bytes of requests of one connection that are not answered yet: beyond it, we stop reading from it.
    pub in_flight_bytes_max: usize,
    /// A connection on which nothing was asked for this long is closed.
    pub idle_max: Duration,
    /// Shortest session timeout that a group member may ask for.
    pub session_timeout_min: Duration,
    /// Longest session timeout that a group member may ask for.
    pub session_timeout_max: Duration,
    /// How long the first members of a new group are gathered, so that consumers that start together are assigned once.
    pub initial_rebalance_delay: Duration,
    /// Most members of one group.
    pub group_members_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listener: Listener { name: "kafka".into(), loopback: true },
            advertised: None,
            auto_create_topics: true,
            request_bytes_max: 100 << 20,
            message_bytes_max: model::MAX_MESSAGE_BYTES,
            fetch_bytes_max: 16 << 20,
            fetch_wait_max: Duration::from_secs(300),
            in_flight_bytes_max: 64 << 20,
            idle_max: Duration::from_secs(600),
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_secs(1800),
            initial_rebalance_delay: Duration::from_millis(50),
            group_members_max: 1000,
        }
    }
}
