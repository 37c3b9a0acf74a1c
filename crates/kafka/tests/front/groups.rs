//! Consumer groups over the wire.

use bytes::Bytes;
use testkit::{TestNode, on_core};
use wire::kafka::messages::{
    DeleteGroupsRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest, MemberIdentity, OffsetCommitRequest, OffsetCommitRequestPartition,
    OffsetCommitRequestTopic, OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
    SyncGroupRequest, SyncGroupRequestAssignment,
};
use wire::kafka::{ApiKey, ErrorCode, Request, Response};

use crate::client::{Client, Kafka};

fn join(member: &str) -> Request {
    let mut protocol = JoinGroupRequestProtocol::default();
    protocol.name = "range".into();
    protocol.metadata = Bytes::from_static(b"subscription");
    let mut request = JoinGroupRequest::default();
    request.group_id = "g".into();
    request.session_timeout_ms = 10_000;
    request.rebalance_timeout_ms = 10_000;
    request.member_id = member.into();
    request.protocol_type = "consumer".into();
    request.protocols.push(protocol);
    Request::JoinGroup(request)
}

async fn joined(client: &mut Client, member: &str) -> JoinGroupResponse {
    match client.call(9, join(member)).await {
        Response::JoinGroup(response) => response,
        other => panic!("{other:?}"),
    }
}

async fn commit(client: &mut Client, member: &str, generation: i32, offset: i64) -> i16 {
    let mut partition = OffsetCommitRequestPartition::default();
    partition.committed_offset = offset;
    partition.committed_metadata = Some("note".into());
    let mut topic = OffsetCommitRequestTopic::default();
    topic.name = "t".into();
    topic.partitions.push(partition);
    let mut request = OffsetCommitRequest::default();
    request.group_id = "g".into();
    request.member_id = member.into();
    request.generation_id_or_member_epoch = generation;
    request.topics.push(topic);
    match client.call(8, Request::OffsetCommit(request)).await {
        Response::OffsetCommit(response) => response.topics[0].partitions[0].error_code,
        other => panic!("{other:?}"),
    }
}

/// Offset and metadata of partitions 0 and 1; of every topic if `all`.
async fn committed(client: &mut Client, all: bool) -> Vec<(i64, String)> {
    let mut topic = OffsetFetchRequestTopics::default();
    topic.name = "t".into();
    topic.partition_indexes = vec![0, 1];
    let mut group = OffsetFetchRequestGroup::default();
    group.group_id = "g".into();
    group.topics = (!all).then(|| vec![topic]);
    let mut request = OffsetFetchRequest::default();
    request.groups.push(group);
    let Response::OffsetFetch(response) = client.call(8, Request::OffsetFetch(request)).await else {
        panic!()
    };
    assert_eq!(response.groups[0].error_code, 0);
    let partitions = response.groups[0].topics.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|partition| {
            assert_eq!(partition.error_code, 0);
            (partition.committed_offset, partition.metadata.as_deref().unwrap_or_default().to_owned())
        })
        .collect()
}

/// G68 to G77, from joining to a restart.
#[test]
fn a_member_joins_commits_leaves_and_its_offsets_survive() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 2).await;
        let told = joined(&mut client, "").await;
        assert_eq!(told.error_code, ErrorCode::MemberIdRequired.to_wire());
        let member = told.member_id.to_string();
        let told = joined(&mut client, &member).await;
        assert_eq!((told.error_code, told.generation_id, told.members.len()), (0, 1, 1));
        assert_eq!(told.members[0].metadata, &b"subscription"[..]);

        let mut assignment = SyncGroupRequestAssignment::default();
        assignment.member_id = member.as_str().into();
        assignment.assignment = Bytes::from_static(b"all of it");
        let mut request = SyncGroupRequest::default();
        request.group_id = "g".into();
        request.generation_id = 1;
        request.member_id = member.as_str().into();
        request.assignments.push(assignment);
        let Response::SyncGroup(synced) = client.call(5, Request::SyncGroup(request)).await else { panic!() };
        assert_eq!((synced.error_code, synced.assignment), (0, Bytes::from_static(b"all of it")));
        assert_eq!(synced.protocol_name.as_deref(), Some("range"));

        let mut request = HeartbeatRequest::default();
        request.group_id = "g".into();
        request.generation_id = 1;
        request.member_id = member.as_str().into();
        let Response::Heartbeat(beat) = client.call(4, Request::Heartbeat(request)).await else { panic!() };
        assert_eq!(beat.error_code, 0);

        assert_eq!(commit(&mut client, &member, 1, 5).await, 0);
        assert_eq!(commit(&mut client, &member, 2, 6).await, ErrorCode::IllegalGeneration.to_wire());
        assert_eq!(commit(&mut client, "other", 1, 6).await, ErrorCode::UnknownMemberId.to_wire());
        assert_eq!(committed(&mut client, false).await, [(5, "note".into()), (-1, String::new())]);
        assert_eq!(delete(&mut client).await, ErrorCode::NonEmptyGroup.to_wire());

        let mut identity = MemberIdentity::default();
        identity.member_id = member.as_str().into();
        let mut request = LeaveGroupRequest::default();
        request.group_id = "g".into();
        request.members.push(identity);
        let Response::LeaveGroup(left) = client.call(5, Request::LeaveGroup(request)).await else { panic!() };
        assert_eq!((left.error_code, left.members[0].error_code), (0, 0));
        assert_eq!(commit(&mut client, "", -1, 7).await, 0, "without members anybody may commit");
        assert_eq!(listed(&mut client).await, [("g".to_owned(), "Empty".to_owned())]);

        drop(client);
        kafka.stop().await;
        let node = TestNode::start_on(node.stop().await).await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        assert_eq!(committed(&mut client, false).await, [(7, "note".into()), (-1, String::new())]);
        assert_eq!(committed(&mut client, true).await, [(7, "note".into())]);
        assert_eq!(delete(&mut client).await, 0);
        assert_eq!(committed(&mut client, true).await, []);
        assert_eq!(delete(&mut client).await, ErrorCode::GroupIdNotFound.to_wire());
        assert!(listed(&mut client).await.is_empty());
    });
}

