//! Our hand-written messages against the generated ones: the same bytes, at every version both know.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::{Bytes, BytesMut};
use kafka_wire::{
    KafkaMessage, OutboundFrameLimits, fetch_request, fetch_response, produce_request, produce_response,
    response_header_version_for,
};
use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaEncode};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use wire::kafka::messages::{StrBytes, Uuid};
use wire::kafka::{
    AbortedTransaction, ApiKey, ApiRange, ApiVersionsRequest, ApiVersionsResponse, FetchPartition,
    FetchPartitionAnswer, FetchRequest, FetchResponse, FetchTopic, FetchTopicAnswer, ForgottenTopic, Limits,
    Output, ProducePartition, ProducePartitionAnswer, ProduceRequest, ProduceResponse, ProduceTopic,
    ProduceTopicAnswer, RecordError, ReplyHeader, Request, RequestHeader, Response, decode_request,
    decode_response, encode_request, encode_response,
};

/// Our bytes of a request body, and what we decode from the whole frame.
fn through_ours(api: ApiKey, version: i16, request: &Request) -> (Bytes, Request) {
    let header = RequestHeader { api, version, correlation_id: 1, client_id: None };
    let mut output = Output::new();
    encode_request(&header, request, &mut output).unwrap();
    let frame = output.take_bytes().slice(4..);
    let (decoded_header, decoded) = decode_request(&frame, &Limits::default()).unwrap();
    assert_eq!(decoded_header, header);
    let header_len = 10 + usize::from(api.is_flexible(version));
    (frame.slice(header_len..), decoded)
}

fn response_through_ours(api: ApiKey, version: i16, response: &Response) -> (Bytes, Response) {
    let mut output = Output::new();
    encode_response(ReplyHeader { version, correlation_id: 1 }, response, &mut output).unwrap();
    let frame = output.take_bytes().slice(4..);
    let (correlation_id, decoded) = decode_response(&frame, api, version, &Limits::default()).unwrap();
    assert_eq!(correlation_id, 1);
    (frame.slice(4 + usize::from(api.has_response_tags(version))..), decoded)
}

/// What the oracle reads from our bytes, having checked that it writes the same.
fn oracle<M: KafkaMessage>(bytes: &Bytes, version: i16) -> M {
    let version = ApiVersion::new(version);
    let message = M::decode_from_bytes(bytes.clone(), version, DecodeLimits::default()).unwrap();
    assert_eq!(&message.encode_to_bytes(version).unwrap(), bytes);
    message
}

// What the oracle read, in our types. Fields that the version lacks have the oracle's defaults, which must be ours.

fn produce_request_of(from: kafka_wire::ProduceRequest) -> ProduceRequest {
    let partition = |from: produce_request::PartitionProduceData| ProducePartition {
        index: from.index,
        records: from.records,
    };
    let topic = |from: produce_request::TopicProduceData| ProduceTopic {
        name: from.name,
        partitions: from.partition_data.into_iter().map(partition).collect(),
    };
    ProduceRequest {
        transactional_id: from.transactional_id,
        acks: from.acks,
        timeout_ms: from.timeout_ms,
        topics: from.topic_data.into_iter().map(topic).collect(),
    }
}

fn produce_response_of(from: kafka_wire::ProduceResponse) -> ProduceResponse {
    let error = |from: produce_response::BatchIndexAndErrorMessage| RecordError {
        batch_index: from.batch_index,
        message: from.batch_index_error_message,
    };
    let partition = |from: produce_response::PartitionProduceResponse| ProducePartitionAnswer {
        index: from.index,
        error_code: from.error_code,
        base_offset: from.base_offset,
        log_append_time_ms: from.log_append_time_ms,
        log_start_offset: from.log_start_offset,
        record_errors: from.record_errors.into_iter().map(error).collect(),
        error_message: from.error_message,
    };
    let topic = |from: produce_response::TopicProduceResponse| ProduceTopicAnswer {
        name: from.name,
        partitions: from.partition_responses.into_iter().map(partition).collect(),
    };
    ProduceResponse {
        topics: from.responses.into_iter().map(topic).collect(),
        throttle_time_ms: from.throttle_time_ms,
    }
}

