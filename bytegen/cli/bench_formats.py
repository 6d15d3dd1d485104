"""`bytegen bench formats`: what the constraint costs a byte, beside llguidance and xgrammar in the same run.

The peers get a far simpler task on the same bytes: a byte vocabulary and a one-line grammar that allows any
text. Neither can say "any byte" (their grammars are over UTF-8), so they are fed the bytes' low seven bits.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bytegen.benchmark import Timing, environment, interleave, measure, summarise, write_json_lines
from bytegen.cli.check import read_regular_file
from bytegen.errors import UserError

if TYPE_CHECKING:
    from bytegen.formats import Constraint

PROGRAMS = (
    "gcc-static",
    "gcc-static-stripped",
    "gcc-free",
    "gcc-free-noseparate",
    "musl-gcc-static",
    "zig-cc-free",
)
WALK_BYTES = (300, 4_096, 40_960, 143_360)
PEER_BYTES = 20_000
WINDOW_BYTES = 1_000
WINDOWS = (0, 1_000, 139_500)
LONG_BYTES = 140_500
PEERS = ("llguidance", "xgrammar")
_MICRO = 1e6
_FILE_WIDTH = 110
# Processor time: one thread computes, and what else the machine does shall not count.
_clock = time.thread_time


Row = dict[str, object]
Steps = Callable[[bytes, int], float]


def row(subject: str, what: str, source: str, size: int, unit: str, timing: Timing) -> Row:
    """One figure: who, what, on which input of how many bytes, and median, p20 and p80 in `unit`."""
    return {
        "bench": "formats", "subject": subject, "measure": what, "input": source, "bytes": size, "unit": unit,
        "median": timing.median, "p20": timing.p20, "p80": timing.p80, "rounds": timing.rounds,
    }  # fmt: skip


def peer_steps(peer: str) -> Steps | None:
    """Seconds for mask + consume over data[skip:] by a peer, as a function; None if it is not installed."""
    try:
        return _llguidance_steps() if peer == "llguidance" else _xgrammar_steps()
    except ImportError:
        return None


def _llguidance_steps() -> Steps:
    import llguidance
    import llguidance.numpy as bitmasks

    tokenizer = llguidance.LLTokenizer("byte")
    bitmask = bitmasks.allocate_token_bitmask(1, tokenizer.vocab_size)
    fill = bitmasks.fill_next_token_bitmask

    def steps(data: bytes, skip: int) -> float:
        matcher = llguidance.LLMatcher(tokenizer, r"start: /(?s:.*)/")
        tokens = [byte & 0x7F for byte in data]
        matcher.consume_tokens(tokens[:skip])
        consume = matcher.consume_token
        start = _clock()
        for token in tokens[skip:]:
            fill(matcher, bitmask, 0)
            consume(token)
        seconds = _clock() - start
        if matcher.is_error():
            raise RuntimeError(f"llguidance stopped: {matcher.get_error()[:200]}")
        return seconds

    return steps


def _xgrammar_steps() -> Steps:
    import xgrammar

    vocabulary = [bytes([byte]) for byte in range(256)] + [b"</s>"]
    info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[256])
    grammar = xgrammar.GrammarCompiler(info).compile_grammar(r"root ::= [\x00-\U0010FFFF]*")
    bitmask = xgrammar.allocate_token_bitmask(1, 257)

    def steps(data: bytes, skip: int) -> float:
        matcher = xgrammar.GrammarMatcher(grammar)
        tokens = [byte & 0x7F for byte in data]
        fill, accept = matcher.fill_next_token_bitmask, matcher.accept_token
        for token in tokens[:skip]:
            accept(token)
        accepted = True
        start = _clock()
        for token in tokens[skip:]:
            fill(bitmask)
            accepted &= accept(token)
        seconds = _clock() - start
        if not accepted:
            raise RuntimeError("xgrammar refused a byte of any text")
        return seconds

    return steps


class Ours:
    """The constraint under measurement: a format at a level, with room for files of `max_bytes`."""

    def __init__(self, format_name: str, level: str, max_bytes: int) -> None:
        self.format, self.level, self.max_bytes = format_name, level, max_bytes

    def fresh(self) -> Constraint:
        """A new constraint."""
        from bytegen import formats

        return formats.constraint(self.format, max_bytes=self.max_bytes, level=self.level)

    def after(self, data: bytes) -> Constraint:
        """A constraint that has read `data`; UserError when it refuses a byte of it."""
        constraint = self.fresh()
        read = constraint.advance_many(data)
        if read < len(data):
            raise UserError(
                f"byte {read} is refused at {constraint.field()}: only files that replay can be timed"
            )
        return constraint

    def steps(self, data: bytes, skip: int) -> float:
        """Seconds for mask + advance, byte by byte, over data[skip:]."""
        constraint = self.after(data[:skip])
        mask, advance = constraint.mask, constraint.advance
        start = _clock()
        for byte in data[skip:]:
            mask()
            advance(byte)
        return _clock() - start

    def bulk(self, data: bytes, skip: int) -> float:
        """Seconds for advance_many over data[skip:]."""
        constraint = self.after(data[:skip])
        start = _clock()
        constraint.advance_many(data[skip:])
        return _clock() - start


def speed_rows(what: str, kind: str, files: dict[str, bytes], steps: Steps, rounds: int) -> Iterator[Row]:
    """Microseconds a byte, a row for each file and one for all of them; one round before is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in files}
    for number in range(rounds + 1):
        for name, data in files.items():
            taken = steps(data, 0)
            if number > 0:
                seconds[name].append(taken)
    for name, data in files.items():
        timing = summarise(seconds[name]).scaled(_MICRO / len(data))
        yield row("bytegen", what, f"{kind} {name}", len(data), "us/byte", timing)
    size = sum(len(data) for data in files.values())
    total = summarise(map(sum, zip(*seconds.values(), strict=True))).scaled(_MICRO / size)
    yield row("bytegen", what, f"all of {kind}", size, "us/byte", total)


