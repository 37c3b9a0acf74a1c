//! Topics: named streams of records with one or more shards.

use model::{EngineKind, ShardId, TenantId, TopicId, TopicName};

/// A topic as its home group recorded it. Immutable: a change of configuration is a new value under the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Differs for every topic ever created, also under one name.
    pub id: TopicId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Canonical name.
    pub name: TopicName,
    /// Its shards, by partition number. Never empty.
    pub shards: Vec<ShardId>,
    /// How it came to be.
    pub origin: Origin,
    /// Settings.
    pub config: TopicConfig,
}

/// How a topic came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Asked for by name: listed in answers about all topics.
    Created,
    /// Made by the first message or reader.
    FirstUse,
}

/// Settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Where its records are kept.
    pub engine: EngineKind,
    /// How long.
    pub retention: Retention,
    /// Subjects whose records are stored here instead of in topics of their own (canonical filters, `+` and `#`).
    pub captures: Vec<String>,
    /// Settings that a front keeps for itself, by name (a Kafka topic's `cleanup.policy`, say).
    pub extra: Vec<(String, String)>,
}

/// When records may be removed. Each shard on its own; `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Age in ms by record timestamp.
    pub ms: Option<u64>,
    /// Bytes of one shard.
    pub bytes: Option<u64>,
}

/// What to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Whose it is.
    pub tenant: TenantId,
    /// Canonical name.
    pub name: TopicName,
    /// Number of shards, 1 to 65,535; `None`: the configured default.
    pub shards: Option<u16>,
    /// How it came to be.
    pub origin: Origin,
    /// Settings; `None`: the configured defaults for its origin.
    pub config: Option<TopicConfig>,
    /// Check everything, create nothing; the answer is the topic as it would be.
    pub dry_run: bool,
}
