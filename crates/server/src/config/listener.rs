//! `[[mqtt.listeners]]`: further listeners of a front, each with its own settings.

use std::path::PathBuf;

use super::inherited::Inherited;
use super::mqtt::{Versions, check_keep_alive, check_rates};
use super::section::{Faults, section};
use super::values::{Bind, ByteSize, Name, Octal, TimeSpan, choice};

section! {
    /// A further listener for MQTT. May stand any number of times, in the file only; needs `name`, `transport`, and `bind`
    /// or `path`.
    pub struct Listener ["mqtt.listeners"] {
        /// Its name in `listeners.json`, on the screen and in the log: small letters, digits and `-`.
        pub name: Name,
        /// What MQTT travels in: `"ws"` and `"wss"` are WebSocket without and with TLS; `"quic"` is one stream of a
        /// QUIC connection; `"unix"` is a unix socket.
        pub transport: Transport,
        /// Where to listen; for all transports but `"unix"`. Port 0 takes a free one.
        pub bind: Option<Bind>,
        /// Where the file of a unix socket is. Its directory has to be there; a file that a killed broker left is
        /// replaced.
        pub path: Option<PathBuf>,
        /// Who may connect to a unix socket, as permissions of its file.
        pub mode: Octal,
        /// Versions of the PROXY header, by which a load balancer says for whom it connects. Without one that is taken a
        /// connection is refused, so a listener is either for balancers or for clients.
        pub proxy_protocol: Proxy,
        /// How long PROXY header, TLS handshake and WebSocket request may take together. Then CONNECT has
        /// `mqtt.connect_timeout`.
        pub handshake_timeout: TimeSpan,
        /// Connections of this listener that are open at once, those that still shake hands included. They count
        /// towards `limits.max_connections` as well.
        pub max_connections: Option<u32>,
        /// Connections that are let in per second. Those that come faster wait; none is refused for it.
        pub max_accepts_per_second: Option<u32>,
        /// Messages per second that all clients of this listener together may publish, as
        /// `mqtt.total_messages_per_second` is for its own.
        pub total_messages_per_second: Option<u32>,
        /// Bytes per second that all clients of this listener together may send.
        pub total_bytes_per_second: Option<ByteSize>,
        /// Versions of MQTT that are served here.
        pub versions: Versions,
        /// The largest packet, and WebSocket frame, of a client of this listener.
        pub max_packet_bytes: Inherited<ByteSize>,
        /// `mqtt.max_messages_per_second` of one client of this listener.
        pub max_messages_per_second: Inherited<u32>,
        /// `mqtt.max_bytes_per_second` of one client of this listener.
        pub max_bytes_per_second: Inherited<Option<ByteSize>>,
        /// `mqtt.receive_maximum` of a client of this listener.
        pub receive_maximum: Inherited<u16>,
        /// `mqtt.max_keep_alive` of a client of this listener.
        pub max_keep_alive: Inherited<Option<TimeSpan>>,
        /// `mqtt.max_session_expiry` of a client of this listener.
        pub max_session_expiry: Inherited<Option<TimeSpan>>,
        /// The path of a WebSocket request.
        pub websocket_path: String,
        /// Whether a WebSocket client has to offer the sub-protocol `mqtt` or `mqttv3.1`, as the standard has it.
        pub websocket_sub_protocol: SubProtocol,
        /// Which part of a client's certificate is its user. The whole subject is written as in RFC 4514:
        /// `CN=device-7,O=Acme`.
        pub certificate_user: CertificateUser,
    }
}

section! {
    /// Certificates of the listener above; for `"tls"`, `"wss"` and `"quic"`. All files are PEM. They are read again on
    /// SIGHUP, and within a minute after one of them changed; if they are not in order then, the error is logged and
    /// what was read before stays in use.
    pub struct ListenerTls ["mqtt.listeners.tls"] {
        /// The listener's certificate, followed by those between it and a root.
        pub certificate_file: Option<PathBuf>,
        /// Its private key.
        pub key_file: Option<PathBuf>,
        /// Whether clients show certificates: `"optional"` takes clients without one as well.
        pub client_auth: ClientAuth,
        /// Certificates of the authorities that issue client certificates.
        pub ca_file: Option<PathBuf>,
        /// Certificates that they have taken back (CRL). With it, a list of every authority has to be there.
        pub crl_file: Option<PathBuf>,
    }
}

