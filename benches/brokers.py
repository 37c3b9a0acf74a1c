"""Starts the brokers that are compared, each fresh in a directory of its own, and stops exactly those."""

import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
START_WITHIN = 30.0

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 65535
max_queued_messages 0
set_tcp_nodelay true
log_type error
"""
# 0 would mean no limit, but Mosquitto 2.0 then never delivers QoS 1 to a 5.0 client.


class Unavailable(Exception):
    """What has to be there is not; the message says how to get it."""


def executable(name, package):
    """A release binary of this repository."""
    path = TARGET / "release" / name
    if not path.exists():
        raise Unavailable(f"{path} is missing: cargo build --release -p {package}")
    return str(path)


def raise_descriptor_limit():
    """10,000 connections need more than the usual 1,024 descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Broker:
    """A running broker: `name`, `pid`, `addresses` by protocol. Use it with `with`."""

    def __init__(self, name, command, data, env=None):
        self.name = name
        self.data = Path(data)
        self.addresses = {}
        self.log = open(self.data / "output.log", "wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=env
        )
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.data, ignore_errors=True)

    def wait_until(self, condition, what):
        """Waits for a condition with a deadline, and fails at once when the broker has ended."""
        deadline = time.monotonic() + START_WITHIN
        while not condition():
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                output = (self.data / "output.log").read_text(errors="replace")[-2000:]
                self.__exit__()
                raise Unavailable(f"{self.name} {'ended' if ended else 'is late'} before {what}:\n{output}")
            time.sleep(0.02)
        return self


def directory(parent):
    """A new, empty directory on the disk that the brokers write to."""
    return tempfile.mkdtemp(prefix="robustmq-bench-", dir=parent)


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(address):
    """Whether somebody listens there."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 1).close()
        return True
    except OSError:
        return False


def mosquitto(parent=None):
    """Debian's Mosquitto with as little configuration as the rows need; persistence is off, its default."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Unavailable("mosquitto is missing: apt-get install mosquitto")
    data, port = directory(parent), free_port()
    config = Path(data) / "mosquitto.conf"
    config.write_text(MOSQUITTO.format(port=port))
    broker = Broker("Mosquitto", [program, "-c", str(config)], data)
    broker.addresses["mqtt"] = f"127.0.0.1:{port}"
    return broker.wait_until(lambda: accepts(broker.addresses["mqtt"]), "it listened")


def robustmq(parent=None):
    """This repository's broker, release build, default configuration."""
    data = directory(parent)
    command = [executable("broker-server", "server"), "start", "--any-port", "--data-dir", f"{data}/data"]
    broker = Broker("RobustMQ", command, data)
    listeners = broker.data / "data" / "listeners.json"

    def has_addresses():
        try:
            broker.addresses = json.loads(listeners.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return True

    return broker.wait_until(has_addresses, "it wrote listeners.json")


def sink(parent=None):
    """The load generator's own other side, which shows how much it can do."""
    data = directory(parent)
    broker = Broker("sink", [executable("robust-bench", "cli"), "mqtt", "sink"], data)
    output = broker.data / "output.log"
    broker.wait_until(lambda: output.read_bytes().endswith(b"\n"), "it listened")
    broker.addresses["mqtt"] = output.read_text().strip()
    return broker


def cpu_seconds(pid):
    """Processor time of a process until now, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
