//! From settings to what each crate takes.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use broker::{BrokerConfig, Retention, Strategy};
use cluster::NodeConfig;
use net::{Entrance, PressureLimits, ProxyProtocol, Tls, WebSocketRules};

use crate::config::{
    ByteSize, CertificateUser, Config, DeniedPublish, Inherited, Listener, MqttListener, Proxy,
    SharedStrategy, SubProtocol, TimeSpan, Transport, Versions,
};

pub(super) fn core_count(config: &Config) -> usize {
    match config.node.cores {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => usize::from(count),
    }
}

/// Readers wait for the disk most of the time.
pub(super) fn reader_count(cores: usize) -> usize {
    (cores * 2).clamp(2, 16)
}

pub(super) fn node_config(config: &Config, cores: usize) -> NodeConfig {
    let data_groups = match config.groups.data_groups {
        0 => u32::try_from(cores).unwrap_or(u32::MAX).clamp(2, 16),
        count => u32::from(count),
    };
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    NodeConfig {
        data_groups,
        segment_bytes: u32::try_from(config.storage.segment_bytes.bytes()).unwrap_or(u32::MAX),
        tail_cache_bytes: size(config.storage.tail_cache_bytes.bytes()),
        ..NodeConfig::new(config.node.data_dir.clone())
    }
}

pub(super) fn broker_config(config: &Config) -> BrokerConfig {
    let ms = |span: Option<TimeSpan>| {
        span.map(|span| u64::try_from(span.duration().as_millis()).unwrap_or(u64::MAX))
    };
    let topics = &config.topics;
    BrokerConfig {
        message_bytes_max: usize::try_from(config.limits.max_message_bytes.bytes()).unwrap_or(usize::MAX),
        shards_default: topics.default_shards,
        retention_first_use: Retention {
            ms: ms(topics.retention),
            bytes: topics.retention_bytes.map(|bytes| bytes.bytes()),
        },
        retention_created: Retention {
            ms: ms(topics.kafka_retention),
            bytes: topics.kafka_retention_bytes.map(|bytes| bytes.bytes()),
        },
    }
}

/// From where on the node has too much to bear.
pub(super) fn pressure_limits(config: &Config, memory_available: Option<u64>) -> PressureLimits {
    let memory = config.limits.memory.bytes(memory_available);
    PressureLimits {
        memory,
        backlog: memory.map(|bytes| bytes / BACKLOG_PART),
        delay: config.limits.max_core_delay.map(TimeSpan::duration),
    }
}

/// The part of its memory that the node lets what is published and not decided take.
const BACKLOG_PART: u64 = 4;

/// The largest packet of a listener's clients.
fn packet_bytes_max(config: &Config, listener: Option<&MqttListener>) -> u32 {
    let own = listener.map_or(Inherited(None), |listener| listener.own.max_packet_bytes);
    u32::try_from(own.or(config.mqtt.max_packet_bytes).bytes()).unwrap_or(u32::MAX)
}

/// Limits in messages and bytes per second.
fn rate_limit(messages: u32, bytes: Option<ByteSize>) -> mqtt::RateLimit {
    mqtt::RateLimit {
        messages: NonZeroU32::new(messages),
        bytes: bytes.and_then(|size| NonZeroU32::new(u32::try_from(size.bytes()).unwrap_or(u32::MAX))),
    }
}

/// The rates of all connections of `[mqtt]`, or of one of `[[mqtt.listeners]]`, together.
pub(super) fn total_rate(config: &Config, listener: Option<&MqttListener>) -> mqtt::RateLimit {
    let (messages, bytes) = match listener {
        None => (config.mqtt.total_messages_per_second, config.mqtt.total_bytes_per_second),
        Some(listener) => (listener.own.total_messages_per_second, listener.own.total_bytes_per_second),
    };
    rate_limit(messages.unwrap_or(0), bytes)
}

