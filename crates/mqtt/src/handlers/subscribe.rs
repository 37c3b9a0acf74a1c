//! SUBSCRIBE (section 3.8).

use std::num::NonZeroU32;
use std::rc::Rc;

use broker::Broker;
use net::Turn;
use wire::mqtt::{Qos, ReasonCode, RetainHandling, Subscribe, SubscribeOptions, TopicFilter};

use crate::connection::{Close, Connection};
use crate::error::subscribe_reason;
use crate::inbox::InboxSink;
use crate::outgoing::{Job, Joining, Outgoing, SUBSCRIPTIONS_MAX};
use crate::saver::Waiting;
use crate::subscription::{Tag, parse_filter};

impl<B: Broker> Connection<B> {
    /// One code for each filter, in order [MQTT-3.8.4-6]; SUBACK when the subscriptions of a session that lasts are
    /// durable, then the retained messages [MQTT-3.8.4-1].
    pub(crate) fn handle_subscribe(
        &mut self,
        subscribe: &Subscribe<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Close> {
        let identifier = subscribe.properties.subscription_identifier();
        let mut jobs = Vec::new();
        let codes = subscribe
            .filters()
            .enumerate()
            .map(|(number, (text, options))| {
                if number >= SUBSCRIPTIONS_MAX {
                    return ReasonCode::QuotaExceeded;
                }
                match self.subscribe(text, options, identifier) {
                    Ok((code, job)) => {
                        jobs.extend(job);
                        code
                    }
                    Err(code) => code,
                }
            })
            .collect();
        let answer = Waiting::Suback { packet_id: subscribe.packet_id, codes, jobs };
        self.answer_durably(answer, turn);
        Ok(())
    }

    fn subscribe(
        &mut self,
        text: &str,
        options: SubscribeOptions,
        identifier: Option<NonZeroU32>,
    ) -> Result<(ReasonCode, Option<Job>), ReasonCode> {
        let checked = TopicFilter::parse(text).map_err(|malformed| malformed.reason)?;
        if checked.share.is_some() {
            return self.subscribe_shared(text, Tag::new(&options, identifier));
        }
        let filter = parse_filter(text).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        if !self.outgoing_or_new().has_room_for(text) {
            return Err(ReasonCode::QuotaExceeded);
        }
        let tag = Tag::new(&options, identifier);
        let is_new = self
            .outgoing_or_new()
            .subscribe(text, filter.clone(), tag)
            .map_err(|error| subscribe_reason(error.kind()))?;
        let wants_retained = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        Ok((granted(options.qos), wants_retained.then_some(Job { filter, tag })))
    }

    /// There are no retained messages for a shared subscription (section 4.8.2).
    fn subscribe_shared(&mut self, text: &str, tag: Tag) -> Result<(ReasonCode, Option<Job>), ReasonCode> {
        if !self.outgoing_or_new().has_room_for(text) {
            return Err(ReasonCode::QuotaExceeded);
        }
        match self.join_share(text, tag) {
            true => Ok((granted(tag.qos()), None)),
            false => Err(ReasonCode::TopicFilterInvalid),
        }
    }

    /// False if the filter is not that of a shared subscription.
    pub(crate) fn join_share(&mut self, text: &str, tag: Tag) -> bool {
        self.outgoing_or_new();
        let lasts = self.is_persistent();
        let joining = Joining {
            shared: &self.shared,
            inbox: &self.inbox,
            client: &self.client,
            limit: usize::from(self.limit),
            lasts,
        };
        self.outgoing.as_mut().is_some_and(|outgoing| outgoing.join(text, tag, &joining))
    }

    fn outgoing_or_new(&mut self) -> &mut Outgoing {
        let (shared, inbox) = (&self.shared, &self.inbox);
        self.outgoing.get_or_insert_with(|| {
            let sink = Rc::new(InboxSink(Rc::clone(inbox)));
            Box::new(Outgoing::new(shared.broker.subscriber(&shared.tenant, sink)))
        })
    }
}

fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
