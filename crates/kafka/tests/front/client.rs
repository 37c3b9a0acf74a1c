//! A client that hands frames to a session and reads what it leaves, without a socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka::{Config, Event, Front, Session, Shared};
use model::batch::BatchBuilder;
use net::{Arrival, Closed, Mailbox, Output, Peer, Session as _, Turn};
use testkit::TestNode;
use wire::kafka::messages::{CreatableTopic, CreateTopicsRequest, MetadataRequest, MetadataRequestTopic};
use wire::kafka::{
    ApiKey, FetchPartition, FetchPartitionAnswer, FetchRequest, FetchTopic, Framing, Limits,
    ProducePartition, ProducePartitionAnswer, ProduceRequest, ProduceTopic, Request, RequestHeader, Response,
    decode_response, encode_request, split_frame,
};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The front of a node, and its coordinator's task.
pub(crate) struct Kafka {
    pub(crate) front: Front<broker::Core>,
    coordinator: tokio::task::JoinHandle<()>,
}

impl Kafka {
    pub(crate) fn new(node: &TestNode) -> Kafka {
        Kafka::with(node, Config { initial_rebalance_delay: Duration::ZERO, ..Config::default() })
    }

    pub(crate) fn with(node: &TestNode, config: Config) -> Kafka {
        let config = Arc::new(config);
        let (shared, coordinator) = Shared::new();
        let (core, settings) = (node.core.clone(), Arc::clone(&config));
        let coordinator = tokio::task::spawn_local(async move { coordinator.run(&settings, core).await });
        Kafka { front: Front::new(config, node.core.clone(), shared), coordinator }
    }

    pub(crate) fn connect(&self) -> Client {
        self.arrive(None)
    }

    /// A client that has its place among those who arrive.
    pub(crate) fn arrive(&self, arrival: Option<Arrival>) -> Client {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let peer = Peer::tcp(&"kafka".into(), address("127.0.0.1:50000"));
        let (session, mailbox) = self.front.session(peer, address("127.0.0.1:19092"), arrival);
        Client {
            session,
            mailbox,
            input: BytesMut::new(),
            output: Output::new(),
            received: BytesMut::new(),
            closing: false,
            next_id: 0,
        }
    }

    /// Lets go of the node, so that it can be stopped.
    pub(crate) async fn stop(self) {
        self.coordinator.abort();
        let _ = self.coordinator.await;
    }
}

pub(crate) struct Client {
    session: Session<broker::Core>,
    mailbox: Mailbox<Event>,
    input: BytesMut,
    output: Output,
    received: BytesMut,
    closing: bool,
    next_id: i32,
}

impl Client {
    pub(crate) fn is_closed(&self) -> bool {
        self.closing
    }

    /// As the driver does: bytes are handed over when the session wants them.
    pub(crate) fn deliver(&mut self, bytes: &[u8]) {
        match self.session.wants_input() {
            true => self.send_bytes(bytes),
            false => self.input.extend_from_slice(bytes),
        }
    }

