//! Deliveries to one client: from the live feed or from the log, through the window, into the output. Hot path.
//!
//! ```text
//!    live delivery --> take --+                     QoS 0: sent, or dropped if the output is full
//!    catch_up ------> backlog +--> deliver --> send
//!    SUBSCRIBE ----> retained +                     QoS 1, 2: sent if window and output have room; if not,
//!    a session returns > resend                     the subscriber falls behind and goes on from the log later
//! ```

mod behind;
mod guard;
mod resend;
mod retained;
mod send;
mod shared;

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use broker::routing::Filter;
use broker::{Batch, Broker, Cursor, Delivery, Picked, Start, Subscriber};
use net::Output;
use wire::mqtt::{AckKind, Peer, Qos, encode_ack};

use crate::aliases::Used;
use crate::inbox::Inbox;
use crate::metrics::{DropReason, Metrics, PacketType};
use crate::observe::{Counted, Observatory, Tally};
use crate::rights::Rights;
use crate::saver::Saver;
use crate::session::Shared;
use crate::state::{InFlight, Origin, State};
use crate::subscription::{EXCLUSIVE, Subscription, Tag, bare, parse_filter};
use crate::window::{Entry, Step, Window};

pub(crate) use resend::Loaded;
pub(crate) use retained::{Job, RetainedPage};
pub(crate) use shared::{Joining, is_shared};

use behind::Behind;
use guard::Guard;
use resend::Resend;
use retained::RetainedWork;
use send::Sent;
use shared::{Memberships, OfShare};

/// Bound: subscriptions of one session, and filters that one packet may name. They are looked up one by one.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 4096;

/// What deliveries need of their connection.
pub(crate) struct Link<'a, B: Broker> {
    pub(crate) shared: &'a Rc<Shared<B>>,
    pub(crate) inbox: &'a Rc<Inbox>,
    pub(crate) saver: &'a mut Saver,
    pub(crate) output: &'a mut Output,
    /// Topic aliases, if the client permits some.
    pub(crate) aliases: Option<&'a mut Used>,
    pub(crate) peer: Peer,
    pub(crate) rights: &'a Rights,
    pub(crate) client: &'a str,
    pub(crate) tally: &'a mut Tally,
    /// Exchanges that may be in flight.
    pub(crate) limit: usize,
    /// The session outlives its connection.
    pub(crate) persistent: bool,
    pub(crate) now: Instant,
}

impl<B: Broker> Link<'_, B> {
    /// So many messages were sent, in PUBLISH packets of so many bytes together.
    #[inline]
    fn note_sent(&mut self, qos: Qos, count: usize, bytes: usize) {
        let metrics = &self.shared.metrics;
        metrics.publishes_out[qos as usize].add(count as u64);
        metrics.publish_bytes_out.add(bytes as u64);
        self.tally.sent += count as u64;
    }

    /// So many messages on a subject are not sent.
    fn note_dropped(&mut self, reason: DropReason, count: u64, subject: &str) {
        self.shared.metrics.drop_many(reason, count);
        self.tally.dropped[reason as usize] += count;
        if reason != DropReason::Header {
            self.shared.observatory.topics().each(subject, |metric| metric.note_dropped(count));
        }
    }

    /// A message with this timestamp goes to the client now: how late is it?
    #[inline]
    fn note_latency(&self, subject: &str, timestamp_ms: impl FnOnce() -> i64) {
        if let Some(slow) = self.shared.observatory.slow() {
            slow.note((self.client, subject), timestamp_ms(), self.shared.broker.wall_ms());
        }
    }
}

/// Subscriptions and deliveries of a client.
pub(crate) struct Outgoing {
    subscriber: Subscriber,
    subscriptions: Vec<Subscription>,
    /// Filters of No Local subscriptions: what they match is marked with its publisher.
    no_local: Vec<Filter>,
    /// Everything up to here was taken, but for what is `behind`.
    cursor: Cursor,
    /// What goes on from the log, if the client is not live.
    behind: Option<Box<Behind>>,
    window: Window<Pending>,
    resend: Option<Box<Resend>>,
    retained: Option<Box<RetainedWork>>,
    memberships: Option<Box<Memberships>>,
    guard: Guard,
    counted: Option<Box<Counted>>,
}

