//! Which header names are ours, and how a user property that bears one is escaped.

use std::borrow::Cow;

use model::header_name::{CONTENT_TYPE, CORRELATION_ID, EXPIRES_AT, MQTT_PREFIX, REPLY_TO, SUBJECT};

pub(super) const PAYLOAD_FORMAT: &str = "mqtt.payload-format";
/// QoS of the publication where it is not 1.
pub(super) const QOS: &str = "mqtt.qos";
/// The publication had RETAIN set.
pub(super) const RETAIN: &str = "mqtt.retain";
/// Headers of what the broker itself says of its state: QoS 0, retained.
pub(crate) const RETAINED_STATE: &[(&[u8], Option<&[u8]>)] =
    &[(QOS.as_bytes(), Some(b"0")), (RETAIN.as_bytes(), Some(b"1"))];
/// Client identifier of the publisher, for No Local.
pub(crate) const PUBLISHER: &str = "mqtt.publisher";
/// In front of a user property whose name would be taken for ours.
const USER: &str = "mqtt.user.";
/// In front of the name of a header whose value is no text: the value is in base64.
pub(super) const BASE64: &str = "mqtt.base64.";

/// Whether a user property of this name has to be escaped.
#[inline]
pub(super) fn is_ours(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'c' | b'r' | b'e' | b's') => {
            matches!(name, CONTENT_TYPE | REPLY_TO | CORRELATION_ID | EXPIRES_AT | SUBJECT)
        }
        Some(b'm') => name.starts_with(MQTT_PREFIX),
        _ => false,
    }
}

/// The header name of a user property whose name is ours.
pub(super) fn escape(name: &str) -> String {
    [USER, name].concat()
}

/// The user property's name of a header.
pub(super) fn unescape(header: &str) -> &str {
    header.strip_prefix(USER).filter(|name| is_ours(name)).unwrap_or(header)
}

/// Base64 with padding (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let known = digit <= chunk.len();
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if known { char::from(DIGITS[index]) } else { '=' });
        }
    }
    text
}

/// A header's value as a user property shows it.
pub(super) fn shown_value(value: &[u8]) -> Option<&str> {
    if value.contains(&0) { None } else { std::str::from_utf8(value).ok() }
}

/// A header's name as MQTT permits it, if it does.
pub(super) fn shown_name(name: &[u8]) -> Option<Cow<'_, str>> {
    shown_value(name).map(|name| Cow::Borrowed(unescape(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_of_escapes() {
        for (user_property, header) in [
            ("content-type", "mqtt.user.content-type"),
            ("subject", "mqtt.user.subject"),
            ("mqtt.qos", "mqtt.user.mqtt.qos"),
            ("mqtt.user.content-type", "mqtt.user.mqtt.user.content-type"),
            ("mqtt.user.colour", "mqtt.user.mqtt.user.colour"),
        ] {
            assert!(is_ours(user_property));
            assert_eq!(escape(user_property), header);
            assert_eq!(unescape(header), user_property);
        }
        for name in ["colour", "message-id", "priority", "amqp.type", "Content-Type", ""] {
            assert!(!is_ours(name), "{name}");
        }
        assert_eq!(unescape("mqtt.user.colour"), "mqtt.user.colour");
    }

    #[test]
    fn base64_as_in_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\u{ff}", "w78="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
