//! How topics come and go: one transaction in the topic's home group decides, so first use and an explicit create
//! cannot race.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use cluster::{Command, Group};
use model::{EngineKind, Error, ErrorKind, GroupId, ShardId, TenantId, TopicId, TopicName, TopicNumber};
use storage::Change;

use crate::captures;
use crate::core_thread::Core;
use crate::node::Counters;
use crate::retention::home_index;
use crate::rows::{Check, Place, RowWrite, RowsOutcome};
use crate::topic::{Origin, Topic, TopicConfig, TopicSpec};
use crate::topics::{self, NEXT_NUMBER, NUMBERS_STEP, Reading};

/// Times that a transaction is tried again when somebody else was faster.
const RETRIES: usize = 16;

/// The topic, from memory or from its home group.
pub(crate) async fn find(
    core: &Core,
    tenant: &TenantId,
    name: &TopicName,
) -> Result<Option<Arc<Topic>>, Error> {
    if let Some(topic) = core.shared().directory.by_name(tenant, name) {
        return Ok(Some(topic));
    }
    let reading = core.shared().directory.reading();
    let place = home(tenant, name);
    let row = core.rows_handle().get(&place, topics::row_key(tenant, name.as_str())).await?;
    row.map_or(Ok(None), |row| remember(&reading, row.value))
}

/// The topic, created with the defaults of first use if need be.
pub(crate) async fn open(core: &Core, tenant: &TenantId, name: &TopicName) -> Result<Arc<Topic>, Error> {
    for _ in 0..RETRIES {
        if let Some(topic) = find(core, tenant, name).await? {
            return Ok(topic);
        }
        let spec = TopicSpec {
            tenant: tenant.clone(),
            name: name.clone(),
            shards: None,
            origin: Origin::FirstUse,
            config: None,
            dry_run: false,
        };
        match create(core, spec).await {
            Ok(topic) => {
                Counters::add(&core.shared().counters.topics_created, 1);
                return Ok(topic);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(ErrorKind::Conflict, "open a topic"))
}

/// Creates a topic; `AlreadyExists`.
pub(crate) async fn create(core: &Core, spec: TopicSpec) -> Result<Arc<Topic>, Error> {
    let shared = core.shared();
    let count = spec.shards.unwrap_or(shared.config.shards_default);
    if count == 0 {
        return Err(Error::new(ErrorKind::Invalid, "create a topic without shards"));
    }
    let config = spec.config.clone().unwrap_or_else(|| default_config(core, spec.origin));
    let place = home(&spec.tenant, &spec.name);
    let home = core.rows_handle().group_of(&place)?;
    let row_key = topics::row_key(&spec.tenant, spec.name.as_str());
    if spec.dry_run {
        if core.rows_handle().get(&place, row_key).await?.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "create a topic"));
        }
        return Ok(Arc::new(planned(core, &spec, config, (home, TopicNumber(0), count))));
    }
    let number = next_number(core, home).await?;
    let topic = planned(core, &spec, config, (home, number, count));
    let captures = &topic.config.captures;
    if !captures.is_empty() {
        // Before the topic is there, so that no record of a captured subject is stored elsewhere once it is.
        if core.rows_handle().get(&place, row_key.clone()).await?.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "create a topic"));
        }
        captures::declare(core, &topic.tenant, &topic.name, captures).await?;
    }
    let value = topics::encode(&topic);
    let name_of_number = topics::home_key(&topic.tenant, topic.name.as_str());
    let writes = vec![
        RowWrite::Put { key: row_key.clone(), value },
        RowWrite::Put { key: topics::number_key(b'n', number.0), value: name_of_number },
    ];
    let reading = shared.directory.reading();
    match core.rows_handle().transact(&place, vec![Check::Absent { key: row_key }], writes).await {
        Ok(RowsOutcome::Done { .. }) => {
            let topic = Arc::new(topic);
            // It was created, even if it is gone by now.
            Ok(reading.remember(&topic).unwrap_or(topic))
        }
        Ok(RowsOutcome::Refused) => {
            restore_captures(core, &topic).await?;
            Err(Error::new(ErrorKind::AlreadyExists, "create a topic"))
        }
        Err(error) => Err(error),
    }
}