/// What is delivered under a packet identifier.
pub(crate) struct Pending {
    /// Of a session that came back: its PUBLISH was certainly never sent.
    is_unsent: bool,
    origin: Origin,
    /// Of a PUBLISH that waits for the state to be durable.
    held: Option<Box<Held>>,
    /// Of a record that a share gave us, until it is settled.
    of_share: Option<Box<OfShare>>,
}

struct Held {
    batch: Arc<Batch>,
    tags: Box<[u32]>,
}

impl Outgoing {
    /// For a client that subscribes for the first time.
    pub(crate) fn new(mut subscriber: Subscriber) -> Self {
        let cursor = subscriber.start_live();
        Self::with(subscriber, cursor)
    }

    /// For a session that comes back. [`Outgoing::advance`] makes it go on.
    pub(crate) fn restored(mut subscriber: Subscriber, state: &State) -> Self {
        let cursor = match &state.cursor {
            Some(cursor) => cursor.clone(),
            None => subscriber.start_live(),
        };
        let mut outgoing = Self::with(subscriber, cursor);
        let starts: HashMap<_, _> = state.starts.iter().map(|(filter, start)| (&**filter, start)).collect();
        for subscription in &state.subscriptions {
            // Shares are joined when the connection is there.
            if is_shared(&subscription.text) {
                continue;
            }
            let Ok(filter) = parse_filter(&subscription.text) else { continue };
            let start =
                starts.get(filter.as_str()).map_or(Start::AtCursor, |&start| Start::After(start.clone()));
            if outgoing.subscriber.subscribe(&filter, subscription.tag.0, start).is_ok() {
                outgoing.remember(&subscription.text, subscription.tag, filter);
            }
        }
        if !state.resumes.is_empty() {
            outgoing.behind = Some(Box::new(Behind::of(state.resumes.clone())));
        }
        let entries: Vec<_> = state.in_flight.iter().map(restored_entry).collect();
        outgoing.resend = Resend::of(&entries).map(Box::new);
        outgoing.window = Window::restored(entries);
        outgoing
    }

    fn with(subscriber: Subscriber, cursor: Cursor) -> Self {
        Self {
            subscriber,
            subscriptions: Vec::new(),
            no_local: Vec::new(),
            cursor,
            behind: None,
            window: Window::default(),
            resend: None,
            retained: None,
            memberships: None,
            guard: Guard::default(),
            counted: None,
        }
    }

    // Subscriptions.

    /// Adds a subscription or replaces its options without losing a message between [MQTT-3.8.4-3]. Answers whether
    /// it is new.
    pub(crate) fn subscribe(&mut self, text: &str, filter: Filter, tag: Tag) -> Result<bool, model::Error> {
        self.subscriber.subscribe(&filter, tag.0, Start::Now)?;
        Ok(self.remember(text, tag, filter))
    }

    /// Whether a subscription may be added, or is there already.
    pub(crate) fn has_room_for(&self, text: &str) -> bool {
        self.subscriptions.len() < SUBSCRIPTIONS_MAX
            || self.subscriptions.iter().any(|known| bare(&known.text) == bare(text))
    }

    /// Subscriptions whose retained messages are not all sent.
    pub(crate) fn retained_backlog(&self) -> usize {
        self.retained.as_ref().map_or(0, |work| work.backlog())
    }

    fn remember(&mut self, text: &str, tag: Tag, filter: Filter) -> bool {
        self.look_anew();
        self.no_local.retain(|known| *known != filter);
        if tag.is_no_local() {
            self.no_local.push(filter);
        }
        match self.subscriptions.iter_mut().find(|known| bare(&known.text) == bare(text)) {
            Some(known) => {
                known.tag = tag;
                // What is exclusive stays so until it is given up under that name.
                if text.starts_with(EXCLUSIVE) {
                    known.text = text.into();
                }
                false
            }
            None => {
                if self.subscriptions.is_empty() {
                    // Most have one.
                    self.subscriptions.reserve_exact(1);
                }
                self.subscriptions.push(Subscription { text: text.into(), tag });
                true
            }
        }
    }

