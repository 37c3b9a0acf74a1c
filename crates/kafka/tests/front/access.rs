//! What a client may not do is refused for each topic and group. Spec: S81.

use auth::{Effect, Object, Permission, Right, User, Who};
use model::TenantId;
use testkit::{TestNode, on_core};
use wire::kafka::messages::{HeartbeatRequest, MetadataRequest};
use wire::kafka::{ErrorCode, Request, Response};

use crate::client::{Client, Kafka, batch};

fn permission(id: &str, effect: Effect, rights: &[Right], object: Object, pattern: &str) -> Permission {
    let all = Permission::new(TenantId::default(), id, Who::Anonymous, effect, pattern);
    Permission { rights: rights.to_vec(), object, ..all }
}

async fn heartbeat(client: &mut Client, group: &str) -> ErrorCode {
    let mut request = HeartbeatRequest::default();
    request.group_id = group.into();
    match client.call(4, Request::Heartbeat(request)).await {
        Response::Heartbeat(response) => ErrorCode::from_wire(response.error_code).expect("a known code"),
        other => panic!("{other:?}"),
    }
}

async fn listed(client: &mut Client) -> Vec<String> {
    let mut request = MetadataRequest::default();
    request.topics = None;
    match client.call(12, Request::Metadata(request)).await {
        Response::Metadata(response) => {
            response.topics.iter().filter_map(|topic| topic.name.as_ref().map(ToString::to_string)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn s81_each_topic_and_group_is_refused_on_its_own() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("open.log", 1).await;
        client.create("secret", 1).await;
        client.produce("secret", 0, batch(0, &["s"])).await;
        assert_eq!(heartbeat(&mut client, "g").await, ErrorCode::UnknownMemberId);

        // From the first user on, only what is allowed; names are canonical, whatever Kafka spells them like.
        node.put(&User::new(TenantId::default(), "alice")).await;
        let denied = ErrorCode::TopicAuthorizationFailed.to_wire();
        assert_eq!(client.produce("open.log", 0, batch(0, &["x"])).await.error_code, denied);
        assert_eq!(heartbeat(&mut client, "g").await, ErrorCode::GroupAuthorizationFailed);
        assert!(listed(&mut client).await.is_empty());
        node.put(&permission("t", Effect::Allow, &[], Object::Topic, "open/#")).await;
        node.put(&permission("g", Effect::Allow, &[], Object::Group, "g")).await;
        assert_eq!(client.produce("open.log", 0, batch(0, &["1"])).await.error_code, 0);
        assert_eq!(client.fetch("open.log", 0, 0).await.error_code, 0);
        assert_eq!(client.produce("secret", 0, batch(0, &["2"])).await.error_code, denied);
        assert_eq!(client.fetch("secret", 0, 0).await.error_code, denied);
        assert_eq!(client.metadata("secret", false).await.topics[0].error_code, denied);
        assert_eq!(client.metadata("new", true).await.topics[0].error_code, denied, "nor is it created");
        assert_eq!(listed(&mut client).await, ["open.log"]);
        assert_eq!(heartbeat(&mut client, "g").await, ErrorCode::UnknownMemberId);
        assert_eq!(heartbeat(&mut client, "other").await, ErrorCode::GroupAuthorizationFailed);

        node.put(&permission("d", Effect::Deny, &[Right::Publish], Object::Topic, "open/log")).await;
        assert_eq!(client.produce("open.log", 0, batch(0, &["3"])).await.error_code, denied);
        assert_eq!(client.fetch("open.log", 0, 0).await.high_watermark, 1, "nothing came to it");
        kafka.stop().await;
        node.stop().await;
    });
}
