"""The command line that all client programs share: a verb, then key=value options; and the lines they print."""

import json
import sys
import threading

_print_lock = threading.Lock()


class Options(dict):
    """Options as strings, with typed getters."""

    def number(self, key, default):
        return int(self.get(key, default))

    def flag(self, key, default=False):
        return self.get(key, str(default)).lower() == "true"


def parse():
    """The verb and its options."""
    return sys.argv[1], Options(argument.split("=", 1) for argument in sys.argv[2:])


def tell(event, **fields):
    """Prints one event as a JSON line. Callable from any thread."""
    line = json.dumps({"event": event, **fields}, separators=(",", ":"))
    with _print_lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def unhex(text):
    """Bytes of a hexadecimal string; None stays None."""
    return None if text is None else bytes.fromhex(text)


def tohex(data):
    """A hexadecimal string of bytes; None stays None."""
    return None if data is None else bytes(data).hex()


def records():
    """Records to produce, from standard input, a line each (see KafkaRecord in the harness)."""
    for line in sys.stdin:
        key, value, timestamp, headers = line.rstrip("\n").split("\t")
        pairs = [header.split("=", 1) for header in headers.split(",") if header]
        yield {
            "key": None if key == "-" else bytes.fromhex(key),
            "value": None if value == "-" else bytes.fromhex(value),
            "timestamp": None if timestamp == "-" else int(timestamp),
            "headers": [(name, None if text == "-" else bytes.fromhex(text)) for name, text in pairs],
        }
