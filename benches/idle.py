#!/usr/bin/env python3
"""What 10,000 silent MQTT connections cost a broker: resident memory each, kernel memory, processor time.

Resident: at all connections, less at none, of a broker started for this. Kernel memory: growth of the slab and of
TCP's buffers, both ends of each connection, because the tool runs on the same machine.
"""

import argparse
import json
import subprocess
import sys

import brokers
import figures


def measure(start, arguments):
    with start(arguments.data) as broker:
        done = subprocess.run(
            [brokers.executable("robust-bench", "cli"), "mqtt", "idle", "--json",
             "--address", broker.addresses["mqtt"], "--broker-pid", str(broker.pid),
             "--connections", str(arguments.connections), "--hold", str(arguments.hold)],
            capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{broker.name}: {done.stderr}")
        print(f"{broker.name}: {done.stderr.strip()}", file=sys.stderr)
        return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--hold", type=float, default=60, help="seconds for which processor time is taken")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, 5 seconds")
    parser.add_argument("--peer-only", action="store_true", help="Mosquitto alone")
    parser.add_argument("--data", help="directory for the brokers' data")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.hold = 1, 5
    brokers.raise_descriptor_limit()
    machine = figures.machine(arguments.data)
    starts = [brokers.mosquitto] if arguments.peer_only else [brokers.mosquitto, brokers.robustmq]
    outcomes = {start: [] for start in starts}
    for _ in range(arguments.rounds):
        for start in starts:
            outcomes[start].append(measure(start, arguments))
    rows = []
    for row, of in (
        ("resident KB each", lambda outcome: outcome["resident_per_connection"] / 1024),
        ("kernel KB each, both ends", lambda outcome: outcome["kernel_slab_per_connection"] / 1024),
        ("opened/s", lambda outcome: outcome["opened_per_second"]),
        ("still open", lambda outcome: outcome["still_open"]),
        (f"ms of CPU in {arguments.hold:g} s", lambda outcome: outcome["broker_cpu_ms"]),
    ):
        cells = [figures.spread([of(outcome) for outcome in outcomes[start]]) for start in starts]
        rows.append([row, *cells] + [""] * (2 - len(cells)))
    print(f"{machine}; {arguments.rounds} rounds\n")
    print(figures.table([f"{arguments.connections} idle connections", "Mosquitto", "RobustMQ"], rows))


if __name__ == "__main__":
    try:
        main()
    except brokers.Unavailable as missing:
        sys.exit(str(missing))
