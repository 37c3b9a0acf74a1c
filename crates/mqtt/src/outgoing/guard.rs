//! Whether deliveries have to be asked for one by one: a rule may deny a part of what a subscription matches, or deny it since it
//! was made.

use broker::Broker;
use broker::access::Decision;
use wire::mqtt::{Qos, TopicFilter};

use super::{Link, Outgoing};
use crate::metrics::DropReason;
use crate::rights::Rights;
use crate::subscription::{Subscription, bare, parse_filter};

/// What holds at one revision of the rules.
#[derive(Default)]
pub(super) struct Guard {
    revision: Option<u64>,
    asks: bool,
}

impl Outgoing {
    /// A subscription came, or its options changed: the rules are asked for it.
    pub(super) fn look_anew(&mut self) {
        self.guard.revision = None;
    }

    /// Whether each message has to be asked for.
    #[inline]
    pub(super) fn asks<B: Broker>(&mut self, link: &Link<'_, B>) -> bool {
        let revision = link.rights.revision();
        if self.guard.revision != Some(revision) {
            let asks = self.subscriptions.iter().any(|known| decision(known, link.rights) != Decision::Allow);
            self.guard = Guard { revision: Some(revision), asks };
        }
        self.guard.asks
    }

    /// Whether a message may go to the client now, for a subscription of this QoS; if not, it is counted.
    #[inline]
    pub(super) fn may_receive<B: Broker>(&mut self, subject: &str, qos: Qos, link: &Link<'_, B>) -> bool {
        if !self.asks(link) {
            return true;
        }
        let may = link.rights.may_receive(subject, qos);
        if !may {
            link.shared.metrics.drop_one(DropReason::Denied);
        }
        may
    }
}

fn decision(known: &Subscription, rights: &Rights) -> Decision {
    let checked = TopicFilter::parse(bare(&known.text)).ok();
    let filter = checked.and_then(|checked| parse_filter(checked.filter).ok());
    filter.map_or(Decision::Deny, |filter| rights.subscribe(filter.as_str(), known.tag.qos()))
}
