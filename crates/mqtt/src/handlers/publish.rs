//! PUBLISH from a client (section 3.3). Hot path: decoded in the read buffer, copied once, into the core's open batch.

use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Duration;

use broker::{Broker, RowWrite, Strategy};
use model::ErrorKind;
use net::Turn;
use wire::mqtt::{Delivery, Publish, Qos, ReasonCode};

use crate::connection::{Close, Connection};
use crate::convert::Inbound;
use crate::incoming::{AckOf, Received, ReceivedRows};
use crate::metrics::DropReason;
use crate::rewrite::{self, Unusable};
use crate::subscription::subject_of;

/// Where messages are published that come later.
const DELAYED: &str = "$delayed/";
const NO_TOPIC: Close = Close::because(ReasonCode::ProtocolError, "this topic alias has no topic yet");

impl<B: Broker> Connection<B> {
    #[inline]
    pub(crate) fn handle_publish(&mut self, publish: &Publish<'_>, turn: &mut Turn<'_>) -> Result<(), Close> {
        match publish.properties.topic_alias() {
            None => self.rewrite_publish(publish, turn),
            Some(alias) => {
                let topic = self.topic_of_alias(alias, publish.topic)?;
                self.rewrite_publish(&Publish { topic: &topic, ..*publish }, turn)
            }
        }
    }

    #[inline]
    fn rewrite_publish(&mut self, publish: &Publish<'_>, turn: &mut Turn<'_>) -> Result<(), Close> {
        if !self.shared.rules.renames() {
            return self.take_publish(publish, turn);
        }
        match rewrite::topic(&self.shared.rules.set().rewrites, publish.topic, &self.who()) {
            Ok(topic) => {
                let topic = Rc::<str>::from(topic);
                self.take_publish(&Publish { topic: &topic, ..*publish }, turn)
            }
            Err(Unusable) => self.refuse_publish(publish, ErrorKind::Invalid, turn),
        }
    }

    /// Answers a publication that is not even tried.
    fn refuse_publish(
        &mut self,
        publish: &Publish<'_>,
        kind: ErrorKind,
        turn: &mut Turn<'_>,
    ) -> Result<(), Close> {
        self.note_published(publish);
        match publish.delivery {
            Delivery::AtMostOnce => {
                self.note_unstored(publish, DropReason::Refused);
                Ok(())
            }
            Delivery::AtLeastOnce { id, .. } => self.note_pushed(id, AckOf::Qos1, Err(kind), turn),
            Delivery::ExactlyOnce { id, .. } => self.note_pushed(id, AckOf::Qos2, Err(kind), turn),
        }
    }

    #[inline]
    fn note_published(&mut self, publish: &Publish<'_>) {
        self.shared.metrics.publishes_in[publish.delivery.qos() as usize].add(1);
        self.presence.tally.received += 1;
        let topics = self.shared.observatory.topics();
        if topics.is_any() {
            let (qos, bytes) = (publish.delivery.qos(), publish.payload.len());
            topics.each(&subject_of(publish.topic), |metric| metric.note_in(qos, bytes));
        }
    }

    /// A publication of QoS 0 is not taken.
    fn note_unstored(&mut self, publish: &Publish<'_>, reason: DropReason) {
        let topics = self.shared.observatory.topics();
        topics.each(&subject_of(publish.topic), |metric| metric.note_dropped(1));
        self.shared.metrics.drop_one(reason);
        self.presence.tally.dropped[reason as usize] += 1;
    }

    /// The topic that a PUBLISH with an alias means; a topic that is named has the alias from now on [MQTT-3.3.2-7].
    fn topic_of_alias(&mut self, alias: NonZeroU16, named: &str) -> Result<Rc<str>, Close> {
        if alias.get() > self.shared.config.topic_alias_max {
            return Err(Close::fault(ReasonCode::TopicAliasInvalid));
        }
        let aliases = &mut self.incoming().aliases;
        match named {
            "" => aliases.get(alias).ok_or(NO_TOPIC),
            named => Ok(aliases.set(alias, named)),
        }
    }

    #[inline]
    fn take_publish(&mut self, publish: &Publish<'_>, turn: &mut Turn<'_>) -> Result<(), Close> {
        self.note_published(publish);
        let subject = subject_of(publish.topic);
        match publish.delivery {
            Delivery::AtMostOnce => match self.push(publish, &subject, &[]) {
                Ok(_) => Ok(()),
                Err(ErrorKind::Denied) => {
                    self.note_unstored(publish, DropReason::Denied);
                    match self.shared.config.disconnects_denied {
                        true => Err(Close::fault(ReasonCode::NotAuthorized)),
                        false => Ok(()),
                    }
                }
                Err(_) => {
                    self.note_unstored(publish, DropReason::Refused);
                    Ok(())
                }
            },
            Delivery::AtLeastOnce { id, .. } => {
                self.check_quota()?;
                let pushed = self.push(publish, &subject, &[]);
                self.note_pushed(id, AckOf::Qos1, pushed, turn)
            }
            Delivery::ExactlyOnce { id, .. } => {
                if self.is_known(id, turn)? {
                    return Ok(());
                }
                self.check_quota()?;
                let row = self.is_persistent().then(|| ReceivedRows::of(self.incarnation).put(id));
                let pushed = self.push(publish, &subject, row.as_slice());
                if pushed.is_ok() {
                    let has_row = row.is_some();
                    let incoming = self.incoming();
                    let group = incoming.publisher.last_group().filter(|_| has_row);
                    incoming.received.insert(id.get(), Received::Undecided(group));
                }
                self.note_pushed(id, AckOf::Qos2, pushed, turn)
            }
        }
    }