/// The front as `[mqtt]` has it, or as one of `[[mqtt.listeners]]` has it.
pub(super) fn mqtt_config(config: &Config, listener: Option<&MqttListener>) -> mqtt::MqttConfig {
    let settings = &config.mqtt;
    let general = Listener::default();
    let own = listener.map_or(&general, |listener| &listener.own);
    let seconds = |span: TimeSpan| span.duration().as_secs();
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let at_least_one = |count: u16| NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN);
    mqtt::MqttConfig {
        versions: match listener.map_or(settings.versions, |listener| listener.own.versions) {
            Versions::All => mqtt::Versions::All,
            Versions::Three => mqtt::Versions::Three,
            Versions::Five => mqtt::Versions::Five,
        },
        packet_bytes_max: packet_bytes_max(config, listener),
        receive_maximum: at_least_one(own.receive_maximum.or(settings.receive_maximum)),
        in_flight_max: at_least_one(settings.max_inflight),
        incoming_bytes_max: size(config.limits.connection_inflight_bytes.bytes()),
        connect_timeout: settings.connect_timeout.duration(),
        keep_alive_max: own
            .max_keep_alive
            .or(settings.max_keep_alive)
            .and_then(|span| NonZeroU16::new(u16::try_from(seconds(span)).unwrap_or(u16::MAX))),
        session_expiry_max: own
            .max_session_expiry
            .or(settings.max_session_expiry)
            .map(|span| u32::try_from(seconds(span)).unwrap_or(u32::MAX)),
        server_keep_alive: NonZeroU16::new(
            u16::try_from(seconds(settings.server_keep_alive)).unwrap_or(u16::MAX),
        ),
        topic_alias_max: settings.max_topic_alias,
        response_information: Some(&settings.response_information)
            .filter(|text| !text.is_empty())
            .and_then(|text| mqtt::Template::parse(text).ok()),
        exclusive_subscriptions: settings.exclusive_subscriptions,
        rate_limit: rate_limit(
            own.max_messages_per_second.or(settings.max_messages_per_second),
            own.max_bytes_per_second.or(settings.max_bytes_per_second),
        ),
        // The loader has refused what cannot be read.
        rewrites: settings.rewrite.iter().filter_map(|line| line.parse().ok()).collect(),
        auto_subscribe: settings.auto_subscribe.iter().filter_map(|line| line.parse().ok()).collect(),
        disconnects_denied: settings.denied_publish == DeniedPublish::Disconnect,
        shared_strategy: match settings.shared_strategy {
            SharedStrategy::RoundRobin => Strategy::RoundRobin,
            SharedStrategy::LeastInFlight => Strategy::LeastInFlight,
            SharedStrategy::Sticky => Strategy::Sticky,
            SharedStrategy::HashTopic => Strategy::HashSubject,
            SharedStrategy::HashPublisher => Strategy::HashPublisher,
            SharedStrategy::LocalFirst => Strategy::LocalFirst,
        },
        ..mqtt::MqttConfig::default()
    }
}

/// How much of MQTT is observed.
pub(super) fn observe_config(config: &Config) -> mqtt::ObserveConfig {
    let settings = &config.mqtt;
    mqtt::ObserveConfig {
        sys_interval: Some(settings.sys_interval.duration()).filter(|every| !every.is_zero()),
        history_clients: usize::try_from(settings.history_clients).unwrap_or(usize::MAX),
        slow: settings.slow_subscriptions.then(|| mqtt::SlowConfig {
            threshold: settings.slow_threshold.duration(),
            entries: usize::from(settings.slow_entries),
            expiry: settings.slow_expiry.duration(),
        }),
        topics: settings.topic_metrics.clone(),
    }
}

/// What stands before the sessions of `[mqtt]`: nothing.
pub(super) fn plain_entrance() -> Entrance {
    Entrance {
        name: "mqtt".into(),
        transport: net::Transport::Tcp,
        proxy: None,
        tls: None,
        websocket: None,
        user: net::CertificateUser::None,
        timeout: Duration::ZERO,
    }
}

/// What stands before the sessions of one of `[[mqtt.listeners]]`.
pub(super) fn entrance(config: &Config, listener: &MqttListener, tls: Option<Arc<Tls>>) -> Entrance {
    let own = &listener.own;
    let transport = match own.transport {
        Transport::Tcp => net::Transport::Tcp,
        Transport::Tls => net::Transport::Tls,
        Transport::Ws => net::Transport::WebSocket,
        Transport::Wss => net::Transport::SecureWebSocket,
        Transport::Quic => net::Transport::Quic,
        Transport::Unix => net::Transport::Unix,
    };
    let rules = || WebSocketRules {
        path: own.websocket_path.clone(),
        require_sub_protocol: own.websocket_sub_protocol == SubProtocol::Required,
        frame_bytes_max: packet_bytes_max(config, Some(listener)).into(),
    };
    Entrance {
        name: own.name.as_str().into(),
        transport,
        proxy: match own.proxy_protocol {
            Proxy::Off => None,
            Proxy::V1 => Some(ProxyProtocol::V1),
            Proxy::V2 => Some(ProxyProtocol::V2),
            Proxy::Any => Some(ProxyProtocol::Any),
        },
        tls,
        websocket: transport.is_websocket().then(|| Arc::new(rules())),
        user: match own.certificate_user {
            CertificateUser::None => net::CertificateUser::None,
            CertificateUser::CommonName => net::CertificateUser::CommonName,
            CertificateUser::Subject => net::CertificateUser::Subject,
        },
        timeout: own.handshake_timeout.duration(),
    }
}