async fn delete(client: &mut Client) -> i16 {
    let mut request = DeleteGroupsRequest::default();
    request.groups_names.push("g".into());
    match client.call(2, Request::DeleteGroups(request)).await {
        Response::DeleteGroups(response) => response.results[0].error_code,
        other => panic!("{other:?}"),
    }
}

async fn listed(client: &mut Client) -> Vec<(String, String)> {
    match client.call(5, Request::ListGroups(ListGroupsRequest::default())).await {
        Response::ListGroups(response) => response
            .groups
            .iter()
            .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
            .collect(),
        other => panic!("{other:?}"),
    }
}

/// Requests of one member do not overtake each other: what it commits before it leaves is kept.
#[test]
fn a_commit_that_is_followed_by_leaving_is_kept() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 2).await;
        let member = joined(&mut client, "").await.member_id.to_string();
        assert_eq!(joined(&mut client, &member).await.error_code, 0);
        let mut sync = SyncGroupRequest::default();
        sync.group_id = "g".into();
        sync.generation_id = 1;
        sync.member_id = member.as_str().into();
        client.call(5, Request::SyncGroup(sync)).await;

        let mut partition = OffsetCommitRequestPartition::default();
        partition.committed_offset = 42;
        let mut topic = OffsetCommitRequestTopic::default();
        topic.name = "t".into();
        topic.partitions.push(partition);
        let mut request = OffsetCommitRequest::default();
        request.group_id = "g".into();
        request.member_id = member.as_str().into();
        request.generation_id_or_member_epoch = 1;
        request.topics.push(topic);
        let first = client.send(8, &Request::OffsetCommit(request));
        let mut leave = LeaveGroupRequest::default();
        leave.group_id = "g".into();
        leave.member_id = member.as_str().into();
        let second = client.send(1, &Request::LeaveGroup(leave));
        let response = client.response(first, ApiKey::OffsetCommit, 8).await;
        let Response::OffsetCommit(response) = response else { panic!() };
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
        let Response::LeaveGroup(response) = client.response(second, ApiKey::LeaveGroup, 1).await else {
            panic!();
        };
        assert_eq!(response.error_code, 0);
        assert_eq!(committed(&mut client, false).await[0].0, 42);
    });
}

/// A member that waits for others in a rebalance and leaves: librdkafka gave up on its answer after 5 s, and the group
/// waited with it.
#[test]
fn a_member_that_waits_may_leave() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let (mut first, mut second) = (kafka.connect(), kafka.connect());
        let stays = joined(&mut first, "").await.member_id.to_string();
        assert_eq!(joined(&mut first, &stays).await.error_code, 0);
        let leaves = joined(&mut second, "").await.member_id.to_string();
        let waiting = second.send(9, &join(&leaves));
        let mut leave = LeaveGroupRequest::default();
        leave.group_id = "g".into();
        leave.member_id = leaves.as_str().into();
        let left = second.send(1, &Request::LeaveGroup(leave));
        let Response::JoinGroup(response) = second.response(waiting, ApiKey::JoinGroup, 9).await else {
            panic!()
        };
        assert_eq!(response.error_code, ErrorCode::UnknownMemberId.to_wire());
        let Response::LeaveGroup(response) = second.response(left, ApiKey::LeaveGroup, 1).await else {
            panic!()
        };
        assert_eq!(response.error_code, 0);
        assert_eq!(joined(&mut first, &stays).await.members.len(), 1);
    });
}
