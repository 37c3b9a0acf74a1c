//! The directory of topics: rows in each topic's home group, and what this node remembers of them.
//!
//! ```text
//! t <tenant> 00 <name>   -> the topic                 (in the home group: hash of tenant and name)
//! n <number u32>         -> <tenant> 00 <name>        (in the home group)
//! d <number u32>         -> the topic                 (its shards are being dropped)
//! #                      -> next topic number u32     (in every group)
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::{AHashMap, AHashSet};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::{EngineKind, ShardId, TenantId, TopicId, TopicName};
use parking_lot::RwLock;

use crate::topic::{Origin, Retention, Topic, TopicConfig};

/// Version of a topic row.
const VERSION: u8 = 1;
/// The row that holds a group's next topic number.
pub(crate) const NEXT_NUMBER: &[u8] = b"#";
/// Topic numbers that a node takes at a time.
pub(crate) const NUMBERS_STEP: u32 = 1024;

/// What this node remembers of the topics it has met. Clones are the same directory.
#[derive(Clone, Default)]
pub(crate) struct Directory {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    known: RwLock<Known>,
    generation: AtomicU64,
}

#[derive(Default)]
struct Known {
    by_name: AHashMap<(TenantId, TopicName), Arc<Topic>>,
    by_shard: AHashMap<ShardId, Arc<Topic>>,
    /// How many [`Reading`]s there are.
    readings: usize,
    /// Topics that were removed while there was one.
    removed: AHashSet<TopicId>,
}

impl Directory {
    /// Grows when a topic was forgotten or replaced: what a core remembers of its own may be stale.
    pub(crate) fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    pub(crate) fn by_name(&self, tenant: &TenantId, name: &TopicName) -> Option<Arc<Topic>> {
        self.inner.known.read().by_name.get(&(tenant.clone(), name.clone())).cloned()
    }

    pub(crate) fn by_shard(&self, shard: ShardId) -> Option<Arc<Topic>> {
        self.inner.known.read().by_shard.get(&shard).cloned()
    }

    /// To be called before rows of topics are read or written; remembers what they said.
    pub(crate) fn reading(&self) -> Reading {
        self.inner.known.write().readings += 1;
        Reading { inner: Arc::clone(&self.inner) }
    }

    /// Forgets a topic whose row is gone.
    pub(crate) fn remove(&self, topic: &Topic) {
        let mut known = self.inner.known.write();
        if known.readings > 0 {
            known.removed.insert(topic.id);
        }
        known.by_name.remove(&(topic.tenant.clone(), topic.name.clone()));
        for shard in &topic.shards {
            known.by_shard.remove(shard);
        }
        self.inner.generation.fetch_add(1, Ordering::Release);
    }
}

/// Somebody is reading or writing rows of topics. What was read before a topic was removed may be told after that: without this, the
/// topic would come back, with nobody left to remove it.
pub(crate) struct Reading {
    inner: Arc<Inner>,
}

impl Reading {
    /// Remembers a topic; answers the one that is remembered (an equal one may have been there). None if it was removed since the
    /// reading began.
    pub(crate) fn remember(&self, topic: &Arc<Topic>) -> Option<Arc<Topic>> {
        let mut known = self.inner.known.write();
        if known.removed.contains(&topic.id) {
            return None;
        }
        let key = (topic.tenant.clone(), topic.name.clone());
        if let Some(present) = known.by_name.get(&key)
            && **present == **topic
        {
            return Some(Arc::clone(present));
        }
        for shard in &topic.shards {
            known.by_shard.insert(*shard, Arc::clone(topic));
        }
        if known.by_name.insert(key, Arc::clone(topic)).is_some() {
            self.inner.generation.fetch_add(1, Ordering::Release);
        }
        Some(Arc::clone(topic))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut known = self.inner.known.write();
        known.readings -= 1;
        if known.readings == 0 {
            known.removed = AHashSet::new();
        }
    }
}

/// Key of a topic's row.
pub(crate) fn row_key(tenant: &TenantId, name: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(2 + tenant.as_str().len() + name.len());
    key.put_u8(b't');
    key.put_slice(tenant.as_str().as_bytes());
    key.put_u8(0);
    key.put_slice(name.as_bytes());
    key.freeze()
}

/// What a topic's home group is chosen by.
pub(crate) fn home_key(tenant: &TenantId, name: &str) -> Bytes {
    row_key(tenant, name).slice(1..)
}

/// Key of the row that finds a topic by its number, or (`d`) of one that is being dropped.
pub(crate) fn number_key(kind: u8, number: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(5);
    key.put_u8(kind);
    key.put_u32(number);
    key.freeze()
}