/// A listener with its certificates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MqttListener {
    /// `[[mqtt.listeners]]`
    pub own: Listener,
    /// `[mqtt.listeners.tls]`
    pub tls: ListenerTls,
}

choice! {
    /// What MQTT travels in.
    pub enum Transport: "\"tcp\", \"tls\", \"ws\", \"wss\", \"quic\" or \"unix\"" {
        /// TCP.
        Tcp = "tcp",
        /// TLS over TCP.
        Tls = "tls",
        /// WebSocket.
        Ws = "ws",
        /// WebSocket over TLS.
        Wss = "wss",
        /// QUIC.
        Quic = "quic",
        /// A unix socket.
        Unix = "unix",
    }
}

choice! {
    /// Which PROXY headers are taken.
    pub enum Proxy: "\"off\", \"v1\", \"v2\" or \"any\"" {
        /// None is expected.
        Off = "off",
        /// Version 1.
        V1 = "v1",
        /// Version 2.
        V2 = "v2",
        /// Either.
        Any = "any",
    }
}

choice! {
    /// What a WebSocket client has to offer.
    pub enum SubProtocol: "\"required\" or \"optional\"" {
        /// Who offers none is refused.
        Required = "required",
        /// Who offers none is accepted; who offers only others is refused.
        Optional = "optional",
    }
}

choice! {
    /// Which part of a certificate is the user.
    pub enum CertificateUser: "\"none\", \"common_name\" or \"subject\"" {
        /// None: the client says itself who it is.
        None = "none",
        /// The common name.
        CommonName = "common_name",
        /// The whole subject.
        Subject = "subject",
    }
}

choice! {
    /// Whether clients show certificates.
    pub enum ClientAuth: "\"none\", \"optional\" or \"required\"" {
        /// They are not asked.
        None = "none",
        /// Those that have one.
        Optional = "optional",
        /// All.
        Required = "required",
    }
}

impl Default for Listener {
    fn default() -> Listener {
        Listener {
            name: Name::default(),
            transport: Transport::Tcp,
            bind: None,
            path: None,
            mode: Octal(0o660),
            proxy_protocol: Proxy::Off,
            handshake_timeout: TimeSpan::seconds(10),
            max_connections: None,
            max_accepts_per_second: None,
            total_messages_per_second: None,
            total_bytes_per_second: None,
            versions: Versions::All,
            max_packet_bytes: Inherited(None),
            max_messages_per_second: Inherited(None),
            max_bytes_per_second: Inherited(None),
            receive_maximum: Inherited(None),
            max_keep_alive: Inherited(None),
            max_session_expiry: Inherited(None),
            websocket_path: "/mqtt".to_owned(),
            websocket_sub_protocol: SubProtocol::Required,
            certificate_user: CertificateUser::None,
        }
    }
}

impl Default for ListenerTls {
    fn default() -> ListenerTls {
        ListenerTls {
            certificate_file: None,
            key_file: None,
            client_auth: ClientAuth::None,
            ca_file: None,
            crl_file: None,
        }
    }
}

/// Bound: as for `mqtt.max_packet_bytes`.
const PACKET: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::mib(256));
/// Bound: a handshake that takes longer than this is none.
const HANDSHAKE: (TimeSpan, TimeSpan) = (TimeSpan::millis(1), TimeSpan::seconds(600));

impl MqttListener {
    /// Says what is wrong with it; `section` and `tls` are its names in a message.
    pub(crate) fn check(&self, section: &str, faults: &mut Faults) {
        self.check_own(section, faults);
        self.check_limits(section, faults);
        self.check_place(section, faults);
        self.check_tls(&format!("{section}.tls"), faults);
    }