fn fetch_request_of(from: kafka_wire::FetchRequest) -> FetchRequest {
    let partition = |from: fetch_request::FetchPartition| FetchPartition {
        index: from.partition,
        current_leader_epoch: from.current_leader_epoch,
        fetch_offset: from.fetch_offset,
        last_fetched_epoch: from.last_fetched_epoch,
        log_start_offset: from.log_start_offset,
        partition_max_bytes: from.partition_max_bytes,
    };
    let topic = |from: fetch_request::FetchTopic| FetchTopic {
        name: from.topic,
        topic_id: from.topic_id,
        partitions: from.partitions.into_iter().map(partition).collect(),
    };
    let forgotten = |from: fetch_request::ForgottenTopic| ForgottenTopic {
        name: from.topic,
        topic_id: from.topic_id,
        partitions: from.partitions,
    };
    FetchRequest {
        replica_id: from.replica_id,
        max_wait_ms: from.max_wait_ms,
        min_bytes: from.min_bytes,
        max_bytes: from.max_bytes,
        isolation_level: from.isolation_level,
        session_id: from.session_id,
        session_epoch: from.session_epoch,
        topics: from.topics.into_iter().map(topic).collect(),
        forgotten_topics: from.forgotten_topics_data.into_iter().map(forgotten).collect(),
        rack_id: from.rack_id,
    }
}

fn fetch_response_of(from: kafka_wire::FetchResponse) -> FetchResponse {
    let aborted = |from: fetch_response::AbortedTransaction| AbortedTransaction {
        producer_id: from.producer_id,
        first_offset: from.first_offset,
    };
    let partition = |from: fetch_response::PartitionData| FetchPartitionAnswer {
        index: from.partition_index,
        error_code: from.error_code,
        high_watermark: from.high_watermark,
        last_stable_offset: from.last_stable_offset,
        log_start_offset: from.log_start_offset,
        aborted_transactions: from.aborted_transactions.map(|list| list.into_iter().map(aborted).collect()),
        preferred_read_replica: from.preferred_read_replica,
        records: Vec::from_iter(from.records.filter(|records| !records.is_empty())),
    };
    let topic = |from: fetch_response::FetchableTopicResponse| FetchTopicAnswer {
        name: from.topic,
        topic_id: from.topic_id,
        partitions: from.partitions.into_iter().map(partition).collect(),
    };
    FetchResponse {
        throttle_time_ms: from.throttle_time_ms,
        error_code: from.error_code,
        session_id: from.session_id,
        topics: from.responses.into_iter().map(topic).collect(),
    }
}

// What is left of a message at a version, written down a second time from Kafka's schemas.

fn at_version_produce_response(mut message: ProduceResponse, version: i16) -> ProduceResponse {
    for partition in message.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if version < 5 {
            partition.log_start_offset = -1;
        }
        if version < 8 {
            partition.record_errors.clear();
            partition.error_message = None;
        }
    }
    message
}

fn at_version_fetch_request(mut message: FetchRequest, version: i16) -> FetchRequest {
    if version >= 15 {
        message.replica_id = -1;
    }
    if version < 7 {
        message.session_id = 0;
        message.session_epoch = -1;
        message.forgotten_topics.clear();
    }
    if version < 11 {
        message.rack_id = StrBytes::default();
    }
    for topic in &mut message.forgotten_topics {
        keep_one_name(&mut topic.name, &mut topic.topic_id, version);
    }
    for topic in &mut message.topics {
        keep_one_name(&mut topic.name, &mut topic.topic_id, version);
        for partition in &mut topic.partitions {
            if version < 5 {
                partition.log_start_offset = -1;
            }
            if version < 9 {
                partition.current_leader_epoch = -1;
            }
            if version < 12 {
                partition.last_fetched_epoch = -1;
            }
        }
    }
    message
}

fn at_version_fetch_response(mut message: FetchResponse, version: i16) -> FetchResponse {
    if version < 7 {
        message.error_code = 0;
        message.session_id = 0;
    }
    for topic in &mut message.topics {
        keep_one_name(&mut topic.name, &mut topic.topic_id, version);
        for partition in &mut topic.partitions {
            if version < 5 {
                partition.log_start_offset = -1;
            }
            if version < 11 {
                partition.preferred_read_replica = -1;
            }
            let records = partition.records.concat();
            partition.records = Vec::from_iter((!records.is_empty()).then(|| records.into()));
        }
    }
    message
}

