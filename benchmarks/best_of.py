"""What the best of many gains: held-out prompts, files drawn at a high temperature, one of them chosen.

    python benchmarks/best_of.py --per-kind 6 --samples 16 --temperature 1.0 --json benchmarks/best_of.jsonl

For each prompt the same files are chosen from twice: by the majority over what they do on the usual inputs, and by two
examples that the program's oracle gives. A choice is right where the file behaves as asked on the inputs of the
evaluation, which are others; programs that read nothing have one input, so that their example is the answer itself, and
`reads` counts those prompts apart. pass@1 is the share of all files that are right, pass@n that of prompts with a right
file among theirs: no choice can do better. Intervals are Wilson's at 95% over prompts.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

import bytegen
from bytegen.benchmark import environment, write_json_lines
from bytegen.best import choose
from bytegen.train.evaluation import Task, draw_tasks, judge, wilson

EXAMPLES = 2


@dataclass(frozen=True)
class Outcome:
    """One prompt: the share of right files, whether each choice is right, and whether the program reads its input."""

    kind: str
    reads: bool
    right: float
    by_majority: bool
    by_examples: bool


def outcome(lm: bytegen.ByteLM, task: Task, args: argparse.Namespace) -> Outcome:
    """Write the files of one prompt, choose, and hold the choices to the oracle."""
    rng = random.Random(f"examples {args.seed} {task.prompt}")
    stdins = task.program.stdins(rng, task.params, EXAMPLES)
    examples = [(stdin, task.program.oracle(task.params, stdin).stdout) for stdin in stdins]
    outputs = bytegen.generation.generate_many(
        lm, [task.prompt], samples=args.samples, temperature=args.temperature, seed=args.seed, max_bytes=1024
    )
    judged = {data: judge(task, one).behaves for data, one in {o.data: o for o in outputs}.items()}
    right = [judged[o.data] for o in outputs]
    majority, shown = choose(outputs), choose(outputs, examples=examples)
    return Outcome(
        kind=task.program.kind, reads=task.program.inputs is not None, right=sum(right) / len(right),
        by_majority=judged[majority.winner.data], by_examples=judged[shown.winner.data],
    )  # fmt: skip


def row(name: str, found: Sequence[Outcome]) -> dict[str, object]:
    """The figures of some prompts."""
    n = len(found)
    figures = {
        "pass_at_1": sum(o.right for o in found) / n,
        "majority": sum(o.by_majority for o in found) / n,
        "examples": sum(o.by_examples for o in found) / n,
        "pass_at_n": sum(o.right > 0 for o in found) / n,
    }
    intervals = {f"{key}_interval": wilson(share, n) for key, share in figures.items()}
    return {"name": name, "prompts": n, **figures, **intervals}


def main() -> int:
    """Run the measurement; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="a packaged model's name or a folder; the packaged default otherwise")
    parser.add_argument("--per-kind", type=int, default=6)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to write one line of JSON a row to")
    args = parser.parse_args()
    if args.per_kind < 1 or args.samples < 2 or not args.temperature > 0:
        parser.error("--per-kind must be at least 1, --samples at least 2 and --temperature above 0")
    lm = bytegen.load(args.model)
    tasks = draw_tasks(args.per_kind, seed=args.seed)
    found = [outcome(lm, task, args) for task in track(tasks, "prompts", console=Console(stderr=True))]
    kinds = dict.fromkeys(o.kind for o in found)
    rows = [row(kind, [o for o in found if o.kind == kind]) for kind in kinds]
    rows += [row("reads", [o for o in found if o.reads]), row("all", found)]
    names = ("pass_at_1", "majority", "examples", "pass_at_n")
    table = Table("", "prompts", "pass@1", "majority", f"{EXAMPLES} examples", f"pass@{args.samples}")
    for one in rows:
        table.add_row(str(one["name"]), str(one["prompts"]), *(f"{one[name]:.1%}" for name in names))
    Console().print(table)
    if args.json:
        about = {
            "bench": "best of", "model": args.model or "packaged", "samples": args.samples,
            "temperature": args.temperature, "seed": args.seed,
        }  # fmt: skip
        stamp = environment(("torch", "unicorn", "lief"))
        write_json_lines(args.json, [about | one | stamp for one in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
