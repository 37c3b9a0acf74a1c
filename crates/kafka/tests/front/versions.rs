//! Every advertised version of every API is answered: no field stands in the way of an encoding.

use std::ops::RangeInclusive;

use bytes::Bytes;
use testkit::{TestNode, on_core};
use wire::kafka::messages::{
    AclCreation, CreatableTopic, CreateAclsRequest, CreateTopicsRequest, DeleteAclsFilter, DeleteAclsRequest,
    DeleteGroupsRequest, DeleteTopicState, DeleteTopicsRequest, DescribeAclsRequest,
    DescribeClientQuotasRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest,
    JoinGroupRequestProtocol, LeaveGroupRequest, ListGroupsRequest, ListOffsetsPartition, ListOffsetsRequest,
    ListOffsetsTopic, MemberIdentity, MetadataRequest, MetadataRequestTopic, OffsetCommitRequest,
    OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetFetchRequest, OffsetFetchRequestGroup,
    OffsetFetchRequestTopic, OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
    SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest,
};
use wire::kafka::{ApiKey, ApiRange, ApiVersionsRequest, FetchTopic, Request, Response};

use crate::client::{Client, Kafka, batch, fetch, produce};

/// A request that finds something, and for the group APIs one that is refused.
fn requests(api: ApiKey, version: i16, topic_id: wire::kafka::messages::Uuid) -> Vec<Request> {
    match api {
        ApiKey::Produce => {
            vec![produce("t", 0, batch(0, &["x"]), -1), produce("none", 0, batch(0, &["x"]), -1)]
        }
        ApiKey::Fetch => {
            let Request::Fetch(mut request) = fetch("t", 0, 0, 0) else { panic!() };
            if version >= 13 {
                let partitions = request.topics[0].partitions.clone();
                request.topics = vec![FetchTopic { topic_id, partitions, ..FetchTopic::default() }];
            }
            vec![Request::Fetch(request)]
        }
        ApiKey::ApiVersions => {
            let named =
                ApiVersionsRequest { client_software_name: "t".into(), client_software_version: "1".into() };
            vec![Request::ApiVersions(named)]
        }
        ApiKey::Metadata | ApiKey::CreateTopics | ApiKey::DeleteTopics | ApiKey::DescribeConfigs => {
            topic_requests(api, version, topic_id)
        }
        ApiKey::ListOffsets | ApiKey::OffsetForLeaderEpoch => offset_requests(api),
        ApiKey::OffsetCommit | ApiKey::OffsetFetch | ApiKey::JoinGroup | ApiKey::LeaveGroup => {
            group_requests(api, version)
        }
        _ => other_requests(api, version),
    }
}

fn topic_requests(api: ApiKey, version: i16, topic_id: wire::kafka::messages::Uuid) -> Vec<Request> {
    let mut known = MetadataRequestTopic::default();
    known.name = Some("t".into());
    match api {
        ApiKey::Metadata => {
            let mut unknown = MetadataRequestTopic::default();
            unknown.name = Some("a b".into());
            let mut request = MetadataRequest::default();
            let mut topics = vec![known, unknown];
            if version >= 12 {
                let mut by_id = MetadataRequestTopic::default();
                by_id.name = None;
                by_id.topic_id = topic_id;
                topics.push(by_id.clone());
                by_id.topic_id = wire::kafka::messages::Uuid::from_bytes([7; 16]);
                topics.push(by_id);
            }
            request.topics = Some(topics);
            request.include_topic_authorized_operations = version >= 8;
            request.include_cluster_authorized_operations = (8..=10).contains(&version);
            let mut all = MetadataRequest::default();
            all.topics = if version == 0 { Some(Vec::new()) } else { None };
            vec![Request::Metadata(request), Request::Metadata(all)]
        }
        ApiKey::CreateTopics => {
            let mut topic = CreatableTopic::default();
            topic.name = format!("made-{version}").into();
            topic.num_partitions = 1;
            topic.replication_factor = 1;
            let mut request = CreateTopicsRequest::default();
            request.topics.push(topic.clone());
            topic.replication_factor = 3;
            let mut refused = CreateTopicsRequest::default();
            refused.topics.push(topic);
            vec![Request::CreateTopics(request), Request::CreateTopics(refused)]
        }
        ApiKey::DeleteTopics => {
            let mut request = DeleteTopicsRequest::default();
            if version >= 6 {
                let mut state = DeleteTopicState::default();
                state.name = Some("none".into());
                request.topics.push(state);
                let mut state = DeleteTopicState::default();
                state.topic_id = wire::kafka::messages::Uuid::from_bytes([7; 16]);
                request.topics.push(state);
            } else {
                request.topic_names.push("none".into());
            }
            vec![Request::DeleteTopics(request)]
        }
        _ => {
            let mut topic = DescribeConfigsResource::default();
            topic.resource_type = 2;
            topic.resource_name = "t".into();
            let mut broker = DescribeConfigsResource::default();
            broker.resource_type = 4;
            let mut request = DescribeConfigsRequest::default();
            request.resources = vec![topic, broker, DescribeConfigsResource::default()];
            request.include_documentation = version >= 3;
            vec![Request::DescribeConfigs(request)]
        }
    }
}

