"""MQTT 3.1.1 over QUIC through aioquic: subscribes, publishes one message with QoS 1, and prints what comes back."""

import asyncio

from aioquic.asyncio import connect
from aioquic.quic.configuration import QuicConfiguration

from options import parse, tell, tohex, unhex

PUBLISH, PUBACK, SUBACK, CONNACK = 3, 4, 9, 2


def text(value):
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def packet(first, body):
    """A packet; its body is shorter than 2 MiB."""
    length, rest = bytearray(), len(body)
    while True:
        rest, digit = divmod(rest, 128)
        length.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes([first]) + bytes(length) + body


async def read_packet(reader):
    first = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return first >> 4, await reader.readexactly(length)


async def echo(options):
    """Prints `echoed` with the payload once the message was acknowledged and delivered."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["mqtt"], cafile=options["ca"])
    if "cert" in options:
        configuration.load_cert_chain(options["cert"], options["key"])
    host, port = options["address"].rsplit(":", 1)
    async with connect(host, int(port), configuration=configuration) as client:
        reader, writer = await client.create_stream()
        writer.write(packet(0x10, text("MQTT") + b"\x04\x02\0\x3c" + text(options.get("id", "quic"))))
        kind, body = await read_packet(reader)
        assert (kind, body) == (CONNACK, b"\0\0"), (kind, body)
        writer.write(packet(0x82, b"\0\x01" + text(options["topic"]) + b"\x01"))
        kind, body = await read_packet(reader)
        assert (kind, body) == (SUBACK, b"\0\x01\x01"), (kind, body)
        payload = unhex(options["payload"]) * options.number("times", 1)
        writer.write(packet(0x32, text(options["topic"]) + b"\0\x02" + payload))
        waiting = {PUBLISH, PUBACK}
        while waiting:
            kind, body = await read_packet(reader)
            waiting.remove(kind)
            if kind == PUBLISH:
                start = 2 + int.from_bytes(body[:2], "big")
                identifier, delivered = body[start:start + 2], body[start + 2:]
                writer.write(packet(0x40, identifier))
        assert delivered == payload
        tell("echoed", length=len(delivered), payload=tohex(delivered[:64]))
        writer.write(packet(0xE0, b""))
        # The broker ends the stream; then the connection may go.
        rest = await reader.read()
        tell("done", rest=tohex(rest))


if __name__ == "__main__":
    verb, given = parse()
    asyncio.run({"echo": echo}[verb](given))
