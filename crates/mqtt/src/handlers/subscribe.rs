//! SUBSCRIBE (section 3.8).

use std::num::NonZeroU32;
use std::rc::Rc;

use broker::Broker;
use broker::access::Decision;
use net::Turn;
use tracing::debug;
use wire::mqtt::{Qos, ReasonCode, RetainHandling, Subscribe, SubscribeOptions, TopicFilter};

use crate::connection::{Close, Connection};
use crate::error::subscribe_reason;
use crate::exclusive::{Asking, Grant};
use crate::inbox::{InboxSink, Told};
use crate::outgoing::{Job, Joining, Outgoing, SUBSCRIPTIONS_MAX};
use crate::rewrite;
use crate::saver::Waiting;
use crate::subscription::{EXCLUSIVE, Tag, bare, parse_filter};

impl<B: Broker> Connection<B> {
    /// One code for each filter, in order [MQTT-3.8.4-6]; SUBACK when the subscriptions of a session that lasts are
    /// durable, then the retained messages [MQTT-3.8.4-1].
    pub(crate) fn handle_subscribe(
        &mut self,
        subscribe: &Subscribe<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Close> {
        if self.asks_for_rows(subscribe) {
            return Ok(());
        }
        let identifier = subscribe.properties.subscription_identifier();
        let (rules, mut jobs) = (self.shared.rules.set(), Vec::new());
        let codes = subscribe
            .filters()
            .enumerate()
            .map(|(number, (text, options))| {
                if number >= SUBSCRIPTIONS_MAX {
                    return ReasonCode::QuotaExceeded;
                }
                let Ok(text) = rewrite::filter(&rules.rewrites, text, &self.who()) else {
                    return ReasonCode::TopicFilterInvalid;
                };
                match self.subscribe(&text, options, identifier) {
                    Ok((code, job)) => {
                        jobs.extend(job);
                        self.note_subscribed(&text, options);
                        code
                    }
                    Err(code) => {
                        self.release_exclusive(&text);
                        code
                    }
                }
            })
            .collect();
        self.count_subscriptions();
        let answer = Waiting::Suback { packet_id: subscribe.packet_id, codes, jobs };
        self.answer_durably(answer, turn);
        Ok(())
    }

    /// Asks for the rows of exclusive subscriptions. If true, the packet has to wait for them.
    fn asks_for_rows(&mut self, subscribe: &Subscribe<'_>) -> bool {
        if !self.shared.config.exclusive_subscriptions {
            return false;
        }
        if let Some(exclusive) = &mut self.exclusive
            && exclusive.asking == Asking::Answered
        {
            exclusive.asking = Asking::Idle;
            return false;
        }
        let texts = subscribe.filters().take(SUBSCRIPTIONS_MAX).map(|(text, _)| text);
        let rules = self.shared.rules.set();
        let texts = texts
            .filter(|text| text.starts_with(EXCLUSIVE))
            .filter_map(|text| rewrite::filter(&rules.rewrites, text, &self.who()).ok())
            .filter(|text| TopicFilter::parse(bare(text)).is_ok_and(|filter| filter.share.is_none()))
            .filter(|text| self.exclusive.as_ref().is_none_or(|exclusive| !exclusive.holds(text)));
        let texts: Vec<Box<str>> = texts.map(Box::from).collect();
        if texts.is_empty() {
            return false;
        }
        self.exclusive.get_or_insert_default().asking = Asking::Waiting;
        let (shared, inbox) = (Rc::clone(&self.shared), Rc::clone(&self.inbox));
        let (client, expiry) = (self.client.clone(), self.expiry);
        self.shared.spawn(async move {
            let grant = Grant::of(&shared, &client, expiry, texts).await;
            inbox.post(Told::Exclusive(grant.map_err(|error| error.kind())));
        });
        true
    }

    /// Others may have an exclusive subscription that this client no longer has.
    pub(crate) fn release_exclusive(&mut self, text: &str) {
        if let Some(exclusive) = &mut self.exclusive {
            exclusive.release(&self.shared.broker.rows(), text);
        }
    }

    /// Gives a client that has just been accepted the subscriptions that rules say.
    pub(crate) fn auto_subscribe(&mut self, turn: &mut Turn<'_>) {
        let rules = self.shared.rules.set();
        if rules.auto_subscribe.is_empty() {
            return;
        }
        let mut jobs = Vec::new();
        for rule in &rules.auto_subscribe {
            let Some(text) = rule.filter.fill(&self.who()) else { continue };
            match self.subscribe(&text, rule.options, None) {
                Ok((_, job)) => jobs.extend(job),
                Err(code) => {
                    debug!(client = %self.client, filter = text, ?code, "a client was not given a subscription");
                }
            }
        }
        if self.is_persistent() {
            self.saver.note_progress(turn.now);
        }
        self.with_outgoing(turn, |outgoing, link| outgoing.send_retained(jobs, link));
    }

    fn subscribe(
        &mut self,
        text: &str,
        options: SubscribeOptions,
        identifier: Option<NonZeroU32>,
    ) -> Result<(ReasonCode, Option<Job>), ReasonCode> {
        let checked = TopicFilter::parse(bare(text)).map_err(|malformed| malformed.reason)?;
        if text.starts_with(EXCLUSIVE) {
            if !self.shared.config.exclusive_subscriptions || checked.share.is_some() {
                return Err(ReasonCode::TopicFilterInvalid);
            }
            if !self.exclusive.as_ref().is_some_and(|exclusive| exclusive.holds(text)) {
                return Err(ReasonCode::QuotaExceeded);
            }
        }
        let wanted = parse_filter(checked.filter).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        if self.rights.subscribe(wanted.as_str(), options.qos) == Decision::Deny {
            return Err(ReasonCode::NotAuthorized);
        }
        if checked.share.is_some() {
            return self.subscribe_shared(text, Tag::new(&options, identifier));
        }
        let filter = wanted;
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