    /// Removes a subscription; false if there is none of that very spelling. Deliveries in flight go on
    /// [MQTT-3.10.4-1, 3.10.4-3].
    pub(crate) fn unsubscribe(&mut self, text: &str) -> bool {
        let Some(at) = self.subscriptions.iter().position(|known| *known.text == *text) else { return false };
        self.subscriptions.swap_remove(at);
        if is_shared(text) {
            self.leave_share(text);
        } else if let Ok(filter) = parse_filter(text) {
            self.subscriber.unsubscribe(&filter);
            self.no_local.retain(|known| *known != filter);
        }
        true
    }

    /// Tells what is observed which subscriptions there are.
    pub(crate) fn count_subscriptions(&mut self, observatory: &Observatory, metrics: &Arc<Metrics>) {
        let counted = self.counted.get_or_insert_with(|| Box::new(Counted::new(observatory, metrics)));
        counted.set(self.subscriptions.iter().map(|known| &*known.text));
    }

    /// Whether what is published to `subject` has to bear its publisher's name.
    #[inline]
    pub(crate) fn marks_publisher(&self, subject: &str) -> bool {
        self.no_local.iter().any(|filter| filter.matches(subject))
    }

    // Deliveries.

    /// A live delivery. What was taken before, or is still to come from the log, is passed over.
    #[inline]
    pub(crate) fn take<B: Broker>(&mut self, delivery: Delivery, link: &mut Link<'_, B>) {
        let Some(position) = delivery.batch.position else {
            let stopped = self.deliver(&delivery, 0, link);
            debug_assert!(stopped.is_none(), "what is delivered at most once waits for nothing");
            return;
        };
        let group = delivery.batch.group;
        if !self.subscriber.is_live() || position <= self.cursor.get(group) {
            return;
        }
        self.cursor.set(group, position);
        if let Some(taken) = self.deliver(&delivery, 0, link) {
            self.subscriber.fall_behind();
            self.behind.get_or_insert_default().put_back(delivery, taken);
        }
    }

    /// Goes on with what waits: for room, for the disk, for a session to be what it was.
    pub(crate) fn advance<B: Broker>(&mut self, link: &mut Link<'_, B>) {
        if !self.advance_resend(link) {
            return;
        }
        self.advance_retained(link);
        self.advance_shared(link);
        self.catch_up(link);
    }

    /// Sends what is picked of a batch from the record `from` on. Answers how much was taken, if not all.
    fn deliver<B: Broker>(
        &mut self,
        delivery: &Delivery,
        from: usize,
        link: &mut Link<'_, B>,
    ) -> Option<usize> {
        let asks = self.asks(link);
        if from == 0
            && !asks
            && self.retained.is_none()
            && let Picked::All(tags) = &delivery.picked
            && send::deliver_image(&delivery.batch, tags, link)
        {
            return None;
        }
        let mut taken = from;
        while let Some((index, tags)) = delivery.pick(taken) {
            match self.send(&delivery.batch, index, tags, link) {
                Sent::Done => taken += 1,
                Sent::Blocked => return Some(taken),
            }
        }
        None
    }

    // Acknowledgements.

    /// The exchange of a packet identifier: whether it is QoS 2, and how far it has come.
    pub(crate) fn exchange(&self, id: NonZeroU16) -> Option<(bool, Step)> {
        self.window.get(id).map(|entry| (entry.exactly_once, entry.step))
    }

    /// An exchange is over: there is room for the next.
    pub(crate) fn settle<B: Broker>(&mut self, id: NonZeroU16, link: &mut Link<'_, B>) {
        if let Some(entry) = self.window.remove(id) {
            if let Some(of_share) = entry.message.of_share {
                of_share.settle();
            }
            if link.persistent {
                link.saver.note_progress(link.now);
            }
            if !self.subscriber.is_live()
                || self.retained.is_some()
                || self.resend.is_some()
                || self.has_shared_waiting()
            {
                self.advance(link);
            }
        }
    }

    /// PUBREC came: PUBREL may be sent when that is durable.
    pub(crate) fn receive(&mut self, id: NonZeroU16) {
        self.window.set_step(id, Step::Received);
        if let Some(pending) = self.window.message_mut(id) {
            pending.held = None;
        }
    }

    /// Sends PUBREL.
    pub(crate) fn release<B: Broker>(&mut self, id: NonZeroU16, link: &mut Link<'_, B>) {
        if self.window.set_step(id, Step::Released) {
            encode_ack(AckKind::Pubrel, id, link.output.buffer());
            link.shared.metrics.note_sent(PacketType::Pubrel);
        }
    }

