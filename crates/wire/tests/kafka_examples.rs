//! Kafka frames byte by byte: what clients send and what they must get.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::{Bytes, BytesMut};
use wire::kafka::messages::{
    FindCoordinatorRequest, JoinGroupRequest, JoinGroupRequestProtocol, ListOffsetsPartition,
    ListOffsetsRequest, ListOffsetsTopic, MetadataRequest, MetadataRequestTopic, MetadataResponse,
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic, OffsetFetchRequest,
    OffsetFetchRequestTopic, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse, Uuid,
};
use wire::kafka::{
    APIS, ApiKey, ApiRange, ApiVersionsRequest, ApiVersionsResponse, EncodeError, ErrorCode, Fault,
    FetchPartitionAnswer, FetchResponse, FetchTopicAnswer, Framing, Limits, Malformed, Output,
    ProducePartition, ProducePartitionAnswer, ProduceRequest, ProduceResponse, ProduceTopic,
    ProduceTopicAnswer, ReplyHeader, Request, RequestError, RequestHeader, Response, decode_request,
    decode_response, encode_request, encode_response, split_request_frame,
};

/// Bytes written as hexadecimal digits and quoted text: `0003 'abc'`.
fn bytes(text: &str) -> Bytes {
    let mut bytes = Vec::new();
    for (place, part) in text.split('\'').enumerate() {
        if place % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: String = part.split_whitespace().collect();
        bytes.extend(
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()),
        );
    }
    bytes.into()
}

fn header(api: ApiKey, version: i16) -> RequestHeader {
    RequestHeader { api, version, correlation_id: 5, client_id: Some("me".into()) }
}

/// The frame decodes to the request and the request encodes to the frame (given without its length).
fn assert_request(api: ApiKey, version: i16, frame: &str, request: Request) {
    let frame = bytes(frame);
    let decoded = decode_request(&frame, &Limits::default()).unwrap();
    assert_eq!(decoded, (header(api, version), request.clone()));
    let mut output = Output::new();
    encode_request(&header(api, version), &request, &mut output).unwrap();
    assert_eq!(output.take_bytes().slice(4..), frame);
}

fn assert_response(api: ApiKey, version: i16, frame: &str, response: Response) {
    let frame = bytes(frame);
    let decoded = decode_response(&frame, api, version, &Limits::default()).unwrap();
    assert_eq!(decoded, (5, response.clone()));
    assert_eq!(response_bytes(version, &response), frame);
}

fn response_bytes(version: i16, response: &Response) -> Bytes {
    let mut output = Output::new();
    encode_response(ReplyHeader { version, correlation_id: 5 }, response, &mut output).unwrap();
    output.take_bytes().slice(4..)
}

#[test]
fn api_versions() {
    let none = ApiVersionsRequest::default();
    assert_request(ApiKey::ApiVersions, 0, "0012 0000 00000005 0002'me'", Request::ApiVersions(none));
    let named = ApiVersionsRequest {
        client_software_name: "librdkafka".into(),
        client_software_version: "2.0.2".into(),
    };
    let frame = "0012 0003 00000005 0002'me' 00  0b'librdkafka' 06'2.0.2' 00";
    assert_request(ApiKey::ApiVersions, 3, frame, Request::ApiVersions(named));

    let rows = vec![
        ApiRange { key: 0, version_min: 0, version_max: 11 },
        ApiRange { key: 18, version_min: 0, version_max: 4 },
    ];
    let response = ApiVersionsResponse { error_code: 0, apis: rows, throttle_time_ms: 0 };
    let response = Response::ApiVersions(response);
    let v0 = "00000005 0000 00000002 000000 00000b 001200 000004";
    assert_response(ApiKey::ApiVersions, 0, v0, response.clone());
    let v1 = "00000005 0000 00000002 000000 00000b 001200 000004 00000000";
    assert_response(ApiKey::ApiVersions, 1, v1, response.clone());
    // C5: the header has no tagged fields, although the body is flexible. V10: the body ends in an empty section.
    let v3 = "00000005 0000 03 000000 00000b 00 001200 000004 00 00000000 00";
    assert_response(ApiKey::ApiVersions, 3, v3, response);
}

