//! Shared subscriptions of one client (section 4.8): records that a share gave it wait here for room, and are settled when
//! they are acknowledged. The share holds what waits to the client's credit.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use broker::{Broker, Receipt, ShareJoin, ShareKey, ShareMember, SharedDelivery};
use wire::mqtt::TopicFilter;

use super::send::Sent;
use super::{Link, Outgoing};
use crate::convert::PUBLISHER;
use crate::inbox::{Inbox, InboxSink};
use crate::session::Shared;
use crate::subscription::{Subscription, Tag, parse_filter};
use crate::window::Step;

/// Records that a share may have with a client, per record that may be in flight: enough to fill the window again while the
/// share hears of what was acknowledged.
const CREDIT_PER_SLOT: usize = 2;
const CREDIT_MIN: usize = 16;

/// Memberships of one client, and what they brought.
#[derive(Default)]
pub(super) struct Memberships {
    members: Vec<Membership>,
    queue: VecDeque<Waiting>,
}

struct Membership {
    text: Box<str>,
    tag: Tag,
    member: ShareMember,
}

struct Waiting {
    shared: SharedDelivery,
    taken: usize,
}

/// A record of a share that is in flight.
pub(super) struct OfShare {
    pub(super) receipt: Receipt,
    pub(super) nth: usize,
}

/// Who joins.
pub(crate) struct Joining<'a, B: Broker> {
    pub(crate) shared: &'a Rc<Shared<B>>,
    pub(crate) inbox: &'a Rc<Inbox>,
    pub(crate) client: &'a Arc<str>,
    /// Exchanges that may be in flight.
    pub(crate) limit: usize,
    /// The session outlives its connection.
    pub(crate) lasts: bool,
}

/// Whether a filter, as the client wrote it, is that of a shared subscription.
pub(crate) fn is_shared(text: &str) -> bool {
    TopicFilter::parse(text).is_ok_and(|filter| filter.share.is_some())
}

impl Outgoing {
    /// Joins the share of `$share/{name}/{filter}`, or changes the options of a membership. False if it is no such filter.
    pub(crate) fn join<B: Broker>(&mut self, text: &str, tag: Tag, joining: &Joining<'_, B>) -> bool {
        let parsed = TopicFilter::parse(text).ok().and_then(|checked| {
            let filter = parse_filter(checked.filter).ok()?;
            Some((checked.share?, filter))
        });
        let Some((name, filter)) = parsed else { return false };
        let memberships = self.memberships.get_or_insert_default();
        match memberships.members.iter_mut().find(|known| *known.text == *text) {
            Some(known) => known.tag = tag,
            None => {
                let shared = joining.shared;
                let join = ShareJoin {
                    share: ShareKey { tenant: shared.tenant.clone(), name: name.into(), filter },
                    client: Arc::clone(joining.client),
                    lasts: joining.lasts,
                    credit: (CREDIT_PER_SLOT * joining.limit).max(CREDIT_MIN),
                    strategy: shared.config.shared_strategy,
                    publisher_header: PUBLISHER,
                };
                let sink = Rc::new(InboxSink(Rc::clone(joining.inbox)));
                let member = shared.broker.join_share(join, sink);
                memberships.members.push(Membership { text: text.into(), tag, member });
            }
        }
        self.look_anew();
        match self.subscriptions.iter_mut().find(|known| *known.text == *text) {
            Some(known) => known.tag = tag,
            None => self.subscriptions.push(Subscription { text: text.into(), tag }),
        }
        true
    }

    /// Leaves the share for good.
    pub(super) fn leave_share(&mut self, text: &str) {
        let Some(memberships) = &mut self.memberships else { return };
        let Some(at) = memberships.members.iter().position(|known| *known.text == *text) else { return };
        let left = memberships.members.swap_remove(at);
        memberships.queue.retain(|waiting| waiting.shared.receipt.member() != left.member.id());
        left.member.unsubscribe();
        if memberships.members.is_empty() {
            self.memberships = None;
        }
    }

    /// Records of a share.
    pub(crate) fn take_shared<B: Broker>(&mut self, shared: SharedDelivery, link: &mut Link<'_, B>) {
        // What is not queued, because its share was left, went to others.
        let Some(memberships) = &mut self.memberships else { return };
        memberships.queue.push_back(Waiting { shared, taken: 0 });
        if memberships.queue.len() == 1 {
            self.advance_shared(link);
        }
    }

    /// Sends what there is room for.
    pub(super) fn advance_shared<B: Broker>(&mut self, link: &mut Link<'_, B>) {
        if self.resend.is_some() {
            return;
        }
        while let Some(waiting) = self.memberships.as_mut().and_then(|all| all.queue.pop_front()) {
            match self.send_shared(waiting, link) {
                None => {}
                Some(rest) => {
                    if let Some(memberships) = &mut self.memberships {
                        memberships.queue.push_front(rest);
                    }
                    return;
                }
            }
        }
    }

    /// Answers what could not be sent now.
    fn send_shared<B: Broker>(&mut self, mut waiting: Waiting, link: &mut Link<'_, B>) -> Option<Waiting> {
        let receipt = &waiting.shared.receipt;
        let members = self.memberships.as_ref().map_or(&[][..], |all| &all.members);
        let member = members.iter().find(|known| known.member.id() == receipt.member());
        let tags = [member?.tag.0];
        while let Some((index, _)) = waiting.shared.delivery.pick(waiting.taken) {
            let in_flight = self.window.len();
            if link.output.is_full()
                || self.send(&waiting.shared.delivery.batch, index, &tags, link) == Sent::Blocked
            {
                return Some(waiting);
            }
            let sent_at_once = self.window.len();
            let of_share = OfShare { receipt: receipt.clone(), nth: waiting.taken };
            match self.window.last_mut() {
                Some(pending) if in_flight < sent_at_once => pending.of_share = Some(Box::new(of_share)),
                // Sent for good, or never to be sent.
                _ => of_share.receipt.settle(of_share.nth),
            }
            waiting.taken += 1;
        }
        None
    }

    pub(super) fn has_shared_waiting(&self) -> bool {
        self.memberships.as_ref().is_some_and(|all| !all.queue.is_empty())
    }

    /// The connection ends: what the session does not keep goes back to the shares. A QoS 2 delivery that began is the
    /// client's and nobody else's [MQTT-4.8.2-4].
    pub(crate) fn leave_shares(&mut self) {
        let held: Vec<_> = self.window.iter().filter(|entry| entry.message.of_share.is_some()).collect();
        let (begun, waiting): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|entry| entry.exactly_once && entry.step != Step::Queued);
        for of_share in begun.iter().filter_map(|entry| entry.message.of_share.as_ref()) {
            of_share.receipt.settle(of_share.nth);
        }
        for id in waiting.iter().map(|entry| entry.id).collect::<Vec<_>>() {
            self.window.remove(id);
        }
        self.memberships = None;
    }
}
