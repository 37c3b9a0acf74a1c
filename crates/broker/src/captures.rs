//! Captures: which topic stores the records of a subject, when it is not the topic of the subject's own name.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{Error, ErrorKind, TenantId, TopicName};
use parking_lot::RwLock;

use crate::routing::{Dialect, Embedded, Filter, Level, ManyPlace, ManyTakes};

/// How capture filters are spelled: canonically, with `+` for one level and `#` for the rest.
pub(crate) const SPELLING: Dialect = Dialect {
    separator: b'/',
    one: b'+',
    many: b'#',
    many_takes: ManyTakes::ZeroOrMore,
    many_place: ManyPlace::End,
    embedded: Embedded::Refused,
    empty_levels: true,
    empty_filter: false,
    hides_dollar: true,
};

/// The captures of every tenant. Few; read for each subject that a core meets for the first time.
#[derive(Default)]
pub(crate) struct Captures {
    held: RwLock<Vec<Capture>>,
    generation: AtomicU64,
}

struct Capture {
    tenant: TenantId,
    filter: Filter,
    topic: TopicName,
}

impl Captures {
    /// Grows with every change.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The topic that captures a subject.
    pub(crate) fn topic_of(&self, tenant: &TenantId, subject: &str) -> Option<TopicName> {
        let held = self.held.read();
        let capture = held.iter().find(|held| held.tenant == *tenant && held.filter.matches(subject));
        capture.map(|capture| capture.topic.clone())
    }

    /// Whether any topic of the tenant captures subjects.
    pub(crate) fn any(&self, tenant: &TenantId) -> bool {
        self.held.read().iter().any(|held| held.tenant == *tenant)
    }

    /// Adds the captures of a topic: all of them, or none if one is misspelled or overlaps another topic's.
    ///
    /// # Errors
    /// `Invalid` for a filter that does not parse, `Conflict` for an overlap.
    pub(crate) fn add(&self, tenant: &TenantId, topic: &TopicName, filters: &[String]) -> Result<(), Error> {
        if filters.is_empty() {
            return Ok(());
        }
        let filters = parse(filters)?;
        let mut held = self.held.write();
        let taken = |filter: &Filter| {
            held.iter().any(|other| {
                other.tenant == *tenant && other.topic != *topic && overlaps(&other.filter, filter)
            })
        };
        if filters.iter().any(taken) {
            return Err(Error::new(ErrorKind::Conflict, "add a capture that overlaps another topic's"));
        }
        held.retain(|other| other.tenant != *tenant || other.topic != *topic);
        held.extend(filters.into_iter().map(|filter| Capture {
            tenant: tenant.clone(),
            filter,
            topic: topic.clone(),
        }));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Forgets the captures of a topic.
    pub(crate) fn remove(&self, tenant: &TenantId, topic: &TopicName) {
        self.held.write().retain(|held| held.tenant != *tenant || held.topic != *topic);
        self.generation.fetch_add(1, Ordering::Release);
    }
}

fn parse(filters: &[String]) -> Result<Vec<Filter>, Error> {
    filters
        .iter()
        .map(|text| Filter::parse(text, &SPELLING))
        .collect::<Result<_, _>>()
        .map_err(|error| Error::with_source(ErrorKind::Invalid, "read a capture filter", error))
}

/// Whether some subject matches both filters.
fn overlaps(a: &Filter, b: &Filter) -> bool {
    let (mut a, mut b) = (a.levels().peekable(), b.levels().peekable());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(Level::Many), _) | (_, Some(Level::Many)) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(Level::Literal(x)), Some(Level::Literal(y))) if x != y => return false,
            (Some(_), Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text, &SPELLING).expect("a legal filter")
    }

    #[test]
    fn overlap_is_a_common_subject() {
        for (a, b, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/+", "a/c", true),
            ("a/+", "a/b/c", false),
            ("a/#", "a", true),
            ("a/#", "b/#", false),
            ("+/x", "y/+", true),
            ("+/x", "y/z", false),
        ] {
            assert_eq!(overlaps(&filter(a), &filter(b)), expected, "{a} and {b}");
            assert_eq!(overlaps(&filter(b), &filter(a)), expected, "{b} and {a}");
        }
    }
}
