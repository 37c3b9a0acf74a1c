//! The APIs this codec reads and writes, with their version ranges.
//!
//! What a listener advertises is a selection of this table, made by the front.

/// An API of the Kafka protocol that this codec knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum ApiKey {
    /// Append records.
    Produce = 0,
    /// Read records.
    Fetch = 1,
    /// Offsets by time, and the ends of a partition.
    ListOffsets = 2,
    /// Brokers, topics and leaders.
    Metadata = 3,
    /// Store a group's positions.
    OffsetCommit = 8,
    /// Read a group's positions.
    OffsetFetch = 9,
    /// Which broker coordinates a group.
    FindCoordinator = 10,
    /// Become a member of a group.
    JoinGroup = 11,
    /// Stay a member of a group.
    Heartbeat = 12,
    /// Stop being a member.
    LeaveGroup = 13,
    /// Hand out or receive the assignment.
    SyncGroup = 14,
    /// State of groups.
    DescribeGroups = 15,
    /// Names of groups.
    ListGroups = 16,
    /// Which mechanism a client proves itself by.
    SaslHandshake = 17,
    /// Which versions the broker speaks.
    ApiVersions = 18,
    /// Create topics.
    CreateTopics = 19,
    /// Delete topics.
    DeleteTopics = 20,
    /// Obtain a producer id.
    InitProducerId = 22,
    /// Where a leader epoch ended.
    OffsetForLeaderEpoch = 23,
    /// List access rules.
    DescribeAcls = 29,
    /// Add access rules.
    CreateAcls = 30,
    /// Remove access rules.
    DeleteAcls = 31,
    /// Settings of topics and brokers.
    DescribeConfigs = 32,
    /// A token of a client's proof.
    SaslAuthenticate = 36,
    /// Add partitions to topics.
    CreatePartitions = 37,
    /// Forget groups.
    DeleteGroups = 42,
    /// List quotas.
    DescribeClientQuotas = 48,
    /// Brokers of the cluster.
    DescribeCluster = 60,
}

/// Versions of one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiSpec {
    /// The API.
    pub key: ApiKey,
    /// Lowest version a broker should advertise. Differs from `version_min` for Produce only: librdkafka
    /// turns compression off unless the range starts at 0.
    pub advertised_min: i16,
    /// Lowest version the codec reads and writes.
    pub version_min: i16,
    /// Highest version the codec reads and writes.
    pub version_max: i16,
    /// First version with compact lengths and tagged fields. Above `version_max` where there is none.
    pub flexible_from: i16,
}

/// Where no version is flexible.
const NEVER: i16 = i16::MAX;

const fn spec(key: ApiKey, version_min: i16, version_max: i16, flexible_from: i16) -> ApiSpec {
    ApiSpec { key, advertised_min: version_min, version_min, version_max, flexible_from }
}

/// Every API of this codec, in order of its number.
pub const APIS: [ApiSpec; 28] = [
    ApiSpec { advertised_min: 0, ..spec(ApiKey::Produce, 3, 12, 9) },
    spec(ApiKey::Fetch, 4, 17, 12),
    spec(ApiKey::ListOffsets, 1, 10, 6),
    spec(ApiKey::Metadata, 0, 13, 9),
    spec(ApiKey::OffsetCommit, 2, 9, 8),
    spec(ApiKey::OffsetFetch, 1, 9, 6),
    spec(ApiKey::FindCoordinator, 0, 6, 3),
    spec(ApiKey::JoinGroup, 0, 9, 6),
    spec(ApiKey::Heartbeat, 0, 4, 4),
    spec(ApiKey::LeaveGroup, 0, 5, 4),
    spec(ApiKey::SyncGroup, 0, 5, 4),
    spec(ApiKey::DescribeGroups, 0, 6, 5),
    spec(ApiKey::ListGroups, 0, 5, 3),
    spec(ApiKey::SaslHandshake, 0, 1, NEVER),
    spec(ApiKey::ApiVersions, 0, 4, 3),
    spec(ApiKey::CreateTopics, 2, 7, 5),
    spec(ApiKey::DeleteTopics, 1, 6, 4),
    spec(ApiKey::InitProducerId, 0, 5, 2),
    spec(ApiKey::OffsetForLeaderEpoch, 2, 4, 4),
    spec(ApiKey::DescribeAcls, 1, 3, 2),
    spec(ApiKey::CreateAcls, 1, 3, 2),
    spec(ApiKey::DeleteAcls, 1, 3, 2),
    spec(ApiKey::DescribeConfigs, 1, 4, 4),
    spec(ApiKey::SaslAuthenticate, 0, 2, 2),
    spec(ApiKey::CreatePartitions, 0, 3, 2),
    spec(ApiKey::DeleteGroups, 0, 2, 2),
    spec(ApiKey::DescribeClientQuotas, 0, 1, 1),
    spec(ApiKey::DescribeCluster, 0, 2, 0),
];