def peer_rows(ours: Ours, files: dict[str, bytes], rounds: int) -> Iterator[Row]:
    """The constraint and its peers taking turns on the first bytes of all files."""
    cut = [data[:PEER_BYTES] for data in files.values()]
    size = sum(map(len, cut))
    found = {"bytegen": ours.steps} | {peer: peer_steps(peer) for peer in PEERS}
    subjects = {name: partial(_all_seconds, steps, cut) for name, steps in found.items() if steps is not None}
    for subject, timing in interleave(subjects, rounds).items():
        source = f"first {PEER_BYTES:,} bytes of each"
        yield row(subject, "mask+advance", source, size, "us/byte", timing.scaled(_MICRO / size))


def _all_seconds(steps: Steps, inputs: list[bytes]) -> float:
    return sum(steps(data, 0) for data in inputs)


def flatness_rows(name: str, data: bytes, steps: Steps, rounds: int) -> Iterator[Row]:
    """Mask + advance in a window at the beginning of a long file, after it, and far into it."""
    for skip in WINDOWS:
        end = skip + WINDOW_BYTES
        taken = [steps(data[:end], skip) for _ in range(rounds + 1)][1:]
        timing = summarise(taken).scaled(_MICRO / WINDOW_BYTES)
        yield row("bytegen", "mask+advance", f"{name}, from byte {skip:,}", WINDOW_BYTES, "us/byte", timing)


