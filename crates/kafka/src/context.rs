//! What handlers work with: the broker, and what this connection and this front know.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use broker::access::Action;
use broker::{Broker, Check, RowWrite, RowsOutcome, Topic};
use bytes::Bytes;
use model::{Error, ErrorKind, ShardId, TenantId, TopicId, TopicName};
use net::Peer;
use parking_lot::RwLock;
use wire::kafka::ErrorCode;
use wire::kafka::messages::StrBytes;

use crate::config::Config;
use crate::convert;
use crate::error::code_of;
use crate::groups::GroupsHandle;
use crate::login::Login;
use crate::metrics::Metrics;
use crate::resources;

/// Producer ids that a core takes at a time.
const PRODUCER_IDS_STEP: u64 = 1000;
/// Times that taking producer ids is tried again when another core was faster.
const RETRIES: usize = 32;
/// Bound: topic ids whose name is remembered.
const TOPIC_IDS_MAX: usize = 100_000;
/// Topics that one scan asks for.
pub(crate) const LIST_PAGE: usize = 1000;

/// What all connections of one core share.
pub(crate) struct FrontState<B> {
    pub(crate) broker: B,
    pub(crate) config: Arc<Config>,
    pub(crate) groups: GroupsHandle,
    pub(crate) topic_ids: Arc<TopicIds>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tenant: TenantId,
    producer_ids: RefCell<Range<u64>>,
}

impl<B> FrontState<B> {
    pub(crate) fn new(
        broker: B,
        config: Arc<Config>,
        groups: GroupsHandle,
        topic_ids: Arc<TopicIds>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let tenant = TenantId::default();
        Self { broker, config, groups, topic_ids, metrics, tenant, producer_ids: RefCell::new(0..0) }
    }
}

/// What handlers of one connection see.
pub(crate) struct Context<B> {
    pub(crate) front: Rc<FrontState<B>>,
    pub(crate) peer: Peer,
    /// Who the client is.
    pub(crate) login: Login,
    /// Where this client is told to find us.
    pub(crate) host: StrBytes,
    pub(crate) port: i32,
}

impl<B: Broker> Context<B> {
    pub(crate) fn broker(&self) -> &B {
        &self.front.broker
    }

    pub(crate) fn config(&self) -> &Config {
        &self.front.config
    }

    pub(crate) fn node_id(&self) -> i32 {
        convert::broker_id(self.front.broker.node_id())
    }

    /// The topic of that name if this node remembers it.
    pub(crate) fn cached_topic(&self, name: &str) -> Option<Arc<Topic>> {
        let name = TopicName::from_kafka(name).ok()?;
        self.front.broker.cached_topic(&self.front.tenant, &name)
    }

    /// The topic of that name, to do something with it. Spec: P35, S81.
    pub(crate) async fn topic(&self, action: Action, name: &str) -> Result<Arc<Topic>, ErrorCode> {
        let name = TopicName::from_kafka(name).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
        self.may(action, &name)?;
        self.topic_of(&name).await
    }

