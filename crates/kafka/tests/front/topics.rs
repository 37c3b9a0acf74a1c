//! Creating, describing and deleting topics.

use testkit::{TestNode, on_core};
use wire::kafka::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicState,
    DeleteTopicsRequest, DescribeConfigsRequest, DescribeConfigsResource, MetadataRequest,
    MetadataRequestTopic,
};
use wire::kafka::{ApiKey, ErrorCode, FetchTopic, Request, Response};

use crate::client::{Client, Kafka, batch, fetch};

fn asked(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let mut topic = CreatableTopic::default();
    topic.name = name.into();
    topic.num_partitions = partitions;
    topic.replication_factor = 1;
    topic.configs = configs
        .iter()
        .map(|(name, value)| {
            let mut config = CreatableTopicConfig::default();
            config.name = (*name).into();
            config.value = Some((*value).into());
            config
        })
        .collect();
    topic
}

async fn create(
    client: &mut Client,
    topics: Vec<CreatableTopic>,
    validate_only: bool,
) -> CreateTopicsResponse {
    let mut request = CreateTopicsRequest::default();
    request.topics = topics;
    request.validate_only = validate_only;
    match client.call(7, Request::CreateTopics(request)).await {
        Response::CreateTopics(response) => response,
        other => panic!("{other:?}"),
    }
}

async fn delete(client: &mut Client, name: &str) -> ErrorCode {
    let mut state = DeleteTopicState::default();
    state.name = Some(name.into());
    let mut request = DeleteTopicsRequest::default();
    request.topics.push(state);
    match client.call(6, Request::DeleteTopics(request)).await {
        Response::DeleteTopics(response) => {
            ErrorCode::from_wire(response.responses[0].error_code).expect("a known code")
        }
        other => panic!("{other:?}"),
    }
}

fn codes(response: &CreateTopicsResponse) -> Vec<(String, ErrorCode)> {
    let code = |code| ErrorCode::from_wire(code).expect("a known code");
    response.topics.iter().map(|topic| (topic.name.to_string(), code(topic.error_code))).collect()
}

/// T21.
#[test]
fn topics_are_created_or_refused_one_by_one() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        let checked = create(&mut client, vec![asked("a", 3, &[])], true).await;
        assert_eq!((checked.topics[0].error_code, checked.topics[0].num_partitions), (0, 3));
        assert_eq!(client.metadata("a", false).await.topics[0].error_code, 3, "nothing was created");
        let made = create(
            &mut client,
            vec![
                asked("a", 3, &[("retention.ms", "60000")]),
                asked("twice", 1, &[]),
                asked("twice", 1, &[]),
                asked("bad name", 1, &[]),
                asked("none", 0, &[]),
                asked("b", 1, &[("segment.bytes", "1")]),
            ],
            false,
        )
        .await;
        let expected = [
            ("a", ErrorCode::None),
            ("twice", ErrorCode::InvalidRequest),
            ("bad name", ErrorCode::InvalidTopic),
            ("none", ErrorCode::InvalidPartitions),
            ("b", ErrorCode::InvalidConfig),
        ];
        assert_eq!(codes(&made), expected.map(|(name, code)| (name.to_owned(), code)));
        assert!(made.topics[1..].iter().all(|topic| topic.error_message.is_some()));
        let again = create(&mut client, vec![asked("a", 1, &[])], false).await;
        assert_eq!(codes(&again)[0].1, ErrorCode::TopicAlreadyExists);
        let told = client.metadata("a", false).await;
        assert_eq!(told.topics[0].partitions.len(), 3);
        assert_eq!(told.topics[0].topic_id, made.topics[0].topic_id);
        assert_eq!((told.brokers[0].host.as_str(), told.brokers[0].port), ("127.0.0.1", 19092));

        let mut resource = DescribeConfigsResource::default();
        resource.resource_type = 2;
        resource.resource_name = "a".into();
        resource.configuration_keys = Some(vec!["retention.ms".into()]);
        let mut request = DescribeConfigsRequest::default();
        request.resources.push(resource);
        let Response::DescribeConfigs(response) = client.call(4, Request::DescribeConfigs(request)).await
        else {
            panic!();
        };
        assert_eq!(response.results[0].configs.len(), 1);
        assert_eq!(response.results[0].configs[0].value.as_deref(), Some("60000"));
    });
}

/// T15, T16.
#[test]
fn metadata_creates_only_when_it_may() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        assert_eq!(client.metadata("t", false).await.topics[0].error_code, 3);
        let made = client.metadata("t", true).await;
        assert_eq!((made.topics[0].error_code, made.topics[0].partitions.len()), (0, 1));
        assert_eq!(client.metadata("t", false).await.topics[0].topic_id, made.topics[0].topic_id);
        for name in ["", ".", "..", "a b", "a/b", &"x".repeat(250)] {
            assert_eq!(client.metadata(name, true).await.topics[0].error_code, 17, "{name:?}");
        }
        let count = async |client: &mut Client, version, topics: Option<Vec<MetadataRequestTopic>>| {
            let mut request = MetadataRequest::default();
            request.topics = topics;
            match client.call(version, Request::Metadata(request)).await {
                Response::Metadata(response) => response.topics.len(),
                other => panic!("{other:?}"),
            }
        };
        // Spec: T14.
        assert_eq!(count(&mut client, 0, Some(Vec::new())).await, 1);
        assert_eq!(count(&mut client, 1, Some(Vec::new())).await, 0);
        assert_eq!(count(&mut client, 1, None).await, 1);
    });
}

/// T17, T22, F60, F62.
#[test]
fn a_topic_that_is_made_anew_is_another_one() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let (mut client, mut reader) = (kafka.connect(), kafka.connect());
        client.create("t", 1).await;
        client.produce("t", 0, batch(0, &["old"])).await;
        let old = client.metadata("t", false).await.topics[0].topic_id;
        let by_id = |id| {
            let Request::Fetch(mut request) = fetch("t", 0, 1, 60_000) else { panic!() };
            let partitions = request.topics[0].partitions.clone();
            request.topics = vec![FetchTopic { topic_id: id, partitions, ..FetchTopic::default() }];
            Request::Fetch(request)
        };
        let id = reader.send(16, &by_id(old));
        assert!(reader.try_frame().is_none(), "the reader waits at the end");
        assert_eq!(delete(&mut client, "t").await, ErrorCode::None);
        let Response::Fetch(response) = reader.response(id, ApiKey::Fetch, 16).await else { panic!() };
        assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicId.to_wire());
        assert_eq!(client.produce("t", 0, batch(0, &["x"])).await.error_code, 3);
        assert_eq!(delete(&mut client, "t").await, ErrorCode::UnknownTopicOrPartition);
        client.create("t", 1).await;
        let new = client.metadata("t", false).await.topics[0].topic_id;
        assert_ne!(new, old);
        assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 0, "nothing is left of the old one");
        let Response::Fetch(response) = reader.call(16, by_id(old)).await else { panic!() };
        assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicId.to_wire());
        // By id, after a restart too.
        drop((client, reader));
        kafka.stop().await;
        let node = TestNode::start_on(node.stop().await).await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        let mut topic = MetadataRequestTopic::default();
        topic.name = None;
        topic.topic_id = new;
        let mut request = MetadataRequest::default();
        request.topics = Some(vec![topic]);
        let Response::Metadata(response) = client.call(12, Request::Metadata(request)).await else {
            panic!()
        };
        assert_eq!(response.topics[0].name.as_deref(), Some("t"));
    });
}
