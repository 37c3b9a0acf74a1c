#!/usr/bin/env python3
"""MQTT: this repository's broker against Debian's Mosquitto and rumqttd of crates.io, row by row, with robust-bench.

One broker runs at a time and each run has a fresh one; the brokers take turns within a round. A row's figure is the
median of its rounds. Each row of throughput is also run against the sink once: if the tool does not reach twice the
fastest broker's rate there, the row says so. What a broker cannot do is shown as `no`, with its reason below.
"""

import argparse
import json
import os
import re
import subprocess
import sys

import brokers
import figures

# Seconds that a run may take beside what it measures.
RUN_MAX = 300

# name, options. QoS 0 has a window too, of messages not yet delivered, so that nothing piles up in the kernel and
# what is delivered in the measured time was published in it.
SHAPES = [
    ("1 -> 1", "", 10_000),
    ("10 x 10", "--publishers 10 --subscribers 10 --topics 10", 2_000),
    ("1 -> 100", "--subscribers 100", 1_000),
]
FAN_IN = ("10 -> 1", "--publishers 10")
SHARED = ("10 -> shared by 10", "--publishers 10 --subscribers 10 --share crew")
PROPERTIES = ("1 -> 1, 5.0 with properties", "--protocol 5.0 --properties")


def throughput_rows(sizes):
    for size in sizes:
        for shape, options, undelivered in SHAPES:
            yield f"QoS 0, {shape}, {size} B", f"{options} --qos 0 --size {size} --window {undelivered}"
            for window in (20, 1000):
                name = f"QoS 1, {shape}, {size} B, window {window}"
                yield name, f"{options} --qos 1 --size {size} --window {window}"
    for shape, options in (SHAPES[0][:2], SHAPES[1][:2]):
        for window in (20, 1000):
            yield f"QoS 2, {shape}, 64 B, window {window}", f"{options} --qos 2 --window {window}"
    for shape, options in (FAN_IN, SHARED, PROPERTIES):
        yield f"QoS 0, {shape}, 64 B", f"{options} --qos 0 --window 1000"
        for window in (20, 1000):
            yield f"QoS 1, {shape}, 64 B, window {window}", f"{options} --qos 1 --window {window}"


# name, options, which times.
LATENCY_ROWS = [
    ("QoS 0, 10,000/s", "--rate 10000", "latency_us"),
    ("QoS 1, 10,000/s, delivered", "--rate 10000 --qos 1 --window 1000", "latency_us"),
    ("QoS 1, 1,000/s, acknowledged", "--rate 1000 --qos 1 --window 1000", "acknowledgement_us"),
]

# A process may have 20,000 files open on common machines, so 100,000 distinct subscriptions share 10,000 clients.
FILTERS = [("100 clients, 10 filters each", 100, 10), ("10,000 clients, 10 filters each", 10_000, 10)]

SESSIONS = [("100 sessions, 1,000 messages each", 100, 100_000), ("1 session, 1,000,000 messages", 1, 1_000_000)]


class Runs:
    """Runs robust-bench against fresh brokers and keeps every outcome."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.tool = brokers.executable("robust-bench", "cli")
        self.raw = open(arguments.raw, "a", encoding="utf-8") if arguments.raw else None
        self.starts = brokers.choose(arguments.brokers, arguments.peer_only)
        self.names = list(self.starts)
        # Rows by broker and reason.
        self.refusals = {}

    def wants(self, row):
        """Whether a row was asked for."""
        return not self.arguments.rows or any(part.lower() in row.lower() for part in self.arguments.rows)

    def once(self, name, start, row, command):
        """One run: its outcome, or {} if the broker could not do it."""
        try:
            with start(self.arguments.data) as broker:
                return self.measure(broker, row, command)
        except brokers.Unavailable as missing:
            return self.refused(name, row, str(missing))

    def measure(self, broker, row, command):
        five = "--protocol 5.0" in command
        address = broker.addresses["mqtt5" if five and "mqtt5" in broker.addresses else "mqtt"]
        line = [self.tool, "mqtt", *command.split(), "--json", "--address", address, "--broker-pid", str(broker.pid),
                *brokers.KEEP_ALIVE]
        limit = RUN_MAX + 3 * self.arguments.seconds
        try:
            done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=limit)
        except subprocess.TimeoutExpired:
            return self.refused(broker.name, row, f"not within {limit:g} s")
        if broker.process.poll() is not None:
            return self.refused(broker.name, row, f"it ended with {broker.process.returncode}")
        if done.returncode != 0:
            return self.refused(broker.name, row, done.stderr.strip().removeprefix("robust-bench: "))
        print(f"  {broker.name}: {done.stderr.strip()}", file=sys.stderr, flush=True)
        outcome = json.loads(done.stdout)
        if self.raw:
            print(json.dumps({"row": row, "broker": broker.name, **outcome}), file=self.raw, flush=True)
        return outcome

    def refused(self, name, row, reason):
        print(f"  {name}: NO: {reason}", file=sys.stderr, flush=True)
        reason = re.sub(r"127\.0\.0\.1:\d+", "it", reason.splitlines()[-1] if reason else "no reason")
        self.refusals.setdefault((name, reason), {})[row] = None
        return {}

    def row(self, row, command):
        """All rounds of a row, the brokers in turns; outcomes by broker name."""
        print(row, file=sys.stderr)
        outcomes = {name: [] for name in self.names}
        for number in range(self.arguments.rounds):
            for name in self.names if number % 2 == 0 else self.names[::-1]:
                outcomes[name].append(self.once(name, self.starts[name], row, command))
        return outcomes

    def load(self, options):
        return f"load {options} --duration {self.arguments.seconds} --warm-up {self.arguments.warm_up}"


def values(outcomes, broker, *path):
    """A figure of each round; None where the broker had none."""
    found = []
    for outcome in outcomes.get(broker, []):
        for name in path:
            outcome = None if outcome is None else outcome.get(name)
        found.append(outcome)
    return found


def cell(outcomes, broker, *path, scale=1):
    """Median and spread, or `no`."""
    if not any(outcomes[broker]):
        return "no"
    return figures.spread([None if value is None else value / scale for value in values(outcomes, broker, *path)])


def compared(runs, outcomes, *path):
    """How many times Mosquitto's figure ours is."""
    theirs, ours = (figures.median(values(outcomes, name, *path)) for name in ("Mosquitto", "RobustMQ"))
    return figures.ratio(ours, theirs)


