"""MQTT through aiomqtt: the verbs, options and lines are those of mqtt_paho.py."""

import asyncio
import json
import sys

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqtt_paho import SESSION_SECONDS, publish_properties
from options import parse, tell, tohex, unhex


def client_of(options):
    five = options.number("version", 5) == 5
    clean = options.flag("clean", True)
    host, port = options["address"].rsplit(":", 1)
    more = {}
    if five:
        more["clean_start"] = clean
        more["properties"] = Properties(PacketTypes.CONNECT)
        if not clean:
            more["properties"].SessionExpiryInterval = SESSION_SECONDS
    else:
        more["clean_session"] = clean
    if "will_topic" in options:
        more["will"] = aiomqtt.Will(options["will_topic"], unhex(options["will_payload"]), options.number("will_qos", 1))
    client = aiomqtt.Client(
        host, int(port), identifier=options.get("id", ""),
        protocol=aiomqtt.ProtocolVersion.V5 if five else aiomqtt.ProtocolVersion.V311, **more,
    )
    return client, five


async def lines():
    """Standard input, line by line, without a stop of the loop."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line.strip()


async def publish(options):
    client, five = client_of(options)
    sent = 0
    async with client:
        async for line in lines():
            message = json.loads(line)
            await client.publish(
                message["topic"], unhex(message["payload"]), message.get("qos", 0), message.get("retain", False),
                publish_properties(message) if five else None,
            )
            tell("acked", index=sent, reason=0)
            sent += 1
    tell("done", sent=sent)


async def show(client):
    async for message in client.messages:
        properties = message.properties
        tell(
            "message", topic=str(message.topic), payload=tohex(message.payload), qos=message.qos,
            retain=message.retain, user=[list(pair) for pair in getattr(properties, "UserProperty", [])],
            content_type=getattr(properties, "ContentType", None),
            response_topic=getattr(properties, "ResponseTopic", None),
            correlation=tohex(getattr(properties, "CorrelationData", None)),
            expiry=getattr(properties, "MessageExpiryInterval", None),
            payload_format=getattr(properties, "PayloadFormatIndicator", None),
        )


async def subscribe(options):
    client, _five = client_of(options)
    async with client:
        # It does not tell whether there was a session, and a subscription that stands already does no harm.
        tell("connected")
        showing = asyncio.create_task(show(client))
        await client.subscribe([(name, options.number("qos", 1)) for name in options["filter"].split(",")])
        tell("ready")
        async for line in lines():
            await client.unsubscribe(line)
            tell("unsubscribed")
        showing.cancel()
    tell("done")


if __name__ == "__main__":
    verb, given = parse()
    asyncio.run({"publish": publish, "subscribe": subscribe}[verb](given))