    pub(crate) async fn topic_of(&self, name: &TopicName) -> Result<Arc<Topic>, ErrorCode> {
        if let Some(topic) = self.front.broker.cached_topic(&self.front.tenant, name) {
            return Ok(topic);
        }
        let found = self.front.broker.find_topic(&self.front.tenant, name).await;
        found.map_err(|error| code_of(error.kind()))?.ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    /// The topic of that id, if its name is remembered: clients learn ids from Metadata, and ask there again. Spec: T17.
    pub(crate) async fn topic_by_id(&self, id: TopicId) -> Result<Arc<Topic>, ErrorCode> {
        let name = self.front.topic_ids.name(id).ok_or(ErrorCode::UnknownTopicId)?;
        match self.topic_of(&name).await {
            Ok(topic) if topic.id == id => Ok(topic),
            Ok(_) | Err(ErrorCode::UnknownTopicOrPartition) => Err(ErrorCode::UnknownTopicId),
            Err(code) => Err(code),
        }
    }

    /// As [`Context::topic_by_id`], looking through all topics if need be (after a restart).
    pub(crate) async fn search_topic_by_id(&self, id: TopicId) -> Result<Arc<Topic>, ErrorCode> {
        match self.topic_by_id(id).await {
            Err(ErrorCode::UnknownTopicId) => {}
            known => return known,
        }
        let mut after: Option<TopicName> = None;
        loop {
            let page = self.front.broker.list_topics(&self.front.tenant, after.as_ref(), LIST_PAGE).await;
            let page = page.map_err(|error| code_of(error.kind()))?;
            if let Some(topic) = page.iter().find(|topic| topic.id == id) {
                self.front.topic_ids.remember(topic);
                return Ok(Arc::clone(topic));
            }
            match page.last() {
                Some(last) if page.len() == LIST_PAGE => after = Some(last.name.clone()),
                _ => return Err(ErrorCode::UnknownTopicId),
            }
        }
    }

    /// A producer id that nobody ever had, also after a restart. Spec: I38.
    pub(crate) async fn new_producer_id(&self) -> Result<u64, Error> {
        let taken = self.front.producer_ids.borrow_mut().next();
        match taken {
            Some(id) => Ok(id),
            None => {
                let mut range = self.take_producer_ids().await?;
                let id = range.next().ok_or_else(|| Error::new(ErrorKind::Internal, "take a producer id"))?;
                *self.front.producer_ids.borrow_mut() = range;
                Ok(id)
            }
        }
    }

    async fn take_producer_ids(&self) -> Result<Range<u64>, Error> {
        let (rows, place) = (self.front.broker.rows(), resources::producer_ids_place());
        let key = resources::producer_ids_key();
        for _ in 0..RETRIES {
            let row = rows.get(&place, key.clone()).await?;
            let (next, check) = match row {
                Some(row) => {
                    let next: [u8; 8] = row
                        .value
                        .as_ref()
                        .try_into()
                        .map_err(|_| Error::new(ErrorKind::Corrupt, "read the next producer id"))?;
                    (u64::from_be_bytes(next), Check::Version { key: key.clone(), version: row.version })
                }
                None => (1, Check::Absent { key: key.clone() }),
            };
            let end = next.checked_add(PRODUCER_IDS_STEP).filter(|end| i64::try_from(*end).is_ok());
            let end = end.ok_or_else(|| Error::new(ErrorKind::QuotaExceeded, "take producer ids"))?;
            let value = Bytes::copy_from_slice(&end.to_be_bytes());
            let writes = vec![RowWrite::Put { key: key.clone(), value }];
            if let RowsOutcome::Done { .. } = rows.transact(&place, vec![check], writes).await? {
                return Ok(next..end);
            }
        }
        Err(Error::new(ErrorKind::Conflict, "take producer ids"))
    }
}

/// The shard of a partition number as sent. Spec: P35.
pub(crate) fn shard(topic: &Topic, partition: i32) -> Result<ShardId, ErrorCode> {
    let index = usize::try_from(partition).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    topic.shards.get(index).copied().ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// Whether the leader epoch that a client knows is ours. Spec: T20.
pub(crate) fn check_epoch(epoch: i32) -> Result<(), ErrorCode> {
    match epoch {
        -1 | convert::LEADER_EPOCH => Ok(()),
        newer if newer > convert::LEADER_EPOCH => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Err(ErrorCode::FencedLeaderEpoch),
    }
}

/// Names of the topics whose ids were told to clients.
///
/// Bound: `TOPIC_IDS_MAX`; then it starts again, and clients ask for metadata once more.
#[derive(Default)]
pub(crate) struct TopicIds {
    names: RwLock<AHashMap<TopicId, TopicName>>,
}

impl TopicIds {
    pub(crate) fn remember(&self, topic: &Topic) {
        if self.names.read().contains_key(&topic.id) {
            return;
        }
        let mut names = self.names.write();
        if names.len() >= TOPIC_IDS_MAX {
            names.clear();
        }
        names.insert(topic.id, topic.name.clone());
    }

    fn name(&self, id: TopicId) -> Option<TopicName> {
        self.names.read().get(&id).cloned()
    }
}
