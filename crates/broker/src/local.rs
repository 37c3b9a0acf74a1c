//! The seam, implemented: what a front asks is answered by the rooms of this core.

use std::rc::Rc;
use std::sync::Arc;

use auth::Access;
use bytes::Bytes;
use cluster::Command;
use meta::Follower;
use model::{Error, ErrorKind, NodeId, Offset, ShardId, TenantId, TopicName};
use storage::{Append, Change, Offsets, StoredBatch, TimeHit, TimeQuery, Watch};

use crate::broker::{Broker, SessionLease, Sink};
use crate::core_thread::{Core, log_error};
use crate::delivery::Delivery;
use crate::message::Message;
use crate::outbox::kind_of;
use crate::publisher::Publisher;
use crate::rows::Rows;
use crate::schedule::{self, ScheduleId, Scheduled};
use crate::share::{self, ShareJoin, ShareMember};
use crate::subscriber::Subscriber;
use crate::topic::{Topic, TopicSpec};
use crate::{lifecycle, retained, sessions};

impl Broker for Core {
    fn access(&self) -> &Access {
        &self.shared().access
    }

    async fn find_topic(&self, tenant: &TenantId, name: &TopicName) -> Result<Option<Arc<Topic>>, Error> {
        lifecycle::find(self, tenant, name).await
    }

    fn cached_topic(&self, tenant: &TenantId, name: &TopicName) -> Option<Arc<Topic>> {
        self.shared().directory.by_name(tenant, name)
    }

    async fn open_topic(&self, tenant: &TenantId, name: &TopicName) -> Result<Arc<Topic>, Error> {
        lifecycle::open(self, tenant, name).await
    }

    async fn create_topic(&self, spec: TopicSpec) -> Result<Arc<Topic>, Error> {
        lifecycle::create(self, spec).await
    }

    async fn delete_topic(&self, tenant: &TenantId, name: &TopicName) -> Result<(), Error> {
        lifecycle::delete(self, tenant, name).await
    }

    async fn list_topics(
        &self,
        tenant: &TenantId,
        after: Option<&TopicName>,
        limit: usize,
    ) -> Result<Vec<Arc<Topic>>, Error> {
        lifecycle::list(self, tenant, after, limit).await
    }

    async fn append(&self, shard: ShardId, batch: Bytes) -> Result<Append, Error> {
        self.append_batch(shard, batch).await
    }

    fn publisher(&self, tenant: &TenantId, sink: Rc<dyn Sink>) -> Publisher {
        Publisher::new(self.clone(), tenant.clone(), sink)
    }

    async fn read(&self, shard: ShardId, from: Offset, bytes_max: usize) -> Result<Vec<StoredBatch>, Error> {
        let group = self.group_of(shard)?;
        match group.log().read_tail(shard, from, bytes_max).map_err(log_error)? {
            Some(batches) => Ok(batches),
            None => {
                let group = group.clone();
                self.read_cold(&group, shard, from, bytes_max).await
            }
        }
    }

    fn offsets(&self, shard: ShardId) -> Result<Offsets, Error> {
        self.group_of(shard)?.log().offsets(shard).map_err(log_error)
    }

    async fn offset_for_time(&self, shard: ShardId, query: TimeQuery) -> Result<Option<TimeHit>, Error> {
        let log = Arc::clone(self.group_of(shard)?.log());
        self.offload(move || log.offset_for_time(shard, query)).await?.map_err(log_error)
    }

    fn watch(&self, shard: ShardId, beyond: Offset) -> Result<Watch, Error> {
        Ok(self.group_of(shard)?.log().watch(shard, beyond))
    }

    async fn trim(&self, shard: ShardId, to: Offset) -> Result<Offsets, Error> {
        let group = self.group_of(shard)?;
        let command = Command { changes: vec![Change::Trim { shard, to }], ..Command::default() };
        let trimmed = group.commit(command).await;
        trimmed.map_err(|error| Error::with_source(kind_of(error), "trim a shard", error))?;
        self.offsets(shard)
    }

    fn subscriber(&self, tenant: &TenantId, sink: Rc<dyn Sink>) -> Subscriber {
        Subscriber::new(self.clone(), tenant.clone(), sink)
    }

    async fn claim_session(
        &self,
        tenant: &TenantId,
        id: &str,
        sink: Rc<dyn Sink>,
    ) -> Result<(SessionLease, Option<Bytes>), Error> {
        if id.len() > usize::from(u16::MAX) {
            return Err(Error::new(ErrorKind::Invalid, "claim a session"));
        }
        sessions::claim(self.clone(), tenant.clone(), id.into(), sink).await
    }

    async fn scheduled(
        &self,
        tenant: &TenantId,
        after: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Scheduled>, Error> {
        schedule::list(self.shared(), tenant, after, limit).await
    }

    async fn cancel_scheduled(&self, tenant: &TenantId, id: ScheduleId) -> Result<bool, Error> {
        schedule::cancel(self.shared(), tenant, id).await
    }

    fn join_share(&self, join: ShareJoin, sink: Rc<dyn Sink>) -> ShareMember {
        share::join(self, join, sink)
    }

    fn forget_shares(&self, tenant: &TenantId, client: &str) {
        share::forget(self, &(tenant.clone(), client.into()));
    }

    fn rows(&self) -> Rows {
        self.rows_handle()
    }

    async fn retained(
        &self,
        tenant: &TenantId,
        filter: &crate::routing::Filter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Delivery>, Error> {
        retained::find(self, retained::Query { tenant, filter, after, limit }).await
    }

    fn is_wanted(&self, tenant: &TenantId, subject: &str) -> bool {
        !self.targets_once(tenant, subject).is_empty()
    }

    fn announce(&self, tenant: &TenantId, message: &Message<'_>) -> Result<(), ErrorKind> {
        self.announce_now(tenant, message)
    }

    fn follow(&self, kinds: &'static [&'static str]) -> Follower {
        Follower::new(self.shared().node.meta(), kinds)
    }

    fn cluster_id(&self) -> Arc<str> {
        Arc::clone(&self.shared().cluster_name)
    }

    fn message_bytes_max(&self) -> usize {
        self.shared().config.message_bytes_max
    }

    fn node_id(&self) -> NodeId {
        self.shared().node.id()
    }

    fn wall_ms(&self) -> i64 {
        self.wall_ms_now()
    }

    fn random(&self) -> u64 {
        self.shared().random()
    }
}
