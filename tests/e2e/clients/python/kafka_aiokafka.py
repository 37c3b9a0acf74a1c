"""Kafka through aiokafka: produces what standard input says, or prints what it consumes."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition

from options import parse, records, tell, tohex

POLL_MS = 50
RECORD_BYTES_MAX = 8_000_000


async def produce(options):
    acks = options.get("acks", "all")
    compression = options.get("compression", "none")
    producer = AIOKafkaProducer(
        bootstrap_servers=options["address"],
        acks=acks if acks == "all" else int(acks),
        enable_idempotence=options.flag("idempotent"),
        compression_type=None if compression == "none" else compression,
        max_request_size=RECORD_BYTES_MAX,
    )
    await producer.start()
    waiting = []
    for record in records():
        sending = await producer.send(
            options["topic"], value=record["value"], key=record["key"], timestamp_ms=record["timestamp"],
            headers=record["headers"],
        )
        waiting.append(sending)
    for index, sending in enumerate(waiting):
        try:
            metadata = await sending
            tell("acked", index=index, partition=metadata.partition, offset=metadata.offset)
        except Exception as error:
            tell("failed", index=index, message=repr(error))
    await producer.stop()
    tell("done", sent=len(waiting))


class Listener(ConsumerRebalanceListener):
    async def on_partitions_revoked(self, revoked):
        if revoked:
            tell("revoked", partitions=sorted(part.partition for part in revoked))

    async def on_partitions_assigned(self, assigned):
        tell("ready", partitions=sorted(part.partition for part in assigned))


async def consume(options):
    group = options.get("group")
    consumer = AIOKafkaConsumer(
        bootstrap_servers=options["address"],
        group_id=group,
        auto_offset_reset=options.get("reset", "earliest"),
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        max_partition_fetch_bytes=RECORD_BYTES_MAX,
    )
    if group:
        consumer.subscribe([options["topic"]], listener=Listener())
        await consumer.start()
    else:
        await consumer.start()
        numbers = sorted(await consumer._client._wait_on_metadata(options["topic"]))
        parts = [TopicPartition(options["topic"], number) for number in numbers]
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        tell("ready", partitions=numbers)
    closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not closed.done():
        for batch in (await consumer.getmany(timeout_ms=POLL_MS)).values():
            for record in batch:
                tell(
                    "record", topic=record.topic, partition=record.partition, offset=record.offset,
                    timestamp=record.timestamp, key=tohex(record.key), value=tohex(record.value),
                    headers=[[name, tohex(value)] for name, value in record.headers],
                )
        if group and options.flag("commit") and consumer.assignment():
            await consumer.commit()
    await consumer.stop()
    tell("done")


if __name__ == "__main__":
    verb, given = parse()
    asyncio.run({"produce": produce, "consume": consume}[verb](given))
