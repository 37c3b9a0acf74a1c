//! The values under `$SYS`, by the names that Mosquitto and EMQX have for them. Only what is known is said.

use std::sync::atomic::Ordering;
use std::time::Duration;

use broker::routing::Filter;
use broker::{Broker, Delivery, Guarantee, Message, Retain};
use model::TenantId;

use super::Observatory;
use super::load::{MINUTES, NAMES};
use crate::convert::RETAINED_STATE;
use crate::metrics::{PACKETS, Totals};

/// The level below which only the broker publishes.
pub(crate) const SYS: &str = "$SYS";
/// Packet types whose received and sent ones have names of their own.
const EXCHANGED: [&str; 7] = ["connect", "puback", "pubrec", "pubrel", "pubcomp", "subscribe", "unsubscribe"];
const ANSWERS: [&str; 7] = ["connack", "puback", "pubrec", "pubrel", "pubcomp", "suback", "unsuback"];

/// Whether a topic, or a filter, lies there.
#[inline]
pub(crate) fn is_below_sys(topic: &str) -> bool {
    topic.strip_prefix(SYS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Names and values.
type Values = Vec<(String, String)>;

impl Observatory {
    /// Tells whoever subscribes to them the values as they are now.
    pub(super) fn announce_values<B: Broker>(&self, broker: &B, tenant: &TenantId) {
        for (topic, value) in self.values(broker) {
            // The names are ours and valid.
            let _ = broker.announce(tenant, &message(&topic, &value));
        }
    }

    /// The values that a new subscription gets as retained messages.
    pub(crate) fn retained<B: Broker>(
        &self,
        broker: &B,
        tenant: &TenantId,
        filter: &Filter,
    ) -> Vec<Delivery> {
        let wanted = self.values(broker).into_iter().filter(|(topic, _)| filter.matches(topic));
        let now = broker.wall_ms();
        wanted
            .filter_map(|(topic, value)| Delivery::unstored(tenant, &message(&topic, &value), now).ok())
            .collect()
    }

    fn values<B: Broker>(&self, broker: &B) -> Values {
        let totals = self.totals();
        let mut values = Values::new();
        self.as_mosquitto(&totals, &mut values);
        self.as_emqx(&totals, (broker.node_id().0, broker.wall_ms()), &mut values);
        values
    }

    fn uptime(&self) -> Duration {
        self.inner.since.elapsed()
    }

    fn as_mosquitto(&self, totals: &Totals, values: &mut Values) {
        let mut put = |name: &str, value: String| values.push((["$SYS/broker/", name].concat(), value));
        put("version", format!("robustmq version {}", env!("CARGO_PKG_VERSION")));
        put("uptime", format!("{} seconds", self.uptime().as_secs()));
        let packets_in: u64 = totals.packets_in.iter().sum();
        let packets_out: u64 = totals.sent().iter().sum();
        for (name, value) in [
            ("clients/connected", totals.connections),
            ("clients/active", totals.connections),
            ("clients/maximum", self.inner.connected_max.load(Ordering::Relaxed)),
            ("messages/received", packets_in),
            ("messages/sent", packets_out),
            ("publish/messages/received", totals.published_in()),
            ("publish/messages/sent", totals.published_out()),
            ("publish/messages/dropped", totals.messages_dropped()),
            ("publish/bytes/received", totals.publish_bytes_in),
            ("publish/bytes/sent", totals.publish_bytes_out),
            ("bytes/received", totals.bytes_in),
            ("bytes/sent", totals.bytes_out),
            ("subscriptions/count", totals.subscriptions),
        ] {
            put(name, value.to_string());
        }
        let loads = self.inner.loads.lock().update(totals, self.uptime());
        for (name, averages) in NAMES.into_iter().zip(loads) {
            for (minutes, average) in MINUTES.into_iter().zip(averages) {
                put(&format!("load/{name}/{minutes}min"), format!("{average:.2}"));
            }
        }
    }

    fn as_emqx(&self, totals: &Totals, (node, now_ms): (u64, i64), values: &mut Values) {
        values.push(("$SYS/brokers".to_owned(), node.to_string()));
        let mut put = |name: &str, value: String| values.push((format!("$SYS/brokers/{node}/{name}"), value));
        put("version", env!("CARGO_PKG_VERSION").to_owned());
        put("uptime", self.uptime().as_millis().to_string());
        put("datetime", rfc3339(now_ms));
        put("sysdescr", "RobustMQ".to_owned());
        let maximum = self.inner.connected_max.load(Ordering::Relaxed);
        for (name, value) in [
            ("stats/connections/count", totals.connections),
            ("stats/connections/max", maximum),
            ("stats/live_connections/count", totals.connections),
            ("stats/live_connections/max", maximum),
            ("stats/subscriptions/count", totals.subscriptions),
            ("metrics/bytes/received", totals.bytes_in),
            ("metrics/bytes/sent", totals.bytes_out),
            ("metrics/packets/received", totals.packets_in.iter().sum()),
            ("metrics/packets/sent", totals.sent().iter().sum()),
            ("metrics/packets/publish/received", totals.published_in()),
            ("metrics/packets/publish/sent", totals.published_out()),
            ("metrics/packets/disconnect/received", of_type(totals.packets_in, "disconnect")),
            ("metrics/packets/disconnect/sent", of_type(totals.sent(), "disconnect")),
            ("metrics/packets/pingreq/received", of_type(totals.packets_in, "pingreq")),
            ("metrics/packets/pingresp/sent", of_type(totals.sent(), "pingresp")),
            ("metrics/messages/received", totals.published_in()),
            ("metrics/messages/sent", totals.published_out()),
            ("metrics/messages/dropped", totals.messages_dropped()),
            ("metrics/client/connected", totals.connects_accepted),
            ("metrics/client/disconnected", totals.disconnects.iter().sum()),
        ] {
            put(name, value.to_string());
        }
        for (asked, answered) in EXCHANGED.into_iter().zip(ANSWERS) {
            put(&format!("metrics/packets/{asked}/received"), of_type(totals.packets_in, asked).to_string());
            put(&format!("metrics/packets/{answered}/sent"), of_type(totals.sent(), answered).to_string());
        }
        for qos in 0..3 {
            put(&format!("metrics/messages/qos{qos}/received"), totals.publishes_in[qos].to_string());
            put(&format!("metrics/messages/qos{qos}/sent"), totals.publishes_out[qos].to_string());
        }
    }
}

fn of_type(packets: [u64; 16], name: &str) -> u64 {
    PACKETS.into_iter().zip(packets).find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
}

fn message<'a>(topic: &'a str, value: &'a str) -> Message<'a> {
    Message {
        subject: topic,
        key: None,
        value: Some(value.as_bytes()),
        headers: RETAINED_STATE,
        guarantee: Guarantee::Live,
        retain: Retain::Keep,
        rows: &[],
    }
}

/// Wall-clock ms as RFC 3339 in UTC.
fn rfc3339(ms: i64) -> String {
    const DAY_SECONDS: i64 = 86_400;
    let (seconds, ms) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    let (days, second) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    // Years begin in March, so that the leap day is the last one; 719,468 days lead from year 0 to 1970.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let year = year + era * 400;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_sys_is_known() {
        for topic in ["$SYS", "$SYS/", "$SYS/broker/uptime", "$SYS/#"] {
            assert!(is_below_sys(topic), "{topic}");
        }
        for topic in ["", "SYS", "$SYSTEM", "$sys/a", "a/$SYS", "$delayed/1/a"] {
            assert!(!is_below_sys(topic), "{topic}");
        }
    }

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_709_210_096_007, "2024-02-29T12:34:56.007Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn every_name_is_one_of_a_packet() {
        for name in EXCHANGED.into_iter().chain(ANSWERS) {
            assert!(PACKETS.contains(&name), "{name}");
        }
    }
}
