//! From PUBLISH to record. Hot path: nothing is allocated for a message whose user properties bear names of their own.

use broker::{Guarantee, Message, Retain, RowWrite};
use model::Subject;
use model::header_name::{CONTENT_TYPE, CORRELATION_ID, EXPIRES_AT, REPLY_TO};
use wire::mqtt::{Publish, Qos};

use super::names::{self, PAYLOAD_FORMAT, PUBLISHER, QOS, RETAIN};

type HeaderRef<'a> = (&'a [u8], Option<&'a [u8]>);

/// Headers that need no allocation.
const INLINE: usize = 8;

/// A publication on its way into the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inbound<'a> {
    /// As it was decoded.
    pub(crate) publish: &'a Publish<'a>,
    /// Canonical subject of its topic.
    pub(crate) subject: &'a str,
    /// Of the publication; a will's does not stand in its packet.
    pub(crate) qos: Qos,
    /// The client, where one of its own No Local subscriptions matches.
    pub(crate) publisher: Option<&'a str>,
    /// Rows for the same entry.
    pub(crate) rows: &'a [RowWrite],
}

impl Inbound<'_> {
    /// Lends the message to `use_it`. `wall_ms` is asked only if the publication has an expiry.
    #[inline]
    pub(crate) fn with_message<R>(
        &self,
        wall_ms: impl FnOnce() -> i64,
        use_it: impl FnOnce(&Message<'_>) -> R,
    ) -> R {
        if self.publish.properties.is_empty()
            && self.qos != Qos::ExactlyOnce
            && !self.publish.retain
            && self.publisher.is_none()
        {
            return use_it(&self.message(&[]));
        }
        self.with_headers(wall_ms, |headers| use_it(&self.message(headers)))
    }

    fn message<'b>(&'b self, headers: &'b [HeaderRef<'b>]) -> Message<'b> {
        let payload = self.publish.payload;
        Message {
            subject: self.subject,
            key: None,
            value: Some(payload),
            headers,
            guarantee: if self.qos == Qos::AtMostOnce { Guarantee::Live } else { Guarantee::Durable },
            retain: match (self.publish.retain, payload.is_empty()) {
                (false, _) => Retain::Keep,
                (true, false) => Retain::Set,
                (true, true) => Retain::Clear,
            },
            rows: self.rows,
        }
    }

    fn with_headers<R>(
        &self,
        wall_ms: impl FnOnce() -> i64,
        use_it: impl FnOnce(&[HeaderRef<'_>]) -> R,
    ) -> R {
        let properties = &self.publish.properties;
        let reply_to = properties.response_topic().map(crate::subscription::subject_of);
        let expires_at = properties
            .message_expiry_interval()
            .map(|seconds| Decimal::new(wall_ms().saturating_add(i64::from(seconds) * 1000)));
        let ours = properties.user_properties().filter(|(name, _)| names::is_ours(name));
        let escaped: Vec<String> = ours.map(|(name, _)| names::escape(name)).collect();
        let mut escaped = escaped.iter();

        let mut headers = Headers::default();
        headers.push_if(CONTENT_TYPE, properties.content_type().map(str::as_bytes));
        headers.push_if(REPLY_TO, reply_to.as_ref().map(|name| name.as_bytes()));
        headers.push_if(CORRELATION_ID, properties.correlation_data());
        headers.push_if(EXPIRES_AT, expires_at.as_ref().map(Decimal::as_bytes));
        let format = properties.payload_format_indicator();
        headers.push_if(PAYLOAD_FORMAT, format.map(|is_text| if is_text { &b"1"[..] } else { b"0" }));
        headers.push_if(QOS, self.qos_told());
        headers.push_if(RETAIN, self.publish.retain.then_some(b"1"));
        headers.push_if(PUBLISHER, self.publisher.map(str::as_bytes));
        for (name, value) in properties.user_properties() {
            let name = match names::is_ours(name) {
                true => escaped.next().map_or(name, String::as_str),
                false => name,
            };
            headers.push((name.as_bytes(), Some(value.as_bytes())));
        }
        use_it(headers.as_slice())
    }

    /// What has no such header counts as QoS 1; QoS 0 must be told only by a retained message, which outlives the flag
    /// of its batch.
    fn qos_told(&self) -> Option<&'static [u8]> {
        match self.qos {
            Qos::AtMostOnce => self.publish.retain.then_some(b"0"),
            Qos::AtLeastOnce => None,
            Qos::ExactlyOnce => Some(b"2"),
        }
    }
}

/// A list of headers that allocates beyond [`INLINE`] of them only.
#[derive(Default)]
struct Headers<'a> {
    inline: [HeaderRef<'a>; INLINE],
    count: usize,
    spilled: Vec<HeaderRef<'a>>,
}

impl<'a> Headers<'a> {
    fn push_if(&mut self, name: &'static str, value: Option<&'a [u8]>) {
        if value.is_some() {
            self.push((name.as_bytes(), value));
        }
    }

    fn push(&mut self, header: HeaderRef<'a>) {
        if self.count < INLINE {
            self.inline[self.count] = header;
            self.count += 1;
            return;
        }
        if self.spilled.is_empty() {
            self.spilled.extend_from_slice(&self.inline);
        }
        self.spilled.push(header);
    }

    fn as_slice(&self) -> &[HeaderRef<'a>] {
        if self.spilled.is_empty() { &self.inline[..self.count] } else { &self.spilled }
    }
}

/// A number in decimal digits, on the stack.
struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    fn new(number: i64) -> Self {
        let mut rest = number.unsigned_abs();
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            start -= 1;
            digits[start] = b'-';
        }
        Self { digits, start }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Reads a response topic back: its MQTT spelling, if it has one that a property can hold.
pub(super) fn response_topic(canonical: &[u8]) -> Option<String> {
    let subject = Subject::new(std::str::from_utf8(canonical).ok()?).ok()?;
    subject.to_mqtt().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for number in [0, 7, 10, -1, i64::MAX, i64::MIN] {
            assert_eq!(Decimal::new(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
