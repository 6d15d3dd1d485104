"""`bytegen bench formats`: what the constraint costs a byte, beside llguidance and xgrammar in the same run.

Compiled programs of every format, files of this system and random walks, at levels load and code. The peers
(`bench_peers`) get a far simpler task on the same bytes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bytegen.benchmark import Timing, environment, measure, summarise, write_json_lines
from bytegen.cli.bench_inputs import Input, compiled, named, of_this_system, random_walk
from bytegen.cli.bench_peers import PEERS, Steps, peer_steps
from bytegen.errors import UserError

if TYPE_CHECKING:
    from bytegen.formats import Constraint

PROGRAMS = (
    "gcc-static-stripped",
    "gcc-free",
    "gcc-free-noseparate",
    "gcc",
    "gcc-stripped-now",
    "gcc-shared",
    "gcc-debug",
    "musl-gcc-static",
    "musl-gcc",
    "zig-cc-free",
    "gcc-i386",
    "zig-i386-free",
    "gcc-aarch64",
    "gcc-aarch64-shared",
    "zig-aarch64-free",
    "mingw-stripped-64",
    "mingw-64",
    "mingw-stripped-32",
    "mingw-32",
)
LEVELS = ("load", "code")
WALK_BYTES = (4_096, *[143_360] * 4)
PEER_BYTES = 143_360
WINDOW_BYTES = 1_000
WINDOWS = (0, 1_000, 139_500)
LONG_BYTES = 140_500
BATCHES = (1, 64)
_BATCH_STEPS = 200
_MICRO = 1e6
_FILE_WIDTH = 120
# Processor time: one thread computes, and what else the machine does shall not count.
_clock = time.thread_time


Row = dict[str, object]
Subject = Callable[[Input], float]
"""Seconds over one input."""


def row(
    subject: str, what: str, source: str, size: int, unit: str, timing: Timing, format_name: str, level: str
) -> Row:
    """One figure: who, what, on which input of how many bytes, and median, p20 and p80 in `unit`."""
    return {
        "bench": "formats", "subject": subject, "measure": what, "input": source, "bytes": size, "unit": unit,
        "median": timing.median, "p20": timing.p20, "p80": timing.p80, "rounds": timing.rounds,
        "format": format_name, "level": level,
    }  # fmt: skip


def fresh(given: Input, level: str) -> Constraint:
    """A new constraint of the input's format, with room for it."""
    from bytegen import formats

    return formats.constraint(given.format, max_bytes=max(143_360, len(given.data)), level=level)


def after(given: Input, level: str, size: int) -> Constraint:
    """A constraint that has read the first ``size`` bytes; `UserError` when it refuses one of them."""
    constraint = fresh(given, level)
    read = constraint.advance_many(given.data[:size])
    if read < min(size, len(given.data)):
        raise UserError(f"{given.name}: byte {read} is refused: {constraint.refusal()}")
    return constraint


def steps(constraint: Constraint, data: bytes) -> float:
    """Seconds for mask + advance, byte by byte."""
    mask, advance = constraint.mask, constraint.advance
    start = _clock()
    for byte in data:
        mask()
        advance(byte)
    return _clock() - start


def bulk(level: str, given: Input) -> float:
    """Seconds for advance_many over the whole input."""
    constraint = fresh(given, level)
    start = _clock()
    constraint.advance_many(given.data)
    return _clock() - start


def that_replay(inputs: Iterable[Input], level: str) -> list[Input]:
    """The inputs that the level has and takes; of others there is nothing to time."""
    from bytegen import formats

    kept = []
    for given in inputs:
        if level in formats.levels(given.format):
            constraint = fresh(given, level)
            if formats.replay(constraint, given.data) is None:
                kept.append(given)
    return kept


def speed_rows(what: str, kind: str, inputs: list[Input], level: str, rounds: int) -> Iterator[Row]:
    """Microseconds a byte: a row for each input, one for all bytes, and the mean of the inputs' own figures.

    All of them have been read or drawn once before.
    """
    seconds: list[list[float]] = [[] for _ in inputs]
    for _ in range(rounds):
        for given, kept in zip(inputs, seconds, strict=True):
            bulky = what == "advance_many"
            kept.append(bulk(level, given) if bulky else steps(fresh(given, level), given.data))
    if not inputs:
        return
    for given, kept in zip(inputs, seconds, strict=True):
        size = len(given.data)
        timing = summarise(kept).scaled(_MICRO / size)
        yield row("bytegen", what, f"{kind} {given.name}", size, "us/byte", timing, given.format, level)
    sizes = [len(given.data) for given in inputs]
    total = summarise(map(sum, zip(*seconds, strict=True))).scaled(_MICRO / sum(sizes))
    yield row("bytegen", what, f"all of {kind}", sum(sizes), "us/byte", total, "every", level)
    own = [[second / size for second in kept] for kept, size in zip(seconds, sizes, strict=True)]
    mean = summarise(map(sum, zip(*own, strict=True))).scaled(_MICRO / len(inputs))
    yield row("bytegen", what, f"mean of {kind}", sum(sizes), "us/byte", mean, "every", level)