/// Encodes a topic's row.
pub(crate) fn encode(topic: &Topic) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(VERSION);
    out.put_u128(topic.id.0);
    put_text(&mut out, topic.tenant.as_str());
    put_text(&mut out, topic.name.as_str());
    out.put_u8(match topic.origin {
        Origin::Created => 1,
        Origin::FirstUse => 2,
    });
    out.put_u8(topic.config.engine.number());
    out.put_u64(topic.config.retention.ms.unwrap_or(u64::MAX));
    out.put_u64(topic.config.retention.bytes.unwrap_or(u64::MAX));
    out.put_u32(topic.shards.len() as u32);
    for shard in &topic.shards {
        out.put_u64((*shard).into());
    }
    out.put_u16(topic.config.captures.len() as u16);
    for filter in &topic.config.captures {
        put_text(&mut out, filter);
    }
    out.put_u16(topic.config.extra.len() as u16);
    for (name, value) in &topic.config.extra {
        put_text(&mut out, name);
        put_text(&mut out, value);
    }
    out.freeze()
}

/// Decodes a topic's row; `None` if it is damaged or of a newer version.
pub(crate) fn decode(mut input: Bytes) -> Option<Topic> {
    if input.try_get_u8().ok()? != VERSION {
        return None;
    }
    let id = TopicId::from(input.try_get_u128().ok()?);
    let tenant = TenantId::new(&take_text(&mut input)?).ok()?;
    let name = TopicName::new(&take_text(&mut input)?).ok()?;
    let origin = match input.try_get_u8().ok()? {
        1 => Origin::Created,
        2 => Origin::FirstUse,
        _ => return None,
    };
    let engine = EngineKind::from_number(input.try_get_u8().ok()?)?;
    let limit = |value: u64| (value != u64::MAX).then_some(value);
    let retention =
        Retention { ms: limit(input.try_get_u64().ok()?), bytes: limit(input.try_get_u64().ok()?) };
    let count = input.try_get_u32().ok()? as usize;
    if count > usize::from(u16::MAX) || input.remaining() < count * 8 {
        return None;
    }
    let shards = (0..count).map(|_| ShardId::try_from(input.get_u64()).ok()).collect::<Option<Vec<_>>>()?;
    let captures = input.try_get_u16().ok()?;
    let captures = (0..captures).map(|_| take_text(&mut input)).collect::<Option<_>>()?;
    let extra = input.try_get_u16().ok()?;
    let extra =
        (0..extra).map(|_| Some((take_text(&mut input)?, take_text(&mut input)?))).collect::<Option<_>>()?;
    let config = TopicConfig { engine, retention, captures, extra };
    Some(Topic { id, tenant, name, shards, origin, config })
}

pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

pub(crate) fn take_text(input: &mut Bytes) -> Option<String> {
    let length = input.try_get_u32().ok()? as usize;
    if input.remaining() < length {
        return None;
    }
    String::from_utf8(input.split_to(length).to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use model::{GroupId, TopicNumber};

    use super::*;

    fn topic(id: u128) -> Topic {
        let number = TopicNumber(id as u32);
        let shard = |partition| ShardId::new(EngineKind::Segment, GroupId(1), number, partition);
        Topic {
            id: TopicId::from(id),
            tenant: TenantId::default(),
            name: TopicName::new("sensor/1").expect("legal"),
            shards: vec![shard(0), shard(1)],
            origin: Origin::Created,
            config: TopicConfig {
                engine: EngineKind::Segment,
                retention: Retention { ms: Some(1), bytes: None },
                captures: vec!["a/#".into()],
                extra: vec![("cleanup.policy".into(), "delete".into())],
            },
        }
    }

    /// Whoever had read its row before told it after: publishing to it was refused from then on.
    #[test]
    fn a_topic_that_is_removed_while_its_row_is_read_does_not_come_back() {
        let directory = Directory::default();
        let (old, new) = (Arc::new(topic(9)), Arc::new(topic(10)));
        let known = |topic: &Topic| directory.by_name(&topic.tenant, &topic.name);
        let (first, second) = (directory.reading(), directory.reading());
        assert_eq!(first.remember(&old), Some(Arc::clone(&old)));
        directory.remove(&old);
        assert_eq!(second.remember(&old), None);
        assert_eq!((known(&old), directory.by_shard(old.shards[0])), (None, None));
        // The next one of that name is another topic.
        assert_eq!(second.remember(&new), Some(Arc::clone(&new)));
        drop(first);
        assert_eq!(second.remember(&old), None);
        assert_eq!(known(&old), Some(new));
        drop(second);
        let inner = directory.inner.known.read();
        assert!(inner.readings == 0 && inner.removed.is_empty(), "nothing is kept for nobody");
    }

    #[test]
    fn a_row_comes_back_as_it_went_and_every_cut_of_it_is_refused() {
        let topic = topic(9);
        let row = encode(&topic);
        assert_eq!(decode(row.clone()), Some(topic));
        for cut in 0..row.len() {
            assert_eq!(decode(row.slice(..cut)), None, "cut at {cut}");
        }
    }
}
