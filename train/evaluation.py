"""The funnel: of the files that a model writes for held-out prompts, how many are well formed, load, exit by
themselves, and behave exactly as asked, on inputs that nobody was shown.

A behaviour is held out by the hash of its program and parameters, so none was ever trained on. pass@k is the
unbiased estimate of Chen et al. (2021); intervals are Wilson's at 95%, with prompts (not samples) as the
independent trials, which is on the wide side for pass@1.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from bytegen import formats
from bytegen.generation import Output, generate_many
from bytegen.model import ByteLM
from bytegen.train.corpus.check import agrees, observe
from bytegen.train.corpus.program import (
    KINDS,
    Params,
    Program,
    program_named,
    programs_of,
    split_of,
)

INPUTS_PER_TASK = 3
STAGES = ("well_formed", "loads", "exits", "behaves")


@dataclass(frozen=True)
class Task:
    """A held-out behaviour: what is asked, and how it is judged."""

    prompt: str
    program: Program
    params: Params
    stdins: tuple[bytes, ...]


@dataclass(frozen=True)
class Verdict:
    """How far one file came; each stage includes the one before."""

    well_formed: bool
    loads: bool
    exits: bool
    behaves: bool


@dataclass(frozen=True)
class FunnelRow:
    """A line of the funnel: the shares of files per stage, and pass@1 and pass@n with intervals."""

    name: str
    prompts: int
    samples: int
    well_formed: float
    loads: float
    exits: float
    pass_at_1: float
    pass_at_1_interval: tuple[float, float]
    pass_at_n: float
    pass_at_n_interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return asdict(self)


def draw_tasks(per_kind: int, *, seed: int = 0) -> list[Task]:
    """Draw `per_kind` held-out behaviours of every kind, programs in turn, each in one phrasing."""
    rng = random.Random(seed)
    tasks = []
    for kind in KINDS:
        programs = programs_of([kind])
        for i in range(per_kind):
            program = programs[i % len(programs)]
            params = program.draw(rng)
            while split_of(program.name, params) != "heldout":
                params = program.draw(rng)
            prompt = rng.choice(program.prompts(params))
            tasks.append(Task(prompt, program, params, program.stdins(rng, params, INPUTS_PER_TASK)))
    return tasks


def read_tasks(folder: Path, per_kind: int, *, seed: int = 0) -> list[Task]:
    """Take `per_kind` held-out prompts of every kind from a corpus; inputs are drawn afresh, not those it shows."""
    from bytegen.train.corpus.shards import read_samples

    rng = random.Random(seed)
    found: dict[str, list[Task]] = {kind: [] for kind in KINDS}
    for sample in read_samples(folder, "heldout"):
        if len(found[sample.kind]) < per_kind:
            program = program_named(sample.program)
            stdins = program.stdins(rng, sample.params, INPUTS_PER_TASK)
            found[sample.kind].append(Task(sample.prompt, program, sample.params, stdins))
    return [task for tasks in found.values() for task in tasks]


def judge(task: Task, output: Output) -> Verdict:
    """Hold one file to the stages, the last by the program's oracle on every input of the task."""
    if not formats.validate(output.data, format=output.format, level="parse", isolate=False).ok:
        return Verdict(False, False, False, False)
    if not formats.kernel_accepts(output.data).accepted:
        return Verdict(True, False, False, False)
    seen = [observe(output.data, stdin) for stdin in task.stdins]
    exits = all(not s.trouble for s in seen)
    expected = [task.program.oracle(task.params, stdin) for stdin in task.stdins]
    behaves = exits and all(agrees(s, e) for s, e in zip(seen, expected, strict=True))
    return Verdict(True, True, exits, behaves)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the probability that one of k samples, drawn from n of which `correct` pass, passes."""
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share over n trials."""
    from scipy.stats import binomtest

    interval = binomtest(round(share * n), n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _row(name: str, verdicts: Sequence[Sequence[Verdict]]) -> FunnelRow:
    n = len(verdicts[0])
    every = [v for task in verdicts for v in task]
    correct = [sum(v.behaves for v in task) for task in verdicts]
    first = sum(pass_at_k(n, c, 1) for c in correct) / len(verdicts)
    best = sum(pass_at_k(n, c, n) for c in correct) / len(verdicts)
    stages = {stage: sum(getattr(v, stage) for v in every) / len(every) for stage in STAGES[:3]}
    return FunnelRow(
        name=name, prompts=len(verdicts), samples=n, **stages, pass_at_1=first,
        pass_at_1_interval=wilson(first, len(verdicts)), pass_at_n=best, pass_at_n_interval=wilson(best, len(verdicts)),
    )  # fmt: skip


def funnel(
    lm: ByteLM, tasks: Sequence[Task], *, samples: int = 8, temperature: float | None = None, seed: int = 0,
    batch_size: int = 64, by: Literal["kind", "program"] = "kind", on_judged: Callable[[], None] | None = None,
) -> list[FunnelRow]:  # fmt: skip
    """Write `samples` files for each task and return a row for each kind (or program), then one for all."""
    verdicts: list[list[Verdict]] = [[] for _ in tasks]

    def take(index: int, output: Output) -> None:
        verdicts[index // samples].append(judge(tasks[index // samples], output))
        if on_judged is not None:
            on_judged()

    generate_many(
        lm, [task.prompt for task in tasks], samples=samples, temperature=temperature, seed=seed,
        batch_size=batch_size, on_output=take, max_bytes=1024,
    )  # fmt: skip
    groups: dict[str, list[list[Verdict]]] = {}
    for task, found in zip(tasks, verdicts, strict=True):
        groups.setdefault(task.program.kind if by == "kind" else task.program.name, []).append(found)
    return [_row(name, found) for name, found in groups.items()] + [_row("all", verdicts)]


def funnel_table(rows: Sequence[FunnelRow]) -> Table:
    """Return the funnel as a table for the terminal."""
    n = rows[0].samples
    table = Table("", "prompts", "well formed", "loads", "exits", "pass@1 (95%)", f"pass@{n} (95%)")

    def interval(share: float, limits: tuple[float, float]) -> str:
        return f"{share:.1%} ({limits[0]:.0%}-{limits[1]:.0%})"

    for row in rows:
        table.add_row(
            row.name, str(row.prompts), f"{row.well_formed:.1%}", f"{row.loads:.1%}", f"{row.exits:.1%}",
            interval(row.pass_at_1, row.pass_at_1_interval), interval(row.pass_at_n, row.pass_at_n_interval),
            end_section=row is rows[-2] if len(rows) > 1 else False,
        )  # fmt: skip
    return table
