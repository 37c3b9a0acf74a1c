"""Kafka through confluent-kafka (librdkafka): produces what standard input says, or prints what it consumes."""

import sys
import threading

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from options import parse, records, tell, tohex

POLL_SECONDS = 0.05
TIMEOUT_SECONDS = 20


def settings(options, **more):
    return {
        "bootstrap.servers": options["address"],
        "broker.address.family": "v4",
        # A broker that was killed is back in a moment, and at the same address.
        "metadata.recovery.strategy": "none",
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 100,
        "retry.backoff.ms": 20,
        "retry.backoff.max.ms": 100,
        "topic.metadata.refresh.fast.interval.ms": 50,
        **identity(options),
        **more,
    }


def identity(options):
    if "mechanism" not in options:
        return {}
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": options["mechanism"],
        "sasl.username": options["user"],
        "sasl.password": options["password"],
    }


def login(options):
    """Whether it is let in."""
    refusals = []

    def on_error(error):
        if error.code() == KafkaError._AUTHENTICATION:
            refusals.append(str(error))

    consumer = Consumer(settings(options, **{"group.id": "unused", "error_cb": on_error}))
    while not refusals:
        try:
            consumer.list_topics(timeout=1)
            return tell("welcome")
        except KafkaException:
            consumer.poll(POLL_SECONDS)
    tell("refused", message=refusals[0])


def produce(options):
    producer = Producer(settings(
        options,
        **{
            "acks": options.get("acks", "all"),
            "enable.idempotence": options.flag("idempotent"),
            "compression.codec": options.get("compression", "none"),
            "linger.ms": options.number("linger", 5),
            "message.max.bytes": 8_000_000,
            "message.timeout.ms": 120_000,
            "queue.buffering.max.messages": options.number("window", 100_000),
        },
    ))

    def report(index):
        def on_delivery(error, message):
            if error is not None:
                tell("failed", index=index, message=str(error))
            else:
                # Nobody tells the offset when nothing is acknowledged.
                offset = -1 if message.offset() is None else message.offset()
                tell("acked", index=index, partition=message.partition(), offset=offset)
        return on_delivery

    stopping = threading.Event()
    if options.flag("flood"):
        threading.Thread(target=lambda: (sys.stdin.read(), stopping.set()), daemon=True).start()
        source = endless(stopping)
    else:
        source = records()
    sent = 0
    for record in source:
        extra = {} if record["timestamp"] is None else {"timestamp": record["timestamp"]}
        if "partition" in options:
            extra["partition"] = options.number("partition", 0)
        while True:
            try:
                producer.produce(
                    options["topic"], key=record["key"], value=record["value"], headers=record["headers"],
                    on_delivery=report(sent), **extra,
                )
                break
            except BufferError:
                producer.poll(POLL_SECONDS)
        producer.poll(0)
        sent += 1
    producer.flush(120)
    tell("done", sent=sent)


def endless(stopping):
    """The count as value, without end, until told to stop."""
    count = 0
    while not stopping.is_set():
        yield {"key": None, "value": str(count).encode(), "timestamp": None, "headers": []}
        count += 1


def consume(options):
    group = options.get("group")
    consumer = Consumer(settings(
        options,
        **{
            "group.id": group or "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": options.get("reset", "earliest"),
            "enable.partition.eof": True,
            "check.crcs": True,
            "session.timeout.ms": 6000,
            "fetch.wait.max.ms": 500,
            "isolation.level": options.get("isolation", "read_committed"),
        },
    ))
    if group:
        consumer.subscribe(
            [options["topic"]],
            on_assign=lambda _, parts: tell("ready", partitions=[part.partition for part in parts]),
            on_revoke=lambda _, parts: tell("revoked", partitions=[part.partition for part in parts]),
        )
    else:
        topic = consumer.list_topics(options["topic"], timeout=TIMEOUT_SECONDS).topics[options["topic"]]
        if topic.error is not None:
            tell("error", message=str(topic.error))
        consumer.assign([TopicPartition(options["topic"], number, OFFSET_BEGINNING) for number in topic.partitions])
        tell("ready", partitions=sorted(topic.partitions))
    stopping = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopping.set()), daemon=True).start()
    while not stopping.is_set():
        for message in consumer.consume(1000, POLL_SECONDS):
            show(message)
        if group and options.flag("commit"):
            try:
                consumer.commit(asynchronous=False)
            except Exception as error:  # Nothing to commit is no error.
                if error.args[0].code() != KafkaError._NO_OFFSET:
                    tell("error", message=str(error))
    consumer.close()
    tell("done")


def show(message):
    error = message.error()
    if error is None:
        tell(
            "record", topic=message.topic(), partition=message.partition(), offset=message.offset(),
            timestamp=message.timestamp()[1], key=tohex(message.key()), value=tohex(message.value()),
            headers=[[name, tohex(value)] for name, value in message.headers() or []],
        )
    elif error.code() == KafkaError._PARTITION_EOF:
        tell("end", partition=message.partition(), offset=message.offset())
    elif error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
        tell("disconnected")
    else:
        tell("error", message=str(error))


def create(options):
    admin = AdminClient(settings(options))
    config = {key[7:]: value for key, value in options.items() if key.startswith("config.")}
    topic = NewTopic(options["topic"], options.number("partitions", 1), 1, config=config)
    for future in admin.create_topics([topic]).values():
        future.result(TIMEOUT_SECONDS)
    tell("done")


def delete(options):
    admin = AdminClient(settings(options))
    for future in admin.delete_topics([options["topic"]]).values():
        future.result(TIMEOUT_SECONDS)
    tell("done")


def inspect(options):
    """Topics, watermarks, offset by time, committed offsets and configuration, as far as asked for."""
    consumer = Consumer(settings(options, **{"group.id": options.get("group", "unused")}))
    partition = TopicPartition(options["topic"], options.number("partition", 0))
    low, high = consumer.get_watermark_offsets(partition, timeout=TIMEOUT_SECONDS)
    answer = {"low": low, "high": high}
    if "time" in options:
        wanted = TopicPartition(partition.topic, partition.partition, options.number("time", 0))
        answer["by_time"] = consumer.offsets_for_times([wanted], timeout=TIMEOUT_SECONDS)[0].offset
    if "group" in options:
        answer["committed"] = consumer.committed([partition], timeout=TIMEOUT_SECONDS)[0].offset
    answer["topics"] = sorted(consumer.list_topics(timeout=TIMEOUT_SECONDS).topics)
    consumer.close()
    admin = AdminClient(settings(options))
    for future in admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, partition.topic)]).values():
        answer["config"] = {name: entry.value for name, entry in future.result(TIMEOUT_SECONDS).items()}
    tell("inspected", **answer)


if __name__ == "__main__":
    verb, given = parse()
    {
        "produce": produce, "consume": consume, "create": create, "delete": delete, "inspect": inspect, "login": login,
    }[verb](given)
