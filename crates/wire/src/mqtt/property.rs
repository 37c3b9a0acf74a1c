//! Properties of MQTT 5.0: the table, and the borrowed view of a property block. Hot path.
//!
//! ```text
//!   +--------+----+-------+----+-------+--
//!   | length | id | value | id | value | ...      Properties holds what stands behind `length`
//!   +--------+----+-------+----+-------+--
//! ```
//!
//! A block is checked once, when its packet is decoded; the view then reads it lazily, as often as it is asked.

use std::num::{NonZeroU16, NonZeroU32};

use super::cursor::Cursor;
use super::place::{self, Place};
use super::reason::{Malformed, ReasonCode};
use super::topic::has_wildcard;

const CLIENT_AND_SERVER: u32 = place::PUBLISH_CLIENT | place::PUBLISH_SERVER;
const MESSAGE: u32 = CLIENT_AND_SERVER | place::WILL;
const HANDSHAKE: u32 = place::CONNECT | place::CONNACK;
const CONNACK: u32 = place::CONNACK;
const ACKS: u32 = place::PUBACK | place::PUBREC | place::PUBREL | place::PUBCOMP;
const REASON: u32 = CONNACK
    | ACKS
    | place::SUBACK
    | place::UNSUBACK
    | place::DISCONNECT_CLIENT
    | place::DISCONNECT_SERVER
    | place::AUTH;
const EVERYWHERE: u32 = u32::MAX;

/// Bound: identifiers are below this.
const IDS: usize = 0x2b;
pub(super) const REASON_STRING: u8 = 0x1f;
pub(super) const USER_PROPERTY: u8 = 0x26;
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
const AUTHENTICATION_METHOD: u8 = 0x15;
const AUTHENTICATION_DATA: u8 = 0x16;