#[test]
fn api_versions_of_a_newer_client_falls_back_to_version_0() {
    let frame = bytes(
        "0012 0009 00000005 0002'me' 00 ffffffff what a later version may hold is not read"
            .split(" what")
            .next()
            .unwrap(),
    );
    let (header, request) = decode_request(&frame, &Limits::default()).unwrap();
    assert_eq!((header.version, request), (9, Request::ApiVersionsFallback));
    let rows = vec![ApiRange { key: 18, version_min: 0, version_max: 4 }];
    let mut output = Output::new();
    let response = Response::ApiVersions(ApiVersionsResponse::fallback(rows));
    encode_response(header.reply(), &response, &mut output).unwrap();
    assert_eq!(output.take_bytes(), bytes("00000010 00000005 0023 00000001 0012 0000 0004"));
    assert_eq!(ErrorCode::from_wire(0x23), Some(ErrorCode::UnsupportedVersion));
}

/// V10: librdkafka before 2.2 advances by one byte too few for each tagged field that has content.
#[derive(Debug)]
struct OldLibrdkafka<'a>(&'a [u8]);

impl OldLibrdkafka<'_> {
    fn skip(&mut self, len: usize) -> Option<()> {
        self.0 = self.0.get(len..)?;
        Some(())
    }

    fn uvarint(&mut self) -> Option<usize> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = *self.0.first()?;
            self.skip(1)?;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
    }

    fn skip_tags(&mut self) -> Option<()> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let len = self.uvarint()?;
            if len > 1 {
                self.skip(len - 1)?;
            }
        }
        Some(())
    }

    /// Rows of an ApiVersions response of version 3, or nothing if it ends too early or too late.
    fn api_versions(mut self) -> Option<usize> {
        self.skip(4 + 2)?;
        let rows = self.uvarint()? - 1;
        for _ in 0..rows {
            self.skip(6)?;
            self.skip_tags()?;
        }
        self.skip(4)?;
        self.skip_tags()?;
        self.0.is_empty().then_some(rows)
    }
}

#[test]
fn api_versions_suits_the_tag_skipper_of_old_librdkafka() {
    let rows = APIS.iter().map(|spec| ApiRange {
        key: spec.key.to_wire(),
        version_min: spec.advertised_min,
        version_max: spec.version_max,
    });
    let response = ApiVersionsResponse { apis: rows.collect(), ..ApiVersionsResponse::default() };
    let frame = response_bytes(3, &Response::ApiVersions(response));
    assert_eq!(OldLibrdkafka(&frame).api_versions(), Some(APIS.len()));

    // A finalized features epoch of -1, written out as others do, is what breaks it.
    let with_tag = [&frame[..frame.len() - 1], &[1, 1, 8], &[0xff; 8]].concat();
    assert_eq!(OldLibrdkafka(&with_tag).api_versions(), None);
}

#[test]
fn produce() {
    let request = |records: Option<Bytes>| {
        Request::Produce(ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: 30_000,
            topics: vec![ProduceTopic {
                name: "t".into(),
                partitions: vec![ProducePartition { index: 2, records }],
            }],
        })
    };
    let head = "0000 0003 00000005 0002'me' ffff ffff 00007530";
    let v3 = format!("{head} 00000001 0001't' 00000001 00000002 00000005'batch'");
    assert_request(ApiKey::Produce, 3, &v3, request(Some(Bytes::from_static(b"batch"))));
    let v3_null = format!("{head} 00000001 0001't' 00000001 00000002 ffffffff");
    assert_request(ApiKey::Produce, 3, &v3_null, request(None));
    let v9 = "0000 0009 00000005 0002'me' 00 00 ffff 00007530 02 02't' 02 00000002 06'batch' 00 00 00";
    assert_request(ApiKey::Produce, 9, v9, request(Some(Bytes::from_static(b"batch"))));

    let partition =
        ProducePartitionAnswer { index: 2, base_offset: 7, log_start_offset: 1, ..Default::default() };
    let topics = vec![ProduceTopicAnswer { name: "t".into(), partitions: vec![partition] }];
    let response = Response::Produce(ProduceResponse { topics, throttle_time_ms: 0 });
    let row = "00000002 0000 0000000000000007 ffffffffffffffff 0000000000000001";
    let v7 = format!("00000005 00000001 0001't' 00000001 {row} 00000000");
    assert_response(ApiKey::Produce, 7, &v7, response.clone());
    let v9 = format!("00000005 00 02 02't' 02 {row} 01 00 00 00 00000000 00");
    assert_response(ApiKey::Produce, 9, &v9, response);
}

