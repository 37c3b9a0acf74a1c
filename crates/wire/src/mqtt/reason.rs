//! Reason codes of MQTT 5.0, where each may stand, and the older versions' return codes.

use super::place::Place;
use super::{Version, place};

macro_rules! reason_codes {
    ($(#[doc = $doc:literal] $name:ident = $code:literal in $places:expr;)*) => {
        /// Reason codes of MQTT 5.0 (section 2.4). 0x80 and above are failures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = $doc] $name = $code,)*
        }

        impl ReasonCode {
            /// The code with this number, if the standard defines one.
            pub fn from_u8(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// What it says, as a sentence for people (a Reason String).
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $doc.trim_ascii(),)*
                }
            }

            fn places(self) -> u32 {
                match self {
                    $(Self::$name => $places,)*
                }
            }
        }
    };
}

use place::{
    AUTH, CONNACK, DISCONNECT_CLIENT as CLIENT, DISCONNECT_SERVER as SERVER, PUBACK, PUBCOMP, PUBREC, PUBREL,
    SUBACK, UNSUBACK,
};
const DISCONNECT: u32 = CLIENT | SERVER;
const RECEIVED: u32 = PUBACK | PUBREC;
const FILTER: u32 = SUBACK | UNSUBACK;

reason_codes! {
    /// Success; as a DISCONNECT: normal; in SUBACK: granted QoS 0.
    Success = 0x00 in CONNACK | RECEIVED | PUBREL | PUBCOMP | FILTER | DISCONNECT | AUTH;
    /// Granted QoS 1.
    GrantedQos1 = 0x01 in SUBACK;
    /// Granted QoS 2.
    GrantedQos2 = 0x02 in SUBACK;
    /// The client leaves and wants its will published.
    DisconnectWithWill = 0x04 in CLIENT;
    /// Accepted; nobody subscribes to it.
    NoMatchingSubscribers = 0x10 in RECEIVED;
    /// Nothing to unsubscribe.
    NoSubscriptionExisted = 0x11 in UNSUBACK;
    /// Enhanced authentication goes on.
    ContinueAuthentication = 0x18 in AUTH;
    /// The client starts to authenticate again.
    ReAuthenticate = 0x19 in AUTH;
    /// Failure without a better name.
    UnspecifiedError = 0x80 in CONNACK | RECEIVED | FILTER | DISCONNECT;
    /// The bytes cannot be parsed.
    MalformedPacket = 0x81 in CONNACK | DISCONNECT;
    /// The packet is not permitted here.
    ProtocolError = 0x82 in CONNACK | DISCONNECT;
    /// Valid, but not accepted by this receiver.
    ImplementationSpecificError = 0x83 in CONNACK | RECEIVED | FILTER | DISCONNECT;
    /// This protocol version is not spoken here.
    UnsupportedProtocolVersion = 0x84 in CONNACK;
    /// The client identifier is not permitted.
    ClientIdentifierNotValid = 0x85 in CONNACK;
    /// User name or password is wrong.
    BadUserNameOrPassword = 0x86 in CONNACK;
    /// Not permitted.
    NotAuthorized = 0x87 in CONNACK | RECEIVED | FILTER | SERVER;
    /// The server is not available.
    ServerUnavailable = 0x88 in CONNACK;
    /// The server is busy.
    ServerBusy = 0x89 in CONNACK | SERVER;
    /// The client is banned.
    Banned = 0x8A in CONNACK;
    /// The server is shutting down.
    ServerShuttingDown = 0x8B in SERVER;
    /// The authentication method is not supported.
    BadAuthenticationMethod = 0x8C in CONNACK | SERVER;
    /// Nothing was received for 1.5 times the keep alive.
    KeepAliveTimeout = 0x8D in SERVER;
    /// Another connection uses this client identifier.
    SessionTakenOver = 0x8E in SERVER;
    /// The topic filter is not valid or not accepted.
    TopicFilterInvalid = 0x8F in FILTER | SERVER;
    /// The topic name is not valid or not accepted.
    TopicNameInvalid = 0x90 in CONNACK | RECEIVED | DISCONNECT;
    /// The packet identifier is in use.
    PacketIdentifierInUse = 0x91 in RECEIVED | FILTER;
    /// The packet identifier is not known.
    PacketIdentifierNotFound = 0x92 in PUBREL | PUBCOMP;
    /// More unacknowledged publications than Receive Maximum.
    ReceiveMaximumExceeded = 0x93 in DISCONNECT;
    /// Topic alias 0 or above the maximum.
    TopicAliasInvalid = 0x94 in DISCONNECT;
    /// The packet is larger than the receiver's Maximum Packet Size.
    PacketTooLarge = 0x95 in CONNACK | DISCONNECT;
    /// Messages arrive too fast.
    MessageRateTooHigh = 0x96 in DISCONNECT;
    /// A limit is reached.
    QuotaExceeded = 0x97 in CONNACK | RECEIVED | SUBACK | DISCONNECT;
    /// Closed by an administrator.
    AdministrativeAction = 0x98 in DISCONNECT;
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99 in CONNACK | RECEIVED | DISCONNECT;
    /// Retained messages are not supported.
    RetainNotSupported = 0x9A in CONNACK | SERVER;
    /// QoS above Maximum QoS.
    QosNotSupported = 0x9B in CONNACK | SERVER;
    /// Use another server for now.
    UseAnotherServer = 0x9C in CONNACK | SERVER;
    /// Use another server from now on.
    ServerMoved = 0x9D in CONNACK | SERVER;
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9E in SUBACK | SERVER;
    /// Too many connections in a short time.
    ConnectionRateExceeded = 0x9F in CONNACK | SERVER;
    /// The connection lasted as long as it may.
    MaximumConnectTime = 0xA0 in SERVER;
    /// Subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xA1 in SUBACK | SERVER;
    /// Wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xA2 in SUBACK | SERVER;
}

