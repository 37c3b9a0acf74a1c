//! Prints what the Kafka messages of the hot path cost, and one of the control path.
//!
//! `cargo run --release -p wire --example kafka_cost`. The best of many rounds is shown, because that is what the
//! code costs on a machine that is otherwise busy.

#![allow(clippy::print_stdout, clippy::expect_used)]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use wire::kafka::messages::{MetadataResponse, MetadataResponsePartition, MetadataResponseTopic};
use wire::kafka::{
    ApiKey, FetchPartition, FetchPartitionAnswer, FetchRequest, FetchResponse, FetchTopic, FetchTopicAnswer,
    Limits, Output, ProducePartition, ProduceRequest, ProduceTopic, ReplyHeader, Request, RequestHeader,
    Response, decode_request, encode_request, encode_response,
};

const REPEATS: usize = 200;
const ROUNDS: usize = 40;
const BATCH_LEN: usize = 16 * 1024;

fn main() {
    println!("{:<52} {:>10}", "one message", "ns");
    for partitions in [1, 100] {
        let frame = framed(ApiKey::Produce, 9, Request::Produce(produce(partitions)));
        let name = format!("Produce 9 decode, {partitions} x 16 KiB");
        report(&name, || black_box(decode_request(black_box(&frame), &Limits::default())));
        let frame = framed(ApiKey::Fetch, 12, Request::Fetch(fetch(partitions)));
        let name = format!("Fetch 12 decode, {partitions} partitions");
        report(&name, || black_box(decode_request(black_box(&frame), &Limits::default())));
        let response = Response::Fetch(fetched(partitions));
        let name = format!("Fetch 12 encode to chunks, {partitions} x 16 KiB");
        report(&name, || encoded(12, &response));
    }
    let response = Response::Metadata(metadata());
    report("Metadata 12 encode, 1000 topics x 4 partitions", || encoded(12, &response));
}

fn encoded(version: i16, response: &Response) -> Vec<Bytes> {
    let mut output = Output::new();
    let reply = ReplyHeader { version, correlation_id: 1 };
    encode_response(reply, black_box(response), &mut output).expect("every field fits");
    output.take_chunks()
}

fn framed(api: ApiKey, version: i16, request: Request) -> Bytes {
    let header = RequestHeader { api, version, correlation_id: 1, client_id: Some("bench".into()) };
    let mut output = Output::new();
    encode_request(&header, &request, &mut output).expect("every field fits");
    output.take_bytes().slice(4..)
}

fn produce(partitions: i32) -> ProduceRequest {
    let records = Some(Bytes::from(vec![7; BATCH_LEN]));
    let partitions =
        (0..partitions).map(|index| ProducePartition { index, records: records.clone() }).collect();
    let topics = vec![ProduceTopic { name: "orders".into(), partitions }];
    ProduceRequest { acks: -1, timeout_ms: 30_000, topics, ..ProduceRequest::default() }
}

fn fetch(partitions: i32) -> FetchRequest {
    let partitions =
        (0..partitions).map(|index| FetchPartition { index, ..FetchPartition::default() }).collect();
    let topics = vec![FetchTopic { name: "orders".into(), partitions, ..FetchTopic::default() }];
    FetchRequest { topics, ..FetchRequest::default() }
}

fn fetched(partitions: i32) -> FetchResponse {
    let head = Bytes::from(vec![7; 61]);
    let body = Bytes::from(vec![7; BATCH_LEN]);
    let answer = |index| FetchPartitionAnswer {
        index,
        records: vec![head.clone(), body.clone()],
        ..FetchPartitionAnswer::default()
    };
    let partitions = (0..partitions).map(answer).collect();
    let topics = vec![FetchTopicAnswer { name: "orders".into(), partitions, ..FetchTopicAnswer::default() }];
    FetchResponse { topics, ..FetchResponse::default() }
}

fn metadata() -> MetadataResponse {
    let mut partition = MetadataResponsePartition::default();
    partition.leader_id = 1;
    partition.replica_nodes.push(1);
    partition.isr_nodes.push(1);
    let mut topic = MetadataResponseTopic::default();
    topic.name = Some("a-topic-of-usual-length".into());
    topic.partitions = vec![partition; 4];
    let mut response = MetadataResponse::default();
    response.topics = vec![topic; 1000];
    response
}

fn report<R>(name: &str, mut work: impl FnMut() -> R) {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..REPEATS {
            black_box(work());
        }
        best = best.min(start.elapsed().as_nanos() as f64 / REPEATS as f64);
    }
    println!("{name:<52} {best:>10.0}");
}