/// A topic of that name came first: its captures, not those of the attempt, hold.
async fn restore_captures(core: &Core, attempt: &Topic) -> Result<(), Error> {
    if attempt.config.captures.is_empty() {
        return Ok(());
    }
    let present = find(core, &attempt.tenant, &attempt.name).await?;
    let captures = present.map_or_else(Vec::new, |topic| topic.config.captures.clone());
    captures::declare(core, &attempt.tenant, &attempt.name, &captures).await
}

/// Removes a topic: first its name, then its shards.
pub(crate) async fn delete(core: &Core, tenant: &TenantId, name: &TopicName) -> Result<(), Error> {
    for _ in 0..RETRIES {
        let key = topics::row_key(tenant, name.as_str());
        let place = home(tenant, name);
        let Some(row) = core.rows_handle().get(&place, key.clone()).await? else {
            return Err(Error::new(ErrorKind::NotFound, "delete a topic"));
        };
        let topic = decode(row.value.clone())?;
        let Some(number) = topic.shards.first().map(|shard| shard.topic()) else {
            return Err(Error::new(ErrorKind::Internal, "delete a topic without shards"));
        };
        let writes = vec![
            RowWrite::Delete { key: key.clone() },
            RowWrite::Delete { key: topics::number_key(b'n', number.0) },
            // Found at the next start if we do not get to drop all shards.
            RowWrite::Put { key: topics::number_key(b'd', number.0), value: row.value },
        ];
        let checks = vec![Check::Version { key, version: row.version }];
        let outcome = core.rows_handle().transact(&place, checks, writes).await?;
        if matches!(outcome, RowsOutcome::Done { .. }) {
            core.shared().directory.remove(&topic);
            if !topic.config.captures.is_empty() {
                captures::declare(core, tenant, name, &[]).await?;
            }
            return drop_shards(core, &topic).await;
        }
    }
    Err(Error::new(ErrorKind::Conflict, "delete a topic"))
}

/// Drops the shards of a topic whose name is gone already, and forgets that this was to be done.
pub(crate) async fn drop_shards(core: &Core, topic: &Topic) -> Result<(), Error> {
    for shard in &topic.shards {
        let command = Command { changes: vec![Change::Drop { shard: *shard }], ..Command::default() };
        let dropped = core.group_of(*shard)?.commit(command).await;
        dropped.map_err(|error| Error::with_source(crate::outbox::kind_of(error), "drop a shard", error))?;
    }
    let Some(number) = topic.shards.first().map(|shard| shard.topic()) else { return Ok(()) };
    let done = RowWrite::Delete { key: topics::number_key(b'd', number.0) };
    core.rows_handle().transact(&home(&topic.tenant, &topic.name), Vec::new(), vec![done]).await?;
    Ok(())
}

/// Topics in name order.
pub(crate) async fn list(
    core: &Core,
    tenant: &TenantId,
    after: Option<&TopicName>,
    limit: usize,
) -> Result<Vec<Arc<Topic>>, Error> {
    let prefix = topics::row_key(tenant, "");
    let from = after.map_or_else(Bytes::new, |name| {
        let mut from = BytesMut::from(&topics::row_key(tenant, name.as_str())[..]);
        from.put_u8(0);
        from.freeze()
    });
    let reading = core.shared().directory.reading();
    let mut found = BTreeMap::new();
    for group in core.rows_handle().groups() {
        let place = Place::Group(group);
        let rows = core.rows_handle().scan(&place, prefix.clone(), from.clone(), limit).await?;
        for row in rows {
            let topic = Arc::new(decode(row.value)?);
            // One that is deleted meanwhile stays in the answer: a shorter page would look like the last.
            let topic = reading.remember(&topic).unwrap_or(topic);
            found.insert(topic.name.as_str().to_owned(), topic);
        }
    }
    Ok(found.into_values().take(limit).collect())
}

