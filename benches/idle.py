#!/usr/bin/env python3
"""What 10,000 silent MQTT connections cost a broker: resident memory each, kernel memory, processor time.

Resident: at all connections, less at none, of a broker started for this; also with one subscription each, and over
TLS. Kernel memory: growth of the slab and of TCP's buffers, both ends of each connection, because the tool runs on
the same machine.
"""

import argparse
import json
import socket
import ssl
import subprocess
import sys
import time

import brokers
import figures


def idle(broker, arguments, options):
    """robust-bench, which opens connections without TLS."""
    done = subprocess.run(
        [brokers.executable("robust-bench", "cli"), "mqtt", "idle", "--json", *options, *brokers.KEEP_ALIVE,
         "--address", broker.addresses["mqtt"], "--broker-pid", str(broker.pid),
         "--connections", str(arguments.connections), "--hold", str(arguments.hold)],
        capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{broker.name}: NO: {done.stderr}", file=sys.stderr)
        return {}
    print(f"{broker.name}: {done.stderr.strip()}", file=sys.stderr)
    return json.loads(done.stdout)


def connect_packet(number):
    """CONNECT of 3.1.1, clean, with a keep alive of an hour."""
    name = f"idle-{number}".encode()
    body = b"\0\4MQTT\4\2\x0e\x10" + len(name).to_bytes(2, "big") + name
    return bytes([0x10, len(body)]) + body


def idle_over_tls(broker, arguments):
    """The same over TLS, one connection after the other, which is slow but all the same to an idle broker."""
    context = ssl.create_default_context(cafile=broker.data / "server.pem")
    address = ("127.0.0.1", int(broker.addresses["mqtts"].rsplit(":", 1)[1]))
    before, began, held = brokers.resident(broker.pid), time.monotonic(), []
    for number in range(arguments.connections):
        connection = context.wrap_socket(socket.create_connection(address, 20), server_hostname="localhost")
        connection.sendall(connect_packet(number))
        if connection.recv(4) != b"\x20\2\0\0":
            print(f"{broker.name}: NO: connection {number} is refused", file=sys.stderr)
            return {}
        held.append(connection)
    seconds = time.monotonic() - began
    time.sleep(2)
    each = (brokers.resident(broker.pid) - before) / len(held)
    cpu = brokers.cpu_seconds(broker.pid)
    time.sleep(arguments.hold)
    spent = brokers.cpu_seconds(broker.pid) - cpu
    print(f"{broker.name}: {len(held)} over TLS, {each / 1024:.2f} KB resident each", file=sys.stderr)
    return {"resident_per_connection": each, "opened_per_second": len(held) / seconds, "broker_cpu_ms": spent * 1e3}


def cell(outcomes, name, scale=1):
    found = [outcome.get(name) for outcome in outcomes]
    return figures.spread([None if value is None else value / scale for value in found]) if any(outcomes) else "no"


# name, figure, divisor.
ROWS = [
    ("resident KB each", "resident_per_connection", 1024),
    ("kernel KB each, both ends", "kernel_slab_per_connection", 1024),
    ("opened/s", "opened_per_second", 1),
    ("still open", "still_open", 1),
    ("ms of CPU in {hold:g} s", "broker_cpu_ms", 1),
]
KINDS = {
    "plain": ("{count} idle connections", lambda broker, arguments: idle(broker, arguments, [])),
    "subscribed": ("{count} with one subscription each", lambda broker, arguments: idle(broker, arguments, ["--filters", "1"])),
    "tls": ("{count} over TLS", idle_over_tls),
}


def table(kind, starts, arguments):
    heading, measure = KINDS[kind]
    outcomes = {name: [] for name in starts}
    for _ in range(arguments.rounds):
        for name, start in starts.items():
            try:
                with start(arguments.data, tls=kind == "tls") as broker:
                    outcomes[name].append(measure(broker, arguments))
            except (brokers.Unavailable, OSError) as missing:
                print(f"{name}: NO: {missing}", file=sys.stderr)
                outcomes[name].append({})
    lines = [
        [row.format(hold=arguments.hold), *(cell(outcomes[name], figure, scale) for name in starts)]
        for row, figure, scale in ROWS
        if any(figure in outcome for name in starts for outcome in outcomes[name])
    ]
    return figures.table([heading.format(count=f"{arguments.connections:,}"), *starts], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--hold", type=float, default=60, help="seconds for which processor time is taken")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, 5 seconds")
    parser.add_argument("--brokers", default=",".join(brokers.ALL), help="which ones (default: %(default)s)")
    parser.add_argument("--peer-only", action="store_true", help="without our broker")
    parser.add_argument("--only", choices=list(KINDS), action="append", help="this kind; may be given several times")
    parser.add_argument("--data", help="directory for the brokers' data")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.hold = 1, 5
    brokers.raise_descriptor_limit()
    machine = figures.machine(arguments.data)
    starts = brokers.choose(arguments.brokers, arguments.peer_only)
    tables = [table(kind, starts, arguments) for kind in KINDS if not arguments.only or kind in arguments.only]
    print(f"{machine}; {arguments.rounds} rounds\n")
    print("\n\n".join(filter(None, tables)))


if __name__ == "__main__":
    try:
        main()
    except brokers.Unavailable as missing:
        sys.exit(str(missing))
