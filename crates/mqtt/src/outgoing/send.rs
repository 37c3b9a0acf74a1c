//! One record, or a whole batch, into the output. Hot path.

use std::num::NonZeroU16;
use std::sync::Arc;

use broker::{Batch, Broker};
use bytes::{Bytes, BytesMut};
use model::batch::RecordRef;
use net::Output;
use wire::mqtt::{self, EncodeError, Peer, PropertiesBuf, Property, Publish, Qos, Version};

use super::{Held, Link, Outgoing, Pending};
use crate::convert::{Expired, Reading, identify, topic_of};
use crate::metrics::DropReason;
use crate::saver::Waiting;
use crate::state::Origin;
use crate::subscription::Grant;
use crate::window::{Entry, Step};

/// A payload above this is shared with the batch instead of copied.
const SHARE_MIN: usize = 4 * 1024;
/// Output above which QoS 0 is dropped.
const AT_MOST_ONCE_BYTES_MAX: usize = 1 << 20;

/// What became of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Sent, or never to be sent.
    Done,
    /// There is no room in the window or in the output.
    Blocked,
}

/// A record with what is needed to show it.
pub(super) struct Source<'a> {
    pub(super) record: RecordRef<'a>,
    pub(super) subject: &'a str,
    /// Its subject stands in a header, too.
    pub(super) captured: bool,
}

impl<'a> Source<'a> {
    pub(super) fn of(batch: &'a Batch, index: usize) -> Option<Self> {
        let record = batch.records().ok()?.get(index)?;
        let subject = batch.subject(&record);
        Some(Self { subject, captured: !batch.topic.config.captures.is_empty(), record })
    }