#[test]
fn produced_records_are_slices_of_the_frame() {
    let batch = vec![9u8; 5000];
    let topics = vec![ProduceTopic {
        name: "t".into(),
        partitions: vec![ProducePartition { index: 0, records: Some(batch.clone().into()) }],
    }];
    let request = Request::Produce(ProduceRequest { topics, ..ProduceRequest::default() });
    let mut output = Output::new();
    encode_request(&header(ApiKey::Produce, 7), &request, &mut output).unwrap();
    let frame = output.take_bytes().slice(4..);
    let Request::Produce(decoded) = decode_request(&frame, &Limits::default()).unwrap().1 else { panic!() };
    let records = decoded.topics[0].partitions[0].records.clone().unwrap();
    assert_eq!(records, batch);
    assert!(frame.as_ptr_range().contains(&records.as_ptr()));
}

#[test]
fn fetched_records_are_chunks_of_the_output() {
    let (first, second) = (Bytes::from(vec![1u8; 3000]), Bytes::from(vec![2u8; 2000]));
    let head = Bytes::from_static(&[0xee; 61]);
    let answer = FetchPartitionAnswer {
        records: vec![head.clone(), first.clone(), head.clone(), second.clone()],
        ..FetchPartitionAnswer::default()
    };
    let topics = vec![FetchTopicAnswer { name: "t".into(), partitions: vec![answer], ..Default::default() }];
    let response = Response::Fetch(FetchResponse { topics, ..FetchResponse::default() });
    let mut output = Output::new();
    encode_response(ReplyHeader { version: 11, correlation_id: 5 }, &response, &mut output).unwrap();
    let chunks = output.take_chunks();
    assert_eq!(chunks.len(), 4);
    assert!(chunks[1].as_ptr() == first.as_ptr() && chunks[3].as_ptr() == second.as_ptr());

    let whole = Bytes::from(chunks.concat());
    assert_eq!(whole.len() - 4, i32::from_be_bytes(*whole.first_chunk().unwrap()) as usize);
    let (_, decoded) = decode_response(&whole.slice(4..), ApiKey::Fetch, 11, &Limits::default()).unwrap();
    let Response::Fetch(decoded) = decoded else { panic!() };
    assert_eq!(decoded.topics[0].partitions[0].records, [[&head[..], &first, &head, &second].concat()]);
}

/// F58: a partition without records has an empty byte string, not null.
#[test]
fn fetch_without_records() {
    let partition =
        FetchPartitionAnswer { index: 1, high_watermark: 4, last_stable_offset: 4, ..Default::default() };
    let topics =
        vec![FetchTopicAnswer { name: "t".into(), partitions: vec![partition], ..Default::default() }];
    let response = Response::Fetch(FetchResponse { topics, ..FetchResponse::default() });
    let row = "00000001 0000 0000000000000004 0000000000000004";
    let v4 = format!("00000005 00000000 00000001 0001't' 00000001 {row} ffffffff 00000000");
    assert_response(ApiKey::Fetch, 4, &v4, response.clone());
    let row = format!("{row} ffffffffffffffff 00 ffffffff 01 00");
    let v12 = format!("00000005 00 00000000 0000 00000000 02 02't' 02 {row} 00 00");
    assert_response(ApiKey::Fetch, 12, &v12, response);
}

/// The oldest versions in use: kafka-python 2.0.2 sends all of these.
#[test]
fn requests_of_old_clients() {
    let mut metadata = MetadataRequest::default();
    metadata.topics = Some(vec![]);
    assert_request(
        ApiKey::Metadata,
        0,
        "0003 0000 00000005 0002'me' 00000000",
        Request::Metadata(metadata.clone()),
    );
    metadata.topics = None;
    assert_request(ApiKey::Metadata, 1, "0003 0001 00000005 0002'me' ffffffff", Request::Metadata(metadata));

    let mut find = FindCoordinatorRequest::default();
    find.key = "g".into();
    assert_request(
        ApiKey::FindCoordinator,
        0,
        "000a 0000 00000005 0002'me' 0001'g'",
        Request::FindCoordinator(find),
    );

    let mut protocol = JoinGroupRequestProtocol::default();
    protocol.name = "range".into();
    protocol.metadata = Bytes::from_static(b"xy");
    let mut join = JoinGroupRequest::default();
    join.group_id = "g".into();
    join.session_timeout_ms = 10_000;
    join.protocol_type = "consumer".into();
    join.protocols.push(protocol);
    let rest = "0000 0008'consumer' 00000001 0005'range' 00000002'xy'";
    let v0 = format!("000b 0000 00000005 0002'me' 0001'g' 00002710 {rest}");
    assert_request(ApiKey::JoinGroup, 0, &v0, Request::JoinGroup(join.clone()));
    join.rebalance_timeout_ms = 60_000;
    let v2 = format!("000b 0002 00000005 0002'me' 0001'g' 00002710 0000ea60 {rest}");
    assert_request(ApiKey::JoinGroup, 2, &v2, Request::JoinGroup(join));

    let mut partition = ListOffsetsPartition::default();
    partition.timestamp = -2;
    let mut topic = ListOffsetsTopic::default();
    topic.name = "t".into();
    topic.partitions.push(partition);
    let mut list = ListOffsetsRequest::default();
    list.replica_id = -1;
    list.topics.push(topic);
    let v1 = "0002 0001 00000005 0002'me' ffffffff 00000001 0001't' 00000001 00000000 fffffffffffffffe";
    assert_request(ApiKey::ListOffsets, 1, v1, Request::ListOffsets(list));

    let mut topic = OffsetFetchRequestTopic::default();
    topic.name = "t".into();
    topic.partition_indexes.push(3);
    let mut fetch = OffsetFetchRequest::default();
    fetch.group_id = "g".into();
    fetch.topics = Some(vec![topic]);
    let v1 = "0009 0001 00000005 0002'me' 0001'g' 00000001 0001't' 00000001 00000003";
    assert_request(ApiKey::OffsetFetch, 1, v1, Request::OffsetFetch(fetch));
}

