//! Captures: which topic stores the records of a subject, when it is not the topic of the subject's own name.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use meta::{Change, Expect, Follower, MetaError, News, Resources};
use model::{Error, ErrorKind, Resource, ResourceError, TenantId, TopicName};
use parking_lot::RwLock;
use tracing::error;

use crate::broker::Broker as _;
use crate::core_thread::Core;
use crate::topics::{put_text, take_text};

use crate::routing::{Dialect, Filter, Level};

/// Times that a change is tried again when another topic was faster.
const RETRIES: usize = 32;

/// All captures of one tenant: one resource, so that two topics cannot take overlapping subjects at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CaptureTable {
    tenant: TenantId,
    topics: Vec<Capturing>,
}

/// What one topic captures.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Capturing {
    topic: TopicName,
    filters: Vec<String>,
}

impl Resource for CaptureTable {
    const KIND: &'static str = "capture";
    const VERSION: u16 = 1;

    fn key(&self) -> String {
        self.tenant.as_str().to_owned()
    }

    fn encode_body(&self, body: &mut BytesMut) {
        put_text(body, self.tenant.as_str());
        body.put_u32(self.topics.len() as u32);
        for capturing in &self.topics {
            put_text(body, capturing.topic.as_str());
            body.put_u32(capturing.filters.len() as u32);
            capturing.filters.iter().for_each(|filter| put_text(body, filter));
        }
    }

    fn decode_body(_version: u16, body: &[u8]) -> Result<Self, ResourceError> {
        const MALFORMED: ResourceError = ResourceError::Malformed { kind: CaptureTable::KIND, field: "body" };
        let mut input = Bytes::copy_from_slice(body);
        let mut decode = || {
            let tenant = TenantId::new(&take_text(&mut input)?).ok()?;
            let count = input.try_get_u32().ok()?;
            let mut topics = Vec::new();
            for _ in 0..count {
                let topic = TopicName::new(&take_text(&mut input)?).ok()?;
                let count = input.try_get_u32().ok()?;
                let mut filters = Vec::new();
                for _ in 0..count {
                    filters.push(take_text(&mut input)?);
                }
                topics.push(Capturing { topic, filters });
            }
            input.is_empty().then_some(Self { tenant, topics })
        };
        decode().ok_or(MALFORMED)
    }

    fn validate(&self) -> Result<(), ResourceError> {
        const RULE: ResourceError = ResourceError::Invalid {
            kind: CaptureTable::KIND,
            field: "filters",
            rule: "must be canonical filters that do not overlap another topic's",
        };
        let mut seen: Vec<(&TopicName, Filter)> = Vec::new();
        for capturing in &self.topics {
            for filter in parse(&capturing.filters).map_err(|_| RULE)? {
                if seen.iter().any(|(topic, other)| **topic != capturing.topic && overlaps(other, &filter)) {
                    return Err(RULE);
                }
                seen.push((&capturing.topic, filter));
            }
        }
        Ok(())
    }
}

/// The captures of every tenant as this node knows them. Few; read for each subject that a core meets for the first
/// time.
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

    /// Takes what the Meta Service says of a tenant.
    fn take(&self, table: &CaptureTable) {
        let mut held = self.held.write();
        held.retain(|held| held.tenant != table.tenant);
        for capturing in &table.topics {
            // What was stored was valid.
            for filter in parse(&capturing.filters).unwrap_or_default() {
                let (tenant, topic) = (table.tenant.clone(), capturing.topic.clone());
                held.push(Capture { tenant, filter, topic });
            }
        }
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// Declares what a topic captures (nothing: takes its captures back). Durable and known to this node on return.
///
/// # Errors
/// `Invalid` for a filter that does not parse, `Conflict` for one that overlaps another topic's.
pub(crate) async fn declare(
    core: &Core,
    tenant: &TenantId,
    topic: &TopicName,
    filters: &[String],
) -> Result<(), Error> {
    parse(filters)?;
    let resources = Resources::new(core.shared().node.meta());
    for _ in 0..RETRIES {
        let known = resources.get::<CaptureTable>(tenant.as_str()).await.map_err(unavailable)?;
        let (mut table, expect) = match known {
            Some(known) => (known.resource, Expect::Version(known.version)),
            None => (CaptureTable { tenant: tenant.clone(), topics: Vec::new() }, Expect::Absent),
        };
        table.topics.retain(|capturing| capturing.topic != *topic);
        if !filters.is_empty() {
            table.topics.push(Capturing { topic: topic.clone(), filters: filters.to_vec() });
        }
        table
            .validate()
            .map_err(|error| Error::with_source(ErrorKind::Conflict, "declare captures", error))?;
        match resources.put(&table, Some(expect)).await {
            Ok(_) => {
                core.shared().captures.take(&table);
                return Ok(());
            }
            Err(MetaError::Conflict { .. }) => {}
            Err(error) => return Err(unavailable(error)),
        }
    }
    Err(Error::new(ErrorKind::Conflict, "declare captures"))
}

/// Reads all captures; then the follower is to be run.
///
/// # Errors
/// If they cannot be read: where records belong is not known then.
pub(crate) async fn open(core: &Core) -> Result<Follower, Error> {
    let mut follower = core.follow(&[CaptureTable::KIND]);
    let all = follower.next().await.map_err(unavailable)?;
    take(core, &all).map_err(|error| Error::with_source(error.kind(), "read captures", error))?;
    Ok(follower)
}

/// Follows the Meta Service until it has stopped.
pub(crate) async fn follow(core: &Core, mut follower: Follower) {
    while let Some(news) = follower.next_in_the_end().await {
        if let Err(error) = take(core, &news) {
            error!(err = %error, "changed captures cannot be read; those that were known stay");
        }
    }
}

/// Takes what can be read; an error says that some cannot.
fn take(core: &Core, news: &News) -> Result<(), ResourceError> {
    let mut outcome = Ok(());
    for (_, table) in news.changes.iter().filter_map(Change::of::<CaptureTable>) {
        match table {
            Ok(Some(table)) => core.shared().captures.take(&table),
            // A table is never removed: a tenant without captures has an empty one.
            Ok(None) => {}
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

fn unavailable(error: MetaError) -> Error {
    Error::with_source(ErrorKind::Unavailable, "ask the meta service", error)
}

fn parse(filters: &[String]) -> Result<Vec<Filter>, Error> {
    filters
        .iter()
        .map(|text| Filter::parse(text, &Dialect::CANONICAL))
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
        Filter::parse(text, &Dialect::CANONICAL).expect("a legal filter")
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
