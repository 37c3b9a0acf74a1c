//! From record to PUBLISH. Hot path: a record without headers is shown without a look-up or an allocation.

use std::borrow::Cow;
use std::num::NonZeroU32;

use model::batch::RecordRef;
use model::header_name::{CONTENT_TYPE, CORRELATION_ID, EXPIRES_AT, REPLY_TO, SUBJECT};
use model::{NameError, Subject};
use wire::mqtt::{PropertiesBuf, Property, Qos};

use super::names::{self, BASE64, PAYLOAD_FORMAT, PUBLISHER, QOS, RETAIN};
use super::to_record::response_topic;

/// What the headers of a record say to an MQTT client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading<'a> {
    /// QoS of the publication; a batch that is delivered at most once says more.
    pub(crate) qos: Qos,
    /// The publication had RETAIN set.
    pub(crate) retain: bool,
    /// Who published it, if that matters to somebody.
    pub(crate) publisher: Option<&'a [u8]>,
    /// Headers that a property cannot show.
    pub(crate) left_out: u64,
}

/// Why a record is not shown at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired;

impl<'a> Reading<'a> {
    const PLAIN: Reading<'static> =
        Reading { qos: Qos::AtLeastOnce, retain: false, publisher: None, left_out: 0 };

    /// Reads the headers. With `properties` (5.0) they are filled with what a PUBLISH carries. `captured` says that
    /// the broker keeps the subject in a header, which is not shown. `wall_ms` is asked only if there is an expiry.
    #[inline]
    pub(crate) fn of(
        record: &RecordRef<'a>,
        captured: bool,
        wall_ms: impl Fn() -> i64,
        properties: Option<&mut PropertiesBuf>,
    ) -> Result<Reading<'a>, Expired> {
        if record.header_count() == 0 {
            if let Some(properties) = properties {
                properties.clear();
            }
            return Ok(Self::PLAIN);
        }
        let mut reader = Reader { reading: Self::PLAIN, seen: 0, captured };
        match properties {
            Some(properties) => {
                properties.clear();
                for (name, value) in record.headers() {
                    reader.header(name, value, &wall_ms, Some(properties))?;
                }
            }
            None => {
                for (name, value) in record.headers() {
                    reader.header(name, value, &wall_ms, None)?;
                }
            }
        }
        Ok(reader.reading)
    }
}

struct Reader<'a> {
    reading: Reading<'a>,
    /// One bit for each well-known header that was taken: only the first of a name is one.
    seen: u8,
    captured: bool,
}

impl<'a> Reader<'a> {
    /// Takes one header; as a user property if it is not what its name says.
    fn header(
        &mut self,
        name: &'a [u8],
        value: Option<&'a [u8]>,
        wall_ms: &impl Fn() -> i64,
        properties: Option<&mut PropertiesBuf>,
    ) -> Result<(), Expired> {
        let text = std::str::from_utf8(name).unwrap_or("");
        if let Some(value) = value
            && names::is_ours(text)
            && self.known(text, value, wall_ms, &properties)?
        {
            return self.put_known(text, value, wall_ms, properties);
        }
        if let Some(properties) = properties
            && !put_user_property(name, value.unwrap_or_default(), properties)
        {
            self.reading.left_out += 1;
        }
        Ok(())
    }

    /// Whether a header is what its name says and the first that is.
    fn known(
        &mut self,
        name: &str,
        value: &'a [u8],
        wall_ms: &impl Fn() -> i64,
        properties: &Option<&mut PropertiesBuf>,
    ) -> Result<bool, Expired> {
        let (bit, fits) = match name {
            CONTENT_TYPE => (1, properties.is_none() || names::shown_value(value).is_some_and(is_field)),
            REPLY_TO => (2, properties.is_none() || response_topic(value).is_some()),
            CORRELATION_ID => (4, value.len() <= usize::from(u16::MAX)),
            EXPIRES_AT => match expires_at(value) {
                Some(at) if at <= wall_ms() => return Err(Expired),
                Some(_) => (8, true),
                None => (8, false),
            },
            PAYLOAD_FORMAT => (16, matches!(value, b"0" | b"1")),
            QOS => (32, matches!(value, b"0" | b"2")),
            RETAIN => (64, value == b"1"),
            PUBLISHER => (128, true),
            SUBJECT => return Ok(self.captured),
            _ => return Ok(false),
        };
        let is_first = self.seen & bit == 0;
        if fits {
            self.seen |= bit;
        }
        Ok(fits && is_first)
    }

