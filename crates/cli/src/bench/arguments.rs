//! The command line. What cannot be told from one argument alone is checked where the measurement starts.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use wire::mqtt::Version;

use crate::failure::Failure;
use crate::frames::{self, PAYLOAD_MIN, Session};

/// Puts load on a broker and measures what it does. Data goes to standard output, everything else to standard error.
#[derive(Parser)]
#[command(name = "robust-bench", version)]
pub(crate) struct Arguments {
    /// Write one line of JSON to standard output (the sentence for people then goes to standard error).
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One per protocol.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Measure an MQTT broker.
    #[command(subcommand)]
    Mqtt(Mqtt),
}

/// One per kind of measurement.
#[derive(Subcommand)]
pub(crate) enum Mqtt {
    /// Publish and subscribe: rates, loss, latency, cost.
    Load(Load),
    /// Connect and disconnect as fast as it goes.
    Connect(Connect),
    /// Open connections and hold them, silent.
    Idle(Idle),
    /// Subscribe to very many filters, and publish to some of them.
    Filters(Filters),
    /// Publish for sessions whose clients are away, then let them return.
    Replay(Replay),
    /// Be a broker that does as little as possible, to see what this program can do at most.
    Sink(Sink),
}

/// Whom to measure.
#[derive(Args, Clone)]
pub(crate) struct Target {
    /// host:port of the broker.
    #[arg(long, default_value = "127.0.0.1:1883", value_parser = address)]
    pub(crate) address: SocketAddr,
    /// Process id of the broker, to tell its processor time and memory.
    #[arg(long)]
    pub(crate) broker_pid: Option<u32>,
    /// MQTT version to speak.
    #[arg(long, value_enum, default_value_t = Protocol::V311)]
    pub(crate) protocol: Protocol,
    /// Keep alive in seconds that each CONNECT announces. No PINGREQ is sent, so let it be longer than the run; 0 is
    /// none, which some brokers refuse.
    #[arg(long, default_value_t = 0)]
    pub(crate) keep_alive: u16,
}

impl Target {
    /// The CONNECT of a client.
    pub(crate) fn connect(&self, client_id: &str, session: Session) -> Result<Vec<u8>, Failure> {
        frames::connect(client_id, self.protocol.version(), self.keep_alive, session)
            .map_err(|_| Failure::Impossible("a client identifier cannot be encoded"))
    }
}

/// As CONNECT says it.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Protocol {
    /// 3.1.1
    #[value(name = "3.1.1")]
    V311,
    /// 5.0
    #[value(name = "5.0")]
    V5,
}

impl Protocol {
    pub(crate) fn version(self) -> Version {
        match self {
            Self::V311 => Version::V311,
            Self::V5 => Version::V5,
        }
    }
}

/// `mqtt load`.
#[derive(Args, Clone)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Connections that publish. Number i publishes to topic i modulo --topics.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub(crate) publishers: u16,
    /// Connections that subscribe. Number i subscribes to topic i modulo --topics.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=8192))]
    pub(crate) subscribers: u16,
    /// Topics.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) topics: u16,
    /// Quality of service of what is published, and granted to subscribers.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Subscribe as members of the shared subscription of this name: each message goes to one of them.
    #[arg(long)]
    pub(crate) share: Option<String>,
    /// Give each message properties, two of the user's among them. Only with --protocol 5.0.
    #[arg(long)]
    pub(crate) properties: bool,
    /// Messages on their way per publisher. QoS 1 and 2: not yet acknowledged. QoS 0: not yet delivered to every
    /// subscriber of the topic; 0 there means that only TCP holds a publisher back.
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=65_535))]
    pub(crate) window: Option<u16>,
    /// Payload bytes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(PAYLOAD_MIN as i64..=(16 << 20)))]
    pub(crate) size: u32,
    /// Messages per second of all publishers together, on a fixed schedule: latency counts from when a message was
    /// due, whether or not it could be sent then. 0: as fast as it goes.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=20_000_000))]
    pub(crate) rate: u32,
    /// Seconds that are measured.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) duration: Duration,
    /// Seconds of the same load before that.
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub(crate) warm_up: Duration,
    /// Threads of this program. Connections are dealt out to them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) threads: u8,
    /// Topic number i is called PREFIX/i.
    #[arg(long, default_value = "bench/line")]
    pub(crate) topic_prefix: String,
}

/// `mqtt connect`.
#[derive(Args, Clone)]
pub(crate) struct Connect {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Connections that are being opened or closed at any time.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) concurrency: u16,
    /// Seconds that are measured.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) duration: Duration,
    /// End after so many connections, if that comes first.
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) count: u64,
}

/// `mqtt idle`.
#[derive(Args, Clone)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Connections to hold.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// Connections that are being opened at any time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: u16,
    /// Filters that each connection subscribes to, nobody else has them.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) filters: u16,
    /// Seconds to let the broker come to rest after the last connection.
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(crate) settle: Duration,
    /// Seconds of holding that are measured after that.
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub(crate) hold: Duration,
}

/// `mqtt filters`. Filter k of connection c is `crowd/c/k/+`.
#[derive(Args, Clone)]
pub(crate) struct Filters {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Connections that subscribe.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// Filters of each connection.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) filters: u16,
    /// Topics that are published to, at most. Each matches one filter; they are spread evenly over all filters.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) topics: u32,
    /// Messages (QoS 0) that are on their way.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) window: u16,
    /// Payload bytes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(PAYLOAD_MIN as i64..=65_536))]
    pub(crate) size: u32,
    /// Seconds that are measured, after one message to each topic.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) duration: Duration,
}

/// `mqtt replay`. Session i has a topic of its own, `replay/i`.
#[derive(Args, Clone)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Sessions, all away while it is published.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) sessions: u16,
    /// Messages (QoS 1) of all sessions together.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) messages: u32,
    /// Messages that are not yet acknowledged.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) window: u16,
    /// Payload bytes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(PAYLOAD_MIN as i64..=65_536))]
    pub(crate) size: u32,
}

/// `mqtt sink`.
#[derive(Args, Clone)]
pub(crate) struct Sink {
    /// host:port to listen on; port 0 takes a free one. The address is printed.
    #[arg(long, default_value = "127.0.0.1:0", value_parser = address)]
    pub(crate) address: SocketAddr,
    /// Seconds after which it ends.
    #[arg(long, default_value = "600", value_parser = seconds)]
    pub(crate) duration: Duration,
}

/// Seconds, with a fraction where wanted; a day at most.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(String::from("between 0 and 86400 seconds"))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found =
        text.to_socket_addrs().map_err(|refusal| format!("`{text}` is not host:port ({refusal})"))?;
    found.next().ok_or_else(|| format!("`{text}` has no address"))
}
