//! The window towards one client: publications of QoS 1 and 2 in flight, by packet identifier and in the order in
//! which they were sent. Hot path.
//!
//! The broker's delivery engine (`broker::view`) is not used here: it works on dense positions with returns, attempts and
//! deadlines, while an MQTT window is short, is never given back while its connection lasts, and is acknowledged by
//! packet identifier, nearly always in order.

use std::collections::VecDeque;
use std::num::NonZeroU16;

/// How far an exchange has come on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It has its identifier and is not sent yet (again).
    Queued,
    /// PUBLISH is sent.
    Sent,
    /// QoS 2: PUBREC came, PUBREL is not sent yet.
    Received,
    /// QoS 2: PUBREL is sent.
    Released,
}

/// One exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<T> {
    pub(crate) id: NonZeroU16,
    /// QoS 2 rather than 1.
    pub(crate) exactly_once: bool,
    pub(crate) step: Step,
    /// What is delivered.
    pub(crate) message: T,
}

/// Exchanges in the order of their first sending.
///
/// Bound: the caller adds no entry beyond its limit, at most 65,535.
#[derive(Debug)]
pub(crate) struct Window<T> {
    entries: VecDeque<Entry<T>>,
    /// The identifier tried next.
    next: NonZeroU16,
    /// Identifiers rise (cyclically) from the first entry on, so that one can be searched by halving.
    rising: bool,
    /// Entries beyond [`Step::Queued`].
    sent: usize,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), next: NonZeroU16::MIN, rising: true, sent: 0 }
    }
}

impl<T> Window<T> {
    /// The window of a session that comes back; its entries are [`Step::Queued`], or wait for PUBREL to be sent.
    pub(crate) fn restored(entries: Vec<Entry<T>>) -> Self {
        let next = entries.last().map_or(NonZeroU16::MIN, |last| after(last.id));
        let rising = match entries.first() {
            Some(first) => entries.is_sorted_by_key(|entry| distance(first.id, entry.id)),
            None => true,
        };
        let sent = entries.iter().filter(|entry| entry.step != Step::Queued).count();
        Self { entries: entries.into(), next, rising, sent }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Exchanges that count against the client's Receive Maximum.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// An identifier that is not in flight [MQTT-2.2.1-4]; none if all are.
    pub(crate) fn free_id(&self) -> Option<NonZeroU16> {
        if self.entries.len() >= usize::from(u16::MAX) {
            return None;
        }
        let mut id = self.next;
        while self.find(id).is_some() {
            id = after(id);
        }
        Some(id)
    }

    /// Adds an exchange under an identifier from [`Window::free_id`].
    pub(crate) fn add(&mut self, entry: Entry<T>) {
        if let Some((first, last)) = self.entries.front().zip(self.entries.back()) {
            self.rising &= distance(first.id, entry.id) > distance(first.id, last.id);
        }
        self.sent += usize::from(entry.step != Step::Queued);
        self.next = after(entry.id);
        self.entries.push_back(entry);
    }

    pub(crate) fn get(&self, id: NonZeroU16) -> Option<&Entry<T>> {
        self.entries.get(self.find(id)?)
    }

    /// Moves an exchange on; false if it is not known.
    pub(crate) fn set_step(&mut self, id: NonZeroU16, step: Step) -> bool {
        let Some(entry) = self.find(id).and_then(|at| self.entries.get_mut(at)) else { return false };
        self.sent -= usize::from(entry.step != Step::Queued);
        self.sent += usize::from(step != Step::Queued);
        entry.step = step;
        true
    }

    /// What is delivered, to change it.
    pub(crate) fn message_mut(&mut self, id: NonZeroU16) -> Option<&mut T> {
        let at = self.find(id)?;
        self.entries.get_mut(at).map(|entry| &mut entry.message)
    }

    /// What is delivered by the exchange that was added last.
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        self.entries.back_mut().map(|entry| &mut entry.message)
    }

