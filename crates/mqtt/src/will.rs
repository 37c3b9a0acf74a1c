//! Wills: what the broker publishes for a client that went without a good-bye (section 3.1.2.5).
//!
//! A will is kept as the 5.0 PUBLISH that the client would have sent, so that it goes the same way into the log. It lies in a row
//! from before CONNACK on, because our own crash ends the connection as well, and it is published once whatever dies when:
//!
//! ```text
//!   mo <tenant> 00 <client id> 00 <number u64>  ->  delay u32, s | will at rest            while the connection is open
//!   mw <tenant> 00 <client id>  ->  due i64, wall ms (0: on its way) | will at rest   while it waits for its delay
//!                                                        (both in the group by hash of the second key)
//!   mp <key of one of these>    ->  the second key       it was published                 (group of the message, in its entry)
//! ```
//!
//! At the start, rows of the first kind belong to connections that the crash ended: they are due, or begin to wait. A QoS 0 will has
//! no row of the third kind: if the broker dies in the same moment, it may be published twice.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use broker::access::{Action, Author, Grant, Request};
use broker::{Broker, Check, Place, Publisher, RowWrite, Rows, RowsOutcome};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{Error, ErrorKind};
use tokio::sync::oneshot;
use tracing::{info, warn};
use wire::mqtt::{
    Decoded, Decoder, Delivery, Expect, Packet, Peer, PropertiesBuf, Property, Publish, Qos, ReasonCode,
    Version, Will as WillPacket,
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
    /// Key of its row while the connection is open.
    row: Bytes,
}

/// The row of a will whose connection is not accepted yet: removed if it never is.
pub(crate) struct Kept {
    rows: Rows,
    client: Bytes,
    row: Option<Bytes>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(row) = self.row.take() {
            remove(&self.rows, &self.client, row);
        }
    }
}

