"""Soundness of the constraints: random files inside the masks, held to every judge of their format and level.

    python benchmarks/soundness.py --files 20000 --jobs 2 --json benchmarks/soundness.jsonl
    python benchmarks/soundness.py --format elf64-x86_64 --level load --picks uniform --files 500 --keep FOLDER

The files are spread evenly over formats, levels and samplers; sizes run from the least file to --max-bytes,
evenly on a logarithmic scale. The sampler `model` is the packaged model under the mask (at most --model-bytes
bytes). Prints a table and one JSON line a row. Exit code 1 when a judge refused a file: a bug in a rule.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bytegen import formats
from bytegen.benchmark import environment, write_json_lines
from bytegen.formats.api import PICKS
from bytegen.formats.oracles import panel

SAMPLERS = (*PICKS, "model")
DEFAULT_PICKS = "uniform,uniform,uniform,lively,lively,lively,lowest,highest"


class Task(NamedTuple):
    """One file to draw and judge."""

    format: str
    level: str
    pick: str
    seed: int
    max_bytes: int


class Judged(NamedTuple):
    """A task, the size of its file, what the judges said, and the file where they said something."""

    task: Task
    size: int
    complaints: list[str]
    data: bytes


def draw(task: Task) -> bytes:
    """The file of a task."""
    if task.pick == "model":
        return _model_files(task)
    return formats.sample(task.format, task.seed, task.max_bytes, task.level, task.pick)  # type: ignore[arg-type]


@cache
def _lm() -> Any:
    import torch

    import bytegen

    torch.set_num_threads(1)
    return bytegen.load()


def _model_files(task: Task) -> bytes:
    import random

    import bytegen

    rng = random.Random(task.seed)
    prompt = rng.choice(("count from 3 to 9", "print hello", "reverse the input", "a file", "?"))
    options: dict[str, Any] = {
        "format": task.format, "level": task.level, "seed": task.seed,
        "temperature": rng.choice((0.3, 1.0, 2.0)),
        "max_bytes": max(task.max_bytes, formats.least_bytes(task.format, task.level)),
    }  # fmt: skip
    return bytegen.generate(_lm(), prompt, **options).data


def judge(task: Task) -> Judged:
    """Draw one file and ask every judge at hand."""
    try:
        data = draw(task)
    except Exception as error:
        # A dead end or a fault of the engine is a refusal like any other: it is counted and named.
        return Judged(task, 0, [f"draw: {type(error).__name__}: {error}"], b"")
    with tempfile.TemporaryDirectory(prefix="bytegen-sound-") as folder:
        path = Path(folder) / ("file.exe" if task.format.startswith("pe") else "file")
        path.write_bytes(data)
        path.chmod(0o755)
        found = panel.complaints(path, task.format, task.level)
    refusal = formats.replay(
        formats.constraint(task.format, max_bytes=max(len(data), task.max_bytes), level=task.level), data
    )
    if refusal is not None:
        found.append(f"replay: {refusal}")
    return Judged(task, len(data), found, data if found else b"")


def _settle() -> None:
    """Take what lives already out of the garbage collector's sight: pefile collects at every close."""
    for name in formats.available():
        formats.sample(name, 0, 4096)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def tasks(args: argparse.Namespace) -> list[Task]:
    """What to draw: one file after another over formats, levels and samplers."""
    names = args.format.split(",") if args.format else formats.available()
    kinds = [
        (name, level)
        for name in names
        for level in formats.levels(name)
        if not args.level or level in args.level.split(",")
    ]
    picks = args.picks.split(",")
    found = []
    for i in range(args.files):
        name, level = kinds[i % len(kinds)]
        pick = picks[i // len(kinds) % len(picks)]
        found.append(
            Task(name, level, pick, args.seed + i, args.model_bytes if pick == "model" else args.max_bytes)
        )
    return found


def judged(wanted: list[Task], jobs: int, seconds: float | None) -> Iterator[Judged]:
    """Every task's outcome, in order; after `seconds` no more are begun."""
    begun = time.monotonic()
    left = iter(wanted)
    with ProcessPoolExecutor(jobs, initializer=_settle) as executor:
        running = deque(executor.submit(judge, task) for task in islice(left, 8 * jobs))
        while running:
            yield running.popleft().result()
            if seconds is None or time.monotonic() - begun < seconds:
                running.extend(executor.submit(judge, task) for task in islice(left, 1))


def main() -> int:
    """Run the measurement; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--format", help="formats, separated by commas; all of them by default")
    parser.add_argument("--level", help="levels, separated by commas; all of them by default")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--max-bytes", type=int, default=143_360)
    parser.add_argument("--model-bytes", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picks", default=DEFAULT_PICKS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="begin no more files after this long")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for refused files")
    parser.add_argument("--show", type=int, default=30, help="how many refused files to list")
    args = parser.parse_args()
    if bad := set(args.picks.split(",")) - set(SAMPLERS):
        parser.error(f"unknown samplers {sorted(bad)}; there are: {', '.join(SAMPLERS)}")
    begun = time.monotonic()
    sizes: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    refused: Counter[tuple[str, str, str]] = Counter()
    for found in judged(tasks(args), args.jobs, args.seconds):
        key = found.task[:3]
        sizes[key].append(found.size)
        if found.complaints:
            refused[key] += 1
            if sum(refused.values()) <= args.show:
                print(f"{' '.join(map(str, found.task))}: {found.complaints[:3]}", flush=True)
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / "-".join(map(str, found.task[:4]))).write_bytes(found.data)
    rows = []
    print(
        f"{'format':<18}{'level':<7}{'sampler':<9}{'files':>7}{'refused':>9}{'least':>8}{'median':>8}{'most':>8}"
    )
    for key, known in sorted(sizes.items()):
        known.sort()
        middle = known[len(known) // 2]
        print(
            f"{key[0]:<18}{key[1]:<7}{key[2]:<9}{len(known):>7}{refused[key]:>9}{known[0]:>8}{middle:>8}{known[-1]:>8}"
        )
        rows.append(
            {
                "measure": "soundness", "format": key[0], "level": key[1], "sampler": key[2], "files": len(known),
                "refused": refused[key], "least_bytes": known[0], "median_bytes": middle, "most_bytes": known[-1],
                "seed": args.seed,
                "judges": [one.name for one in panel.judges(*key[:2]) if one.absent is None],
                "absent": {one.name: one.absent for one in panel.judges(*key[:2]) if one.absent is not None},
            }
        )  # fmt: skip
    total = sum(map(len, sizes.values()))
    print(f"{total} files, {sum(refused.values())} refused, {time.monotonic() - begun:.0f} s")
    if args.json:
        machine = environment()
        write_json_lines(args.json, [row | machine for row in rows])
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