#[test]
fn metadata_of_the_oldest_and_a_recent_version() {
    let mut broker = MetadataResponseBroker::default();
    broker.node_id = 1;
    broker.host = "h".into();
    broker.port = 9092;
    let mut partition = MetadataResponsePartition::default();
    partition.leader_id = 1;
    partition.replica_nodes.push(1);
    partition.isr_nodes.push(1);
    let mut topic = MetadataResponseTopic::default();
    topic.name = Some("t".into());
    topic.partitions.push(partition);
    let mut response = MetadataResponse::default();
    response.brokers.push(broker);
    response.topics.push(topic);
    let partition = "0000 00000000 00000001 00000001 00000001 00000001 00000001";
    let v0 =
        format!("00000005 00000001 00000001 0001'h' 00002384 00000001 0000 0001't' 00000001 {partition}");
    assert_response(ApiKey::Metadata, 0, &v0, Response::Metadata(response.clone()));
    assert_eq!(response_bytes(12, &Response::Metadata(response))[4], 0, "header 1 ends in tagged fields");

    let mut topic = MetadataRequestTopic::default();
    topic.name = Some("t".into());
    let mut request = MetadataRequest::default();
    request.topics = Some(vec![topic]);
    let id = "00000000000000000000000000000000";
    let v12 = format!("0003 000c 00000005 0002'me' 00 02 {id} 02't' 00 01 00 00");
    assert_request(ApiKey::Metadata, 12, &v12, Request::Metadata(request));
}

#[test]
fn sasl() {
    let mut request = SaslHandshakeRequest::default();
    request.mechanism = "PLAIN".into();
    // No version of it is flexible.
    for (version, digits) in [(0, "0000"), (1, "0001")] {
        let frame = format!("0011 {digits} 00000005 0002'me' 0005'PLAIN'");
        assert_request(ApiKey::SaslHandshake, version, &frame, Request::SaslHandshake(request.clone()));
    }
    let mut response = SaslHandshakeResponse::default();
    response.error_code = ErrorCode::UnsupportedSaslMechanism.to_wire();
    response.mechanisms = vec!["PLAIN".into(), "SCRAM-SHA-256".into()];
    let frame = "00000005 0021 00000002 0005'PLAIN' 000d'SCRAM-SHA-256'";
    assert_response(ApiKey::SaslHandshake, 1, frame, Response::SaslHandshake(response));

    let mut request = SaslAuthenticateRequest::default();
    request.auth_bytes = Bytes::from_static(b"\0u\0p");
    let request = Request::SaslAuthenticate(request);
    let v1 = "0024 0001 00000005 0002'me' 00000004 00'u'00'p'";
    assert_request(ApiKey::SaslAuthenticate, 1, v1, request.clone());
    let v2 = "0024 0002 00000005 0002'me' 00 05 00'u'00'p' 00";
    assert_request(ApiKey::SaslAuthenticate, 2, v2, request);
    let mut response = SaslAuthenticateResponse::default();
    response.error_message = None;
    response.auth_bytes = Bytes::from_static(b"v=");
    let v0 = "00000005 0000 ffff 00000002'v='";
    assert_response(ApiKey::SaslAuthenticate, 0, v0, Response::SaslAuthenticate(response.clone()));
    response.session_lifetime_ms = 5000;
    let response = Response::SaslAuthenticate(response);
    assert_eq!(response_bytes(0, &response), bytes(v0), "what version 0 lacks is left out");
    let v1 = "00000005 0000 ffff 00000002'v=' 0000000000001388";
    assert_response(ApiKey::SaslAuthenticate, 1, v1, response.clone());
    let v2 = "00000005 00 0000 00 03'v=' 0000000000001388 00";
    assert_response(ApiKey::SaslAuthenticate, 2, v2, response);
}

