//! Topic aliases (section 3.3.2.3.4): numbers in place of topic names, for one connection and one direction each. Hot path.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::rc::Rc;

/// The topics that a client has given numbers to. They end with the connection [MQTT-3.3.2-7].
///
/// Bound: as many topics as the greatest alias that we permit.
#[derive(Debug, Default)]
pub(crate) struct Given(Vec<Option<Rc<str>>>);

impl Given {
    /// The topic of an alias; none if it has none yet.
    pub(crate) fn get(&self, alias: NonZeroU16) -> Option<Rc<str>> {
        self.0.get(usize::from(alias.get()) - 1)?.clone()
    }

    /// Gives an alias, new or not, to a topic. The caller has checked that we permit it.
    pub(crate) fn set(&mut self, alias: NonZeroU16, topic: &str) -> Rc<str> {
        let at = usize::from(alias.get()) - 1;
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        match &mut self.0[at] {
            Some(known) if **known == *topic => Rc::clone(known),
            slot => Rc::clone(slot.insert(topic.into())),
        }
    }
}

/// The numbers that we use towards a client that permits some.
///
/// A topic gets one when it is first sent. When all are taken, each new topic passes over one number that was used since the
/// last time (it goes without), or takes one that was not: topics that come again keep theirs.
#[derive(Debug)]
pub(crate) struct Used {
    max: NonZeroU16,
    numbers: HashMap<Rc<str>, usize>,
    slots: Vec<Slot>,
    /// The slot that is looked at next.
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    topic: Rc<str>,
    /// Sent without its topic since the hand was here.
    used: bool,
}

/// How a topic may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) alias: NonZeroU16,
    /// The client knows the alias: the topic is not sent.
    pub(crate) is_known: bool,
}

impl Used {
    /// For a client that permits aliases up to `max`; none if it permits none.
    pub(crate) fn new(max: u16) -> Option<Box<Self>> {
        let max = NonZeroU16::new(max)?;
        Some(Box::new(Self { max, numbers: HashMap::new(), slots: Vec::new(), hand: 0 }))
    }

    /// The alias for a topic; none if it goes without. [`Used::note_sent`] has to follow if, and only if, the packet is sent
    /// with it: what the client was not told must not count as told.
    #[inline]
    pub(crate) fn choose(&mut self, topic: &str) -> Option<Choice> {
        if let Some(&at) = self.numbers.get(topic) {
            self.slots[at].used = true;
            return Some(Choice { alias: alias_of(at)?, is_known: true });
        }
        if self.slots.len() < usize::from(self.max.get()) {
            return Some(Choice { alias: alias_of(self.slots.len())?, is_known: false });
        }
        let at = self.hand;
        if std::mem::take(&mut self.slots[at].used) {
            self.advance();
            return None;
        }
        Some(Choice { alias: alias_of(at)?, is_known: false })
    }

    /// The packet with this choice is on its way.
    #[inline]
    pub(crate) fn note_sent(&mut self, choice: Choice, topic: &str) {
        if choice.is_known {
            return;
        }
        let (at, topic) = (usize::from(choice.alias.get()) - 1, Rc::<str>::from(topic));
        let slot = Slot { topic: Rc::clone(&topic), used: false };
        if at == self.slots.len() {
            self.slots.push(slot);
        } else {
            let former = std::mem::replace(&mut self.slots[at], slot);
            self.numbers.remove(&former.topic);
            self.advance();
        }
        self.numbers.insert(topic, at);
    }

    fn advance(&mut self) {
        self.hand = (self.hand + 1) % self.slots.len();
    }
}

fn alias_of(at: usize) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(at + 1).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is sent or discarded, a client that follows the standard understands every packet that it gets, and
        /// never sees an alias above its maximum.
        #[test]
        fn mqtt_3_3_2_7_a_client_understands_every_alias(
            max in 1u16..6,
            sends in proptest::collection::vec((0usize..12, prop::bool::weighted(0.8)), 1..200),
        ) {
            let mut used = Used::new(max).unwrap();
            let mut client = Given::default();
            for (number, is_sent) in sends {
                let topic = format!("topic/{number}");
                let Some(choice) = used.choose(&topic) else { continue };
                prop_assert!(choice.alias.get() <= max);
                if !is_sent {
                    continue;
                }
                used.note_sent(choice, &topic);
                let understood = match choice.is_known {
                    true => client.get(choice.alias),
                    false => Some(client.set(choice.alias, &topic)),
                };
                prop_assert_eq!(understood.as_deref(), Some(&topic[..]));
            }
            prop_assert!(used.slots.len() <= usize::from(max) && used.numbers.len() == used.slots.len());
        }
    }

    #[test]
    fn topics_that_come_again_keep_their_aliases_from_topics_that_come_once() {
        let mut used = Used::new(4).unwrap();
        let mut send = |topic: &str| {
            let choice = used.choose(topic)?;
            used.note_sent(choice, topic);
            Some(choice.is_known)
        };
        let often = ["a", "b", "c"];
        for topic in often {
            assert_eq!(send(topic), Some(false));
        }
        for number in 0..100 {
            for topic in often {
                assert_eq!(send(topic), Some(true), "{number}");
            }
            send(&number.to_string());
        }
    }

    #[test]
    fn mqtt_3_1_2_27_a_client_that_permits_none_gets_none() {
        assert!(Used::new(0).is_none());
    }
}