macro_rules! properties {
    ($($(#[$doc:meta])* $name:ident($id:literal, $kind:ident) = $get:ident in $places:expr;)*) => {
        /// One property (section 2.2.2.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Property<'a> {
            $($(#[$doc])* $name(value!($kind)),)*
            /// A name and a value that the application chose. The only one that may stand more than once
            /// everywhere.
            UserProperty(&'a str, &'a str),
        }

        impl<'a> Property<'a> {
            pub(super) fn id(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $id,)*
                    Self::UserProperty(..) => USER_PROPERTY,
                }
            }

            /// Reads the value that follows `id`.
            #[inline]
            fn read(id: u8, cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
                match id {
                    USER_PROPERTY => Ok(Self::UserProperty(cursor.text()?, cursor.text()?)),
                    $($id => Ok(Self::$name(read!($kind, cursor))),)*
                    _ => Err(NOT_HERE),
                }
            }
        }

        impl<'a> Properties<'a> {
            $($(#[$doc])* pub fn $get(&self) -> Option<value!($kind)> {
                if self.present & (1 << $id) == 0 {
                    return None;
                }
                self.iter().find_map(|property| match property {
                    Property::$name(value) => Some(value),
                    _ => None,
                })
            })*
        }

        /// Where each identifier may stand.
        const PLACES: [u32; IDS] = {
            let mut places = [0; IDS];
            $(places[$id] = $places;)*
            places[USER_PROPERTY as usize] = EVERYWHERE;
            places
        };
    };
}

macro_rules! value {
    (flag) => { bool };
    (two) => { u16 };
    (four) => { u32 };
    (two_not_zero) => { NonZeroU16 };
    (alias) => { NonZeroU16 };
    (four_not_zero) => { NonZeroU32 };
    (varint_not_zero) => { NonZeroU32 };
    (text) => { &'a str };
    (response_topic) => { &'a str };
    (binary) => { &'a [u8] };
}

macro_rules! read {
    (flag, $cursor:ident) => {
        flag($cursor)?
    };
    (two, $cursor:ident) => {
        $cursor.u16()?
    };
    (four, $cursor:ident) => {
        $cursor.u32()?
    };
    (two_not_zero, $cursor:ident) => {
        NonZeroU16::new($cursor.u16()?).ok_or(ZERO)?
    };
    (alias, $cursor:ident) => {
        NonZeroU16::new($cursor.u16()?).ok_or(ALIAS_ZERO)?
    };
    (four_not_zero, $cursor:ident) => {
        NonZeroU32::new($cursor.u32()?).ok_or(ZERO)?
    };
    (varint_not_zero, $cursor:ident) => {
        NonZeroU32::new($cursor.varint()?).ok_or(ZERO)?
    };
    (text, $cursor:ident) => {
        $cursor.text()?
    };
    (response_topic, $cursor:ident) => {
        response_topic($cursor)?
    };
    (binary, $cursor:ident) => {
        $cursor.binary()?
    };
}

properties! {
    /// The payload is UTF-8 text.
    PayloadFormatIndicator(0x01, flag) = payload_format_indicator in MESSAGE;
    /// Lifetime of the message in seconds.
    MessageExpiryInterval(0x02, four) = message_expiry_interval in MESSAGE;
    /// What the payload is.
    ContentType(0x03, text) = content_type in MESSAGE;
    /// Where to send a response: a topic name without wildcards.
    ResponseTopic(0x08, response_topic) = response_topic in MESSAGE;
    /// What a response has to carry.
    CorrelationData(0x09, binary) = correlation_data in MESSAGE;
    /// The subscription that this is about, 1 to 268,435,455. A PUBLISH from a server may carry several: read
    /// them with [`Properties::iter`].
    SubscriptionIdentifier(0x0b, varint_not_zero) = subscription_identifier in place::PUBLISH_SERVER | place::SUBSCRIBE;
    /// Lifetime of the session after the connection, in seconds; 0xFFFF_FFFF is for ever.
    SessionExpiryInterval(0x11, four) = session_expiry_interval in HANDSHAKE | place::DISCONNECT_CLIENT;
    /// The client identifier that the server chose.
    AssignedClientIdentifier(0x12, text) = assigned_client_identifier in CONNACK;
    /// The keep alive that holds instead of the client's, in seconds.
    ServerKeepAlive(0x13, two) = server_keep_alive in CONNACK;
    /// The method of enhanced authentication.
    AuthenticationMethod(0x15, text) = authentication_method in HANDSHAKE | place::AUTH;
    /// Data of enhanced authentication.
    AuthenticationData(0x16, binary) = authentication_data in HANDSHAKE | place::AUTH;
    /// Whether reason strings and user properties may be sent with anything.
    RequestProblemInformation(0x17, flag) = request_problem_information in place::CONNECT;
    /// Seconds before the will is published.
    WillDelayInterval(0x18, four) = will_delay_interval in place::WILL;
    /// Whether the client wants Response Information.
    RequestResponseInformation(0x19, flag) = request_response_information in place::CONNECT;
    /// What a response topic can be made of.
    ResponseInformation(0x1a, text) = response_information in CONNACK;
    /// Another server to use.
    ServerReference(0x1c, text) = server_reference in CONNACK | place::DISCONNECT_SERVER;
    /// The reason in words, for a human.
    ReasonString(0x1f, text) = reason_string in REASON;
    /// Publications with QoS above 0 that the sender takes at once.
    ReceiveMaximum(0x21, two_not_zero) = receive_maximum in HANDSHAKE;
    /// Topic aliases that the sender takes.
    TopicAliasMaximum(0x22, two) = topic_alias_maximum in HANDSHAKE;
    /// A number for the topic.
    TopicAlias(0x23, alias) = topic_alias in CLIENT_AND_SERVER;
    /// The server's maximum QoS: 0 (false) or 1 (true).
    MaximumQos(0x24, flag) = maximum_qos in CONNACK;
    /// Whether the server keeps retained messages.
    RetainAvailable(0x25, flag) = retain_available in CONNACK;
    /// Bytes of the largest packet that the sender takes.
    MaximumPacketSize(0x27, four_not_zero) = maximum_packet_size in HANDSHAKE;
    /// Whether the server takes wildcard subscriptions.
    WildcardSubscriptionAvailable(0x28, flag) = wildcard_subscription_available in CONNACK;
    /// Whether the server takes subscription identifiers.
    SubscriptionIdentifierAvailable(0x29, flag) = subscription_identifier_available in CONNACK;
    /// Whether the server takes shared subscriptions.
    SharedSubscriptionAvailable(0x2a, flag) = shared_subscription_available in CONNACK;
}

const NOT_HERE: Malformed = Malformed::new(ReasonCode::MalformedPacket, "section 2.2.2.2");
const TWICE: Malformed = Malformed::protocol("section 2.2.2.2");
const ZERO: Malformed = Malformed::protocol("section 2.2.2.2");
const NOT_A_FLAG: Malformed = Malformed::protocol("section 2.2.2.2");
const ALIAS_ZERO: Malformed = Malformed::new(ReasonCode::TopicAliasInvalid, "MQTT-3.3.2-8");
const IDENTIFIER_FROM_CLIENT: Malformed = Malformed::protocol("MQTT-3.3.4-6");
const RESPONSE_TOPIC: Malformed = Malformed::protocol("MQTT-3.3.2-14");
const EXPIRY_FROM_SERVER: Malformed = Malformed::protocol("MQTT-3.14.2-2");
const DATA_WITHOUT_METHOD: Malformed = Malformed::protocol("section 3.1.2.11.10");

#[inline]
fn flag(cursor: &mut Cursor<'_>) -> Result<bool, Malformed> {
    match cursor.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(NOT_A_FLAG),
    }
}

fn response_topic<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Malformed> {
    let topic = cursor.text()?;
    if topic.is_empty() || has_wildcard(topic) { Err(RESPONSE_TOPIC) } else { Ok(topic) }
}

/// The properties of one packet: a checked block, read lazily. Empty in 3.1 and 3.1.1.
#[derive(Clone, Copy, Default)]
pub struct Properties<'a> {
    /// Invariant: `block` was checked by [`Properties::read`] or written by `PropertiesBuf`.
    block: &'a [u8],
    /// One bit for each identifier in `block`.
    present: u64,
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties { block: &[], present: 0 };

    /// Reads a block with its length and checks each property for `place`.
    #[inline]
    pub(super) fn read(cursor: &mut Cursor<'a>, place: Place) -> Result<Self, Malformed> {
        let len = cursor.varint()?;
        let block = cursor.take(len as usize)?;
        if block.is_empty() {
            return Ok(Self { block, present: 0 });
        }
        Self::check(block, place)
    }

    fn check(block: &'a [u8], place: Place) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(block);
        let mut present = 0u64;
        while !cursor.is_empty() {
            let id = cursor.byte()?;
            if PLACES.get(usize::from(id)).is_none_or(|places| places & place.bit() == 0) {
                return Err(misplaced(id, place));
            }
            let bit = 1 << id;
            if present & bit != 0 && !may_repeat(id, place) {
                return Err(TWICE);
            }
            present |= bit;
            Property::read(id, &mut cursor)?;
        }
        let authentication = present & (1 << AUTHENTICATION_METHOD | 1 << AUTHENTICATION_DATA);
        if authentication == 1 << AUTHENTICATION_DATA {
            return Err(DATA_WITHOUT_METHOD);
        }
        Ok(Self { block, present })
    }

    /// The view of a block that was written property by property.
    pub(super) fn written(block: &'a [u8], present: u64) -> Self {
        Self { block, present }
    }

    /// An empty block at the place where a block would stand.
    pub(super) fn none_at(cursor: &Cursor<'a>) -> Self {
        Self { block: &cursor.rest()[..0], present: 0 }
    }

    /// The raw block, without its length.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.block
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// All properties, in the order in which they were sent.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + Clone + use<'a> {
        self.pieces().filter_map(|(id, piece)| Property::read(id, &mut Cursor::new(&piece[1..])).ok())
    }

    /// The user properties, in the order in which they were sent.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let any = self.present & (1 << USER_PROPERTY) != 0;
        let block = if any { *self } else { Properties::EMPTY };
        block.iter().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Whether any of the identifiers with these bits is present.
    pub(super) fn has_any(&self, bits: u64) -> bool {
        self.present & bits != 0
    }

    /// Each property as it was sent, behind its identifier.
    pub(super) fn pieces(&self) -> Pieces<'a> {
        Pieces { cursor: Cursor::new(self.block) }
    }
}

impl std::fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.block == other.block
    }
}

impl Eq for Properties<'_> {}

/// The encoded properties of a block.
#[derive(Clone)]
pub(super) struct Pieces<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.cursor.rest();
        let id = self.cursor.byte().ok()?;
        Property::read(id, &mut self.cursor).ok()?;
        Some((id, &start[..start.len() - self.cursor.rest().len()]))
    }
}

#[inline]
fn may_repeat(id: u8, place: Place) -> bool {
    id == USER_PROPERTY || (id == SUBSCRIPTION_IDENTIFIER && place == Place::PublishFromServer)
}

#[cold]
fn misplaced(id: u8, place: Place) -> Malformed {
    match (id, place) {
        (SUBSCRIPTION_IDENTIFIER, Place::PublishFromClient) => IDENTIFIER_FROM_CLIENT,
        (0x11, Place::DisconnectFromServer) => EXPIRY_FROM_SERVER,
        _ => NOT_HERE,
    }
}