def throughput(runs, sizes):
    lines = []
    for row, options in throughput_rows(sizes):
        if not runs.wants(f"throughput {row}"):
            continue
        outcomes = runs.row(row, runs.load(options))
        cost = {name: figures.median(values(outcomes, name, "broker_us_per_delivered")) for name in outcomes}
        lost = [str(sum(filter(None, values(outcomes, name, "lost")))) for name in outcomes]
        reference = runs.once("sink", brokers.sink, row, f"load {options} --duration 1 --warm-up 0.3")
        ceiling = reference.get("delivered_per_second", 0)
        rates = [figures.median(values(outcomes, name, "delivered_per_second")) for name in outcomes]
        fastest = max(filter(None, rates), default=0)
        lines.append([
            row, *(cell(outcomes, name, "delivered_per_second") for name in runs.names),
            compared(runs, outcomes, "delivered_per_second"),
            *(figures.short(cost[name]) for name in runs.names),
            figures.ratio(cost.get("Mosquitto"), cost.get("RobustMQ")), "/".join(lost),
            figures.short(ceiling) + ("" if ceiling >= 2 * fastest else " TOO LOW"),
        ])
    first, *others = runs.names
    return figures.table([
        "deliveries/s", *runs.names, "times", f"us CPU each, {first}", *others, "times less", "lost", "tool alone",
    ], lines)


def latency(runs):
    lines = []
    for row, options, times in LATENCY_ROWS:
        if not runs.wants(f"latency {row}"):
            continue
        outcomes = runs.row(row, runs.load(options))
        late = figures.median([late for name in outcomes for late in values(outcomes, name, "lateness_us", "p99")])
        for quantile in ("p50", "p99", "p999"):
            lines.append([
                f"{row}, {quantile}", *(cell(outcomes, name, times, quantile) for name in runs.names),
                compared(runs, outcomes, times, quantile), figures.short(late),
            ])
        lines.append([
            f"{row}, us CPU each", *(cell(outcomes, name, "broker_us_per_delivered") for name in runs.names),
            compared(runs, outcomes, "broker_us_per_delivered"), "",
        ])
    return figures.table(["us", *runs.names, "times", "tool late, p99"], lines)


def lines_of(runs, outcomes, rows):
    """A line for each of (name, path, divisor)."""
    return [
        [name, *(cell(outcomes, broker, *path, scale=scale) for broker in runs.names), compared(runs, outcomes, *path)]
        for name, path, scale in rows
    ]


def connects(runs):
    parts = []
    if runs.wants("connect and disconnect"):
        outcomes = runs.row("connect and disconnect", f"connect --duration {runs.arguments.seconds}")
        lines = lines_of(runs, outcomes, [
            ("connections/s", ["connected_per_second"], 1),
            ("us CPU each", ["broker_us_per_connection"], 1),
            ("failed", ["failed"], 1),
        ])
        busiest = figures.median([busy for name in outcomes for busy in values(outcomes, name, "tool_busiest_thread")])
        lines.append(["tool's thread, cores", figures.short(busiest), *[""] * len(runs.names)])
        parts.append(figures.table(["connect and disconnect, 50 at a time", *runs.names, "times"], lines))
    if runs.wants("connects at once"):
        command = "idle --connections 10000 --concurrency 10000 --hold 1"
        outcomes = runs.row("10,000 connects at once", command)
        parts.append(figures.table(["10,000 connects at once", *runs.names, "times"], lines_of(runs, outcomes, [
            ("served", ["opened"], 1),
            ("seconds until the last", ["open_seconds"], 1),
            ("us CPU each", ["broker_us_per_opened"], 1),
            ("resident MB before", ["resident_before"], 1e6),
            ("resident MB after", ["resident_after"], 1e6),
        ])))
    return "\n\n".join(parts)