def state_rows(ours: Ours, name: str, data: bytes, rounds: int) -> Iterator[Row]:
    """Constructing, forking and rolling back, in microseconds a call, `data` having been read."""
    constraint = ours.after(data)
    construct = measure(ours.fresh, rounds, calls=20, clock=_clock)
    yield row("bytegen", "construct", "", 0, "us", construct.scaled(_MICRO))
    yield row(
        "bytegen",
        "fork",
        name,
        len(data),
        "us",
        measure(constraint.fork, rounds, calls=200, clock=_clock).scaled(_MICRO),
    )
    for back in (1, 100, 10_000):
        if back > len(data):
            continue
        taken = []
        for _ in range(rounds):
            start = _clock()
            constraint.rollback(back)
            taken.append(_clock() - start)
            constraint.advance_many(data[len(data) - back :])
        yield row("bytegen", f"rollback {back:,}", name, len(data), "us", summarise(taken).scaled(_MICRO))


def real_files(folder: Path, given: tuple[Path, ...]) -> dict[str, bytes]:
    """Static programs from the compilers at hand, and the files given; UserError when there is none."""
    from bytegen.formats.oracles.compilers import static_programs

    files = dict(static_programs(folder, names=PROGRAMS))
    files |= {path.name: read_regular_file(path) for path in given}
    if not files:
        raise UserError(
            "no compiler here (gcc, musl-gcc or zig) to make programs with; name some with --files"
        )
    return files


def random_walks(ours: Ours) -> dict[str, bytes]:
    """Files sampled uniformly inside the masks, of mixed sizes."""
    from bytegen import formats

    walks = {}
    for seed, limit in enumerate(WALK_BYTES):
        data = formats.sample(ours.format, seed, limit, level=ours.level)
        walks[f"{seed}, {len(data):,} bytes"] = data
    return walks


def all_rows(ours: Ours, files: dict[str, bytes], rounds: int) -> Iterator[Row]:
    """Every figure of the bench, one after another."""
    walks = random_walks(ours)
    long_name, long_file = max({**files, **walks}.items(), key=lambda item: len(item[1]))
    yield from speed_rows("mask+advance", "real", files, ours.steps, rounds)
    yield from speed_rows("mask+advance", "walk", walks, ours.steps, rounds)
    yield from speed_rows("advance_many", "real", files, ours.bulk, rounds)
    yield from peer_rows(ours, files, rounds)
    if len(long_file) >= LONG_BYTES:
        yield from flatness_rows(long_name, long_file, ours.steps, rounds)
    yield from state_rows(ours, long_name, long_file[:LONG_BYTES], rounds)


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
@click.option("--format", "format_name", default="elf64-x86_64", show_default=True, metavar="F")
@click.option("--level", default="load", show_default=True, metavar="L")
def formats_bench(
    json_file: Path | None, rounds: int, files: tuple[Path, ...], format_name: str, level: str
) -> None:
    """Microseconds a byte of the constraint, on real files and random walks, beside its peers."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    stamp = environment(("numpy", "lief", "capstone", *PEERS))
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="bytegen-bench-") as folder,
        console.status("compiling") as status,
    ):
        inputs = real_files(Path(folder), files)
        longest = max(WALK_BYTES[-1], *(len(data) for data in inputs.values()))
        ours = Ours(format_name, level, longest)
        for figures in all_rows(ours, inputs, rounds):
            rows.append(figures | {"format": format_name, "level": level} | stamp)
            status.update(f"{figures['subject']}: {figures['measure']}")
    title = f"{format_name}, level {level}; {stamp['cpu']}, Python {stamp['python']}; medians of {rounds}"
    table = Table(title=title, box=SIMPLE_HEAD)
    for heading in ("who", "what", "input", "unit"):
        table.add_column(heading)
    for heading in ("median", "p20", "p80"):
        table.add_column(heading, justify="right")
    for figures in rows:
        numbers = [f"{figures[name]:.3g}" for name in ("median", "p20", "p80")]
        table.add_row(*(str(figures[name]) for name in ("subject", "measure", "input", "unit")), *numbers)
    console.print(table)
    missing = [peer for peer in PEERS if peer not in {figures["subject"] for figures in rows}]
    if missing:
        console.print(f"not installed, so not compared: {', '.join(missing)} (pip install 'bytegen[bench]')")
    if json_file is not None:
        write_json_lines(json_file, rows)