    fn put_known(
        &mut self,
        name: &str,
        value: &'a [u8],
        wall_ms: &impl Fn() -> i64,
        properties: Option<&mut PropertiesBuf>,
    ) -> Result<(), Expired> {
        match name {
            QOS => self.reading.qos = if value == b"2" { Qos::ExactlyOnce } else { Qos::AtMostOnce },
            RETAIN => self.reading.retain = true,
            PUBLISHER => self.reading.publisher = Some(value),
            SUBJECT => {}
            _ => {
                if let Some(properties) = properties
                    && !put_property(name, value, wall_ms, properties)
                {
                    self.reading.left_out += 1;
                }
            }
        }
        Ok(())
    }
}

fn put_property(
    name: &str,
    value: &[u8],
    wall_ms: &impl Fn() -> i64,
    properties: &mut PropertiesBuf,
) -> bool {
    let pushed = match name {
        CONTENT_TYPE => names::shown_value(value).map(|text| properties.push(Property::ContentType(text))),
        REPLY_TO => response_topic(value).map(|topic| properties.push(Property::ResponseTopic(&topic))),
        CORRELATION_ID => Some(properties.push(Property::CorrelationData(value))),
        EXPIRES_AT => expires_at(value).map(|at| {
            let left = at.saturating_sub(wall_ms()).max(1).unsigned_abs().div_ceil(1000);
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            properties.push(Property::MessageExpiryInterval(left))
        }),
        PAYLOAD_FORMAT => Some(properties.push(Property::PayloadFormatIndicator(value == b"1"))),
        _ => None,
    };
    matches!(pushed, Some(Ok(())))
}

/// Shows a header as a user property; false if its name cannot be shown, or the whole is too long.
fn put_user_property(name: &[u8], value: &[u8], properties: &mut PropertiesBuf) -> bool {
    let Some(name) = names::shown_name(name) else { return false };
    match names::shown_value(value) {
        Some(value) => properties.push(Property::UserProperty(&name, value)).is_ok(),
        None => {
            let name = [BASE64, &name].concat();
            properties.push(Property::UserProperty(&name, &names::base64(value))).is_ok()
        }
    }
}

/// Appends the subscription identifiers of a delivery [MQTT-3.3.4-3].
pub(crate) fn identify(properties: &mut PropertiesBuf, identifiers: impl Iterator<Item = NonZeroU32>) {
    for identifier in identifiers {
        // Bound: a tag holds 28 bits, as the property does.
        let _ = properties.push(Property::SubscriptionIdentifier(identifier));
    }
}

/// When a record is no longer wanted, in ms since the epoch.
fn expires_at(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The time `wall_ms`, or the last moment at which the record had not expired if that was before.
pub(crate) fn last_moment(record: &RecordRef<'_>, wall_ms: i64) -> i64 {
    let expiries = record.headers().filter(|(name, _)| *name == EXPIRES_AT.as_bytes());
    let first = expiries.filter_map(|(_, value)| expires_at(value?)).min();
    first.map_or(wall_ms, |at| wall_ms.min(at.saturating_sub(1)))
}

/// The MQTT topic of a canonical subject; borrowed wherever the two are the same.
pub(crate) fn topic_of(subject: &str) -> Result<Cow<'_, str>, NameError> {
    if !subject.bytes().any(|byte| matches!(byte, b'%' | b'+' | b'#')) {
        return Ok(Cow::Borrowed(subject));
    }
    let topic = Subject::new(subject)?.to_mqtt()?.into_owned();
    Ok(Cow::Owned(topic))
}

fn is_field(text: &str) -> bool {
    text.len() <= usize::from(u16::MAX)
}
