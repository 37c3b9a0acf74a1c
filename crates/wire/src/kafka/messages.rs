//! Messages that the `kafka-wire` crate encodes, named one by one, and the two types their fields are made of.
//!
//! Fields have the names of Kafka's schemas. Make one from its `default()` and assign to its fields: a later version may add
//! more. A field that the version at hand does not have must keep its default, or encoding fails.

pub use kafka_wire_core::{StrBytes, Uuid};

pub use kafka_wire::{
    CreateAclsRequest, CreateAclsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteAclsRequest, DeleteAclsResponse, DeleteGroupsRequest,
    DeleteGroupsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeAclsRequest,
    DescribeAclsResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse, DescribeClusterRequest,
    DescribeClusterResponse, DescribeConfigsRequest, DescribeConfigsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest,
    HeartbeatResponse, InitProducerIdRequest, InitProducerIdResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    SyncGroupRequest, SyncGroupResponse,
};

pub use kafka_wire::create_acls_request::AclCreation;
pub use kafka_wire::create_acls_response::AclCreationResult;
pub use kafka_wire::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
pub use kafka_wire::create_partitions_response::CreatePartitionsTopicResult;
pub use kafka_wire::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
pub use kafka_wire::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
pub use kafka_wire::delete_acls_request::DeleteAclsFilter;
pub use kafka_wire::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
pub use kafka_wire::delete_groups_response::DeletableGroupResult;
pub use kafka_wire::delete_topics_request::DeleteTopicState;
pub use kafka_wire::delete_topics_response::DeletableTopicResult;
pub use kafka_wire::describe_acls_response::{AclDescription, DescribeAclsResource};
pub use kafka_wire::describe_client_quotas_request::ComponentData;
pub use kafka_wire::describe_client_quotas_response::{EntityData, EntryData, ValueData};
pub use kafka_wire::describe_cluster_response::DescribeClusterBroker;
pub use kafka_wire::describe_configs_request::DescribeConfigsResource;
pub use kafka_wire::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
pub use kafka_wire::describe_groups_response::{DescribedGroup, DescribedGroupMember};
pub use kafka_wire::find_coordinator_response::Coordinator;
pub use kafka_wire::join_group_request::JoinGroupRequestProtocol;
pub use kafka_wire::join_group_response::JoinGroupResponseMember;
pub use kafka_wire::leave_group_request::MemberIdentity;
pub use kafka_wire::leave_group_response::MemberResponse;
pub use kafka_wire::list_groups_response::ListedGroup;
pub use kafka_wire::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
pub use kafka_wire::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
pub use kafka_wire::metadata_request::MetadataRequestTopic;
pub use kafka_wire::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
pub use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
pub use kafka_wire::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
pub use kafka_wire::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
pub use kafka_wire::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
pub use kafka_wire::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
pub use kafka_wire::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
pub use kafka_wire::sync_group_request::SyncGroupRequestAssignment;