def filters(runs):
    parts = []
    for name, clients, each in FILTERS:
        if not runs.wants(f"filters {name}"):
            continue
        command = f"filters --connections {clients} --filters {each} --duration {runs.arguments.seconds}"
        outcomes = runs.row(name, command)
        parts.append(figures.table([f"wildcards: {name}", *runs.names, "times"], lines_of(runs, outcomes, [
            ("filters that stand", ["filters"], 1),
            ("subscribed/s", ["filters_per_second"], 1),
            ("us CPU to subscribe", ["broker_us_per_filter"], 1),
            ("resident bytes each", ["resident_per_filter"], 1),
            ("first message to each of 1,000 topics, us CPU", ["first", "broker_us_each"], 1),
            ("first messages lost", ["first", "lost"], 1),
            ("deliveries/s", ["again", "per_second"], 1),
            ("us CPU per delivery", ["again", "broker_us_each"], 1),
            ("lost", ["again", "lost"], 1),
        ])))
    return "\n\n".join(parts)


def replays(runs):
    parts = []
    for name, sessions, messages in SESSIONS:
        if not runs.wants(f"replay {name}"):
            continue
        messages = messages // 10 if runs.arguments.quick else messages
        outcomes = runs.row(name, f"replay --sessions {sessions} --messages {messages}")
        shown = f"{messages:,} messages for {sessions} away" if runs.arguments.quick else name
        parts.append(figures.table([f"away: {shown}", *runs.names, "times"], lines_of(runs, outcomes, [
            ("stored/s", ["stored", "per_second"], 1),
            ("us CPU to store", ["stored", "broker_us_each"], 1),
            ("resident bytes each", ["resident_per_stored"], 1),
            ("replayed/s", ["replayed", "per_second"], 1),
            ("us CPU to replay", ["replayed", "broker_us_each"], 1),
            ("ms to the first", ["first_ms"], 1),
            ("lost", ["lost"], 1),
        ])))
    return "\n\n".join(parts)


def version_of_mosquitto():
    path = os.environ["PATH"] + ":/usr/sbin"
    done = subprocess.run(["mosquitto", "-h"], capture_output=True, text=True, check=False,
                          env={**os.environ, "PATH": path})
    return done.stdout.split("\n")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 bytes only, one round of one second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=float, default=1)
    parser.add_argument("--brokers", default=",".join(brokers.ALL), help="which ones (default: %(default)s)")
    parser.add_argument("--peer-only", action="store_true", help="without our broker")
    parser.add_argument("--only", choices=["throughput", "latency", "connect", "filters", "replay"], action="append",
                        help="this part; may be given several times")
    parser.add_argument("--rows", action="append", metavar="TEXT",
                        help="rows whose name contains this, as `QoS 2` or `at once`; may be given several times")
    parser.add_argument("--data", help="directory for the brokers' data (default: the system's temporary one)")
    parser.add_argument("--raw", help="append every single outcome to this file, one JSON object a line")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.warm_up = 1, 1, 0.5
    brokers.raise_descriptor_limit()
    before = os.getloadavg()[0]
    machine = figures.machine(arguments.data)
    runs = Runs(arguments)
    parts = {
        "throughput": lambda: throughput(runs, [64] if arguments.quick else [64, 1024]),
        "latency": lambda: latency(runs),
        "connect": lambda: connects(runs),
        "filters": lambda: filters(runs),
        "replay": lambda: replays(runs),
    }
    texts = [parts[part]() for part in parts if not arguments.only or part in arguments.only]
    if runs.refusals:
        lines = [f"- {name}: {reason}. Rows: {'; '.join(rows)}" for (name, reason), rows in runs.refusals.items()]
        texts.append("What could not be measured:\n\n" + "\n".join(lines))
    peers = [version_of_mosquitto()] + [f"rumqttd {brokers.RUMQTTD_VERSION}"] * ("rumqttd" in runs.names)
    print(f"{machine}; {', '.join(peers)}; {arguments.rounds} rounds of {arguments.seconds:g} s\n")
    print("\n\n".join(filter(None, [figures.noise(before), *texts])))


if __name__ == "__main__":
    try:
        main()
    except brokers.Unavailable as missing:
        sys.exit(str(missing))
