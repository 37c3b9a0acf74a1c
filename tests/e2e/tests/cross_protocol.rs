//! One message, two protocols: what MQTT clients publish is what Kafka clients read, and the other way round, for
//! readers that were there before and for readers that come later.

use std::time::{SystemTime, UNIX_EPOCH};

use e2e::{Broker, KafkaRecord, Message, Program, missing};

const MEGABYTE: usize = 1 << 20;

fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(elapsed.as_millis()).expect("before the year 292 million")
}

fn create(broker: &Broker, options: &[&str]) {
    let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
    Program::Confluent.start("create", broker.kafka(), &options).finish();
}

fn undated(record: KafkaRecord) -> KafkaRecord {
    KafkaRecord { timestamp: None, ..record }
}

/// What an MQTT publisher sends, and what a Kafka consumer must see of it.
fn published() -> Vec<(Message, KafkaRecord)> {
    let topic = "sensor/12/temp";
    let rich = Message {
        content_type: Some("text/plain".to_owned()),
        response_topic: Some("answers".to_owned()),
        correlation: Some(vec![0, 255]),
        payload_format: Some(1),
        ..Message::new(topic, "21.5", 1).with_user("b", "1").with_user("a", "2").with_user("b", "3")
    };
    let seen = KafkaRecord::of("21.5")
        .with_header("content-type", "text/plain")
        .with_header("reply-to", "answers")
        .with_header("correlation-id", [0, 255])
        .with_header("mqtt.payload-format", "1")
        .with_header("b", "1")
        .with_header("a", "2")
        .with_header("b", "3");
    let binary: Vec<u8> = (0..=255).collect();
    let large = vec![0xA5; MEGABYTE];
    vec![
        (rich, seen),
        (Message::new(topic, binary.clone(), 1), KafkaRecord::of(binary)),
        (Message::new(topic, "", 1), KafkaRecord::of("")),
        (Message::new(topic, large.clone(), 1), KafkaRecord::of(large)),
        (Message::new(topic, "twice safe", 2), KafkaRecord::of("twice safe").with_header("mqtt.qos", "2")),
    ]
}

#[test]
fn from_mqtt_to_kafka() {
    if missing(&[Program::Paho, Program::Confluent, Program::Aiokafka, Program::Java]) {
        return;
    }
    let mut broker = Broker::start();
    let topic = "sensor.12.temp";
    create(&broker, &["topic=sensor.12.temp"]);
    let mut early = Program::Confluent.consume(broker.kafka(), topic, &[]);
    let (sent, expected): (Vec<_>, Vec<_>) = published().into_iter().unzip();
    let before = now_ms();
    Program::Paho.publish(broker.mqtt(), &sent, &["window=1"]);
    let after = now_ms();
    let check = |reader: &mut e2e::Consumer, who: &str| {
        let fetched = reader.take(expected.len());
        for (offset, (fetched, expected)) in (0..).zip(fetched.into_iter().zip(&expected)) {
            assert_eq!(fetched.offset, offset, "{who}");
            let timestamp = fetched.record.timestamp.expect("a timestamp");
            assert!((before..=after).contains(&timestamp), "{who}: {before} {timestamp} {after}");
            assert_eq!(undated(fetched.record), *expected, "{who}");
        }
    };
    check(&mut early, "early");
    for program in [Program::Confluent, Program::Aiokafka, Program::Java] {
        check(&mut program.consume(broker.kafka(), topic, &[]), "late");
    }
    drop(early);
    broker.kill_9();
    broker.restart();
    check(&mut Program::Confluent.consume(broker.kafka(), topic, &[]), "after a crash");
}

/// What a Kafka producer sends, and what an MQTT 5 subscriber at QoS 1 must see of it.
fn produced() -> Vec<(KafkaRecord, Message)> {
    let topic = "orders/new";
    let rich = KafkaRecord { timestamp: Some(1_700_000_000_000), ..KafkaRecord::of("42") }
        .with_key("a key")
        .with_header("b", "1")
        .with_header("content-type", "text/plain")
        .with_header("a", "2")
        .with_header("reply-to", "answers/7")
        .with_header("b", "3")
        .with_header("correlation-id", [0, 255]);
    let seen = Message {
        content_type: Some("text/plain".to_owned()),
        response_topic: Some("answers/7".to_owned()),
        correlation: Some(vec![0, 255]),
        ..Message::new(topic, "42", 1).with_user("b", "1").with_user("a", "2").with_user("b", "3")
    };
    let binary: Vec<u8> = (0..=255).collect();
    let large = vec![0xA5; MEGABYTE];
    let tombstone = KafkaRecord { value: None, ..KafkaRecord::default() }.with_key("gone");
    vec![
        (rich, seen),
        (KafkaRecord::of(binary.clone()), Message::new(topic, binary, 1)),
        (KafkaRecord::of(""), Message::new(topic, "", 1)),
        (tombstone, Message::new(topic, "", 1)),
        (KafkaRecord::of(large.clone()), Message::new(topic, large, 1)),
    ]
}

