"""MQTT through paho: publishes what standard input says, or prints what a subscription gets."""

import json
import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from options import parse, tell, tohex, unhex

# A persistent session outlives any test.
SESSION_SECONDS = 3600
RECONNECT_SECONDS_MIN, RECONNECT_SECONDS_MAX = 0.05, 0.2


def connect(options, **callbacks):
    five = options.number("version", 5) == 5
    clean = options.flag("clean", True)
    extra = {} if five else {"clean_session": clean}
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=options.get("id", ""),
        protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
        transport=options.get("transport", "tcp"),
        **extra,
    )
    if "ca" in options:
        client.tls_set(ca_certs=options["ca"], certfile=options.get("cert"), keyfile=options.get("key"))
    for name, callback in callbacks.items():
        setattr(client, name, callback)
    client.reconnect_delay_set(RECONNECT_SECONDS_MIN, RECONNECT_SECONDS_MAX)
    client.max_queued_messages_set(0)
    if "will_topic" in options:
        client.will_set(
            options["will_topic"], unhex(options["will_payload"]), options.number("will_qos", 1),
            options.flag("will_retain"),
        )
    host, port = options["address"].rsplit(":", 1)
    host = options.get("path", host)
    if five:
        properties = Properties(PacketTypes.CONNECT)
        if not clean:
            properties.SessionExpiryInterval = SESSION_SECONDS
        client.connect(host, int(port), options.number("keep_alive", 60), clean_start=clean, properties=properties)
    else:
        client.connect(host, int(port), options.number("keep_alive", 60))
    client.loop_start()
    return client, five


def publish_properties(message):
    properties = Properties(PacketTypes.PUBLISH)
    for name, key in [("ContentType", "content_type"), ("ResponseTopic", "response_topic"),
                      ("MessageExpiryInterval", "expiry"), ("PayloadFormatIndicator", "payload_format")]:
        if message.get(key) is not None:
            setattr(properties, name, message[key])
    if message.get("correlation") is not None:
        properties.CorrelationData = unhex(message["correlation"])
    if message.get("user"):
        properties.UserProperty = [tuple(pair) for pair in message["user"]]
    return properties


def publish(options):
    # paho holds its own lock when it calls back, so that the callback must not wait for ours.
    answers = queue.Queue()
    client, five = connect(
        options,
        on_publish=lambda _client, _userdata, mid, reason, _properties: answers.put(
            (mid, getattr(reason, "value", 0))),
    )
    indexes = {}

    def tell_answer():
        mid, reason = answers.get()
        tell("acked", index=indexes.pop(mid), reason=reason)

    # With `flood` it sends without end, its count as payload, until standard input closes.
    if options.flag("flood"):
        stopping = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), stopping.set()), daemon=True).start()
        messages = endless(options, stopping)
    else:
        messages = (json.loads(line) for line in sys.stdin)
    window = options.number("window", 100)
    sent = 0
    for message in messages:
        handle = client.publish(
            message["topic"], unhex(message["payload"]), message.get("qos", 0), message.get("retain", False),
            publish_properties(message) if five else None,
        )
        indexes[handle.mid] = sent
        sent += 1
        while len(indexes) >= window or not answers.empty():
            tell_answer()
    while indexes:
        tell_answer()
    client.disconnect()
    client.loop_stop()
    tell("done", sent=sent)


def endless(options, stopping):
    """The count as payload, without end, until told to stop."""
    count = 0
    while not stopping.is_set():
        yield {"topic": options["topic"], "payload": str(count).encode().hex(), "qos": options.number("qos", 1)}
        count += 1


def subscribe(options):
    def on_connect(client, _userdata, flags, reason, _properties):
        tell("connected", session_present=flags.session_present, reason=reason.value)
        if flags.session_present:
            tell("ready")
            return
        qos = options.number("qos", 1)
        if options.number("version", 5) == 5:
            choice = SubscribeOptions(
                qos, noLocal=options.flag("no_local"), retainAsPublished=options.flag("retain_as_published")
            )
            client.subscribe([(name, choice) for name in options["filter"].split(",")])
        else:
            client.subscribe([(name, qos) for name in options["filter"].split(",")])

    def on_subscribe(_client, _userdata, _mid, reasons, _properties):
        tell("ready", reasons=[reason.value for reason in reasons])

    def on_message(_client, _userdata, message):
        properties = message.properties
        user = [list(pair) for pair in getattr(properties, "UserProperty", [])]
        tell(
            "message", topic=message.topic, payload=tohex(message.payload), qos=message.qos, retain=message.retain,
            user=user, content_type=getattr(properties, "ContentType", None),
            response_topic=getattr(properties, "ResponseTopic", None),
            correlation=tohex(getattr(properties, "CorrelationData", None)),
            expiry=getattr(properties, "MessageExpiryInterval", None),
            payload_format=getattr(properties, "PayloadFormatIndicator", None),
        )

    def on_unsubscribe(_client, _userdata, _mid, reasons, _properties):
        tell("unsubscribed", reasons=[reason.value for reason in reasons])

    client, _five = connect(
        options, on_connect=on_connect, on_subscribe=on_subscribe, on_message=on_message,
        on_unsubscribe=on_unsubscribe,
    )
    # Each line is a filter to leave.
    for line in sys.stdin:
        client.unsubscribe(line.strip())
    client.disconnect()
    client.loop_stop()
    tell("done")


if __name__ == "__main__":
    verb, given = parse()
    {"publish": publish, "subscribe": subscribe}[verb](given)