def peer_rows(inputs: dict[str, list[Input]], rounds: int) -> Iterator[Row]:
    """The constraint at each level and its peers taking turns on each file, and how much slower the peers are.

    The inputs are those that every level takes, up to `PEER_BYTES` of each. Turns are short on purpose: a machine that
    is shared may be half as fast a moment later.
    """
    common = set.intersection(*(set(kept) for kept in inputs.values()))
    cut = sorted(common)
    size = sum(len(given.data[:PEER_BYTES]) for given in cut)
    if not size:
        return
    subjects: dict[str, Subject] = {f"bytegen {level}": partial(_own, level) for level in inputs}
    peers = {peer: peer_steps(peer) for peer in PEERS}
    subjects |= {peer: partial(_theirs, found) for peer, found in peers.items() if found is not None}
    taken = _by_turns(subjects, cut, rounds)
    source = f"first {PEER_BYTES:,} bytes of {len(cut)}"
    for name, seconds in taken.items():
        subject, _, level = name.partition(" ")
        scaled = summarise(seconds).scaled(_MICRO / size)
        yield row(subject, "mask+advance", source, size, "us/byte", scaled, "every", level or "any text")
    for peer in (peer for peer in PEERS if peer in taken):
        for level in inputs:
            ours = taken[f"bytegen {level}"]
            ratio = summarise(their / own for their, own in zip(taken[peer], ours, strict=True))
            yield row(peer, f"against bytegen at {level}", source, size, "times", ratio, "every", level)