/// Finds the topic that a shard belongs to.
pub(crate) async fn load_by_shard(core: &Core, shard: ShardId) -> Result<Option<Arc<Topic>>, Error> {
    let Some(home) = core.groups().get(home_index(shard, core.groups().len())) else { return Ok(None) };
    let reading = core.shared().directory.reading();
    let place = Place::Group(home.id());
    let key = topics::number_key(b'n', shard.topic().0);
    let Some(name) = core.rows_handle().get(&place, key).await? else { return Ok(None) };
    let mut row_key = BytesMut::with_capacity(name.value.len() + 1);
    row_key.put_u8(b't');
    row_key.put_slice(&name.value);
    let row = core.rows_handle().get(&place, row_key.freeze()).await?;
    row.map_or(Ok(None), |row| remember(&reading, row.value))
}

/// The topic of a row, unless it was deleted while the row was read.
fn remember(reading: &Reading, row: Bytes) -> Result<Option<Arc<Topic>>, Error> {
    Ok(reading.remember(&Arc::new(decode(row)?)))
}

fn decode(row: Bytes) -> Result<Topic, Error> {
    topics::decode(row).ok_or_else(|| Error::new(ErrorKind::Corrupt, "read a topic"))
}

fn home(tenant: &TenantId, name: &TopicName) -> Place {
    Place::ByKey(topics::home_key(tenant, name.as_str()))
}

fn default_config(core: &Core, origin: Origin) -> TopicConfig {
    let config = &core.shared().config;
    let retention = match origin {
        Origin::Created => config.retention_created,
        Origin::FirstUse => config.retention_first_use,
    };
    TopicConfig { engine: EngineKind::Segment, retention, captures: Vec::new(), extra: Vec::new() }
}

/// The topic as it will be: partition `p` lives `p` groups after the home group.
fn planned(
    core: &Core,
    spec: &TopicSpec,
    config: TopicConfig,
    (home, number, count): (GroupId, TopicNumber, u16),
) -> Topic {
    let groups: Vec<GroupId> = core.groups().iter().map(Group::id).collect();
    let first = groups.iter().position(|group| *group == home).unwrap_or(0);
    let shard = |partition: u16| {
        let group = groups[(first + usize::from(partition)) % groups.len()];
        ShardId::new(config.engine, group, number, partition)
    };
    let id = (u128::from(core.shared().random()) << 64) | u128::from(core.shared().random());
    Topic {
        id: TopicId::from(id),
        tenant: spec.tenant.clone(),
        name: spec.name.clone(),
        shards: (0..count).map(shard).collect(),
        origin: spec.origin,
        config,
    }
}

/// A topic number that nobody else has: nodes take them from the home group in steps.
async fn next_number(core: &Core, home: GroupId) -> Result<TopicNumber, Error> {
    let mut numbers = core.shared().numbers.lock().await;
    let range = numbers.entry(home).or_insert(0..0);
    if range.start == range.end {
        *range = take_numbers(core, home).await?;
    }
    let number = range.start;
    range.start += 1;
    Ok(TopicNumber(number))
}

async fn take_numbers(core: &Core, home: GroupId) -> Result<std::ops::Range<u32>, Error> {
    let place = Place::Group(home);
    let key = Bytes::from_static(NEXT_NUMBER);
    for _ in 0..RETRIES {
        let row = core.rows_handle().get(&place, key.clone()).await?;
        let next = match &row {
            Some(row) => row
                .value
                .as_ref()
                .try_into()
                .map(u32::from_be_bytes)
                .map_err(|_| Error::new(ErrorKind::Corrupt, "read the next topic number"))?,
            None => 1,
        };
        let end = next
            .checked_add(NUMBERS_STEP)
            .ok_or_else(|| Error::new(ErrorKind::QuotaExceeded, "take a topic number"))?;
        let check = match row {
            Some(row) => Check::Version { key: key.clone(), version: row.version },
            None => Check::Absent { key: key.clone() },
        };
        let write = RowWrite::Put { key: key.clone(), value: Bytes::copy_from_slice(&end.to_be_bytes()) };
        let outcome = core.rows_handle().transact(&place, vec![check], vec![write]).await?;
        if matches!(outcome, RowsOutcome::Done { .. }) {
            return Ok(next..end);
        }
    }
    Err(Error::new(ErrorKind::Conflict, "take topic numbers"))
}
