"""What benches share: medians over rounds, the machine and versions they ran on, JSON lines.

A figure without its conditions says nothing: every row carries the environment stamp.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bytegen.files import write_atomically


@dataclass(frozen=True)
class Timing:
    """The median and the 20th and 80th percentiles over `rounds` rounds, in the unit of what was measured."""

    median: float
    p20: float
    p80: float
    rounds: int

    def scaled(self, factor: float) -> Timing:
        """The same timing in another unit: every figure times `factor`."""
        return Timing(self.median * factor, self.p20 * factor, self.p80 * factor, self.rounds)


def quantile(values: Iterable[float], share: float) -> float:
    """The `share` quantile (0..1) by linear interpolation; raises ValueError when there are no values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values to take a quantile of")
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summarise(values: Iterable[float]) -> Timing:
    """Median and p20/p80 of the values, one a round."""
    kept = list(values)
    return Timing(quantile(kept, 0.5), quantile(kept, 0.2), quantile(kept, 0.8), len(kept))


def seconds_of(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long one call of `action` takes, in seconds by `clock`."""
    start = clock()
    action()
    return clock() - start


def measure(
    action: Callable[[], object],
    rounds: int,
    calls: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Seconds a call of `action`; a round is the mean of `calls` calls; one call before is not counted."""
    action()

    def one_round() -> None:
        for _ in range(calls):
            action()

    return summarise(seconds_of(one_round, clock) / calls for _ in range(rounds))


def interleave(subjects: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Measures subjects against each other: each round asks every one in turn for its own figure.

    Taking turns spreads what else the machine does over all of them; one round before goes unmeasured.
    """
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, subject in subjects.items():
            figure = subject()
            if number > 0:
                figures[name].append(figure)
    return {name: summarise(values) for name, values in figures.items()}


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_commit(folder: Path | None = None) -> str:
    """The commit of the checkout around this file, with "+" when it has changes; empty without one."""
    at = folder or Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(at), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def environment(packages: Iterable[str] = ("numpy", "lief", "capstone")) -> dict[str, object]:
    """What a figure depends on: processor, cores, load, system, Python, versions, commit, date (UTC)."""
    versions = {}
    for package in ("bytegen", *packages):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_model(),
        "cores": cores,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write_json_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Writes one line of JSON a row, under a temporary name first, then moved into place."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