    /// Ends an exchange.
    pub(crate) fn remove(&mut self, id: NonZeroU16) -> Option<Entry<T>> {
        let at = self.find(id)?;
        let entry = self.entries.remove(at)?;
        self.sent -= usize::from(entry.step != Step::Queued);
        if self.entries.is_empty() {
            self.rising = true;
            if self.entries.capacity() > 64 {
                self.entries = VecDeque::new();
            }
        }
        Some(entry)
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Entry<T>> {
        self.entries.iter()
    }

    fn find(&self, id: NonZeroU16) -> Option<usize> {
        let first = self.entries.front()?;
        if first.id == id {
            return Some(0);
        }
        if !self.rising {
            return self.entries.iter().position(|entry| entry.id == id);
        }
        let wanted = distance(first.id, id);
        self.entries.binary_search_by_key(&wanted, |entry| distance(first.id, entry.id)).ok()
    }
}

/// How many identifiers `to` comes after `from`.
fn distance(from: NonZeroU16, to: NonZeroU16) -> u16 {
    to.get().wrapping_sub(from.get())
}

fn after(id: NonZeroU16) -> NonZeroU16 {
    id.checked_add(1).unwrap_or(NonZeroU16::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(id: NonZeroU16, message: u32) -> Entry<u32> {
        Entry { id, exactly_once: false, step: Step::Sent, message }
    }

    proptest! {
        /// Against a list, with acknowledgements in any order, over the wrap of the identifiers.
        #[test]
        fn mqtt_2_2_1_4_no_identifier_is_used_twice(
            start in 65_400u16..=65_535,
            actions in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..600),
        ) {
            let mut window = Window { next: NonZeroU16::new(start).unwrap(), ..Window::default() };
            let mut naive: Vec<(NonZeroU16, u32)> = Vec::new();
            for (number, (add, which)) in actions.into_iter().enumerate() {
                if add || naive.is_empty() {
                    let id = window.free_id().unwrap();
                    prop_assert!(naive.iter().all(|(known, _)| *known != id));
                    window.add(entry(id, number as u32));
                    naive.push((id, number as u32));
                } else {
                    let (id, message) = naive.remove(which.index(naive.len()));
                    prop_assert_eq!(window.remove(id).map(|entry| entry.message), Some(message));
                    prop_assert!(window.remove(id).is_none());
                }
                let order: Vec<_> = window.iter().map(|entry| (entry.id, entry.message)).collect();
                prop_assert_eq!(&order, &naive);
                prop_assert_eq!(window.sent(), naive.len());
                for (id, message) in &naive {
                    prop_assert_eq!(window.get(*id).map(|entry| entry.message), Some(*message));
                }
            }
        }
    }

    #[test]
    fn mqtt_2_2_1_4_with_all_identifiers_in_flight_there_is_none() {
        let mut window = Window::default();
        for number in 0..65_535 {
            let id = window.free_id().unwrap();
            window.add(entry(id, number));
        }
        assert_eq!(window.free_id(), None);
        let id = NonZeroU16::new(4711).unwrap();
        assert_eq!(window.remove(id).map(|entry| entry.message), Some(4710));
        assert_eq!(window.free_id(), Some(id));
    }

    #[test]
    fn a_first_entry_that_is_never_acknowledged_does_not_hide_the_others() {
        let mut window = Window::default();
        let stuck = window.free_id().unwrap();
        window.add(entry(stuck, 0));
        for number in 1..200_000 {
            let id = window.free_id().unwrap();
            assert_ne!(id, stuck);
            window.add(entry(id, number));
            assert_eq!(window.remove(id).map(|entry| entry.message), Some(number));
        }
        assert_eq!(window.get(stuck).map(|entry| entry.message), Some(0));
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn only_what_is_sent_counts_against_the_receive_maximum() {
        let mut window = Window::default();
        let id = window.free_id().unwrap();
        window.add(Entry { step: Step::Queued, ..entry(id, 0) });
        assert_eq!((window.len(), window.sent()), (1, 0));
        assert!(window.set_step(id, Step::Sent));
        assert!(window.set_step(id, Step::Released));
        assert_eq!(window.sent(), 1);
        assert!(!window.set_step(NonZeroU16::new(9).unwrap(), Step::Sent));
        window.remove(id);
        assert_eq!(window.sent(), 0);
    }
}
