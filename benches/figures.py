"""Medians, spreads, tables, and the line that says on what and when something was measured."""

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path


def median(values):
    """The middle of what is there; None of nothing."""
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def short(value):
    """A number in few characters."""
    if value is None:
        return "-"
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def spread(values):
    """Median (least-most)."""
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    return f"{short(median(values))} ({short(min(values))}-{short(max(values))})"


def ratio(ours, theirs):
    """How many times theirs ours is."""
    return f"{ours / theirs:.2f}" if ours is not None and theirs else "-"


def table(headings, rows):
    """Markdown, columns aligned; nothing without rows."""
    if not rows:
        return ""
    lines = [headings] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]

    def line(cells):
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"

    return "\n".join([line(headings), "|" + "|".join("-" * (width + 2) for width in widths) + "|"] + [
        line(cells) for cells in lines[1:]
    ])


def machine(data):
    """One line: when, on what, how busy it was before."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    disk = subprocess.run(["df", "--output=fstype", data or "/tmp"], capture_output=True, text=True, check=False)
    filesystem = (disk.stdout.split() or ["?"])[-1]
    return (f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}; {os.cpu_count()} x {cpu}, {memory:.0f} GB, "
            f"{filesystem}, Linux {platform.release()}; load average before: {os.getloadavg()[0]:.2f}")


def noise(before):
    """A warning if something else kept the machine busy."""
    if before > 0.5 * os.cpu_count():
        return (f"WARNING: the load average was {before:.1f} on {os.cpu_count()} cores before this began: "
                "other work disturbed these figures.")
    return None