fn keep_one_name(name: &mut StrBytes, topic_id: &mut Uuid, version: i16) {
    if version >= 13 {
        *name = StrBytes::default();
    } else {
        *topic_id = Uuid::ZERO;
    }
}

// Messages at random.

fn string() -> impl Strategy<Value = StrBytes> {
    prop_oneof!["\\PC{0,6}", "[a-z]{126,130}"].prop_map(StrBytes::from)
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid::from_bytes)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(any::<u8>(), 0..40), Just(vec![5; 700])].prop_map(Bytes::from)
}

fn produce_request() -> impl Strategy<Value = ProduceRequest> {
    let partition =
        (any::<i32>(), option::of(bytes())).prop_map(|(index, records)| ProducePartition { index, records });
    let topic =
        (string(), vec(partition, 0..3)).prop_map(|(name, partitions)| ProduceTopic { name, partitions });
    (option::of(string()), any::<i16>(), any::<i32>(), vec(topic, 0..3)).prop_map(
        |(transactional_id, acks, timeout_ms, topics)| ProduceRequest {
            transactional_id,
            acks,
            timeout_ms,
            topics,
        },
    )
}

fn produce_response() -> impl Strategy<Value = ProduceResponse> {
    let error = (any::<i32>(), option::of(string()))
        .prop_map(|(batch_index, message)| RecordError { batch_index, message });
    let partition = (any::<(i32, i16, i64, i64, i64)>(), vec(error, 0..3), option::of(string())).prop_map(
        |(
            (index, error_code, base_offset, log_append_time_ms, log_start_offset),
            record_errors,
            error_message,
        )| {
            ProducePartitionAnswer {
                index,
                error_code,
                base_offset,
                log_append_time_ms,
                log_start_offset,
                record_errors,
                error_message,
            }
        },
    );
    let topic = (string(), vec(partition, 0..3))
        .prop_map(|(name, partitions)| ProduceTopicAnswer { name, partitions });
    (vec(topic, 0..3), any::<i32>())
        .prop_map(|(topics, throttle_time_ms)| ProduceResponse { topics, throttle_time_ms })
}

fn fetch_request() -> impl Strategy<Value = FetchRequest> {
    let partition = any::<(i32, i32, i64, i32, i64, i32)>().prop_map(|fields| FetchPartition {
        index: fields.0,
        current_leader_epoch: fields.1,
        fetch_offset: fields.2,
        last_fetched_epoch: fields.3,
        log_start_offset: fields.4,
        partition_max_bytes: fields.5,
    });
    let topic = (string(), uuid(), vec(partition, 0..3))
        .prop_map(|(name, topic_id, partitions)| FetchTopic { name, topic_id, partitions });
    let forgotten = (string(), uuid(), vec(any::<i32>(), 0..3))
        .prop_map(|(name, topic_id, partitions)| ForgottenTopic { name, topic_id, partitions });
    (any::<(i32, i32, i32, i32, i8, i32, i32)>(), vec(topic, 0..3), vec(forgotten, 0..3), string()).prop_map(
        |(fields, topics, forgotten_topics, rack_id)| FetchRequest {
            replica_id: fields.0,
            max_wait_ms: fields.1,
            min_bytes: fields.2,
            max_bytes: fields.3,
            isolation_level: fields.4,
            session_id: fields.5,
            session_epoch: fields.6,
            topics,
            forgotten_topics,
            rack_id,
        },
    )
}