    /// Hands bytes to the session as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let mut turn = Turn::new(Instant::now(), &mut self.output, &mut self.closing);
        self.session.handle_input(&mut self.input, &mut turn);
    }

    /// Sends a request; answers its correlation id.
    pub(crate) fn send(&mut self, version: i16, request: &Request) -> i32 {
        let (bytes, id) = self.encode(version, request);
        self.send_bytes(&bytes);
        id
    }

    pub(crate) fn encode(&mut self, version: i16, request: &Request) -> (Bytes, i32) {
        self.next_id += 1;
        let header = RequestHeader {
            api: request.api(),
            version,
            correlation_id: self.next_id,
            client_id: Some("test".into()),
        };
        let mut output = wire::kafka::Output::new();
        encode_request(&header, request, &mut output).expect("the request can be written");
        (output.take_bytes(), self.next_id)
    }

    /// Lets the session have what waits for it.
    pub(crate) fn pump(&mut self) {
        while let Some(event) = self.mailbox.take() {
            let mut turn = Turn::new(Instant::now(), &mut self.output, &mut self.closing);
            self.session.handle_event(event, &mut turn);
        }
        if !self.closing && !self.input.is_empty() && self.session.wants_input() {
            self.send_bytes(&[]);
        }
        self.received.extend_from_slice(&self.output.take());
        let mut turn = Turn::new(Instant::now(), &mut self.output, &mut self.closing);
        self.session.handle_drained(&mut turn);
    }

    /// The next frame, if it is there.
    pub(crate) fn try_frame(&mut self) -> Option<Bytes> {
        self.pump();
        match split_frame(&mut self.received, 100 << 20).expect("a sound length") {
            Framing::Frame(frame) => Some(frame),
            Framing::Incomplete(_) => None,
        }
    }

    pub(crate) async fn frame(&mut self) -> Bytes {
        let wait = async {
            loop {
                if let Some(frame) = self.try_frame() {
                    return frame;
                }
                assert!(!self.closing, "the connection was closed");
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("an answer comes in time")
    }

    /// The next response, which must be to this request.
    pub(crate) async fn response(&mut self, id: i32, api: ApiKey, version: i16) -> Response {
        let frame = self.frame().await;
        let (answered, response) =
            decode_response(&frame, api, version, &Limits::default()).expect("a sound response");
        assert_eq!(answered, id, "answers come in the order of the requests");
        response
    }

    pub(crate) async fn call(&mut self, version: i16, request: Request) -> Response {
        let id = self.send(version, &request);
        self.response(id, request.api(), version).await
    }

    pub(crate) async fn closed(&mut self) {
        let wait = async {
            while !self.closing {
                self.pump();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the connection is closed in time");
    }

    /// The moment that the session waits for.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    /// The moment that the session waits for has come.
    pub(crate) fn pass_deadline(&mut self) {
        let now = self.session.deadline().expect("the session waits for a moment");
        let mut turn = Turn::new(now, &mut self.output, &mut self.closing);
        self.session.handle_deadline(&mut turn);
    }

    /// The peer goes away.
    pub(crate) fn hang_up(mut self) {
        self.session.handle_closed(Closed::ByPeer);
    }

    // What most tests need.

    pub(crate) async fn create(&mut self, name: &str, partitions: i32) {
        let mut topic = CreatableTopic::default();
        topic.name = name.into();
        topic.num_partitions = partitions;
        topic.replication_factor = 1;
        let mut request = CreateTopicsRequest::default();
        request.topics.push(topic);
        let Response::CreateTopics(response) = self.call(5, Request::CreateTopics(request)).await else {
            panic!("another response");
        };
        assert_eq!(response.topics[0].error_code, 0, "{response:?}");
    }

    pub(crate) async fn metadata(
        &mut self,
        name: &str,
        may_create: bool,
    ) -> wire::kafka::messages::MetadataResponse {
        let mut topic = MetadataRequestTopic::default();
        topic.name = Some(name.into());
        let mut request = MetadataRequest::default();
        request.topics = Some(vec![topic]);
        request.allow_auto_topic_creation = may_create;
        let Response::Metadata(response) = self.call(12, Request::Metadata(request)).await else {
            panic!("another response");
        };
        response
    }

    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> ProducePartitionAnswer {
        match self.call(9, produce(topic, partition, batch, -1)).await {
            Response::Produce(response) => response.topics[0].partitions[0].clone(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> FetchPartitionAnswer {
        match self.call(12, fetch(topic, partition, offset, 0)).await {
            Response::Fetch(response) => response.topics[0].partitions[0].clone(),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn produce(topic: &str, partition: i32, batch: Bytes, acks: i16) -> Request {
    Request::Produce(ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: 1000,
        topics: vec![ProduceTopic {
            name: topic.into(),
            partitions: vec![ProducePartition { index: partition, records: Some(batch) }],
        }],
    })
}

pub(crate) fn fetch(topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> Request {
    let partition = FetchPartition {
        index: partition,
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    Request::Fetch(FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic { name: topic.into(), partitions: vec![partition], ..FetchTopic::default() }],
        ..FetchRequest::default()
    })
}

/// A batch with these values, all of this time.
pub(crate) fn batch(timestamp: i64, values: &[&str]) -> Bytes {
    fill(BatchBuilder::default(), timestamp, values)
}

/// A batch of an idempotent producer.
pub(crate) fn numbered(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    fill(BatchBuilder::default().with_producer(producer, epoch, sequence), 0, values)
}

fn fill(mut builder: BatchBuilder, timestamp: i64, values: &[&str]) -> Bytes {
    for value in values {
        builder.push(timestamp, None, Some(value.as_bytes()), []).expect("fits");
    }
    builder.finish()
}