fn offset_requests(api: ApiKey) -> Vec<Request> {
    if api == ApiKey::ListOffsets {
        let request = |name: &str| {
            let mut partition = ListOffsetsPartition::default();
            partition.timestamp = 0;
            let mut topic = ListOffsetsTopic::default();
            topic.name = name.into();
            topic.partitions.push(partition);
            let mut request = ListOffsetsRequest::default();
            request.topics.push(topic);
            Request::ListOffsets(request)
        };
        return vec![request("t"), request("none")];
    }
    let mut topic = OffsetForLeaderTopic::default();
    topic.topic = "t".into();
    topic.partitions.push(OffsetForLeaderPartition::default());
    let mut request = OffsetForLeaderEpochRequest::default();
    request.topics.push(topic);
    vec![Request::OffsetForLeaderEpoch(request)]
}

fn group_requests(api: ApiKey, version: i16) -> Vec<Request> {
    match api {
        ApiKey::OffsetCommit => {
            let mut topic = OffsetCommitRequestTopic::default();
            topic.name = "t".into();
            topic.partitions.push(OffsetCommitRequestPartition::default());
            let mut request = OffsetCommitRequest::default();
            request.group_id = "g".into();
            request.generation_id_or_member_epoch = -1;
            request.topics.push(topic);
            vec![Request::OffsetCommit(request)]
        }
        ApiKey::OffsetFetch => {
            let mut request = OffsetFetchRequest::default();
            if version >= 8 {
                let mut group = OffsetFetchRequestGroup::default();
                group.group_id = "g".into();
                request.groups = vec![group, OffsetFetchRequestGroup::default()];
                return vec![Request::OffsetFetch(request)];
            }
            request.group_id = "g".into();
            let mut topic = OffsetFetchRequestTopic::default();
            topic.name = "t".into();
            topic.partition_indexes = vec![0, 9];
            request.topics = Some(vec![topic]);
            let mut refused = request.clone();
            refused.group_id = "".into();
            vec![Request::OffsetFetch(request), Request::OffsetFetch(refused)]
        }
        ApiKey::LeaveGroup => {
            let mut request = LeaveGroupRequest::default();
            request.group_id = "left".into();
            if version >= 3 {
                request.members.push(MemberIdentity::default());
            }
            vec![Request::LeaveGroup(request)]
        }
        _ => {
            let mut protocol = JoinGroupRequestProtocol::default();
            protocol.name = "range".into();
            protocol.metadata = Bytes::from_static(b"m");
            let mut request = JoinGroupRequest::default();
            request.group_id = format!("joined-{version}").into();
            request.protocol_type = "consumer".into();
            request.session_timeout_ms = 10_000;
            request.protocols.push(protocol);
            if version >= 5 {
                request.group_instance_id = Some("one".into());
            }
            let mut refused = request.clone();
            refused.session_timeout_ms = 1;
            vec![Request::JoinGroup(request), Request::JoinGroup(refused)]
        }
    }
}