pub(super) fn kafka_config(config: &Config) -> kafka::Config {
    let settings = &config.kafka;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    kafka::Config {
        advertised: settings
            .advertised
            .as_ref()
            .map(|host| (host.name().to_owned(), host.port().unwrap_or_else(|| settings.bind.port()))),
        auto_create_topics: settings.auto_create,
        request_bytes_max: size(settings.max_request_bytes.bytes()),
        message_bytes_max: size(config.limits.max_message_bytes.bytes()),
        in_flight_bytes_max: size(config.limits.connection_inflight_bytes.bytes()),
        session_timeout_min: settings.min_session_timeout.duration(),
        session_timeout_max: settings.max_session_timeout.duration(),
        initial_rebalance_delay: settings.initial_rebalance_delay.duration(),
        ..kafka::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, TimeSpan};

    #[test]
    fn rules_for_mqtt_clients_reach_the_front() {
        let mut config = Config::default();
        let plain = mqtt_config(&config, None);
        assert_eq!((plain.server_keep_alive, plain.rate_limit), (None, mqtt::RateLimit::default()));
        assert!(plain.response_information.is_none() && plain.rewrites.is_empty());
        config.mqtt.server_keep_alive = TimeSpan::seconds(30);
        config.mqtt.response_information = "answers/${clientid}".to_owned();
        config.mqtt.max_messages_per_second = 5;
        config.mqtt.max_bytes_per_second = Some(ByteSize::kib(2));
        config.mqtt.rewrite = vec!["all a/# ^a/(.*)$ b/$1".to_owned()];
        config.mqtt.auto_subscribe = vec!["to/${clientid} qos=1".to_owned()];
        let front = mqtt_config(&config, None);
        assert_eq!(front.server_keep_alive, NonZeroU16::new(30));
        let rate = mqtt::RateLimit { messages: NonZeroU32::new(5), bytes: NonZeroU32::new(2048) };
        assert_eq!(front.rate_limit, rate);
        assert_eq!(front.response_information, mqtt::Template::parse("answers/${clientid}").ok());
        assert_eq!((front.rewrites.len(), front.auto_subscribe.len()), (1, 1));
    }

    #[test]
    fn what_is_to_be_observed_reaches_the_front() {
        let mut config = Config::default();
        let plain = observe_config(&config);
        assert_eq!((plain.sys_interval, plain.slow), (Some(Duration::from_secs(10)), None));
        config.mqtt.sys_interval = TimeSpan::seconds(0);
        config.mqtt.slow_subscriptions = true;
        config.mqtt.topic_metrics = vec!["a/#".to_owned()];
        let observed = observe_config(&config);
        assert_eq!((observed.sys_interval, observed.history_clients), (None, 5_000));
        assert_eq!(observed.slow, Some(mqtt::SlowConfig::default()));
        assert_eq!(observed.topics, ["a/#"]);
    }

    #[test]
    fn a_listener_has_its_own_limits_where_it_says_so() {
        let mut config = Config::default();
        config.mqtt.max_messages_per_second = 5;
        config.mqtt.receive_maximum = 7;
        config.mqtt.max_session_expiry = Some(TimeSpan::seconds(60));
        config.mqtt.total_messages_per_second = Some(1000);
        let mut listener = MqttListener::default();
        let front = mqtt_config(&config, Some(&listener));
        assert_eq!((front.receive_maximum.get(), front.session_expiry_max), (7, Some(60)));
        assert_eq!(front.rate_limit.messages, NonZeroU32::new(5));
        // Rates of all clients together are of one listener.
        assert_eq!(total_rate(&config, Some(&listener)), mqtt::RateLimit::default());
        assert_eq!(total_rate(&config, None).messages, NonZeroU32::new(1000));
        listener.own.max_messages_per_second = Inherited(Some(0));
        listener.own.receive_maximum = Inherited(Some(9));
        listener.own.max_session_expiry = Inherited(Some(None));
        listener.own.max_keep_alive = Inherited(Some(Some(TimeSpan::seconds(30))));
        listener.own.total_bytes_per_second = Some(ByteSize::kib(4));
        listener.own.versions = Versions::Five;
        let front = mqtt_config(&config, Some(&listener));
        assert_eq!((front.receive_maximum.get(), front.session_expiry_max), (9, None));
        assert_eq!((front.keep_alive_max, front.versions), (NonZeroU16::new(30), mqtt::Versions::Five));
        assert_eq!(front.rate_limit, mqtt::RateLimit::default());
        assert_eq!(total_rate(&config, Some(&listener)).bytes, NonZeroU32::new(4096));
        assert_eq!(mqtt_config(&config, None).versions, mqtt::Versions::All);
    }

    #[test]
    fn a_quarter_of_the_memory_may_be_waiting() {
        let mut config = Config::default();
        let limits = pressure_limits(&config, Some(1000));
        assert_eq!((limits.memory, limits.backlog), (Some(700), Some(175)));
        config.limits.memory = crate::config::MemoryLimit::Unlimited;
        assert_eq!(pressure_limits(&config, Some(1000)).backlog, None);
    }

    #[test]
    fn bounds_on_what_clients_send_reach_the_fronts() {
        let mut config = Config::default();
        config.limits.connection_inflight_bytes = ByteSize::mib(21);
        config.limits.max_message_bytes = ByteSize::mib(3);
        config.kafka.max_request_bytes = ByteSize::mib(5);
        assert_eq!(mqtt_config(&config, None).incoming_bytes_max, 21 << 20);
        let kafka = kafka_config(&config);
        assert_eq!(kafka.in_flight_bytes_max, 21 << 20);
        assert_eq!((kafka.request_bytes_max, kafka.message_bytes_max), (5 << 20, 3 << 20));
        assert_eq!(broker_config(&config).message_bytes_max, 3 << 20);
    }
}
