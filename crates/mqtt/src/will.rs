//! Wills: what the broker publishes for a client that went without a good-bye (section 3.1.2.5).
//!
//! A will is kept as the 5.0 PUBLISH that the client would have sent, so that it goes the same way into the log. One that has to
//! wait lies in a row until it is due, so that it survives a restart:
//!
//! ```text
//!   mw <tenant> 00 <client id>  ->  due i64, wall ms | will at rest          (group by hash of the key)
//! ```

use std::rc::Rc;
use std::time::Duration;

use broker::access::{Action, Author, Grant, Request};
use broker::{Broker, Check, Place, Publisher, RowWrite, RowsOutcome};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::Error;
use tracing::{info, warn};
use wire::mqtt::{
    Decoded, Decoder, Delivery, Expect, Packet, Peer, PropertiesBuf, Property, Publish, Qos, Version,
    Will as WillPacket,
};

use crate::convert::Inbound;
use crate::inbox::Nobody;
use crate::metrics::DropReason;
use crate::rights::Rights;
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
    topic: Box<str>,
    qos: Qos,
    retain: bool,
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
        let (topic, qos, retain) = (will.topic.into(), will.qos, will.retain);
        Some(Self { packet: packet.freeze(), topic, qos, retain, delay })
    }

    /// Whether a client that is about to be let in may leave it.
    pub(crate) fn may_be_left(&self, grant: &Grant) -> bool {
        let subject = subject_of(&self.topic);
        let request = Request::new(Action::Publish, &subject).qos(self.qos as u8).retain(self.retain);
        grant.decide(&request).is_allowed()
    }

    /// Whether its client may publish it now.
    pub(crate) fn is_allowed(&self, rights: &Rights) -> bool {
        rights.may_publish(&subject_of(&self.topic), self.qos, self.retain)
    }

    /// As it is kept, with who left it: `qos u8 | length of author u32 | author | PUBLISH`.
    pub(crate) fn at_rest(&self, author: &Author) -> Bytes {
        let author = author.encode();
        let mut out = BytesMut::with_capacity(5 + author.len() + self.packet.len());
        out.put_u8(self.qos as u8);
        out.put_u32(author.len() as u32);
        out.put_slice(&author);
        out.put_slice(&self.packet);
        out.freeze()
    }

    /// Publishes it now.
    pub(crate) fn publish<B: Broker>(&self, shared: &Shared<B>, publisher: &mut Publisher) {
        publish(shared, publisher, &self.packet, self.qos);
    }

    /// Puts it into a row until it is due, and arms a timer. A claim of the session that follows finds the row.
    pub(crate) fn publish_later<B: Broker>(
        &self,
        shared: &Rc<Shared<B>>,
        whose: (&str, &Author),
        seconds: u32,
    ) -> StoredWill {
        let (client, author) = whose;
        let due = shared.broker.wall_ms().saturating_add(i64::from(seconds) * 1000);
        let key = row_key(shared, client);
        let value = Bytes::from([&due.to_be_bytes()[..], &self.at_rest(author)].concat());
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
        StoredWill::Inline(will) => {
            if session_ends {
                publish_at_rest(shared, &will);
            }
        }
        StoredWill::InRow { key, value } => {
            let is_mine = take_row(shared, &key, &value).await;
            if is_mine && session_ends {
                publish_at_rest(shared, &value[8..]);
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
        publish_at_rest(shared, &value[8..]);
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

/// Publishes the will of a client that is gone, if its author may still do that.
fn publish_at_rest<B: Broker>(shared: &Rc<Shared<B>>, will: &[u8]) {
    let Some((qos, author, packet)) = take_apart(will) else {
        warn!("a will that was kept cannot be read");
        return;
    };
    let Some(publish) = decode(packet) else { return };
    let subject = subject_of(publish.topic);
    let request = Request::new(Action::Publish, &subject).qos(qos as u8).retain(publish.retain);
    if !shared.broker.access().may_still(&shared.tenant, &author, &request) {
        info!(subject = &*subject, "a will may not be published any more");
        shared.metrics.drop_one(DropReason::Denied);
        return;
    }
    let mut publisher = shared.broker.publisher(&shared.tenant, Rc::new(Nobody));
    self::publish(shared, &mut publisher, packet, qos);
}

fn take_apart(mut will: &[u8]) -> Option<(Qos, Author, &[u8])> {
    let qos = qos_of(will.try_get_u8().ok()?)?;
    let length = usize::try_from(will.try_get_u32().ok()?).ok()?;
    let (author, packet) = will.split_at_checked(length)?;
    Some((qos, Author::decode(author)?, packet))
}

fn decode(packet: &[u8]) -> Option<Publish<'_>> {
    let decoder = Decoder { expect: Expect::FromClient(Version::V5), packet_size_max: u32::MAX };
    match decoder.decode(packet) {
        Decoded::Packet(Packet::Publish(will), _) => Some(will),
        _ => None,
    }
}

fn publish<B: Broker>(shared: &Shared<B>, publisher: &mut Publisher, packet: &[u8], qos: Qos) {
    let Some(will) = decode(packet) else { return };
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
