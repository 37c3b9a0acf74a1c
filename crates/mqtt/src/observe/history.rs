//! What became of clients lately: a few events for each of the last clients of this node, so that "why did it go?" has an
//! answer after the fact.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// Bound: events of one client. The oldest goes first.
const EVENTS_MAX: usize = 12;
/// Bound: bytes of an identifier. A client with a longer one has no history.
const CLIENT_BYTES_MAX: usize = 256;
/// Bound: bytes that are kept of a filter.
const FILTER_BYTES_MAX: usize = 128;

/// Something that became of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEvent {
    /// When, in wall-clock ms since the epoch.
    pub at_ms: i64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What can become of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// It was accepted.
    Connected {
        /// Its address; `local` for a unix socket.
        from: Box<str>,
        /// The listener that it came through.
        listener: Box<str>,
        /// `MQTT 5.0`, for example.
        protocol: &'static str,
        /// Its session was there.
        session_present: bool,
    },
    /// Its CONNECT was refused.
    Refused {
        /// Its address.
        from: Box<str>,
        /// The listener.
        listener: Box<str>,
        /// The name of the reason code, such as `not_authorized`.
        reason: Box<str>,
    },
    /// It has new subscriptions.
    Subscribed {
        /// How many, one after the other.
        filters: u32,
        /// The first of them, or its beginning.
        first: Box<str>,
    },
    /// It gave subscriptions up.
    Unsubscribed {
        /// How many, one after the other.
        filters: u32,
        /// The first of them, or its beginning.
        first: Box<str>,
    },
    /// Its connection ended.
    Disconnected {
        /// Who ended it: `client`, `broker` or `network`.
        by: &'static str,
        /// Why: `normal`, `tcp_closed`, `takenover`, or the name of a reason code.
        reason: Box<str>,
        /// How long it lasted.
        lasted_ms: u64,
        /// Messages that it published.
        messages_received: u64,
        /// Messages that it was sent.
        messages_sent: u64,
        /// Messages for it, or from it, that were not passed on, by why.
        dropped: BTreeMap<&'static str, u64>,
    },
    /// It was away for so long that its session ended: subscriptions and messages that waited for it are gone.
    SessionExpired,
}

/// The histories of the clients that something became of last.
///
/// Bound: clients as configured, `EVENTS_MAX` events of at most a few hundred bytes each. Who was not touched for the longest
/// time goes first.
pub(crate) struct History {
    clients_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    clients: HashMap<Arc<str>, Client>,
    /// Whom each touch was of, as far as it was the client's last one.
    by_touch: BTreeMap<u64, Arc<str>>,
    touches: u64,
}

struct Client {
    touched: u64,
    events: VecDeque<HistoryEvent>,
}

impl History {
    pub(crate) fn new(clients_max: usize) -> Self {
        Self { clients_max, kept: Mutex::default() }
    }

    /// Whether anything is kept.
    pub(crate) fn is_on(&self) -> bool {
        self.clients_max != 0
    }

    pub(crate) fn add(&self, client: &str, event: HistoryEvent) {
        if !self.is_on() || client.len() > CLIENT_BYTES_MAX {
            return;
        }
        self.kept.lock().add(client, event, self.clients_max);
    }

    /// The events of a client, the oldest first. Empty if nothing is known.
    pub(crate) fn of(&self, client: &str) -> Vec<HistoryEvent> {
        let kept = self.kept.lock();
        kept.clients.get(client).map_or_else(Vec::new, |client| client.events.iter().cloned().collect())
    }
}

impl Kept {
    fn add(&mut self, client: &str, event: HistoryEvent, clients_max: usize) {
        let name = match self.clients.get_key_value(client) {
            Some((name, _)) => Arc::clone(name),
            None => {
                if self.clients.len() >= clients_max
                    && let Some((_, oldest)) = self.by_touch.pop_first()
                {
                    self.clients.remove(&oldest);
                }
                client.into()
            }
        };
        self.touches += 1;
        let touched = self.touches;
        let known = self
            .clients
            .entry(Arc::clone(&name))
            .or_insert_with(|| Client { touched, events: VecDeque::new() });
        self.by_touch.remove(&known.touched);
        self.by_touch.insert(touched, name);
        known.touched = touched;
        if known.events.back_mut().is_some_and(|last| last.what.absorb(&event.what)) {
            return;
        }
        if known.events.len() == EVENTS_MAX {
            known.events.pop_front();
        }
        known.events.push_back(event);
    }
}

impl Happening {
    pub(crate) fn subscribed(filter: &str) -> Self {
        Self::Subscribed { filters: 1, first: beginning(filter) }
    }

    pub(crate) fn unsubscribed(filter: &str) -> Self {
        Self::Unsubscribed { filters: 1, first: beginning(filter) }
    }

    /// Counts another one of the same kind, where that says as much as two events.
    fn absorb(&mut self, next: &Self) -> bool {
        match (self, next) {
            (Self::Subscribed { filters, .. }, Self::Subscribed { filters: more, .. })
            | (Self::Unsubscribed { filters, .. }, Self::Unsubscribed { filters: more, .. }) => {
                *filters = filters.saturating_add(*more);
                true
            }
            _ => false,
        }
    }
}

fn beginning(filter: &str) -> Box<str> {
    filter[..filter.floor_char_boundary(FILTER_BYTES_MAX)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(at_ms: i64) -> HistoryEvent {
        let what = Happening::Refused { from: "local".into(), listener: "mqtt".into(), reason: "x".into() };
        HistoryEvent { at_ms, what }
    }

    #[test]
    fn the_client_that_was_not_touched_for_the_longest_time_goes_first() {
        let history = History::new(2);
        for (client, at) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            history.add(client, refused(at));
        }
        assert_eq!(history.of("a"), [refused(1), refused(3)]);
        assert!(history.of("b").is_empty());
        assert_eq!(history.of("c"), [refused(4)]);
        assert_eq!(history.kept.lock().by_touch.len(), 2);
    }

    #[test]
    fn only_the_last_events_of_a_client_are_kept() {
        let history = History::new(5);
        for at in 0..20 {
            history.add("a", refused(at));
        }
        let kept: Vec<_> = history.of("a").iter().map(|event| event.at_ms).collect();
        assert_eq!(kept, (8..20).collect::<Vec<_>>());
        history.add(&"x".repeat(CLIENT_BYTES_MAX + 1), refused(1));
        assert_eq!(history.kept.lock().clients.len(), 1);
        let off = History::new(0);
        off.add("a", refused(1));
        assert!(off.of("a").is_empty());
    }

    #[test]
    fn subscriptions_in_a_row_are_one_event() {
        let history = History::new(5);
        let long = "é".repeat(100);
        for filter in [&long, "b", "c"] {
            history.add("a", HistoryEvent { at_ms: 1, what: Happening::subscribed(filter) });
        }
        history.add("a", HistoryEvent { at_ms: 2, what: Happening::unsubscribed("b") });
        let events = history.of("a");
        assert_eq!(events.len(), 2);
        let Happening::Subscribed { filters: 3, first } = &events[0].what else { panic!("{events:?}") };
        assert_eq!(**first, *"é".repeat(64));
        let json = serde_json::to_string(&events[1]).unwrap();
        assert_eq!(json, r#"{"at_ms":2,"event":"unsubscribed","filters":1,"first":"b"}"#);
    }
}