    // The session at rest.

    /// Moves the cursor of a live client past what did not concern it: a session that comes back does not look at that again.
    pub(crate) fn pass_over(&mut self, inbox: &Inbox) {
        if inbox.is_drained() {
            self.subscriber.pass_over(&mut self.cursor);
        }
    }

    /// Fills in what has to survive.
    pub(crate) fn describe(&self, state: &mut State) {
        state.subscriptions = self.subscriptions.clone();
        let mut cursor = self.cursor.clone();
        if let Some(behind) = &self.behind {
            state.resumes = behind.describe(&mut cursor);
        }
        let starts = self.subscriber.begun_ahead_of(&cursor);
        state.starts = starts.map(|(filter, start)| (filter.as_str().into(), start.clone())).collect();
        state.cursor = Some(cursor);
        // QoS 1 of a share goes to whoever is there.
        let mine = |entry: &&Entry<Pending>| entry.exactly_once || entry.message.of_share.is_none();
        let exchanges = self.window.iter().filter(mine).map(|entry| InFlight {
            id: entry.id,
            exactly_once: entry.exactly_once,
            is_released: matches!(entry.step, Step::Received | Step::Released),
            // If this is read after a crash, it may have been sent after it was written.
            is_unsent: false,
            origin: entry.message.origin.clone(),
        });
        state.in_flight = exchanges.collect();
    }

    /// Fills in what is only certain at the end of a connection: what it has not sent.
    pub(crate) fn describe_unsent(&self, state: &mut State) {
        for exchange in &mut state.in_flight {
            let entry = self.window.get(exchange.id);
            exchange.is_unsent = entry.is_some_and(|entry| {
                entry.step == Step::Queued && (entry.message.held.is_some() || entry.message.is_unsent)
            });
        }
    }
}

fn restored_entry(exchange: &InFlight) -> Entry<Pending> {
    Entry {
        id: exchange.id,
        exactly_once: exchange.exactly_once,
        step: if exchange.is_released { Step::Received } else { Step::Queued },
        message: Pending {
            is_unsent: exchange.is_unsent,
            origin: exchange.origin.clone(),
            held: None,
            of_share: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use broker::{Guarantee, Message, Retain};
    use model::TenantId;
    use net::Mailbox;
    use testkit::{TestNode, on_core};

    use super::*;
    use crate::inbox::{Event, InboxSink, Told};

    async fn publish(node: &TestNode, subject: &str) {
        let inbox = testkit::Inbox::new();
        let mut publisher = node.core.publisher(&TenantId::default(), inbox.sink());
        let message = Message {
            subject,
            key: None,
            value: Some(b"x"),
            headers: &[],
            guarantee: Guarantee::Durable,
            retain: Retain::Keep,
            rows: &[],
        };
        publisher.push(&message).expect("taken");
        assert_eq!(inbox.published().await.result, Ok(()));
    }

    fn cursor_of(outgoing: &mut Outgoing, inbox: &Inbox) -> Cursor {
        let mut state = State::default();
        outgoing.pass_over(inbox);
        outgoing.describe(&mut state);
        state.cursor.expect("it subscribed")
    }

    #[test]
    fn what_does_not_concern_a_client_is_passed_over_and_what_it_has_not_heard_yet_is_not() {
        on_core(async {
            let node = TestNode::start().await;
            let mailbox = Mailbox::<Event>::new();
            let inbox = Inbox::new(mailbox.clone());
            let sink = Rc::new(InboxSink(Rc::clone(&inbox)));
            let mut outgoing = Outgoing::new(node.core.subscriber(&TenantId::default(), sink));
            let filter = parse_filter("mine").expect("legal");
            outgoing.subscribe("mine", filter, Tag(1)).expect("subscribed");
            let first = outgoing.cursor.clone();
            publish(&node, "other").await;
            let second = cursor_of(&mut outgoing, &inbox);
            assert_ne!(second, first);
            publish(&node, "mine").await;
            publish(&node, "other").await;
            assert_eq!(cursor_of(&mut outgoing, &inbox), second);
            let Some(Event(Told::Delivery(delivery))) = mailbox.take() else { panic!("it is told") };
            let position = delivery.batch.position.expect("a committed batch");
            assert!(second.get(delivery.batch.group) < position);
        });
    }
}
