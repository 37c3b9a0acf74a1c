//! Frames, versions and what ends a connection.

use testkit::{TestNode, on_core};
use wire::kafka::{ApiVersionsRequest, ErrorCode, Request, Response};

use crate::client::{Kafka, batch, produce};

/// V8, V9.
#[test]
fn the_handshake_never_fails() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        let named =
            ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1".into() };
        for version in 0..=4 {
            let Response::ApiVersions(response) =
                client.call(version, Request::ApiVersions(named.clone())).await
            else {
                panic!();
            };
            assert_eq!((response.error_code, response.apis.len()), (0, 27));
        }
        let Response::ApiVersions(response) =
            client.call(3, Request::ApiVersions(ApiVersionsRequest::default())).await
        else {
            panic!();
        };
        assert_eq!(response.error_code, ErrorCode::InvalidRequest.to_wire());
        // A version that is not there yet: answered in version 0 with the one row that is needed.
        client.send_bytes(&[0, 0, 0, 10, 0, 18, 0, 99, 0, 0, 0, 77, 0xff, 0xff]);
        assert_eq!(client.frame().await[..], [0, 0, 0, 77, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    });
}

/// C1 to C3.
#[test]
fn what_is_not_the_protocol_ends_the_connection() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        for bytes in [
            &[0xff, 0xff, 0xff, 0xff][..],
            &[0x7f, 0xff, 0xff, 0xff],
            &[0, 0, 0, 10, 3, 0xe7, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
            &[0, 0, 0, 10, 0, 37, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
            &[0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff],
            &[0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff],
            &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
        ] {
            let mut client = kafka.connect();
            client.send_bytes(bytes);
            assert!(client.is_closed(), "{bytes:?}");
            assert!(client.try_frame().is_none());
        }
    });
}

/// C6: any chunking of the stream means the same.
#[test]
fn frames_arrive_byte_by_byte_and_together() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut client = kafka.connect();
        client.create("t", 1).await;
        let (one, first) = client.encode(9, &produce("t", 0, batch(0, &["a"]), -1));
        let (two, second) = client.encode(9, &produce("t", 0, batch(0, &["b"]), -1));
        let both = [&one[..], &two[..]].concat();
        for byte in &both {
            client.send_bytes(&[*byte]);
        }
        let answered = [first, second];
        for id in answered {
            client.response(id, wire::kafka::ApiKey::Produce, 9).await;
        }
        client.send_bytes(&both);
        for id in answered {
            client.response(id, wire::kafka::ApiKey::Produce, 9).await;
        }
        assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 4);
    });
}

/// C6: who asks nothing is let go, also if it never asked anything.
#[test]
fn an_idle_connection_is_closed() {
    on_core(async {
        let node = TestNode::start().await;
        let kafka = Kafka::new(&node);
        let mut silent = kafka.connect();
        silent.pass_deadline();
        assert!(silent.is_closed());
        let mut client = kafka.connect();
        client.create("t", 1).await;
        client.pass_deadline();
        assert!(client.is_closed());
    });
}