    /// Reads the headers; for a 5.0 client also into `properties`.
    pub(super) fn read(
        &self,
        peer: &Peer,
        wall_ms: impl Fn() -> i64,
        properties: &mut PropertiesBuf,
    ) -> Result<Reading<'a>, Expired> {
        let properties = (peer.version == Version::V5).then_some(properties);
        Reading::of(&self.record, self.captured, wall_ms, properties)
    }

    /// Appends the PUBLISH, and counts it. What is said of the record stands in `properties`; a topic alias comes to it.
    #[inline]
    pub(super) fn encode<B: Broker>(
        &self,
        how: (mqtt::Delivery, bool),
        properties: &mut PropertiesBuf,
        link: &mut Link<'_, B>,
    ) -> Result<(), EncodeError> {
        let before = link.output.len();
        self.encode_uncounted(how, properties, link)?;
        let (qos, bytes) = (how.0.qos(), link.output.len() - before);
        link.note_sent(qos, 1, bytes);
        let payload = || self.record.value().unwrap_or_default().len();
        link.shared.observatory.topics().each(self.subject, |metric| metric.note_out(qos, 1, payload()));
        Ok(())
    }

    #[inline]
    fn encode_uncounted<B: Broker>(
        &self,
        how: (mqtt::Delivery, bool),
        properties: &mut PropertiesBuf,
        link: &mut Link<'_, B>,
    ) -> Result<(), EncodeError> {
        let topic = topic_of(self.subject).map_err(|_| EncodeError::TooLong)?;
        let Some(aliases) = &mut link.aliases else {
            return self.write(&topic, how, properties, (link.output, &link.peer));
        };
        if let Some(choice) = aliases.choose(&topic) {
            let mark = properties.mark();
            properties.push(Property::TopicAlias(choice.alias))?;
            let said = if choice.is_known { "" } else { &topic };
            match self.write(said, how, properties, (link.output, &link.peer)) {
                // The topic may be shorter than its alias.
                Err(EncodeError::OverPeerMaximum) => properties.rewind(mark),
                Ok(()) => {
                    aliases.note_sent(choice, &topic);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.write(&topic, how, properties, (link.output, &link.peer))
    }

    #[inline]
    fn write(
        &self,
        topic: &str,
        how: (mqtt::Delivery, bool),
        properties: &PropertiesBuf,
        to: (&mut Output, &Peer),
    ) -> Result<(), EncodeError> {
        let ((delivery, retain), (output, peer)) = (how, to);
        let payload = self.record.value().unwrap_or_default();
        let publish = Publish { delivery, retain, topic, properties: properties.view(), payload };
        if payload.len() <= SHARE_MIN {
            return publish.encode(output.buffer(), peer);
        }
        publish.encode_head(output.buffer(), peer)?;
        output.push(self.record.value_bytes().unwrap_or_default());
        Ok(())
    }
}

impl Outgoing {
    /// Sends one record of a batch to the subscriptions with `tags`.
    #[inline]
    pub(super) fn send<B: Broker>(
        &mut self,
        batch: &Arc<Batch>,
        index: usize,
        tags: &[u32],
        link: &mut Link<'_, B>,
    ) -> Sent {
        let Some(source) = Source::of(batch, index) else { return Sent::Done };
        if !self.may_receive(source.subject, Grant::new(tags).qos(), link) {
            return Sent::Done;
        }
        let shared = link.shared;
        let mut properties = shared.properties.borrow_mut();
        let Ok(reading) = source.read(&link.peer, || shared.broker.wall_ms(), &mut properties) else {
            link.note_dropped(DropReason::Expired, 1, source.subject);
            return Sent::Done;
        };
        let mut grant = Grant::new(tags);
        if reading.publisher == Some(link.client.as_bytes()) {
            let Some(others) = grant.of_own() else { return Sent::Done };
            grant = others;
        }
        if let Some(retained) = &mut self.retained
            && reading.retain
        {
            retained.supersede(source.subject);
        }
        let published = if batch.position.is_none() { Qos::AtMostOnce } else { reading.qos };
        let qos = published.min(grant.qos());
        let retain = reading.retain && grant.retain_as_published();
        identify(&mut properties, grant.identifiers());
        if reading.left_out != 0 {
            link.note_dropped(DropReason::Header, reading.left_out, source.subject);
        }
        if qos == Qos::AtMostOnce {
            link.note_latency(source.subject, || source.record.timestamp());
            send_at_most_once(&source, retain, &mut properties, link);
            return Sent::Done;
        }
        let origin = Origin {
            topic: batch.topic.name.clone(),
            shard: Some(batch.shard),
            base: batch.base,
            index: index as u32,
            retain,
            identifier: grant.identifiers().next().map_or(0, |identifier| identifier.get()),
        };
        let held = || Box::new(Held { batch: Arc::clone(batch), tags: tags.into() });
        let sent = self.send_acknowledged((&source, &mut properties), qos, (origin, held), link);
        if sent == Sent::Done {
            link.note_latency(source.subject, || source.record.timestamp());
        }
        sent
    }

    /// Sends with a packet identifier, if there is room. A QoS 2 PUBLISH of a session that outlives its connection
    /// waits until its identifier is durable.
    pub(super) fn send_acknowledged<B: Broker>(
        &mut self,
        what: (&Source<'_>, &mut PropertiesBuf),
        qos: Qos,
        whence: (Origin, impl FnOnce() -> Box<Held>),
        link: &mut Link<'_, B>,
    ) -> Sent {
        let (source, properties) = what;
        let (origin, held) = whence;
        if self.window.len() >= link.limit || link.output.is_full() {
            return Sent::Blocked;
        }
        let Some(id) = self.window.free_id() else { return Sent::Blocked };
        let exactly_once = qos == Qos::ExactlyOnce;
        let retain = origin.retain;
        let mut entry = Entry {
            id,
            exactly_once,
            step: Step::Sent,
            message: Pending { is_unsent: false, origin, held: None, of_share: None },
        };
        if exactly_once && link.persistent {
            entry.step = Step::Queued;
            entry.message.held = Some(held());
            link.saver.wait(Waiting::Publish(id));
            self.window.add(entry);
            return Sent::Done;
        }
        let how = (delivery_of(exactly_once, id, false), retain);
        match source.encode(how, properties, link) {
            Ok(()) => self.window.add(entry),
            // As if it had been delivered [MQTT-3.1.2-25].
            Err(_) => link.note_dropped(DropReason::TooLarge, 1, source.subject),
        }
        Sent::Done
    }

    /// The identifier of a QoS 2 PUBLISH is durable: sends it.
    pub(crate) fn send_held<B: Broker>(&mut self, id: NonZeroU16, link: &mut Link<'_, B>) {
        let Some(pending) = self.window.message_mut(id) else { return };
        let Some(held) = pending.held.take() else { return };
        let (index, retain) = (pending.origin.index as usize, pending.origin.retain);
        let topic = pending.origin.topic.clone();
        let shared = link.shared;
        let mut properties = shared.properties.borrow_mut();
        let sent = Source::of(&held.batch, index).is_some_and(|source| {
            let Ok(reading) = source.read(&link.peer, || shared.broker.wall_ms(), &mut properties) else {
                return false;
            };
            let grant = Grant::new(&held.tags);
            let is_own = reading.publisher == Some(link.client.as_bytes());
            let grant = if is_own { grant.of_own().unwrap_or(grant) } else { grant };
            identify(&mut properties, grant.identifiers());
            let how = (delivery_of(true, id, false), retain);
            source.encode(how, &mut properties, link).is_ok()
        });
        drop(properties);
        if sent {
            // The session owns it from here on [MQTT-4.8.2-4].
            if let Some(of_share) = self.window.message_mut(id).and_then(|pending| pending.of_share.take()) {
                of_share.settle();
            }
            self.window.set_step(id, Step::Sent);
        } else {
            // Expired meanwhile, or too large for the client: as if it had been delivered.
            link.note_dropped(DropReason::TooLarge, 1, topic.as_str());
            self.settle(id, link);
        }
    }
}

/// Whether QoS 0 is dropped. More is let through than of what can be read from the log later: bursts are no sign of a slow
/// client.
fn is_too_slow(output: &mut Output) -> bool {
    output.is_full() && output.len() > AT_MOST_ONCE_BYTES_MAX
}

pub(super) fn send_at_most_once<B: Broker>(
    source: &Source<'_>,
    retain: bool,
    properties: &mut PropertiesBuf,
    link: &mut Link<'_, B>,
) {
    if is_too_slow(link.output) {
        link.note_dropped(DropReason::Slow, 1, source.subject);
        return;
    }
    let how = (mqtt::Delivery::AtMostOnce, retain);
    if source.encode(how, properties, link).is_err() {
        link.note_dropped(DropReason::TooLarge, 1, source.subject);
    }
}

pub(super) fn delivery_of(exactly_once: bool, id: NonZeroU16, dup: bool) -> mqtt::Delivery {
    match exactly_once {
        true => mqtt::Delivery::ExactlyOnce { id, dup },
        false => mqtt::Delivery::AtLeastOnce { id, dup },
    }
}

/// Sends a whole batch with QoS 0 as the bytes that are shared by every client that wants the same form. False, and
/// nothing is done, if this client wants something of its own.
pub(super) fn deliver_image<B: Broker>(batch: &Arc<Batch>, tags: &[u32], link: &mut Link<'_, B>) -> bool {
    let grant = Grant::new(tags);
    let at_most_once = batch.position.is_none() || grant.qos() == Qos::AtMostOnce;
    // A client that permits topic aliases wants few bytes.
    if !at_most_once || link.aliases.is_some() || grant.has_no_local() || grant.identifiers().next().is_some()
    {
        return false;
    }
    let Ok(records) = batch.records() else { return true };
    if is_too_slow(link.output) {
        link.note_dropped(DropReason::Slow, records.len() as u64, batch.topic.name.as_str());
        return true;
    }
    let is_v5 = link.peer.version == Version::V5;
    let as_published = grant.retain_as_published();
    let form = u32::from(is_v5) | u32::from(as_published) << 1;
    let shared = link.shared;
    let image = batch.image(form, || {
        let version = if is_v5 { Version::V5 } else { Version::V311 };
        let mut properties = shared.properties.borrow_mut();
        encode_image(batch, (version, as_published), || shared.broker.wall_ms(), &mut properties)
    });
    // If all of it is no longer than what the client accepts, so is each packet.
    if image.len() > link.peer.packet_size_max as usize {
        return false;
    }
    let topic = batch.topic.name.as_str();
    link.note_sent(Qos::AtMostOnce, records.len(), image.len());
    // The first one has waited for the longest time.
    link.note_latency(topic, || records.get(0).map_or(i64::MAX, |first| first.timestamp()));
    link.shared.observatory.topics().each(topic, |metric| {
        let payloads = records.iter().map(|record| record.value().unwrap_or_default().len()).sum();
        metric.note_out(Qos::AtMostOnce, records.len(), payloads);
    });
    link.output.push(image);
    true
}

fn encode_image(
    batch: &Batch,
    form: (Version, bool),
    wall_ms: impl Fn() -> i64,
    properties: &mut PropertiesBuf,
) -> Bytes {
    let (version, as_published) = form;
    let peer = Peer::new(version);
    let mut out = BytesMut::with_capacity(batch.bytes.len());
    let count = batch.records().map_or(0, |records| records.len());
    for source in (0..count).filter_map(|index| Source::of(batch, index)) {
        let Ok(reading) = source.read(&peer, &wall_ms, properties) else { continue };
        let Ok(topic) = topic_of(source.subject) else { continue };
        let publish = Publish {
            delivery: mqtt::Delivery::AtMostOnce,
            retain: reading.retain && as_published,
            topic: &topic,
            properties: properties.view(),
            payload: source.record.value().unwrap_or_default(),
        };
        // What MQTT cannot say is not sent.
        let _ = publish.encode(&mut out, &peer);
    }
    out.freeze()
}
