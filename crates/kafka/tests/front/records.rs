//! Producing and fetching.

use bytes::BytesMut;
use model::batch::{BatchHeader, HEADER_LEN};
use testkit::{TestNode, on_core};
use wire::kafka::messages::{
    InitProducerIdRequest, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use wire::kafka::{ApiKey, ErrorCode, ProducePartition, ProduceRequest, ProduceTopic, Request, Response};

use crate::client::{Client, Kafka, batch, fetch, numbered, produce};

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_wire(code).expect("a known code")
}

#[test]
fn a_batch_comes_back_as_it_was_sent() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 2).await;
        let sent = batch(7, &["a", "b", "c"]);
        for base in [0, 3] {
            let answer = client.produce("t", 1, sent.clone()).await;
            assert_eq!((answer.error_code, answer.base_offset, answer.log_start_offset), (0, base, 0));
            assert_eq!(answer.log_append_time_ms, -1);
        }
        // An offset inside a batch brings the whole batch. Spec: F54.
        for (offset, batches) in [(0, 2), (2, 2), (3, 1), (5, 1), (6, 0)] {
            let answer = client.fetch("t", 1, offset).await;
            assert_eq!((answer.error_code, answer.high_watermark, answer.last_stable_offset), (0, 6, 6));
            let bytes = answer.records.concat();
            assert_eq!(bytes.len(), sent.len() * batches, "from {offset}");
            for (nth, found) in bytes.chunks(sent.len()).enumerate() {
                let header = BatchHeader::parse(found).expect("a batch");
                assert_eq!(header.base_offset, (2 - batches + nth) as i64 * 3);
                assert_eq!(found[HEADER_LEN..], sent[HEADER_LEN..]);
            }
        }
        // Spec: F53.
        for offset in [-1, 7] {
            let answer = client.fetch("t", 1, offset).await;
            assert_eq!(code(answer.error_code), ErrorCode::OffsetOutOfRange);
            assert_eq!((answer.high_watermark, answer.log_start_offset), (6, 0));
        }
        assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 0, "the other partition is empty");
    });
}

/// P27 to P36: partitions fail on their own, and nothing of a bad one is stored.
#[test]
fn each_partition_is_refused_or_taken_on_its_own() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 3).await;
        let good = batch(0, &["x"]);
        let mut torn = BytesMut::from(&good[..]);
        let last = torn.len() - 1;
        torn[last] ^= 1;
        let two = [&good[..], &good[..]].concat();
        let partitions = [
            (0, Some(good.clone()), ErrorCode::None),
            (1, Some(torn.freeze()), ErrorCode::CorruptMessage),
            (2, Some(two.into()), ErrorCode::InvalidRecord),
            (2, None, ErrorCode::InvalidRecord),
            (3, Some(good.clone()), ErrorCode::UnknownTopicOrPartition),
            (-1, Some(good.clone()), ErrorCode::UnknownTopicOrPartition),
        ];
        let wanted = |(index, records, _): &(i32, Option<bytes::Bytes>, ErrorCode)| ProducePartition {
            index: *index,
            records: records.clone(),
        };
        let known = ProduceTopic { name: "t".into(), partitions: partitions.iter().map(wanted).collect() };
        let unknown = ProduceTopic { name: "nowhere".into(), partitions: vec![wanted(&partitions[0])] };
        let request = ProduceRequest { acks: 1, topics: vec![known, unknown], ..ProduceRequest::default() };
        let Response::Produce(response) = client.call(11, Request::Produce(request)).await else { panic!() };
        let codes: Vec<_> =
            response.topics[0].partitions.iter().map(|answer| code(answer.error_code)).collect();
        assert_eq!(codes, partitions.each_ref().map(|(_, _, expected)| *expected));
        assert_eq!(code(response.topics[1].partitions[0].error_code), ErrorCode::UnknownTopicOrPartition);
        for (partition, end) in [(0, 1), (1, 0), (2, 0)] {
            assert_eq!(client.fetch("t", partition, 0).await.high_watermark, end);
        }
        // Spec: P25.
        let Response::Produce(response) = client.call(9, produce("t", 0, good, 2)).await else { panic!() };
        assert_eq!(code(response.topics[0].partitions[0].error_code), ErrorCode::InvalidRequiredAcks);
    });
}

#[test]
fn an_idempotent_producer_writes_each_batch_once() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 1).await;
        let id = producer_id(&mut client, 0).await;
        let outcome = async |client: &mut Client, epoch, sequence, values: &[&str]| {
            let answer = client.produce("t", 0, numbered(id, epoch, sequence, values)).await;
            (code(answer.error_code), answer.base_offset)
        };
        assert_eq!(outcome(&mut client, 0, 0, &["a", "b"]).await, (ErrorCode::None, 0));
        assert_eq!(outcome(&mut client, 0, 2, &["c"]).await, (ErrorCode::None, 2));
        assert_eq!(outcome(&mut client, 0, 0, &["a", "b"]).await, (ErrorCode::None, 0));
        assert_eq!(outcome(&mut client, 0, 9, &["z"]).await, (ErrorCode::OutOfOrderSequenceNumber, -1));
        assert_eq!(outcome(&mut client, 1, 0, &["d"]).await, (ErrorCode::None, 3));
        assert_eq!(outcome(&mut client, 0, 3, &["e"]).await, (ErrorCode::InvalidProducerEpoch, -1));
        assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 4);
    });
}

async fn producer_id(client: &mut Client, version: i16) -> i64 {
    let mut request = InitProducerIdRequest::default();
    request.transactional_id = None;
    let request = Request::InitProducerId(request);
    let Response::InitProducerId(response) = client.call(version, request).await else { panic!() };
    assert_eq!((response.error_code, response.producer_epoch), (0, 0));
    response.producer_id
}

