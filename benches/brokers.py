"""Starts the brokers that are compared, each fresh in a directory of its own, and stops exactly those."""

import functools
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("ROBUSTMQ_CACHE",
                            Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "robustmq"))
START_WITHIN = 30.0
# For robust-bench: rumqttd refuses clients without one. An hour is longer than any run.
KEEP_ALIVE = ["--keep-alive", "3600"]

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 65535
max_queued_messages 0
set_tcp_nodelay true
log_type error
"""
# 0 would mean no limit, but Mosquitto 2.0 then never delivers QoS 1 to a 5.0 client.

RUMQTTD_VERSION = "0.20.0"
# Its own example, without the listeners that nobody uses here, and without its pause of 1 ms before each connection.
RUMQTTD = """\
id = 0
[router]
id = 0
max_connections = 20010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "v4-1"
listen = "127.0.0.1:{v4}"
next_connection_delay_ms = 0
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
[v5.1]
name = "v5-1"
listen = "127.0.0.1:{v5}"
next_connection_delay_ms = 0
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
[console]
listen = "127.0.0.1:{console}"
"""


RUMQTTD_TLS = """\
[v4.2]
name = "v4-2"
listen = "127.0.0.1:{safe}"
next_connection_delay_ms = 0
[v4.2.tls]
certpath = "{data}/server.pem"
keypath = "{data}/server.key"
[v4.2.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
"""
ROBUSTMQ_TLS = """\
[[mqtt.listeners]]
name = "mqtts"
transport = "tls"
bind = "127.0.0.1:0"
[mqtt.listeners.tls]
certificate_file = "{data}/server.pem"
key_file = "{data}/server.key"
"""

# A script that is ended unwinds as one that is interrupted: it leaves no broker behind.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Unavailable(Exception):
    """What has to be there is not; the message says how to get it."""


@functools.cache
def target():
    """Where cargo builds: what the environment says, or the settings that scripts/setup wrote."""
    command = ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return Path(json.loads(found.stdout)["target_directory"])


def executable(name, package):
    """A release binary of this repository."""
    path = target() / "release" / name
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


def certificate(data):
    """A certificate for localhost that is its own authority, made by openssl: `server.pem` and `server.key`."""
    names = ["-out", f"{data}/server.pem", "-keyout", f"{data}/server.key"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable("openssl is missing: apt-get install openssl") from None
    if done.returncode != 0:
        raise Unavailable(f"openssl makes no certificate: {done.stderr}")


def mosquitto(parent=None, tls=False):
    """Debian's Mosquitto with as little configuration as the rows need; persistence is off, its default."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Unavailable("mosquitto is missing: apt-get install mosquitto")
    data, port = directory(parent), free_port()
    config = Path(data) / "mosquitto.conf"
    text, safe = MOSQUITTO.format(port=port), free_port()
    if tls:
        certificate(data)
        text += f"listener {safe} 127.0.0.1\ncertfile {data}/server.pem\nkeyfile {data}/server.key\n"
    if os.geteuid() == 0:
        # It would become another user, who may not read the key.
        text = "user root\n" + text
    config.write_text(text)
    broker = Broker("Mosquitto", [program, "-c", str(config)], data)
    broker.addresses["mqtt"] = f"127.0.0.1:{port}"
    if tls:
        broker.addresses["mqtts"] = f"127.0.0.1:{safe}"
    return broker.wait_until(lambda: all(map(accepts, broker.addresses.values())), "it listened")


def provide_rumqttd():
    """rumqttd of crates.io, compiled once into the cache; its lock file names crates that no longer compile."""
    root = CACHE / f"rumqttd-{RUMQTTD_VERSION}"
    program = root / "bin" / "rumqttd"
    if not program.exists():
        print(f"compiling rumqttd {RUMQTTD_VERSION} once into {root}", file=sys.stderr, flush=True)
        command = ["cargo", "install", "--quiet", f"rumqttd@{RUMQTTD_VERSION}", "--root", str(root)]
        # Outside of the repository, whose settings are not meant for it.
        if subprocess.run(command, cwd=tempfile.gettempdir(), check=False).returncode != 0:
            raise Unavailable("cargo cannot install rumqttd: leave it out with --brokers")
    return str(program)


def rumqttd(parent=None, tls=False):
    """rumqttd, which keeps everything in memory. Versions 3.1.1 and 5.0, and TLS, have a port each."""
    program, data = provide_rumqttd(), directory(parent)
    v4, v5, safe, console = free_port(), free_port(), free_port(), free_port()
    config = Path(data) / "rumqttd.toml"
    text = RUMQTTD.format(v4=v4, v5=v5, console=console)
    if tls:
        certificate(data)
        text += RUMQTTD_TLS.format(safe=safe, data=data)
    config.write_text(text)
    broker = Broker("rumqttd", [program, "--quiet", "--config", str(config)], data)
    broker.addresses.update(mqtt=f"127.0.0.1:{v4}", mqtt5=f"127.0.0.1:{v5}")
    if tls:
        broker.addresses["mqtts"] = f"127.0.0.1:{safe}"
    return broker.wait_until(lambda: all(map(accepts, broker.addresses.values())), "it listened")


def robustmq(parent=None, tls=False):
    """This repository's broker, release build, default configuration."""
    data = directory(parent)
    command = [executable("broker-server", "server"), "start", "--any-port", "--data-dir", f"{data}/data"]
    if tls:
        certificate(data)
        config = Path(data) / "settings.toml"
        config.write_text(ROBUSTMQ_TLS.format(data=data))
        command += ["--config", str(config)]
    broker = Broker("RobustMQ", command, data)
    listeners = broker.data / "data" / "listeners.json"

    def has_addresses():
        try:
            broker.addresses = json.loads(listeners.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return True

    return broker.wait_until(has_addresses, "it wrote listeners.json")


# By the names that the tables have. The first is what the others are compared with.
ALL = {"Mosquitto": mosquitto, "rumqttd": rumqttd, "RobustMQ": robustmq}


def choose(names, peer_only):
    """The brokers of a list of names, in the order of the tables; a peer that cannot be had is left out."""
    wanted = {name.strip().lower() for name in names.split(",")}
    chosen = {name: start for name, start in ALL.items() if name.lower() in wanted}
    if unknown := wanted - {name.lower() for name in chosen}:
        raise Unavailable(f"no such broker: {', '.join(unknown)}")
    if peer_only:
        chosen.pop("RobustMQ", None)
    if "rumqttd" in chosen:
        try:
            provide_rumqttd()
        except Unavailable as missing:
            print(f"without rumqttd: {missing}", file=sys.stderr)
            del chosen["rumqttd"]
    return chosen


def sink(parent=None):
    """The load generator's own other side, which shows how much it can do."""
    data = directory(parent)
    broker = Broker("sink", [executable("robust-bench", "cli"), "mqtt", "sink"], data)
    output = broker.data / "output.log"
    broker.wait_until(lambda: output.read_bytes().endswith(b"\n"), "it listened")
    broker.addresses["mqtt"] = output.read_text().strip()
    return broker


def resident(pid):
    """Resident bytes of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def cpu_seconds(pid):
    """Processor time of a process until now, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