#[test]
fn from_kafka_to_mqtt() {
    if missing(&[Program::Paho, Program::MqttJs, Program::Confluent, Program::Java]) {
        return;
    }
    let mut broker = Broker::start();
    let (sent, expected): (Vec<_>, Vec<_>) = produced().into_iter().unzip();
    let mut early = Program::Paho.subscribe(broker.mqtt(), "orders/#", &["qos=1"]);
    let away = ["qos=1", "clean=false", "id=away"];
    Program::Paho.subscribe(broker.mqtt(), "orders/+", &away).finish();
    // Compressed as the producer likes, stored so, and read by whoever does not know.
    for (program, codec) in [(Program::Java, "compression=zstd"), (Program::Confluent, "compression=lz4")] {
        program.produce(broker.kafka(), "orders.new", &sent, &[codec, "idempotent=true"]);
        assert_eq!(early.take(sent.len()), expected, "{program:?}, a subscriber that is there");
    }
    early.finish();
    broker.kill_9();
    broker.restart();
    let mut late = Program::Paho.subscribe(broker.mqtt(), "orders/+", &away);
    for program in ["Java", "Confluent"] {
        assert_eq!(late.take(sent.len()), expected, "{program}, a session that was away");
    }
    // A null value is still null, and an empty one empty, for those who can tell.
    let mut reader = Program::Confluent.consume(broker.kafka(), "orders.new", &[]);
    let values = reader.take(sent.len()).into_iter().map(|fetched| undated(fetched.record).value);
    assert_eq!(values.collect::<Vec<_>>(), sent.iter().map(|sent| sent.value.clone()).collect::<Vec<_>>());
}

#[test]
fn order_of_each_publisher_is_kept_both_ways() {
    if missing(&[Program::Paho, Program::Confluent]) {
        return;
    }
    const COUNT: usize = 500;
    let broker = Broker::start();
    let mut subscriber = Program::Paho.subscribe(broker.mqtt(), "mixed", &["qos=1"]);
    let numbers = |who: &str| (0..COUNT).map(|n| format!("{who} {n}")).collect::<Vec<_>>();
    let (mqtt, kafka) = (numbers("mqtt"), numbers("kafka"));
    let (mqtt_address, kafka_address) = (broker.mqtt(), broker.kafka());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let messages: Vec<_> = mqtt.iter().map(|text| Message::new("mixed", text.as_str(), 1)).collect();
            Program::Paho.publish(mqtt_address, &messages, &[]);
        });
        scope.spawn(|| {
            let records: Vec<_> = kafka.iter().map(|text| KafkaRecord::of(text.as_str())).collect();
            Program::Confluent.produce(kafka_address, "mixed", &records, &["linger=0"]);
        });
    });
    let live: Vec<_> = subscriber.take(2 * COUNT).into_iter().map(|message| message.payload).collect();
    let mut reader = Program::Confluent.consume(broker.kafka(), "mixed", &[]);
    let fetched = reader.take(2 * COUNT);
    assert!(fetched.iter().zip(0..).all(|(fetched, offset)| fetched.offset == offset), "offsets are dense");
    let stored: Vec<_> = fetched.into_iter().map(|fetched| fetched.record.value.expect("a value")).collect();
    assert_eq!(live, stored, "both views have one order");
    for (who, sent) in [("mqtt", mqtt), ("kafka", kafka)] {
        let texts = stored.iter().map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(texts.filter(|text| text.starts_with(who)).collect::<Vec<_>>(), sent);
    }
}

#[test]
fn a_capture_gathers_subjects_in_one_topic_with_the_subject_as_key() {
    if missing(&[Program::Paho, Program::Confluent]) {
        return;
    }
    let broker = Broker::start();
    create(&broker, &["topic=fleet", "partitions=3", "config.robustmq.capture=car/#"]);
    let mut subscriber = Program::Paho.subscribe(broker.mqtt(), "car/+/speed", &["qos=1"]);
    let sent: Vec<_> =
        (0..30_usize).map(|n| Message::new(&format!("car/{}/speed", n % 5), n.to_string(), 1)).collect();
    Program::Paho.publish(broker.mqtt(), &sent, &["window=1"]);
    let mut received = subscriber.take(sent.len());
    let by_subject =
        |message: &Message| (message.topic.clone(), message.payload.len(), message.payload.clone());
    let mut expected = sent.clone();
    // MQTT promises order within a subject; between subjects of several shards there is none.
    received.sort_by_key(by_subject);
    expected.sort_by_key(by_subject);
    assert_eq!(received, expected, "MQTT goes on seeing single subjects");
    let mut reader = Program::Confluent.consume(broker.kafka(), "fleet", &[]);
    let fetched = reader.take(sent.len());
    for car in 0..5 {
        let key = format!("car/{car}/speed").into_bytes();
        let of_car: Vec<_> = fetched.iter().filter(|one| one.record.key.as_ref() == Some(&key)).collect();
        let values = of_car.iter().map(|one| one.record.value.clone().expect("a value"));
        let sent = sent.iter().filter(|message| message.topic.as_bytes() == key);
        assert_eq!(
            values.collect::<Vec<_>>(),
            sent.map(|message| message.payload.clone()).collect::<Vec<_>>()
        );
        assert!(of_car.iter().all(|one| one.partition == of_car[0].partition), "one subject, one partition");
    }
}

#[test]
fn what_mqtt_retained_is_in_the_log_and_what_was_sent_at_most_once_too() {
    if missing(&[Program::MqttJs, Program::Kcat, Program::Aiokafka]) {
        return;
    }
    let broker = Broker::start();
    let sent = [Message::new("lamp", "on", 1).retained(), Message::new("lamp", "off", 0)];
    Program::MqttJs.publish(broker.mqtt(), &sent, &["version=4"]);
    let mut reader = Program::Aiokafka.consume(broker.kafka(), "lamp", &[]);
    let values: Vec<_> = reader.take(2).into_iter().map(|fetched| fetched.record.value).collect();
    assert_eq!(values, [Some(b"on".to_vec()), Some(b"off".to_vec())]);
    let mut late = Program::MqttJs.subscribe(broker.mqtt(), "lamp", &["qos=1"]);
    assert_eq!(late.next_message(), sent[0]);
}