#[test]
fn records_and_producer_ids_survive_a_restart() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 1).await;
        let before = producer_id(&mut client, 5).await;
        client.produce("t", 0, numbered(before, 0, 0, &["a"])).await;
        drop(client);
        kafka.stop().await;
        let node = TestNode::start_on(node.stop().await).await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        assert!(producer_id(&mut client, 5).await > before);
        let again = client.produce("t", 0, numbered(before, 0, 0, &["a"])).await;
        assert_eq!((again.error_code, again.base_offset), (0, 0), "still known as a duplicate");
        assert_eq!(client.produce("t", 0, numbered(before, 0, 1, &["b"])).await.base_offset, 1);
    });
}

/// F51: a reader at the end is woken by what is written, and not before.
#[test]
fn a_waiting_fetch_is_woken_by_new_records() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let (mut reader, mut writer) = (kafka.connect(), kafka.connect());
        writer.create("t", 1).await;
        let id = reader.send(12, &fetch("t", 0, 0, 60_000));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(reader.try_frame().is_none(), "there is nothing to read yet");
        writer.produce("t", 0, batch(0, &["x"])).await;
        let Response::Fetch(response) = reader.response(id, ApiKey::Fetch, 12).await else { panic!() };
        let answer = &response.topics[0].partitions[0];
        assert_eq!((answer.error_code, answer.high_watermark, answer.records.is_empty()), (0, 1, false));
        assert_eq!(response.throttle_time_ms, 0);
    });
}

/// C4, P24: what is pipelined is answered in order, while an earlier request waits, and acks 0 is silent.
#[test]
fn pipelined_requests_are_answered_in_order() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 1).await;
        let waiting = client.send(12, &fetch("t", 0, 0, 60_000));
        let mut sent = Vec::new();
        for nth in 0..20 {
            let acks = if nth % 5 == 4 { 0 } else { -1 };
            let id = client.send(9, &produce("t", 0, batch(0, &[&nth.to_string()]), acks));
            sent.extend((acks != 0).then_some((id, nth)));
        }
        let Response::Fetch(_) = client.response(waiting, ApiKey::Fetch, 12).await else { panic!() };
        for (id, nth) in sent {
            let Response::Produce(response) = client.response(id, ApiKey::Produce, 9).await else { panic!() };
            let answer = &response.topics[0].partitions[0];
            assert_eq!((answer.error_code, answer.base_offset), (0, nth), "stored in the order of sending");
        }
        assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 20);
        // An error that nobody is told of ends the connection.
        client.send(9, &produce("nowhere", 0, batch(0, &["x"]), 0));
        client.closed().await;
        assert!(client.try_frame().is_none());
    });
}

/// What was sent before the client left is stored.
#[test]
fn records_of_a_client_that_left_are_stored() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 1).await;
        client.send(12, &fetch("t", 0, 0, 60_000));
        client.send(9, &produce("t", 0, batch(0, &["x"]), 0));
        client.hang_up();
        let mut reader = kafka.connect();
        let Response::Fetch(response) = reader.call(12, fetch("t", 0, 0, 60_000)).await else { panic!() };
        assert_eq!(response.topics[0].partitions[0].high_watermark, 1);
    });
}

/// F55: the first batch comes whatever its size, and no partition is starved by another.
#[test]
fn limits_hold_but_readers_move_on() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 2).await;
        let large = "x".repeat(10_000);
        for partition in [0, 0, 1] {
            client.produce("t", partition, batch(0, &[&large])).await;
        }
        let mut positions = [0i64, 0];
        for _ in 0..3 {
            let Request::Fetch(mut request) = fetch("t", 0, 0, 0) else { panic!() };
            request.max_bytes = 1;
            let mut first = request.topics[0].partitions[0];
            first.partition_max_bytes = 1;
            request.topics[0].partitions = [0, 1]
                .map(|index| wire::kafka::FetchPartition {
                    index,
                    fetch_offset: positions[index as usize],
                    ..first
                })
                .to_vec();
            let Response::Fetch(response) = client.call(12, Request::Fetch(request)).await else { panic!() };
            let read: Vec<usize> = response.topics[0]
                .partitions
                .iter()
                .map(|answer| usize::from(!answer.records.is_empty()))
                .collect();
            assert_eq!(read.iter().sum::<usize>(), 1, "one batch at a time");
            positions[0] += read[0] as i64;
            positions[1] += read[1] as i64;
        }
        assert_eq!(positions, [2, 1]);
    });
}

/// L63.
#[test]
fn offsets_by_time_are_exact() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 1).await;
        client.produce("t", 0, batch(1000, &["a", "b"])).await;
        client.produce("t", 0, batch(2000, &["c"])).await;
        let expected = [
            (-1, (3, -1)),
            (-2, (0, -1)),
            (-3, (2, 2000)),
            (0, (0, 1000)),
            (1000, (0, 1000)),
            (1001, (2, 2000)),
            (2001, (-1, -1)),
        ];
        for (time, found) in expected {
            let mut partition = ListOffsetsPartition::default();
            partition.current_leader_epoch = -1;
            partition.timestamp = time;
            let mut topic = ListOffsetsTopic::default();
            topic.name = "t".into();
            topic.partitions.push(partition);
            let mut request = ListOffsetsRequest::default();
            request.topics.push(topic);
            let Response::ListOffsets(response) = client.call(7, Request::ListOffsets(request)).await else {
                panic!();
            };
            let answer = &response.topics[0].partitions[0];
            assert_eq!((answer.error_code, answer.offset, answer.timestamp), (0, found.0, found.1), "{time}");
        }
    });
}