    fn check_own(&self, section: &str, faults: &mut Faults) {
        let own = &self.own;
        let mut fault = |key, rule: String| faults.add(section, key, rule);
        if own.name.as_str().is_empty() {
            fault("name", "must be given".to_owned());
        } else if ["mqtt", "kafka", "http"].contains(&own.name.as_str()) {
            fault("name", format!("{} is the listener of its own section", own.name.as_str()));
        }
        let (least, most) = PACKET;
        if own.max_packet_bytes.0.is_some_and(|size| size < least || size > most) {
            fault("max_packet_bytes", format!("must be from {least} to {most}"));
        }
        let (least, most) = HANDSHAKE;
        if own.handshake_timeout < least || own.handshake_timeout > most {
            fault("handshake_timeout", format!("must be from {least} to {most}"));
        }
        if !own.websocket_path.starts_with('/') || own.websocket_path.contains(['?', '#', ' ']) {
            fault("websocket_path", "must begin with / and hold no ?, # or space".to_owned());
        }
        if own.mode.0 > 0o777 {
            fault("mode", "must be at most 0777".to_owned());
        }
    }

    fn check_limits(&self, section: &str, faults: &mut Faults) {
        let own = &self.own;
        let counts = [
            ("max_connections", own.max_connections),
            ("max_accepts_per_second", own.max_accepts_per_second),
            ("total_messages_per_second", own.total_messages_per_second),
            ("receive_maximum", own.receive_maximum.0.map(u32::from)),
        ];
        for (key, _) in counts.into_iter().filter(|(_, value)| *value == Some(0)) {
            faults.add(section, key, "must be at least 1".to_owned());
        }
        let rates = [
            ("total_bytes_per_second", own.total_bytes_per_second),
            ("max_bytes_per_second", own.max_bytes_per_second.0.flatten()),
        ];
        check_rates(section, rates, faults);
        check_keep_alive(section, own.max_keep_alive.0.flatten(), faults);
    }

    fn check_place(&self, section: &str, faults: &mut Faults) {
        let own = &self.own;
        let mut fault = |key, rule: &str| faults.add(section, key, rule.to_owned());
        match (own.transport, own.bind, &own.path) {
            (Transport::Unix, _, None) => fault("path", "must be given for a unix socket"),
            (Transport::Unix, Some(_), _) => fault("bind", "is not for a unix socket, which has a path"),
            (Transport::Unix, None, Some(_)) => {}
            (_, None, _) => fault("bind", "must be given"),
            (_, _, Some(_)) => fault("path", "is only for transport = \"unix\""),
            (_, Some(_), None) => {}
        }
        if own.transport == Transport::Quic && own.proxy_protocol != Proxy::Off {
            fault("proxy_protocol", "does not exist for QUIC");
        }
        if own.transport == Transport::Quic && !cfg!(feature = "quic") {
            fault("transport", "this broker was built without QUIC");
        }
        let asks = self.tls.client_auth != ClientAuth::None;
        if own.certificate_user != CertificateUser::None && !asks {
            fault("certificate_user", "needs tls.client_auth = \"optional\" or \"required\"");
        }
    }

    fn check_tls(&self, section: &str, faults: &mut Faults) {
        let tls = &self.tls;
        let mut fault = |key, rule: &str| faults.add(section, key, rule.to_owned());
        if !self.is_secure() {
            if *tls != ListenerTls::default() {
                fault("certificate_file", "is only for transport = \"tls\", \"wss\" or \"quic\"");
            }
            return;
        }
        for (key, file) in [("certificate_file", &tls.certificate_file), ("key_file", &tls.key_file)] {
            if file.is_none() {
                fault(key, "must be given");
            }
        }
        match (tls.client_auth, &tls.ca_file, &tls.crl_file) {
            (ClientAuth::None, None, None) | (ClientAuth::Optional | ClientAuth::Required, Some(_), _) => {}
            (ClientAuth::None, Some(_), _) => fault("ca_file", "needs client_auth"),
            (ClientAuth::None, _, Some(_)) => fault("crl_file", "needs client_auth"),
            (_, None, _) => fault("ca_file", "must be given for client_auth"),
        }
    }

    /// Whether it has certificates.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        matches!(self.own.transport, Transport::Tls | Transport::Wss | Transport::Quic)
    }
}
