//! Wills: what the broker publishes for a client that went without a good-bye (section 3.1.2.5).
//!
//! A will is kept as the 5.0 PUBLISH that the client would have sent, so that it goes the same way into the log. One that has to
//! wait lies in a row until it is due, so that it survives a restart:
//!
//! ```text
//!   mw <tenant> 00 <client id>  ->  due i64, wall ms | qos u8 | PUBLISH          (group by hash of the key)
//! ```

use std::rc::Rc;
use std::time::Duration;

use broker::{Broker, Check, Place, Publisher, RowWrite, RowsOutcome};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::Error;
use tracing::warn;
use wire::mqtt::{
    Decoded, Decoder, Delivery, Expect, Packet, Peer, PropertiesBuf, Property, Publish, Qos, Version,
    Will as WillPacket,
};

use crate::convert::Inbound;
use crate::inbox::Nobody;
use crate::session::Shared;
use crate::state::{StoredWill, qos_of};
use crate::subscription::subject_of;

/// Rows that one scan asks for.
const SCAN_ROWS: usize = 256;
/// Bound: how often a row is looked at that others change.
const TAKE_TRIES: usize = 4;

/// The will of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    /// As a 5.0 PUBLISH of QoS 0.
    packet: Bytes,
    qos: Qos,
    /// Seconds.
    pub(crate) delay: u32,
}

impl Will {
    /// Takes the will out of CONNECT. None if it cannot be said in a PUBLISH.
    pub(crate) fn of(will: &WillPacket<'_>) -> Option<Self> {
        let mut properties = PropertiesBuf::new();
        for property in will.properties.iter() {
            if !matches!(property, Property::WillDelayInterval(_)) {
                properties.push(property).ok()?;
            }
        }
        let publish = Publish {
            delivery: Delivery::AtMostOnce,
            retain: will.retain,
            topic: will.topic,
            properties: properties.view(),
            payload: will.payload,
        };
        let mut packet = BytesMut::new();
        publish.encode(&mut packet, &Peer::new(Version::V5)).ok()?;
        let delay = will.properties.will_delay_interval().unwrap_or(0);
        Some(Self { packet: packet.freeze(), qos: will.qos, delay })
    }

    /// For a session whose next owner decides.
    pub(crate) fn stored_inline(self) -> StoredWill {
        StoredWill::Inline { packet: self.packet, qos: self.qos }
    }

    /// Publishes it now.
    pub(crate) fn publish<B: Broker>(&self, shared: &Shared<B>, publisher: &mut Publisher) {
        publish(shared, publisher, &self.packet, self.qos);
    }

    /// Puts it into a row until it is due, and arms a timer. A claim of the session that follows finds the row.
    pub(crate) fn publish_later<B: Broker>(
        self,
        shared: &Rc<Shared<B>>,
        client: &str,
        seconds: u32,
    ) -> StoredWill {
        let due = shared.broker.wall_ms().saturating_add(i64::from(seconds) * 1000);
        let key = row_key(shared, client);
        let mut value = BytesMut::with_capacity(9 + self.packet.len());
        value.put_i64(due);
        value.put_u8(self.qos as u8);
        value.put_slice(&self.packet);
        let value = value.freeze();
        let write = RowWrite::Put { key: key.clone(), value: value.clone() };
        let written = shared.broker.rows().submit(&Place::ByKey(key.clone()), Vec::new(), vec![write]);
        let (task, row) = (Rc::clone(shared), (key.clone(), value.clone()));
        shared.spawn(async move {
            if let Err(error) = written.await {
                warn!(err = %error, "a will could not be stored");
            }
            wait(&task, row).await;
        });
        StoredWill::InRow { key, value }
    }
}

/// What becomes of a waiting will when its client is back. `session_ends`: the client wants a new session.
pub(crate) async fn settle<B: Broker>(shared: &Rc<Shared<B>>, will: StoredWill, session_ends: bool) {
    match will {
        StoredWill::None => {}
        StoredWill::Inline { packet, qos } => {
            if session_ends {
                publish_for_nobody(shared, &packet, qos);
            }
        }
        StoredWill::InRow { key, value } => {
            let is_mine = take_row(shared, &key, &value).await;
            if is_mine && session_ends {
                publish_row(shared, &value);
            }
        }
    }
}

/// Arms timers for the wills that wait in rows: once per node, before connections are accepted.
pub(crate) async fn recover<B: Broker>(shared: &Rc<Shared<B>>) -> Result<(), Error> {
    let rows = shared.broker.rows();
    for group in rows.groups() {
        let mut from = Bytes::new();
        loop {
            let prefix = Bytes::from_static(b"mw");
            let page = rows.scan(&Place::Group(group), prefix, from, SCAN_ROWS).await?;
            let is_last = page.len() < SCAN_ROWS;
            let Some(last) = page.last() else { break };
            from = [&last.key[..], &[0]].concat().into();
            for row in page {
                let task = Rc::clone(shared);
                shared.spawn(async move { wait(&task, (row.key, row.value)).await });
            }
            if is_last {
                break;
            }
        }
    }
    Ok(())
}