fn other_requests(api: ApiKey, version: i16) -> Vec<Request> {
    match api {
        ApiKey::FindCoordinator => {
            let request = |key_type| {
                let mut request = FindCoordinatorRequest::default();
                if version >= 4 {
                    request.coordinator_keys.push("g".into());
                } else {
                    request.key = "g".into();
                }
                request.key_type = key_type;
                Request::FindCoordinator(request)
            };
            if version == 0 { vec![request(0)] } else { vec![request(0), request(1)] }
        }
        ApiKey::SyncGroup => vec![Request::SyncGroup(SyncGroupRequest::default())],
        ApiKey::Heartbeat => vec![Request::Heartbeat(HeartbeatRequest::default())],
        ApiKey::DescribeGroups => {
            let mut request = DescribeGroupsRequest::default();
            request.groups = vec!["g".into(), "none".into(), "joined-0".into()];
            request.include_authorized_operations = version >= 3;
            vec![Request::DescribeGroups(request)]
        }
        ApiKey::ListGroups => vec![Request::ListGroups(ListGroupsRequest::default())],
        ApiKey::InitProducerId => {
            let mut request = InitProducerIdRequest::default();
            request.transactional_id = None;
            let refused = InitProducerIdRequest::default();
            vec![Request::InitProducerId(request), Request::InitProducerId(refused)]
        }
        ApiKey::DescribeAcls => vec![Request::DescribeAcls(DescribeAclsRequest::default())],
        ApiKey::CreateAcls => {
            let mut request = CreateAclsRequest::default();
            request.creations.push(AclCreation::default());
            vec![Request::CreateAcls(request)]
        }
        ApiKey::DeleteAcls => {
            let mut request = DeleteAclsRequest::default();
            request.filters.push(DeleteAclsFilter::default());
            vec![Request::DeleteAcls(request)]
        }
        ApiKey::DeleteGroups => {
            let mut request = DeleteGroupsRequest::default();
            request.groups_names.push("none".into());
            vec![Request::DeleteGroups(request)]
        }
        ApiKey::DescribeClientQuotas => {
            vec![Request::DescribeClientQuotas(DescribeClientQuotasRequest::default())]
        }
        ApiKey::DescribeCluster => {
            let mut request = DescribeClusterRequest::default();
            request.include_cluster_authorized_operations = true;
            vec![Request::DescribeCluster(request)]
        }
        other => panic!("{other:?} has no request here"),
    }
}

#[test]
fn every_advertised_version_is_answered() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 1).await;
        let topic_id = client.metadata("t", false).await.topics[0].topic_id;
        for ApiRange { key, version_min, version_max } in advertised(&mut client).await {
            let api = ApiKey::from_wire(key).expect("known to the codec");
            if matches!(api, ApiKey::SaslHandshake | ApiKey::SaslAuthenticate) {
                // They change what the connection takes next.
                logs_in(&kafka, api, version_min..=version_max).await;
                continue;
            }
            for version in version_min.max(api.spec().version_min)..=version_max {
                for request in requests(api, version, topic_id) {
                    let id = client.send(version, &request);
                    let response = client.response(id, api, version).await;
                    assert_eq!(response.api(), api, "version {version}");
                }
            }
        }
    });
}

async fn logs_in(kafka: &Kafka, api: ApiKey, versions: RangeInclusive<i16>) {
    for version in versions {
        let mut client = kafka.connect();
        let mut handshake = SaslHandshakeRequest::default();
        handshake.mechanism = "PLAIN".into();
        if api == ApiKey::SaslHandshake {
            client.call(version, Request::SaslHandshake(handshake)).await;
            continue;
        }
        client.call(1, Request::SaslHandshake(handshake)).await;
        let mut token = SaslAuthenticateRequest::default();
        token.auth_bytes = Bytes::from_static(b"\0anybody\0x");
        let Response::SaslAuthenticate(response) =
            client.call(version, Request::SaslAuthenticate(token)).await
        else {
            panic!("another response");
        };
        // Nobody has set up users: it is let in as an anonymous client.
        assert_eq!(response.error_code, 0, "version {version}");
    }
}

async fn advertised(client: &mut Client) -> Vec<ApiRange> {
    match client.call(0, Request::ApiVersions(ApiVersionsRequest::default())).await {
        Response::ApiVersions(response) => response.apis,
        other => panic!("{other:?}"),
    }
}
