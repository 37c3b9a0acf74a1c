//! UNSUBSCRIBE (section 3.10).

use broker::Broker;
use net::Turn;
use wire::mqtt::{ReasonCode, TopicFilter, Unsubscribe};

use crate::connection::{Close, Connection};
use crate::outgoing::SUBSCRIPTIONS_MAX;
use crate::rewrite;
use crate::saver::Waiting;

impl<B: Broker> Connection<B> {
    /// One code for each filter, in order [MQTT-3.11.3-1]; UNSUBACK when a session that lasts has durably forgotten them.
    pub(crate) fn handle_unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Close> {
        let rules = self.shared.rules.set();
        let codes = unsubscribe
            .filters()
            .enumerate()
            .map(|(number, text)| {
                if number >= SUBSCRIPTIONS_MAX {
                    return ReasonCode::ImplementationSpecificError;
                }
                let Ok(text) = rewrite::filter(&rules.rewrites, text, &self.who()) else {
                    return ReasonCode::TopicFilterInvalid;
                };
                let was_there = self.outgoing.as_mut().is_some_and(|outgoing| outgoing.unsubscribe(&text));
                if was_there {
                    self.release_exclusive(&text);
                    self.note_unsubscribed(&text);
                }
                match (was_there, TopicFilter::parse(&text)) {
                    (true, _) => ReasonCode::Success,
                    (false, Ok(_)) => ReasonCode::NoSubscriptionExisted,
                    (false, Err(malformed)) => malformed.reason,
                }
            })
            .collect();
        self.count_subscriptions();
        self.answer_durably(Waiting::Unsuback { packet_id: unsubscribe.packet_id, codes }, turn);
        Ok(())
    }
}