fn fetch_response() -> impl Strategy<Value = FetchResponse> {
    let aborted = any::<(i64, i64)>()
        .prop_map(|(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset });
    let aborted = option::of(vec(aborted, 0..3));
    let partition = (any::<(i32, i16, i64, i64, i64, i32)>(), aborted, vec(bytes(), 0..4)).prop_map(
        |(fields, aborted, records)| FetchPartitionAnswer {
            index: fields.0,
            error_code: fields.1,
            high_watermark: fields.2,
            last_stable_offset: fields.3,
            log_start_offset: fields.4,
            aborted_transactions: aborted,
            preferred_read_replica: fields.5,
            records,
        },
    );
    let topic = (string(), uuid(), vec(partition, 0..3))
        .prop_map(|(name, topic_id, partitions)| FetchTopicAnswer { name, topic_id, partitions });
    (any::<(i32, i16, i32)>(), vec(topic, 0..3)).prop_map(
        |((throttle_time_ms, error_code, session_id), topics)| FetchResponse {
            throttle_time_ms,
            error_code,
            session_id,
            topics,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn produce_requests_agree(message in produce_request(), version in 3i16..=12) {
        let (bytes, ours) = through_ours(ApiKey::Produce, version, &Request::Produce(message.clone()));
        prop_assert_eq!(ours, Request::Produce(message.clone()));
        prop_assert_eq!(produce_request_of(oracle(&bytes, version)), message);
    }

    #[test]
    fn produce_responses_agree(message in produce_response(), version in 3i16..=12) {
        let (bytes, ours) = response_through_ours(ApiKey::Produce, version, &Response::Produce(message.clone()));
        let expected = at_version_produce_response(message, version);
        prop_assert_eq!(ours, Response::Produce(expected.clone()));
        prop_assert_eq!(produce_response_of(oracle(&bytes, version)), expected);
    }

    #[test]
    fn fetch_requests_agree(message in fetch_request(), version in 4i16..=17) {
        let (bytes, ours) = through_ours(ApiKey::Fetch, version, &Request::Fetch(message.clone()));
        let expected = at_version_fetch_request(message, version);
        prop_assert_eq!(ours, Request::Fetch(expected.clone()));
        prop_assert_eq!(fetch_request_of(oracle(&bytes, version)), expected);
    }

    #[test]
    fn fetch_responses_agree(message in fetch_response(), version in 4i16..=17) {
        let (bytes, ours) = response_through_ours(ApiKey::Fetch, version, &Response::Fetch(message.clone()));
        let expected = at_version_fetch_response(message, version);
        prop_assert_eq!(ours, Response::Fetch(expected.clone()));
        prop_assert_eq!(fetch_response_of(oracle(&bytes, version)), expected);
    }

    #[test]
    fn api_versions_agree(rows in vec(any::<(i16, i16, i16)>(), 0..200), fields in any::<(i16, i32)>(), version in 0i16..=4) {
        let apis = rows.into_iter().map(|(key, version_min, version_max)| ApiRange { key, version_min, version_max });
        let message = ApiVersionsResponse {
            error_code: fields.0,
            apis: apis.collect(),
            throttle_time_ms: if version == 0 { 0 } else { fields.1 },
        };
        let (bytes, ours) =
            response_through_ours(ApiKey::ApiVersions, version, &Response::ApiVersions(message.clone()));
        prop_assert_eq!(ours, Response::ApiVersions(message.clone()));
        let oracle: kafka_wire::ApiVersionsResponse = oracle(&bytes, version);
        let row = |row: &ApiRange| (row.key, row.version_min, row.version_max);
        prop_assert_eq!(
            Vec::from_iter(oracle.api_keys.iter().map(|row| (row.api_key, row.min_version, row.max_version))),
            Vec::from_iter(message.apis.iter().map(row))
        );
        prop_assert_eq!((oracle.error_code, oracle.throttle_time_ms), (message.error_code, message.throttle_time_ms));
    }

    #[test]
    fn api_versions_requests_agree(name in string(), software_version in string(), version in 3i16..=4) {
        let message = ApiVersionsRequest { client_software_name: name, client_software_version: software_version };
        let (bytes, ours) = through_ours(ApiKey::ApiVersions, version, &Request::ApiVersions(message.clone()));
        prop_assert_eq!(ours, Request::ApiVersions(message.clone()));
        let oracle: kafka_wire::ApiVersionsRequest = oracle(&bytes, version);
        prop_assert_eq!(oracle.client_software_name, message.client_software_name);
        prop_assert_eq!(oracle.client_software_version, message.client_software_version);
    }
}

/// Followers and newer brokers fill tagged fields that we do not read: they must not disturb what we do read.
#[test]
fn tagged_fields_of_others_are_passed_over() {
    let mut partition = fetch_response::PartitionData::default();
    partition.partition_index = 3;
    partition.current_leader.leader_id = 9;
    partition.diverging_epoch.end_offset = 77;
    partition.records = Some(Bytes::from_static(b"batch"));
    let mut topic = fetch_response::FetchableTopicResponse::default();
    topic.partitions.push(partition);
    let mut endpoint = fetch_response::NodeEndpoint::default();
    endpoint.host = "elsewhere".into();
    let mut response = kafka_wire::FetchResponse::default();
    response.responses.push(topic);
    response.node_endpoints.push(endpoint);
    let body = response.encode_to_bytes(ApiVersion::new(16)).unwrap();
    let frame = Bytes::from([&[0, 0, 0, 1, 0], &body[..]].concat());
    let (_, decoded) = decode_response(&frame, ApiKey::Fetch, 16, &Limits::default()).unwrap();
    let Response::Fetch(decoded) = decoded else { panic!("{decoded:?}") };
    assert_eq!(decoded.topics[0].partitions[0].index, 3);
    assert_eq!(decoded.topics[0].partitions[0].records, [&b"batch"[..]]);
}

/// Frames of the generated messages: our header before their body, and back. Both at every version of our table.
macro_rules! frames_agree {
    ($($api:ident: $request:ident, $response:ident;)*) => {
        #[test]
        fn frames_agree() {
            $(for version in ApiKey::$api.spec().version_min..=ApiKey::$api.spec().version_max {
                let message = kafka_wire::$request::default();
                let version_of = ApiVersion::new(version);
                let mut frame = BytesMut::new();
                let limit = OutboundFrameLimits::new(1 << 20);
                kafka_wire::encode_request(&mut frame, 1, Some("me".into()), &message, version_of, limit).unwrap();
                let header =
                    RequestHeader { api: ApiKey::$api, version, correlation_id: 1, client_id: Some("me".into()) };
                let mut output = Output::new();
                encode_request(&header, &Request::$api(message), &mut output).unwrap();
                assert_eq!(output.take_bytes(), frame, "{header:?}");
                let (decoded_header, decoded) =
                    decode_request(&frame.freeze().slice(4..), &Limits::default()).unwrap();
                assert_eq!((decoded_header, decoded.api()), (header, ApiKey::$api));

                let message = kafka_wire::$response::default();
                let body = message.encode_to_bytes(version_of).unwrap();
                let (ours, _) = response_through_ours(ApiKey::$api, version, &Response::$api(message));
                assert_eq!(ours, body, "{:?} {version}", ApiKey::$api);
                let header_version = response_header_version_for::<kafka_wire::$request>(version_of).unwrap();
                assert_eq!(ApiKey::$api.has_response_tags(version), header_version == 1);
            })*
        }
    };
}

frames_agree! {
    ListOffsets: ListOffsetsRequest, ListOffsetsResponse;
    Metadata: MetadataRequest, MetadataResponse;
    OffsetCommit: OffsetCommitRequest, OffsetCommitResponse;
    OffsetFetch: OffsetFetchRequest, OffsetFetchResponse;
    FindCoordinator: FindCoordinatorRequest, FindCoordinatorResponse;
    JoinGroup: JoinGroupRequest, JoinGroupResponse;
    Heartbeat: HeartbeatRequest, HeartbeatResponse;
    LeaveGroup: LeaveGroupRequest, LeaveGroupResponse;
    SyncGroup: SyncGroupRequest, SyncGroupResponse;
    DescribeGroups: DescribeGroupsRequest, DescribeGroupsResponse;
    ListGroups: ListGroupsRequest, ListGroupsResponse;
    CreateTopics: CreateTopicsRequest, CreateTopicsResponse;
    DeleteTopics: DeleteTopicsRequest, DeleteTopicsResponse;
    InitProducerId: InitProducerIdRequest, InitProducerIdResponse;
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
    DescribeAcls: DescribeAclsRequest, DescribeAclsResponse;
    CreateAcls: CreateAclsRequest, CreateAclsResponse;
    DeleteAcls: DeleteAclsRequest, DeleteAclsResponse;
    DescribeConfigs: DescribeConfigsRequest, DescribeConfigsResponse;
    CreatePartitions: CreatePartitionsRequest, CreatePartitionsResponse;
    DeleteGroups: DeleteGroupsRequest, DeleteGroupsResponse;
    DescribeClientQuotas: DescribeClientQuotasRequest, DescribeClientQuotasResponse;
    DescribeCluster: DescribeClusterRequest, DescribeClusterResponse;
}