    /// Hands the message to the log. Answers the ticket of an acknowledged one.
    #[inline]
    fn push(
        &mut self,
        publish: &Publish<'_>,
        subject: &str,
        rows: &[RowWrite],
    ) -> Result<Option<u64>, ErrorKind> {
        let is_marked = self.shared.config.shared_strategy == Strategy::HashPublisher
            || self.outgoing.as_ref().is_some_and(|outgoing| outgoing.marks_publisher(subject));
        let client = is_marked.then(|| self.client.clone());
        let inbound =
            Inbound { publish, subject, qos: publish.delivery.qos(), publisher: client.as_deref(), rows };
        if let Some(delayed) = subject.strip_prefix(DELAYED) {
            return self.push_later(&inbound, delayed);
        }
        self.check_may_publish(&inbound)?;
        let shared = self.shared.clone();
        let incoming = self.incoming();
        inbound.with_message(|| shared.broker.wall_ms(), |message| incoming.publisher.push(message))
    }

    /// `$delayed/{seconds}/{topic}`: the same, when the time has come. Its expiry counts from then on.
    fn push_later(&mut self, inbound: &Inbound<'_>, delayed: &str) -> Result<Option<u64>, ErrorKind> {
        let (seconds, subject) = delayed.split_once('/').ok_or(ErrorKind::Invalid)?;
        let delay_ms = delay_ms(seconds).ok_or(ErrorKind::Invalid)?;
        if subject.is_empty() || subject.starts_with(DELAYED) {
            return Err(ErrorKind::Invalid);
        }
        let due_ms = self.shared.broker.wall_ms().saturating_add_unsigned(delay_ms);
        let delay = Duration::from_millis(delay_ms);
        let inbound = Inbound { subject, ..*inbound };
        self.check_may_publish(&inbound)?;
        let author = self.rights.author();
        let incoming = self.incoming();
        inbound.with_message(|| due_ms, |message| incoming.publisher.push_later(message, delay, &author))
    }

    #[inline]
    fn check_may_publish(&self, inbound: &Inbound<'_>) -> Result<(), ErrorKind> {
        match self.rights.may_publish(inbound.subject, inbound.qos, inbound.publish.retain) {
            true => Ok(()),
            false => Err(ErrorKind::Denied),
        }
    }

    /// A 5.0 client must hold to our Receive Maximum [MQTT-3.3.4-7]. Older ones were not told: they are slowed by
    /// not reading.
    #[inline]
    fn check_quota(&self) -> Result<(), Close> {
        let unacknowledged = self.incoming.as_ref().map_or(0, |incoming| incoming.unacknowledged());
        if self.is_v5() && unacknowledged >= usize::from(self.shared.config.receive_maximum.get()) {
            return Err(Close::fault(ReasonCode::ReceiveMaximumExceeded));
        }
        Ok(())
    }

    /// Whether a QoS 2 publication is one that we have: it is acknowledged again and not stored again
    /// [MQTT-4.3.3-10].
    fn is_known(&mut self, id: NonZeroU16, turn: &mut Turn<'_>) -> Result<bool, Close> {
        let Some(incoming) = &mut self.incoming else { return Ok(false) };
        match incoming.received.get(&id.get()) {
            None => Ok(false),
            // Its PUBREC comes when it is decided.
            Some(Received::Undecided(_)) => Ok(true),
            Some(Received::Stored(_) | Received::Releasing) => {
                incoming.acks.push_decided(id, AckOf::Qos2, Ok(()), incoming.pushed);
                self.send_acks(turn)?;
                Ok(true)
            }
        }
    }

    #[inline]
    fn note_pushed(
        &mut self,
        id: NonZeroU16,
        of: AckOf,
        pushed: Result<Option<u64>, ErrorKind>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Close> {
        let incoming = self.incoming();
        match pushed {
            Ok(Some(ticket)) => {
                debug_assert_eq!(ticket, incoming.pushed);
                incoming.pushed = ticket + 1;
                incoming.acks.push(id, of, ticket);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(kind) => {
                incoming.acks.push_decided(id, of, Err(kind), incoming.pushed);
                self.send_acks(turn)
            }
        }
    }
}

/// Milliseconds of a delay in seconds, with up to three decimals.
fn delay_ms(seconds: &str) -> Option<u64> {
    let (whole, part) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 3 {
        return None;
    }
    let ms: u64 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(ms)
}

/// QoS of a publication as an index.
const _: () = assert!(Qos::ExactlyOnce as usize == 2);

#[cfg(test)]
mod tests {
    use super::delay_ms;

    #[test]
    fn delays_are_seconds_with_up_to_three_decimals() {
        for (text, ms) in [("0", 0), ("15", 15_000), ("0.5", 500), ("1.25", 1_250), ("1.001", 1_001)] {
            assert_eq!(delay_ms(text), Some(ms), "{text}");
        }
        assert_eq!(delay_ms("31536000000"), Some(31_536_000_000_000), "a thousand years");
        for text in ["", ".5", "1.", "1.0001", "-1", "+1", "1e3", " 1", "x", "18446744073709551615"] {
            assert_eq!(delay_ms(text), None, "{text}");
        }
    }
}
