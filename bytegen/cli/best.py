"""`bytegen generate --best-of`: many files for one prompt, of which the best is kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from bytegen.cli.progress import counter
from bytegen.errors import UserError
from bytegen.files import read_file, write_atomically

if TYPE_CHECKING:
    from bytegen.best import Best, Candidate, Tally

SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the files are judged by, and what is shown of it."""

    examples: tuple[tuple[bytes, bytes], ...]
    inputs: tuple[bytes, ...] | None  # None: the usual ones
    run_it: bool
    as_json: bool


def _line(text: str) -> bytes:
    """The text as a line that was typed: with a line break, unless it has one or there is nothing."""
    return (text if not text or text.endswith("\n") else text + "\n").encode("utf-8", "surrogateescape")


def _pairs(stdins: Sequence[bytes], expects: Sequence[bytes], names: str) -> list[tuple[bytes, bytes]]:
    if len(expects) == 1 and not stdins:
        return [(b"", expects[0])]  # a program that reads nothing
    if len(stdins) != len(expects):
        raise UserError(
            f"{len(stdins)} of {names.partition(' ')[0]} and {len(expects)} of {names.rpartition(' ')[2]};"
            " they are pairs, so give as many of each"
        )
    return list(zip(stdins, expects, strict=True))


def task(
    stdins: Sequence[str], expects: Sequence[str], stdin_files: Sequence[Path], expect_files: Sequence[Path], *,
    run_it: bool, as_json: bool,
) -> Task:  # fmt: skip
    """Read the options. Where nothing is expected of the inputs, files are only told apart by what they do on them."""
    if run_it and as_json:
        raise UserError("--run and --json both print on standard output; leave one of them out")
    typed, files = [_line(text) for text in stdins], [read_file(path) for path in stdin_files]
    if not expects and not expect_files:
        return Task(examples=(), inputs=(*typed, *files) or None, run_it=run_it, as_json=as_json)
    examples = (
        _pairs(typed, [_line(text) for text in expects], "--stdin and --expect") if typed or expects else []
    )
    if files or expect_files:
        wanted = [read_file(path) for path in expect_files]
        examples += _pairs(files, wanted, "--stdin-file and --expect-file")
    return Task(examples=tuple(examples), inputs=None, run_it=run_it, as_json=as_json)


def check(task: Task, *, format: str, samples: int, temperature: float | None) -> None:
    """Complain before the model loads."""
    from bytegen.best.api import check

    check(format=format, samples=samples, temperature=temperature, examples=task.examples, judge=None)


def refuse(**given: object) -> None:
    """Complain of options that mean nothing without --best-of."""
    for name, value in given.items():
        if value:
            option = {"stdins": "--stdin", "expects": "--expect", "expect_files": "--expect-file"}.get(
                name, "--json"
            )
            raise UserError(f"{option} is for --best-of, which is not there")


def generate_best(lm: Any, prompt: str, out: Path, options: dict[str, Any], task: Task) -> int:
    """Write the best file to `out`; the exit code: 1 where none passes, and then nothing is written."""
    from bytegen.best import best_of

    if task.inputs is not None:
        options = {**options, "inputs": task.inputs}
    console = Console(stderr=True)
    with counter(console, figures=True) as progress:
        bar = progress.add_task("best of", total=options["samples"], figures="")

        def show(tally: Tally) -> None:
            figures = f"{tally.pass_rate:.0%} pass, {tally.alike} alike"
            progress.update(bar, completed=tally.judged, figures=figures)

        best = best_of(lm, prompt, examples=task.examples, on_tally=show, **options)
    if best.passed:
        write_atomically(out, best.winner.data, executable=True)
    click.echo(_told(best, out, task), err=True)
    if task.as_json:
        click.echo(json.dumps(account(best, out if best.passed else None)))
    if not best.passed:
        return 1
    if task.run_it:
        first = best.best.trial.runs[0]
        sys.stdout.buffer.write(first.stdout)
        sys.stdout.buffer.flush()
        sys.stderr.buffer.write(first.stderr)
    return 0


def _told(best: Best, out: Path, task: Task) -> str:
    count, passing, asked = len(best.candidates), sum(c.passes for c in best.candidates), len(task.examples)
    wanted = f"give what is expected ({asked} of {asked})" if asked else "run to an end on every input"
    found = f"{passing} of {count} files {wanted}, {best.pass_rate:.0%}"
    if best.passed:
        return f"{out}: {len(best.winner.data)} bytes; {found}; {best.best.votes} behave as this one does"
    closest = f"; the closest gives {round(best.best.score * asked)}" if asked else ""
    return f"bytegen: {found}{closest}; nothing is written"


def account(best: Best, out: Path | None) -> dict[str, Any]:
    """What became of every candidate, as plain values for JSON; `file` is null where nothing was written."""
    return {
        "file": None if out is None else str(out),
        "samples": len(best.candidates),
        "different_files": best.distinct,
        "pass_rate": best.pass_rate,
        "votes": list(best.votes.values()),
        "winner_seed": best.winner.seed,
        "inputs": [stdin.decode("utf-8", "backslashreplace") for stdin in best.stdins],
        "candidates": [_row(c) for c in best.candidates],
    }


def _row(c: Candidate) -> dict[str, Any]:
    return {
        "seed": c.output.seed, "bytes": len(c.output.data), "logprob": c.output.logprob, "first": c.first,
        "well_formed": c.well_formed, "loads": c.trial.loads, "exits": c.trial.exits, "score": c.score,
        "passes": c.passes, "votes": c.votes, "refusal": c.trial.refusal or None,
        "runs": [
            {"ending": run.ending, "exit_code": run.exit_code,
             "stdout": run.stdout.decode("utf-8", "backslashreplace"),
             "stderr": run.stderr.decode("utf-8", "backslashreplace"), "slept_ns": run.slept_ns}
            for run in c.trial.runs
        ],
    }  # fmt: skip