impl ApiKey {
    /// The API of a number on the wire, if this codec knows it.
    pub fn from_wire(key: i16) -> Option<Self> {
        APIS.iter().map(|spec| spec.key).find(|known| *known as i16 == key)
    }

    /// The API of a request, by the first bytes of its frame.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        frame.first_chunk().and_then(|key| Self::from_wire(i16::from_be_bytes(*key)))
    }

    /// Its number on the wire.
    pub fn to_wire(self) -> i16 {
        self as i16
    }

    /// Its row in [`APIS`].
    pub fn spec(self) -> &'static ApiSpec {
        APIS.iter()
            .find(|spec| spec.key == self)
            .expect("each key has its row: see the test beside the table")
    }

    /// Whether the codec reads and writes this version.
    pub fn supports(self, version: i16) -> bool {
        let spec = self.spec();
        (spec.version_min..=spec.version_max).contains(&version)
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.spec().flexible_from
    }

    /// Whether the response header of this version ends in tagged fields.
    ///
    /// Spec: KIP-511: ApiVersions never does, since the client does not know the broker's version yet.
    pub fn has_response_tags(self, version: i16) -> bool {
        self != Self::ApiVersions && self.is_flexible(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key, so that a new one without a row makes the match fail to compile.
    fn next(key: ApiKey) -> Option<ApiKey> {
        use ApiKey::*;
        Some(match key {
            Produce => Fetch,
            Fetch => ListOffsets,
            ListOffsets => Metadata,
            Metadata => OffsetCommit,
            OffsetCommit => OffsetFetch,
            OffsetFetch => FindCoordinator,
            FindCoordinator => JoinGroup,
            JoinGroup => Heartbeat,
            Heartbeat => LeaveGroup,
            LeaveGroup => SyncGroup,
            SyncGroup => DescribeGroups,
            DescribeGroups => ListGroups,
            ListGroups => SaslHandshake,
            SaslHandshake => ApiVersions,
            ApiVersions => CreateTopics,
            CreateTopics => DeleteTopics,
            DeleteTopics => InitProducerId,
            InitProducerId => OffsetForLeaderEpoch,
            OffsetForLeaderEpoch => DescribeAcls,
            DescribeAcls => CreateAcls,
            CreateAcls => DeleteAcls,
            DeleteAcls => DescribeConfigs,
            DescribeConfigs => SaslAuthenticate,
            SaslAuthenticate => CreatePartitions,
            CreatePartitions => DeleteGroups,
            DeleteGroups => DescribeClientQuotas,
            DescribeClientQuotas => DescribeCluster,
            DescribeCluster => return None,
        })
    }

    #[test]
    fn every_key_has_its_row_in_order() {
        let mut key = Some(ApiKey::Produce);
        let mut rows = 0;
        while let Some(at) = key {
            assert_eq!(at.spec().key, at);
            assert_eq!(ApiKey::from_wire(at.to_wire()), Some(at));
            rows += 1;
            key = next(at);
        }
        assert_eq!(rows, APIS.len());
        assert!(APIS.is_sorted_by_key(|spec| spec.key));
        assert_eq!(ApiKey::from_wire(999), None);
        assert_eq!(ApiKey::of_frame(&[0, 18, 0]), Some(ApiKey::ApiVersions));
        assert_eq!((ApiKey::of_frame(&[0]), ApiKey::of_frame(&[3, 231])), (None, None));
    }

    #[test]
    fn the_table_agrees_with_the_schemas() {
        for spec in APIS {
            let schema = kafka_wire::API_DESCRIPTORS
                .iter()
                .find(|schema| schema.api_key.value() == spec.key.to_wire())
                .expect("the schemas know every key");
            assert!(spec.version_min >= schema.supported_versions.min().value(), "{spec:?}");
            assert!(spec.version_max <= schema.supported_versions.max().value(), "{spec:?}");
            let flexible_from = schema.flexible_versions.map_or(NEVER, |range| range.min().value());
            assert_eq!(spec.flexible_from, flexible_from, "{spec:?}");
        }
    }
}
