"""Kafka through kafka-python: produces what standard input says, or prints what it consumes."""

import logging
import sys
import threading

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError

from options import parse, records, tell, tohex

POLL_MS = 50
RECORD_BYTES_MAX = 8_000_000
TIMEOUT_SECONDS = 60
LOGIN_MS = 5000


def identity(options):
    if "mechanism" not in options:
        return {}
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": options["mechanism"],
        "sasl_plain_username": options["user"],
        "sasl_plain_password": options["password"],
    }


def login(options):
    """Whether it is let in."""
    complaints = []
    handler = logging.Handler()
    # It tries again until its time is over, and tells why in its log alone.
    handler.emit = lambda record: complaints.append(record.getMessage())
    logging.getLogger("kafka").addHandler(handler)
    try:
        address, timeout = options["address"], LOGIN_MS
        KafkaConsumer(bootstrap_servers=address, bootstrap_timeout_ms=timeout, **identity(options)).topics()
        tell("welcome")
    except KafkaTimeoutError:
        tell("refused", message=" ".join(complaints))


def produce(options):
    acks = options.get("acks", "all")
    compression = options.get("compression", "none")
    producer = KafkaProducer(
        bootstrap_servers=options["address"],
        acks=acks if acks == "all" else int(acks),
        enable_idempotence=options.flag("idempotent"),
        compression_type=None if compression == "none" else compression,
        max_request_size=RECORD_BYTES_MAX,
        **identity(options),
    )
    waiting = [
        producer.send(
            options["topic"], value=record["value"], key=record["key"], timestamp_ms=record["timestamp"],
            headers=record["headers"],
        )
        for record in records()
    ]
    for index, sending in enumerate(waiting):
        metadata = sending.get(TIMEOUT_SECONDS)
        tell("acked", index=index, partition=metadata.partition, offset=metadata.offset)
    producer.close()
    tell("done", sent=len(waiting))


def consume(options):
    consumer = KafkaConsumer(
        bootstrap_servers=options["address"],
        auto_offset_reset=options.get("reset", "earliest"),
        enable_auto_commit=False,
        max_partition_fetch_bytes=RECORD_BYTES_MAX,
        **identity(options),
    )
    numbers = sorted(consumer.partitions_for_topic(options["topic"]))
    parts = [TopicPartition(options["topic"], number) for number in numbers]
    consumer.assign(parts)
    consumer.seek_to_beginning(*parts)
    tell("ready", partitions=numbers)
    stopping = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stopping.set()), daemon=True).start()
    while not stopping.is_set():
        for batch in consumer.poll(timeout_ms=POLL_MS).values():
            for record in batch:
                tell(
                    "record", topic=record.topic, partition=record.partition, offset=record.offset,
                    timestamp=record.timestamp, key=tohex(record.key), value=tohex(record.value),
                    headers=[[name, tohex(value)] for name, value in record.headers],
                )
    consumer.close()
    tell("done")


if __name__ == "__main__":
    verb, given = parse()
    {"produce": produce, "consume": consume, "login": login}[verb](given)