def _by_turns(subjects: dict[str, Subject], inputs: list[Input], rounds: int) -> dict[str, list[float]]:
    """Seconds of each subject over all inputs, in each round but a first one; all take turns on each input."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        sums = dict.fromkeys(subjects, 0.0)
        for given in inputs:
            for name, subject in subjects.items():
                sums[name] += subject(given)
        for name, seconds in sums.items():
            if number:
                taken[name].append(seconds)
    return taken


def _own(level: str, given: Input) -> float:
    # A file's beginning names its end, so there is room for the whole.
    return steps(fresh(given, level), given.data[:PEER_BYTES])


def _theirs(found: Steps, given: Input) -> float:
    return found(given.data[:PEER_BYTES], 0)


def flatness_rows(given: Input, kind: str, level: str, rounds: int) -> Iterator[Row]:
    """Mask + advance in a window at the beginning of a long file, after it, and far into it."""
    for skip in WINDOWS:
        constraint = after(given, level, skip)
        window = given.data[skip : skip + WINDOW_BYTES]
        taken = [steps(constraint.fork(), window) for _ in range(rounds + 1)][1:]
        timing = summarise(taken).scaled(_MICRO / WINDOW_BYTES)
        source = f"{kind} {given.name}, from byte {skip:,}"
        yield row("bytegen", "mask+advance", source, WINDOW_BYTES, "us/byte", timing, given.format, level)


def state_rows(given: Input, level: str, rounds: int) -> Iterator[Row]:
    """Constructing, forking and rolling back, in microseconds a call, up to `LONG_BYTES` having been read."""
    data = given.data[:LONG_BYTES]
    size = len(data)
    constraint = after(given, level, size)

    def figure(what: str, source: str, size: int, timing: Timing) -> Row:
        return row("bytegen", what, source, size, "us", timing.scaled(_MICRO), given.format, level)

    built = measure(partial(fresh, given, level), rounds, calls=20, clock=_clock)
    yield figure("construct", "", 0, built)
    forked = measure(constraint.fork, rounds, calls=200, clock=_clock)
    yield figure("fork", given.name, size, forked)
    for back in (1, 100, 10_000, 100_000):
        if back > size:
            continue
        taken = []
        for _ in range(rounds):
            start = _clock()
            constraint.rollback(back)
            taken.append(_clock() - start)
            constraint.advance_many(data[size - back :])
        yield figure(f"rollback {back:,}", given.name, size, summarise(taken))


def batch_rows(inputs: list[Input], level: str, rounds: int) -> Iterator[Row]:
    """One int32 bitmask array for B sequences, and an advance of each, in microseconds a sequence and step."""
    from bytegen import formats

    long = [given for given in inputs if len(given.data) > _BATCH_STEPS]
    for size in BATCHES if long else ():
        taken = []
        # Sequences at places all over the files.
        batch = [long[i % len(long)] for i in range(size)]
        starts = [((i + 1) * 7_919) % (len(given.data) - _BATCH_STEPS) for i, given in enumerate(batch)]
        begun = [after(given, level, at) for given, at in zip(batch, starts, strict=True)]
        for _ in range(rounds + 1):
            constraints = [constraint.fork() for constraint in begun]
            columns = zip(
                *(given.data[at : at + _BATCH_STEPS] for given, at in zip(batch, starts, strict=True)),
                strict=True,
            )
            advances = [constraint.advance for constraint in constraints]
            masks = formats.fill_bitmasks(constraints)
            start = _clock()
            for column in columns:
                formats.fill_bitmasks(constraints, masks)
                for advance, byte in zip(advances, column, strict=True):
                    advance(byte)
            taken.append(_clock() - start)
        timing = summarise(taken[1:]).scaled(_MICRO / (_BATCH_STEPS * size))
        yield row(
            "bytegen", "bitmask+advance", f"{size} side by side", size, "us/byte", timing, "every", level
        )


def real_files(folder: Path, given: Sequence[Path]) -> list[Input]:
    """Programs from the compilers at hand, files of this system, and those given; `UserError` when there is none."""
    files = [*compiled(folder, PROGRAMS), *of_this_system(), *(named(path) for path in given)]
    if not files:
        raise UserError(
            "no compiler here (gcc, musl-gcc or zig) to make programs with; name some with --files"
        )
    return files


def walks(level: str, chosen: Sequence[str]) -> list[Input]:
    """Random walks of each format."""
    from bytegen import formats

    return [
        random_walk(name, level, seed, size)
        for name in chosen
        if level in formats.levels(name)
        for seed, size in enumerate(WALK_BYTES)
    ]


def level_rows(files: list[Input], drawn: list[Input], level: str, rounds: int) -> Iterator[Row]:
    """Every figure of one level, one after another."""
    yield from speed_rows("mask+advance", "real", files, level, rounds)
    yield from speed_rows("mask+advance", "walk", drawn, level, (rounds + 1) // 2)
    yield from speed_rows("advance_many", "real", files, level, rounds)
    for kind, inputs in (("real", files), ("walk", drawn)):
        longest: dict[str, Input] = {}
        for given in inputs:
            if len(given.data) > len(longest.get(given.format, ("", "", b""))[2]):
                longest[given.format] = given
        for given in longest.values():
            if len(given.data) >= LONG_BYTES:
                yield from flatness_rows(given, kind, level, rounds)
            if kind == "real":
                yield from state_rows(given, level, rounds)
    yield from batch_rows(files, level, rounds)


@click.command(name="formats")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Also write JSON lines."
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds a figure is taken over."
)
@click.option(
    "--files", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Another real file."
)
@click.option(
    "--format", "chosen", multiple=True, metavar="F", help="Only these formats (default: every one)."
)
@click.option(
    "--level", "levels", multiple=True, metavar="L", help="Only these levels (default: load and code)."
)
def formats_bench(
    json_file: Path | None,
    rounds: int,
    files: tuple[Path, ...],
    chosen: tuple[str, ...],
    levels: tuple[str, ...],
) -> None:
    """Microseconds a byte of the constraint, on real files and random walks, beside its peers."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from bytegen import formats

    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    formats_chosen = chosen or formats.available()
    for name in formats_chosen:
        formats.levels(name)  # an unknown one is refused here
    stamp = environment(("numpy", "lief", "capstone", *PEERS))
    rows: list[Row] = []
    left_out: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="bytegen-bench-") as folder,
        console.status("compiling") as status,
    ):
        inputs = [given for given in real_files(Path(folder), files) if given.format in formats_chosen]
        taken: dict[str, list[Input]] = {}
        for level in levels or LEVELS:
            status.update(f"{level}: replaying and drawing")
            taken[level] = that_replay(inputs, level)
            left_out += [f"{given.name} ({level})" for given in inputs if given not in taken[level]]
            for figures in level_rows(taken[level], walks(level, formats_chosen), level, rounds):
                rows.append(figures | stamp)
                status.update(f"{level}: {figures['measure']}, {figures['input']}")
        status.update("peers")
        rows += [figures | stamp for figures in peer_rows(taken, rounds)]
    title = f"{stamp['cpu']}, Python {stamp['python']}; medians of {rounds}"
    table = Table(title=title, box=SIMPLE_HEAD)
    for heading in ("who", "what", "format", "level", "input", "unit"):
        table.add_column(heading)
    for heading in ("median", "p20", "p80"):
        table.add_column(heading, justify="right")
    shown = ("subject", "measure", "format", "level", "input", "unit")
    for figures in rows:
        numbers = [f"{figures[name]:.3g}" for name in ("median", "p20", "p80")]
        table.add_row(*(str(figures[name]) for name in shown), *numbers)
    console.print(table)
    if left_out:
        console.print(f"refused, so not timed: {', '.join(left_out)}")
    missing = [peer for peer in PEERS if peer not in {figures["subject"] for figures in rows}]
    if missing:
        console.print(f"not installed, so not compared: {', '.join(missing)} (pip install 'bytegen[bench]')")
    if json_file is not None:
        write_json_lines(json_file, rows)
