"""`bytegen bench kernels --estimate`: bytes, FLOPs, least and expected times, as a table, JSON lines or a page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bytegen.benchmark import write_json_lines
from bytegen.errors import UserError
from bytegen.files import write_atomically
from bytegen.kernel_bench.estimate import Estimate

COLUMNS = ("kind", "case", "FLOP", "bytes", "bound", "by", "expected", "bound / expected", "why")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The compile table, as `make compiled` writes it; UserError where it is not one."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except OSError as error:
        raise UserError(f"--compiled {path}: {error.strerror}; `make compiled` builds the table") from error
    except ValueError as error:
        raise UserError(f"--compiled {path}: not JSON lines: {error}") from error
    needed = {"kernel", "architecture", "head_dim", "dtype", "variant", "registers", "shared", "config"}
    if not all(isinstance(row, dict) and ("error" in row or needed <= row.keys()) for row in rows):
        raise UserError(
            f"--compiled {path}: not the compile table, whose rows have {', '.join(sorted(needed))}"
        )
    return rows


def _short(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """Three digits in the unit that they read best in."""
    size, unit = next((pair for pair in units if value >= pair[0]), units[-1])
    return f"{value / size:.3g} {unit}" if value else "0"


_COUNTS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def _cells(one: Estimate) -> tuple[str, ...]:
    flops, moved = (_short(x, _COUNTS) for x in one.work)
    cells = (one.kind, one.label, flops, moved, _short(one.seconds, _SECONDS), one.bound)
    if one.expected is None:
        return *cells, "", "", ""
    return *cells, _short(one.expected, _SECONDS), f"{one.seconds / one.expected:.0%}", one.why


def _title(name: str) -> str:
    from bytegen.kernel_bench.estimate import CARDS

    card = CARDS[name]
    return (
        f"{card.name} by its data sheet: {card.flops / 1e12:.4g} TFLOP/s, {card.bandwidth / 1e12:.4g} TB/s. "
        "Least times in bfloat16; nothing was run"
    )


def _page(cards: Iterable[tuple[str, list[Estimate]]], command: str) -> str:
    """Markdown: what it is, the assumptions, a table a card."""
    from bytegen.kernel_bench import cases, expected

    sizes = cases.GPU
    lines = [
        "# What the kernels should take", "",
        f"Made by `{command}`. No kernel was run. {sizes.heads} query and {sizes.kv_heads} key heads of {sizes.dim}, "
        f"windows of {sizes.window:,}, bfloat16; decoding at {sizes.length:,} positions.", "",
        "Bound: the slower of products (of unmasked pairs) at the dense peak and bytes (each once) at the bandwidth, "
        "by the data sheet. Expected: from the compiled kernels' tiles, registers and shared memory "
        f"(`{expected.__name__.replace('.', '/')}.py`): tiles visited, scores computed twice in the backward, blocks "
        "that lie on a processor at once (one: products, exponentials and the rest of a tile follow one another; two: "
        f"the slowest hides the others), bytes in flight, and {1e6 * expected.LAUNCH:g} us a launch in a CUDA graph. "
        f"The kernel in Gluon is given the {expected.IN_TURN:.0%} of the peak that FlashAttention-3, whose schedule it "
        "has, reaches on an H100. "
        f"Assumed: {expected.BANDWIDTH:.0%} of the bandwidth, {1e6 * expected.LATENCY:g} us of latency, the share of "
        "the peak of products that makers' libraries keep up (`occupancy.py`). No GPU has checked these times.",
    ]  # fmt: skip
    for name, ones in cards:
        lines += ["", f"## {_title(name).split('. ')[0]}", "", "| " + " | ".join(COLUMNS) + " |",
                  "|---|---|" + "---:|" * 3 + "---|" + "---:|" * 2 + "---|"]  # fmt: skip
        lines += ["| " + " | ".join(_cells(one)) + " |" for one in ones]
    return "\n".join(lines) + "\n"


def show(
    cards: list[str], kinds: list[str], lengths: list[int], compiled: Path | None, json_path: Path | None,
    markdown: Path | None,
) -> None:  # fmt: skip
    """Print a table a card; write all of them as JSON lines and as a page, where paths are given."""
    from bytegen.kernel_bench import cases, estimate

    rows = None if compiled is None else read_rows(compiled)
    console = Console(width=None if Console().is_terminal else 190)
    made: list[tuple[str, list[Estimate]]] = []
    for name in cards:
        try:
            ones = [
                e for e in estimate.estimates(cases.GPU, name, lengths, rows) if e.kind.split()[0] in kinds
            ]
        except LookupError as error:
            raise UserError(f"--compiled {compiled}: {error.args[0]}; `make compiled` builds it") from error
        made.append((name, ones))
        console.print(_title(name))
        table = Table(*(COLUMNS if rows is not None else COLUMNS[:6]))
        for one in ones:
            table.add_row(*_cells(one)[: len(table.columns)])
        console.print(table)
    if json_path:
        write_json_lines(json_path, [
            {"measure": "kernel estimate", "card": estimate.CARDS[name].name, "kind": one.kind, "label": one.label,
             "flops": one.work.flops, "bytes": one.work.moved, "seconds": one.seconds, "bound": one.bound,
             **({} if one.expected is None else {"expected": one.expected, "why": one.why})}
            for name, ones in made for one in ones
        ])  # fmt: skip
    if markdown:
        options = " ".join(f"--card {name}" for name in cards) + (
            f" --compiled {compiled}" if compiled else ""
        )
        page = _page(made, f"bytegen bench kernels --estimate {options} --markdown {markdown}")
        write_atomically(markdown, page.encode())