impl Will {
    /// Takes the will out of CONNECT, at `wall_ms`.
    ///
    /// # Errors
    /// It cannot be said in a PUBLISH, or would be a message of more than `bytes_max`.
    pub(crate) fn of(will: &WillPacket<'_>, bytes_max: usize, wall_ms: i64) -> Result<Self, ReasonCode> {
        let too_large = ReasonCode::PacketTooLarge;
        let mut properties = PropertiesBuf::new();
        for property in will.properties.iter() {
            if !matches!(property, Property::WillDelayInterval(_)) {
                properties.push(property).map_err(|_| too_large)?;
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
        publish.encode(&mut packet, &Peer::new(Version::V5)).map_err(|_| too_large)?;
        let subject = subject_of(will.topic);
        let inbound =
            Inbound { publish: &publish, subject: &subject, qos: will.qos, publisher: None, rows: &[] };
        if inbound.with_message(|| wall_ms, |message| message.size()) > bytes_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        let delay = will.properties.will_delay_interval().unwrap_or(0);
        let (topic, qos, retain) = (will.topic.into(), will.qos, will.retain);
        Ok(Self { packet: packet.freeze(), topic, qos, retain, delay, row: Bytes::new() })
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
    fn at_rest(&self, author: &Author) -> Bytes {
        let author = author.encode();
        let mut out = BytesMut::with_capacity(5 + author.len() + self.packet.len());
        out.put_u8(self.qos as u8);
        out.put_u32(author.len() as u32);
        out.put_slice(&author);
        out.put_slice(&self.packet);
        out.freeze()
    }

    /// Puts it down for a connection that is about to be accepted; `expiry` is the session's, in seconds. Submitted when this
    /// returns; resolves when it is durable.
    pub(crate) fn keep<B: Broker>(
        &self,
        shared: &Shared<B>,
        whose: (&str, &Author),
        expiry: u32,
    ) -> impl Future<Output = Result<Kept, Error>> + use<B> {
        let (client, author) = whose;
        let (rows, client) = (shared.broker.rows(), row_key(shared, client));
        let mut key = BytesMut::from(&b"mo"[..]);
        key.put_slice(&client[2..]);
        key.put_u8(0);
        key.put_u64(shared.broker.random());
        let (key, delay) = (key.freeze(), self.delay.min(expiry));
        let value = [&delay.to_be_bytes()[..], &self.at_rest(author)].concat().into();
        let write = RowWrite::Put { key: key.clone(), value };
        let written = rows.submit(&Place::ByKey(client.clone()), Vec::new(), vec![write]);
        let kept = Kept { rows, client, row: Some(key) };
        async move { written.await.map(|_| kept) }
    }

    /// The connection is accepted.
    pub(crate) fn accept(&mut self, mut kept: Kept) {
        self.row = kept.row.take().unwrap_or_default();
    }

    /// It will not be published.
    pub(crate) fn forget<B: Broker>(&self, shared: &Shared<B>, client: &str) {
        remove(&shared.broker.rows(), &row_key(shared, client), self.row.clone());
    }

    /// For a session whose next owner decides.
    pub(crate) fn stored_inline<B: Broker>(&self, shared: &Shared<B>, whose: (&str, &Author)) -> StoredWill {
        let (client, author) = whose;
        self.forget(shared, client);
        StoredWill::Inline(self.at_rest(author))
    }

    /// Publishes it now.
    pub(crate) fn publish<B: Broker>(&self, shared: &Rc<Shared<B>>, client: &str) {
        publish_once(shared, (row_key(shared, client), self.row.clone()), &self.packet, self.qos);
    }

    /// Puts it into a row until it is due, and arms a timer. A claim of the session that follows finds the row.
    pub(crate) fn publish_later<B: Broker>(
        self,
        shared: &Rc<Shared<B>>,
        whose: (&str, &Author),
        seconds: u32,
    ) -> StoredWill {
        let (client, author) = whose;
        let due = shared.broker.wall_ms().saturating_add(i64::from(seconds) * 1000);
        let key = row_key(shared, client);
        let value = Bytes::from([&due.to_be_bytes()[..], &self.at_rest(author)].concat());
        let put = RowWrite::Put { key: key.clone(), value: value.clone() };
        let writes = vec![put, RowWrite::Delete { key: self.row }];
        let written = shared.broker.rows().submit(&Place::ByKey(key.clone()), Vec::new(), writes);
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
pub(crate) async fn settle<B: Broker>(
    shared: &Rc<Shared<B>>,
    client: &str,
    will: StoredWill,
    session_ends: bool,
) {
    let (key, value) = match will {
        StoredWill::Inline(will) => {
            if session_ends {
                publish_at_rest(shared, None, &will);
            }
            return;
        }
        StoredWill::InRow { key, value } => (key, value),
        // The session does not know of a will that a crash of ours made wait.
        StoredWill::None => {
            let key = row_key(shared, client);
            match shared.broker.rows().get(&Place::ByKey(key.clone()), key.clone()).await {
                Ok(Some(row)) => (key, row.value),
                Ok(None) => return,
                Err(error) => {
                    warn!(err = %error, "it could not be looked up whether a will waits");
                    return;
                }
            }
        }
    };
    if session_ends {
        publish_waiting(shared, (key, value)).await;
    } else if !is_on_its_way(&value) {
        take_row(shared, &key, &value, None).await;
    }
}

/// Takes up what the last start left: once per node, before connections are accepted. Wills of connections that a crash ended are
/// published or begin to wait; timers are armed for those that wait.
pub(crate) async fn recover<B: Broker>(shared: &Rc<Shared<B>>) -> Result<(), Error> {
    let rows = shared.broker.rows();
    for group in rows.groups() {
        for (key, client) in scan(shared, group, b"mp").await? {
            let delete = RowWrite::Delete { key: key.slice(2..) };
            rows.transact(&Place::ByKey(client), Vec::new(), vec![delete]).await?;
            rows.transact(&Place::Group(group), Vec::new(), vec![RowWrite::Delete { key }]).await?;
        }
    }
    for group in rows.groups() {
        let mut converted = Vec::new();
        for (key, mut value) in scan(shared, group, b"mo").await? {
            let Some(client) = client_of(&key) else { continue };
            let Ok(delay) = value.try_get_u32() else { continue };
            if delay == 0 {
                publish_at_rest(shared, Some((client, key)), &value);
                continue;
            }
            let due = shared.broker.wall_ms().saturating_add(i64::from(delay) * 1000);
            let waits = [&due.to_be_bytes()[..], &value].concat().into();
            let place = Place::ByKey(client.clone());
            let writes = vec![RowWrite::Put { key: client, value: waits }, RowWrite::Delete { key }];
            converted.push(rows.submit(&place, Vec::new(), writes));
        }
        for converted in converted {
            converted.await?;
        }
        for row in scan(shared, group, b"mw").await? {
            let task = Rc::clone(shared);
            shared.spawn(async move { wait(&task, row).await });
        }
    }
    Ok(())
}

/// All rows of a group that begin so.
async fn scan<B: Broker>(
    shared: &Shared<B>,
    group: model::GroupId,
    prefix: &'static [u8],
) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let (rows, mut from, mut found) = (shared.broker.rows(), Bytes::new(), Vec::new());
    loop {
        let page = rows.scan(&Place::Group(group), Bytes::from_static(prefix), from, SCAN_ROWS).await?;
        let is_last = page.len() < SCAN_ROWS;
        found.extend(page.into_iter().map(|row| (row.key, row.value)));
        match found.last() {
            Some((last, _)) if !is_last => from = [&last[..], &[0]].concat().into(),
            Some(_) | None => return Ok(found),
        }
    }
}

/// Sleeps until a row is due and publishes it, unless its client was back before.
async fn wait<B: Broker>(shared: &Rc<Shared<B>>, row: (Bytes, Bytes)) {
    let Ok(due) = (&row.1[..]).try_get_i64() else { return };
    // The timer does not hear of steps of the wall clock from here on.
    let left = u64::try_from(due.saturating_sub(shared.broker.wall_ms())).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(left)).await;
    if is_on_its_way(&row.1) {
        // A crash came between.
        publish_at_rest(shared, Some((row.0.clone(), row.0)), &row.1[8..]);
    } else {
        publish_waiting(shared, row).await;
    }
}

/// Publishes a will that waits, unless somebody else has it.
async fn publish_waiting<B: Broker>(shared: &Rc<Shared<B>>, row: (Bytes, Bytes)) {
    let (key, value) = row;
    if is_on_its_way(&value) || value.len() < 8 {
        return;
    }
    let on_its_way: Bytes = [&[0; 8][..], &value[8..]].concat().into();
    if take_row(shared, &key, &value, Some(on_its_way)).await {
        publish_at_rest(shared, Some((key.clone(), key)), &value[8..]);
    }
}

/// Somebody publishes it: it cannot be taken back any more.
fn is_on_its_way(value: &[u8]) -> bool {
    value.starts_with(&[0; 8])
}

/// Replaces or removes a row; true for exactly one of those who try. A row whose writing was begun before is waited for.
async fn take_row<B: Broker>(
    shared: &Rc<Shared<B>>,
    key: &Bytes,
    value: &Bytes,
    replacement: Option<Bytes>,
) -> bool {
    for _ in 0..TAKE_TRIES {
        match try_take_row(shared, key, value, replacement.clone()).await {
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
    replacement: Option<Bytes>,
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
    let key = key.clone();
    let write = match replacement {
        Some(value) => RowWrite::Put { key, value },
        None => RowWrite::Delete { key },
    };
    let outcome = rows.transact(&place, unchanged, vec![write]).await?;
    Ok(matches!(outcome, RowsOutcome::Done { .. }).then_some(true))
}

/// Publishes the will of a client that is gone, if its author may still do that. `row`: the client's key and that of the row.
fn publish_at_rest<B: Broker>(shared: &Rc<Shared<B>>, row: Option<(Bytes, Bytes)>, will: &[u8]) {
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
        if let Some((client, key)) = row {
            remove(&shared.broker.rows(), &client, key);
        }
        return;
    }
    match row {
        Some(row) => publish_once(shared, row, packet, qos),
        None => {
            let mut publisher = shared.broker.publisher(&shared.tenant, Rc::new(Nobody));
            // Told by a line of the log.
            let _ = self::publish(shared, &mut publisher, packet, (qos, &[]));
        }
    }
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

/// Pushes the message and removes the row when it is stored; a note in the message's entry says meanwhile that it is.
fn publish_once<B: Broker>(shared: &Rc<Shared<B>>, row: (Bytes, Bytes), packet: &[u8], qos: Qos) {
    let (client, key) = row;
    let note = Bytes::from([b"mp", &key[..]].concat());
    let notes = [RowWrite::Put { key: note.clone(), value: client.clone() }];
    let notes = if qos == Qos::AtMostOnce { &[] } else { &notes[..] };
    let (answer, stored) = oneshot::channel();
    let sink = Rc::new(Once(RefCell::new(Some(answer))));
    let mut publisher = shared.broker.publisher(&shared.tenant, sink);
    let pushed = publish(shared, &mut publisher, packet, (qos, notes));
    let rows = shared.broker.rows();
    shared.spawn(async move {
        if pushed == Ok(true) && stored.await != Ok(Ok(())) {
            warn!("a will could not be stored; it is tried again at the next start");
            return;
        }
        let delete = vec![RowWrite::Delete { key }];
        let removed = rows.transact(&Place::ByKey(client), Vec::new(), delete).await;
        if removed.is_err() || pushed != Ok(true) {
            return;
        }
        let groups = publisher.last_group().map_or_else(|| rows.groups(), |group| vec![group]);
        for group in groups {
            // One that is left is removed at the next start.
            let delete = vec![RowWrite::Delete { key: note.clone() }];
            let _ = rows.transact(&Place::Group(group), Vec::new(), delete).await;
        }
    });
}

/// Hears what became of one message.
struct Once(RefCell<Option<oneshot::Sender<Result<(), ErrorKind>>>>);

impl broker::Sink for Once {
    fn tell(&self, event: broker::Event) {
        if let broker::Event::Published(published) = event
            && let Some(answer) = self.0.borrow_mut().take_if(|_| !published.tickets.is_empty())
        {
            // Nobody listens any more at the end.
            let _ = answer.send(published.result);
        }
    }
}

/// Whether its fate will be told.
fn publish<B: Broker>(
    shared: &Shared<B>,
    publisher: &mut Publisher,
    packet: &[u8],
    how: (Qos, &[RowWrite]),
) -> Result<bool, ErrorKind> {
    let Some(will) = decode(packet) else { return Ok(false) };
    let subject = subject_of(will.topic);
    let (qos, rows) = how;
    let inbound = Inbound { publish: &will, subject: &subject, qos, publisher: None, rows };
    let pushed = inbound.with_message(|| shared.broker.wall_ms(), |message| publisher.push(message));
    pushed.map(|ticket| ticket.is_some()).inspect_err(|kind| warn!(err = %kind, "a will was refused"))
}

/// Removes the row of a will that is not to be published.
fn remove(rows: &Rows, client: &Bytes, row: Bytes) {
    let delete = vec![RowWrite::Delete { key: row }];
    let removed = rows.submit(&Place::ByKey(client.clone()), Vec::new(), delete);
    tokio::task::spawn_local(async move {
        if let Err(error) = removed.await {
            warn!(err = %error, "a will could not be forgotten");
        }
    });
}

/// The key of a client's waiting will, from that of one whose connection is open.
fn client_of(open: &[u8]) -> Option<Bytes> {
    let client = open.strip_prefix(b"mo")?;
    let end = client.len().checked_sub(9)?;
    Some([b"mw", &client[..end]].concat().into())
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
        let will = Will::of(&packet, usize::MAX, 0).unwrap();
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
        assert_eq!(Will::of(&plain, usize::MAX, 0).unwrap().delay, 0);
    }
}