impl ReasonCode {
    /// Whether the code says that something failed.
    pub fn is_failure(self) -> bool {
        self as u8 >= 0x80
    }

    /// The CONNACK return code of 3.1 and 3.1.1 that says the same; none where the older versions only close.
    pub fn connack_return_code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::UnspecifiedError
            | Self::ImplementationSpecificError
            | Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => Some(5),
            Self::GrantedQos1
            | Self::GrantedQos2
            | Self::DisconnectWithWill
            | Self::NoMatchingSubscribers
            | Self::NoSubscriptionExisted
            | Self::ContinueAuthentication
            | Self::ReAuthenticate
            | Self::MalformedPacket
            | Self::ProtocolError
            | Self::ServerShuttingDown
            | Self::KeepAliveTimeout
            | Self::SessionTakenOver
            | Self::TopicFilterInvalid
            | Self::TopicNameInvalid
            | Self::PacketIdentifierInUse
            | Self::PacketIdentifierNotFound
            | Self::ReceiveMaximumExceeded
            | Self::TopicAliasInvalid
            | Self::PacketTooLarge
            | Self::MessageRateTooHigh
            | Self::AdministrativeAction
            | Self::PayloadFormatInvalid
            | Self::RetainNotSupported
            | Self::QosNotSupported
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::SharedSubscriptionsNotSupported
            | Self::MaximumConnectTime
            | Self::SubscriptionIdentifiersNotSupported
            | Self::WildcardSubscriptionsNotSupported => None,
        }
    }

    pub(super) fn from_connack_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }

    /// The code with this number, where it may stand at `place`.
    pub(super) fn read(code: u8, place: Place) -> Result<Self, Malformed> {
        match Self::from_u8(code) {
            Some(reason) if reason.places() & place.bit() != 0 => Ok(reason),
            _ => Err(Malformed::new(Self::ProtocolError, "section 2.4")),
        }
    }
}

/// Bytes that break the standard, and how to say so.
///
/// After CONNACK a 5.0 peer is told `reason` in a DISCONNECT and the connection closes; an older one only sees
/// it close [MQTT-4.13.1-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What a 5.0 peer is told.
    pub reason: ReasonCode,
    /// The requirement or section of MQTT 5.0 that is broken.
    pub clause: &'static str,
    /// For a CONNECT that named a version: the form of the CONNACK that answers it (where
    /// [`ReasonCode::connack_return_code`] has none, close only). None: close without a CONNACK.
    pub connack: Option<Version>,
}

impl Malformed {
    pub(super) const fn new(reason: ReasonCode, clause: &'static str) -> Self {
        Self { reason, clause, connack: None }
    }

    pub(super) const fn protocol(clause: &'static str) -> Self {
        Self::new(ReasonCode::ProtocolError, clause)
    }

    pub(super) const fn answered_in(self, version: Version) -> Self {
        Self { connack: Some(version), ..self }
    }
}