/// A broker fills in all it knows: what an older version lacks is left out, not refused.
#[test]
fn metadata_with_every_field_is_written_at_every_version() {
    let mut topic = MetadataResponseTopic::default();
    topic.name = Some("t".into());
    topic.topic_id = Uuid::from_bytes([7; 16]);
    topic.is_internal = true;
    let mut partition = MetadataResponsePartition::default();
    partition.leader_epoch = 3;
    topic.partitions.push(partition);
    let mut response = MetadataResponse::default();
    response.cluster_id = Some("cluster".into());
    response.controller_id = 1;
    response.topics.push(topic);
    let mut last_len = 0;
    for version in 0..=13 {
        let len = response_bytes(version, &Response::Metadata(response.clone())).len();
        assert!(len != last_len || ![1, 2, 3, 5, 7, 9, 10].contains(&version), "{version} adds nothing");
        last_len = len;
    }
}

/// librdkafka 2.16 asks for all topics with three bytes too many, and was disconnected for it.
#[test]
fn bytes_after_a_control_message_are_ignored() {
    let frame = "0003 000d 00000003 0007 72646b61666b61 00 00000000000000";
    let (_, request) = decode_request(&bytes(frame), &Limits::default()).unwrap();
    let Request::Metadata(request) = request else { panic!("{request:?}") };
    assert_eq!(request.topics, None);
}

#[test]
fn what_we_do_not_speak_is_named() {
    let error = |frame: &str| decode_request(&bytes(frame), &Limits::default()).unwrap_err();
    assert_eq!(error("03e7 0000 00000005 ffff"), RequestError::UnknownApi { key: 999 });
    let unsupported = |api, version| RequestError::UnsupportedVersion { api, version };
    assert_eq!(error("0003 0063 00000005 ffff"), unsupported(ApiKey::Metadata, 99));
    assert_eq!(error("0000 0002 00000005 ffff"), unsupported(ApiKey::Produce, 2));
    assert_eq!(error("0001 ffff 00000005 ffff"), unsupported(ApiKey::Fetch, -1));
    let malformed = |at, fault| RequestError::Malformed(Malformed { at, fault });
    assert_eq!(error("0003"), malformed(2, Fault::Truncated));
    assert_eq!(error("0012 0000 00000005 ffff 00"), malformed(10, Fault::Trailing));
    assert_eq!(error("0003 0000 00000005 fffe"), malformed(10, Fault::NegativeLength));
}

#[test]
fn what_a_version_cannot_say_leaves_no_trace() {
    let mut output = Output::new();
    let mut request = FindCoordinatorRequest::default();
    request.coordinator_keys.push("g".into());
    let result =
        encode_request(&header(ApiKey::FindCoordinator, 1), &Request::FindCoordinator(request), &mut output);
    assert!(matches!(result, Err(EncodeError::Unrepresentable { version: 1, .. })), "{result:?}");
    let long = "x".repeat(40_000);
    let topics = vec![ProduceTopic { name: long.into(), partitions: vec![] }];
    let request = Request::Produce(ProduceRequest { topics, ..ProduceRequest::default() });
    for version in [3, 9] {
        let result = encode_request(&header(ApiKey::Produce, version), &request, &mut output);
        assert_eq!(result, Err(EncodeError::TooLong));
    }
    assert!(output.is_empty());
}

#[test]
fn pipelined_requests_come_out_one_by_one() {
    let mut input = BytesMut::new();
    let mut output = Output::new();
    for correlation_id in 0..50 {
        let header = RequestHeader { correlation_id, ..header(ApiKey::ApiVersions, 0) };
        encode_request(&header, &Request::ApiVersions(ApiVersionsRequest::default()), &mut output).unwrap();
    }
    let stream = output.take_bytes();
    let mut seen = Vec::new();
    for chunk in stream.chunks(7) {
        input.extend_from_slice(chunk);
        while let Framing::Frame(frame) = split_request_frame(&mut input, &Limits::default()).unwrap() {
            seen.push(decode_request(&frame, &Limits::default()).unwrap().0.correlation_id);
        }
    }
    assert_eq!(seen, Vec::from_iter(0..50));
}