/// Sleeps until a row is due and publishes it, unless its client was back before.
async fn wait<B: Broker>(shared: &Rc<Shared<B>>, row: (Bytes, Bytes)) {
    let (key, value) = row;
    let Ok(due) = (&value[..]).try_get_i64() else { return };
    let left = u64::try_from(due.saturating_sub(shared.broker.wall_ms())).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(left)).await;
    if take_row(shared, &key, &value).await {
        publish_row(shared, &value);
    }
}

/// Removes a row; true for exactly one of those who try. A row whose writing was begun before is waited for.
async fn take_row<B: Broker>(shared: &Rc<Shared<B>>, key: &Bytes, value: &Bytes) -> bool {
    for _ in 0..TAKE_TRIES {
        match try_take_row(shared, key, value).await {
            Ok(Some(taken)) => return taken,
            Ok(None) => {}
            Err(error) => {
                warn!(err = %error, "a will could not be taken from its row");
                return false;
            }
        }
    }
    false
}

/// None if the row changed meanwhile.
async fn try_take_row<B: Broker>(
    shared: &Rc<Shared<B>>,
    key: &Bytes,
    value: &Bytes,
) -> Result<Option<bool>, Error> {
    let (rows, place) = (shared.broker.rows(), Place::ByKey(key.clone()));
    let Some(row) = rows.get(&place, key.clone()).await? else {
        // Ordered behind a write that is under way.
        let absent = vec![Check::Absent { key: key.clone() }];
        let outcome = rows.transact(&place, absent, Vec::new()).await?;
        return Ok(matches!(outcome, RowsOutcome::Done { .. }).then_some(false));
    };
    if row.value != *value {
        return Ok(Some(false));
    }
    let unchanged = vec![Check::Version { key: key.clone(), version: row.version }];
    let writes = vec![RowWrite::Delete { key: key.clone() }];
    let outcome = rows.transact(&place, unchanged, writes).await?;
    Ok(matches!(outcome, RowsOutcome::Done { .. }).then_some(true))
}

fn publish_row<B: Broker>(shared: &Rc<Shared<B>>, value: &Bytes) {
    if let Some(qos) = value.get(8).and_then(|qos| qos_of(*qos)) {
        publish_for_nobody(shared, &value[9..], qos);
    }
}

fn publish_for_nobody<B: Broker>(shared: &Rc<Shared<B>>, packet: &[u8], qos: Qos) {
    let mut publisher = shared.broker.publisher(&shared.tenant, Rc::new(Nobody));
    publish(shared, &mut publisher, packet, qos);
}

fn publish<B: Broker>(shared: &Shared<B>, publisher: &mut Publisher, packet: &[u8], qos: Qos) {
    let decoder = Decoder { expect: Expect::FromClient(Version::V5), packet_size_max: u32::MAX };
    let Decoded::Packet(Packet::Publish(will), _) = decoder.decode(packet) else { return };
    let subject = subject_of(will.topic);
    let inbound = Inbound { publish: &will, subject: &subject, qos, publisher: None, rows: &[] };
    let pushed = inbound.with_message(|| shared.broker.wall_ms(), |message| publisher.push(message));
    if let Err(kind) = pushed {
        warn!(err = %kind, "a will was refused");
    }
}

fn row_key<B: Broker>(shared: &Shared<B>, client: &str) -> Bytes {
    [b"mw", shared.tenant.as_str().as_bytes(), &[0], client.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::mqtt::Properties;

    #[test]
    fn mqtt_3_1_3_9_a_will_is_a_publish_without_its_delay() {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::WillDelayInterval(5)).unwrap();
        properties.push(Property::ContentType("x")).unwrap();
        properties.push(Property::UserProperty("a", "b")).unwrap();
        let packet = WillPacket {
            qos: Qos::ExactlyOnce,
            retain: true,
            properties: properties.view(),
            topic: "t",
            payload: b"gone",
        };
        let will = Will::of(&packet).unwrap();
        assert_eq!((will.delay, will.qos), (5, Qos::ExactlyOnce));
        let decoder = Decoder { expect: Expect::FromClient(Version::V5), packet_size_max: u32::MAX };
        let Decoded::Packet(Packet::Publish(publish), _) = decoder.decode(&will.packet) else {
            unreachable!()
        };
        assert!(publish.retain);
        assert_eq!((publish.topic, publish.payload), ("t", &b"gone"[..]));
        let names: Vec<_> = publish.properties.iter().collect();
        assert_eq!(names, [Property::ContentType("x"), Property::UserProperty("a", "b")]);
        let plain = WillPacket { properties: Properties::EMPTY, ..packet };
        assert_eq!(Will::of(&plain).unwrap().delay, 0);
    }
}
