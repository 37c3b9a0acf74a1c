#!/usr/bin/env python3
"""MQTT: this repository's broker against Debian's Mosquitto, row by row, in turns, with robust-bench.

One broker runs at a time and each run has a fresh one. A row's figure is the median of its rounds. Each row is also
run against the sink once: if the tool does not reach twice the faster broker's rate there, the row says so.
"""

import argparse
import json
import os
import subprocess
import sys

import brokers
import figures

# name, options. QoS 0 has a window too, of messages not yet delivered, so that nothing piles up in the kernel and
# what is delivered in the measured time was published in it.
SHAPES = [
    ("1 -> 1", "", 10_000),
    ("10 x 10", "--publishers 10 --subscribers 10 --topics 10", 2_000),
    ("1 -> 100", "--subscribers 100", 1_000),
]


def throughput_rows(sizes):
    for size in sizes:
        for shape, options, undelivered in SHAPES:
            yield f"QoS 0, {shape}, {size} B", f"{options} --qos 0 --size {size} --window {undelivered}"
            for window in (20, 1000):
                name = f"QoS 1, {shape}, {size} B, window {window}"
                yield name, f"{options} --qos 1 --size {size} --window {window}"


# name, options, which times.
LATENCY_ROWS = [
    ("QoS 0, 10,000/s", "--rate 10000", "latency_us"),
    ("QoS 1, 10,000/s, delivered", "--rate 10000 --qos 1 --window 1000", "latency_us"),
    ("QoS 1, 1,000/s, acknowledged", "--rate 1000 --qos 1 --window 1000", "acknowledgement_us"),
]


class Runs:
    """Runs robust-bench against fresh brokers and keeps every outcome."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.tool = brokers.executable("robust-bench", "cli")
        self.raw = open(arguments.raw, "a", encoding="utf-8") if arguments.raw else None
        self.starts = [brokers.mosquitto] if arguments.peer_only else [brokers.mosquitto, brokers.robustmq]

    def once(self, start, row, command):
        with start(self.arguments.data) as broker:
            line = [self.tool, "mqtt", *command.split(), "--json", "--address", broker.addresses["mqtt"]]
            line += ["--broker-pid", str(broker.pid)]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                sys.exit(f"{row}, {broker.name}: {done.stderr}")
            print(f"  {broker.name}: {done.stderr.strip()}", file=sys.stderr, flush=True)
            outcome = json.loads(done.stdout)
            if self.raw:
                print(json.dumps({"row": row, "broker": broker.name, **outcome}), file=self.raw, flush=True)
            return broker.name, outcome

    def row(self, row, command):
        """All rounds of a row, the brokers in turns; outcomes by broker name."""
        print(row, file=sys.stderr)
        outcomes = {}
        for number in range(self.arguments.rounds):
            for start in self.starts if number % 2 == 0 else self.starts[::-1]:
                name, outcome = self.once(start, row, command)
                outcomes.setdefault(name, []).append(outcome)
        return outcomes

    def load(self, options):
        return f"load {options} --duration {self.arguments.seconds} --warm-up {self.arguments.warm_up}"


def values(outcomes, broker, *path):
    found = []
    for outcome in outcomes.get(broker, []):
        for name in path:
            outcome = None if outcome is None else outcome.get(name)
        found.append(outcome)
    return found


def throughput(runs, sizes):
    lines = []
    for row, options in throughput_rows(sizes):
        outcomes = runs.row(row, runs.load(options))
        rate = {name: values(outcomes, name, "delivered_per_second") for name in outcomes}
        cost = {name: figures.median(values(outcomes, name, "broker_us_per_delivered")) for name in outcomes}
        lost = [str(sum(values(outcomes, name, "lost"))) for name in outcomes]
        _, reference = runs.once(brokers.sink, row, f"load {options} --duration 1 --warm-up 0.3")
        ceiling = reference["delivered_per_second"]
        fastest = max(figures.median(each) for each in rate.values())
        theirs, ours = rate["Mosquitto"], rate.get("RobustMQ", [])
        lines.append([
            row, figures.spread(theirs), figures.spread(ours),
            figures.ratio(figures.median(ours), figures.median(theirs)),
            figures.short(cost["Mosquitto"]), figures.short(cost.get("RobustMQ")),
            figures.ratio(cost["Mosquitto"], cost.get("RobustMQ")), "/".join(lost),
            figures.short(ceiling) + ("" if ceiling >= 2 * fastest else " TOO LOW"),
        ])
    return figures.table([
        "deliveries/s", "Mosquitto", "RobustMQ", "times", "us CPU each, Mosquitto", "RobustMQ", "times less",
        "lost", "tool alone",
    ], lines)


def latency(runs):
    lines = []
    for row, options, times in LATENCY_ROWS:
        outcomes = runs.row(row, runs.load(options))
        late = figures.median([late for name in outcomes for late in values(outcomes, name, "lateness_us", "p99")])
        for quantile in ("p50", "p99", "p999"):
            theirs, ours = (values(outcomes, name, times, quantile) for name in ("Mosquitto", "RobustMQ"))
            lines.append([
                f"{row}, {quantile}", figures.spread(theirs), figures.spread(ours),
                figures.ratio(figures.median(ours), figures.median(theirs)), figures.short(late),
            ])
    return figures.table(["us", "Mosquitto", "RobustMQ", "times", "tool late, p99"], lines)


def connects(runs):
    outcomes = runs.row("connect", f"connect --duration {runs.arguments.seconds}")
    lines = []
    for row, name in (("connections/s", "connected_per_second"), ("us CPU each", "broker_us_per_connection"),
                      ("failed", "failed")):
        theirs, ours = (values(outcomes, broker, name) for broker in ("Mosquitto", "RobustMQ"))
        lines.append([row, figures.spread(theirs), figures.spread(ours),
                      figures.ratio(figures.median(ours), figures.median(theirs))])
    busiest = figures.median([busy for name in outcomes for busy in values(outcomes, name, "tool_busiest_thread")])
    lines.append(["tool's thread, cores", figures.short(busiest), "", ""])
    return figures.table(["connect and disconnect, 50 at a time", "Mosquitto", "RobustMQ", "times"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 bytes only, one round of one second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=float, default=1)
    parser.add_argument("--peer-only", action="store_true", help="Mosquitto alone")
    parser.add_argument("--only", choices=["throughput", "latency", "connect"], action="append")
    parser.add_argument("--data", help="directory for the brokers' data (default: the system's temporary one)")
    parser.add_argument("--raw", help="append every single outcome to this file, one JSON object a line")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.warm_up = 1, 1, 0.5
    before = os.getloadavg()[0]
    machine = figures.machine(arguments.data)
    runs = Runs(arguments)
    only = arguments.only or ["throughput", "latency", "connect"]
    parts = []
    if "throughput" in only:
        parts.append(throughput(runs, [64] if arguments.quick else [64, 1024]))
    if "latency" in only:
        parts.append(latency(runs))
    if "connect" in only:
        parts.append(connects(runs))
    version = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True, check=False,
                             env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}).stdout.split("\n")[0]
    print(f"{machine}; {version}; {arguments.rounds} rounds of {arguments.seconds:g} s\n")
    print("\n\n".join(filter(None, [figures.noise(before), *parts])))


if __name__ == "__main__":
    try:
        main()
    except brokers.Unavailable as missing:
        sys.exit(str(missing))
