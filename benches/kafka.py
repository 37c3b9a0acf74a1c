#!/usr/bin/env python3
"""Kafka: this repository's broker against Apache Kafka from Maven Central in its default configuration.

The tool is librdkafka's rdkafka_performance with its defaults and acks=all or, with --tool java, Kafka's own
ProducerPerformance and ConsumerPerformance with theirs (acks=all, idempotent, 16 KB batches): the same for both
brokers, one partition, no compression. On few cores the Java tools cost more than either broker.

Both brokers run for the whole time, because a Java broker needs a warm-up; each run is one broker's, in turns, on a
topic of its own, and the first round does not count. A run produces the records and then fetches them.
"""

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import brokers
import figures

# Record bytes: records of a run. Many, because librdkafka takes most of a second to begin, with any broker.
SIZES = {100: 4_000_000, 1024: 500_000}
WARM_UP_RECORDS = 1000  # create the topic, before the clock runs
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
# As Kafka's own start script has them.
JVM = ["-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
       "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]
# What a broker cannot start without; the replication factors are those of a single node.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
log.dirs={data}/logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


def class_path():
    """Jars of the broker and its tools, fetched by Maven once."""
    pom = brokers.REPOSITORY / "benches" / "kafka" / "pom.xml"
    version = re.search(r"<kafka.version>(.*?)<", pom.read_text()).group(1)
    cached = brokers.CACHE / f"bench-kafka-{version}.classpath"
    if not cached.exists() or not all(Path(jar).exists() for jar in cached.read_text().split(":")):
        cached.parent.mkdir(parents=True, exist_ok=True)
        command = ["mvn", "-q", "-B", "-f", str(pom), PLUGIN, f"-Dmdep.outputFile={cached}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise brokers.Unavailable("mvn is missing: apt-get install maven default-jdk-headless") from None
        if done.returncode != 0:
            raise brokers.Unavailable(f"Maven cannot resolve Apache Kafka:\n{done.stdout[-1500:]}")
    return cached.read_text().strip(), version


def apache_kafka(jars, parent=None):
    """One KRaft node, formatted and started."""
    data, port, controller = brokers.directory(parent), brokers.free_port(), brokers.free_port()
    config = Path(data) / "server.properties"
    config.write_text(PROPERTIES.format(port=port, controller=controller, data=data))
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    cluster = "A" + cluster[1:]  # An identifier that begins with a dash would be read as an option.
    done = subprocess.run(["java", "-cp", jars, "kafka.tools.StorageTool", "format", "--standalone",
                           "-t", cluster, "-c", str(config)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise brokers.Unavailable(f"Kafka's storage cannot be formatted:\n{done.stdout}{done.stderr}")
    command = ["java", "-Xms1G", "-Xmx1G", *JVM, "-cp", jars, "kafka.Kafka", str(config)]
    broker = brokers.Broker("Apache Kafka", command, data)
    broker.addresses["kafka"] = f"127.0.0.1:{port}"
    return broker.wait_until(lambda: brokers.accepts(broker.addresses["kafka"]), "it listened")


def run_tool(command):
    """Runs a tool; its output and its processor seconds."""
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    after = os.times()
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout, after.children_user + after.children_system - before.children_user - before.children_system


class Librdkafka:
    """librdkafka's own performance tool."""

    def __init__(self, _):
        build = brokers.REPOSITORY / "benches" / "kafka" / "build-tool"
        done = subprocess.run([str(build)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise brokers.Unavailable(f"rdkafka_performance cannot be built:\n{done.stderr}")
        self.program = done.stdout.strip()

    def run(self, address, topic, records, *options):
        place = ["-b", address, "-t", topic, "-p", "0"]
        return run_tool([self.program, *place, "-c", str(records), "-q", *options])

    def produce(self, address, topic, size, records):
        output, cpu = self.run(address, topic, records, "-P", "-s", str(size), "-a", "-1")
        found = re.search(r"(\d+) delivered \(offset \d+, 0 failed\) in \d+ms: (\d+) msgs/s", output)
        return output, found and int(found[1]), found and float(found[2]), cpu

    def fetch(self, address, topic, records):
        output, cpu = self.run(address, topic, records, "-C", "-o", "beginning")
        found = re.search(r"(\d+) messages \(\d+ bytes\) consumed in \d+ms: (\d+) msgs/s", output)
        return output, found and int(found[1]), found and float(found[2]), cpu


class JavaTools:
    """Apache Kafka's performance tools."""

    def __init__(self, jars):
        self.jars = jars

    def run(self, name, *options):
        return run_tool(["java", "-Xmx512M", *JVM, "-cp", self.jars, f"org.apache.kafka.tools.{name}", *options])

    def produce(self, address, topic, size, records):
        output, cpu = self.run(
            "ProducerPerformance", "--topic", topic, "--num-records", str(records), "--record-size", str(size),
            "--throughput", "-1", "--command-property", f"bootstrap.servers={address}")
        found = re.search(r"(\d+) records sent, ([\d.]+) records/sec", output.strip().splitlines()[-1])
        return output, found and int(found[1]), found and float(found[2]), cpu

    def fetch(self, address, topic, records):
        output, cpu = self.run(
            "ConsumerPerformance", "--topic", topic, "--bootstrap-server", address, "--timeout", "30000",
            "--num-records", str(records))
        lines = [line.split(", ") for line in output.strip().splitlines() if ", " in line]
        found = dict(zip(lines[0], lines[-1])) if lines else {}
        # Without the time that joining the group took, which is the tool's waiting.
        return output, int(found.get("data.consumed.in.nMsg", 0)), float(found.get("fetch.nMsg.sec", 0)), cpu


def step(broker, records, work):
    """One step against one broker: its rate, and the processor time of both sides per record."""
    cpu = brokers.cpu_seconds(broker.pid)
    output, count, rate, tool_cpu = work()
    cpu = brokers.cpu_seconds(broker.pid) - cpu
    if not count or count < records:
        sys.exit(f"{broker.name}: {count} of {records} records, says the tool:\n{output[-2000:]}")
    return {"per_second": rate, "broker_us": cpu * 1e6 / records, "tool_us": tool_cpu * 1e6 / records}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round, a tenth of the records")
    parser.add_argument("--peer-only", action="store_true", help="Apache Kafka alone")
    parser.add_argument("--tool", choices=["librdkafka", "java"], default="librdkafka")
    parser.add_argument("--data", help="directory for the brokers' data")
    parser.add_argument("--raw", help="append every single outcome to this file, one JSON object a line")
    arguments = parser.parse_args()
    sizes = {size: records // 10 for size, records in SIZES.items()} if arguments.quick else SIZES
    rounds = 1 if arguments.quick else arguments.rounds
    before, machine = os.getloadavg()[0], figures.machine(arguments.data)
    jars, version = class_path()
    tool = {"librdkafka": Librdkafka, "java": JavaTools}[arguments.tool](jars)
    outcomes = {}
    with apache_kafka(jars, arguments.data) as kafka:
        if arguments.peer_only:
            measure(tool, [kafka], (sizes, rounds), outcomes, arguments.raw)
        else:
            with brokers.robustmq(arguments.data) as ours:
                measure(tool, [kafka, ours], (sizes, rounds), outcomes, arguments.raw)
    print(f"{machine}; Apache Kafka {version}, heap 1 GB; tool: {arguments.tool}; {rounds} rounds\n")
    print("\n\n".join(filter(None, [figures.noise(before), report(outcomes)])))


def measure(tool, running, plan, outcomes, raw):
    sizes, rounds = plan
    for number in range(rounds + 1):
        for size, records in sizes.items():
            for broker in running if number % 2 == 0 else running[::-1]:
                topic = f"bench-{size}-{number}-{int(time.time())}"
                address = broker.addresses["kafka"]
                tool.produce(address, topic, size, WARM_UP_RECORDS)
                steps = {
                    "produce": step(broker, records, lambda: tool.produce(address, topic, size, records)),
                    "fetch": step(broker, records, lambda: tool.fetch(address, topic, records)),
                }
                for name, outcome in steps.items():
                    told = {"row": f"{name} {size} B", "broker": broker.name, "round": number, **outcome}
                    print(json.dumps(told), file=sys.stderr, flush=True)
                    if raw:
                        with open(raw, "a", encoding="utf-8") as file:
                            print(json.dumps(told), file=file)
                    if number > 0:
                        outcomes.setdefault(told["row"], {}).setdefault(broker.name, []).append(outcome)


def report(outcomes):
    lines = []
    for row, of in sorted(outcomes.items()):
        def column(broker, name):
            return [outcome.get(name) for outcome in of.get(broker, [])]

        theirs, ours = column("Apache Kafka", "per_second"), column("RobustMQ", "per_second")
        cost = [figures.median(column(broker, "broker_us")) for broker in ("Apache Kafka", "RobustMQ")]
        tools = [figures.short(figures.median(column(broker, "tool_us"))) for broker in of]
        lines.append([
            row, figures.spread(theirs), figures.spread(ours),
            figures.ratio(figures.median(ours), figures.median(theirs)),
            figures.short(cost[0]), figures.short(cost[1]), figures.ratio(*cost), "/".join(tools),
        ])
    return figures.table([
        "records/s", "Apache Kafka", "RobustMQ", "times", "us CPU each, Kafka", "RobustMQ", "times less",
        "tool's CPU",
    ], lines)


if __name__ == "__main__":
    try:
        main()
    except brokers.Unavailable as missing:
        sys.exit(str(missing))
