"""One file before every judge in turn: what each found, as plain JSON types that can cross a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from bytegen.formats.report import Problem

JUDGES = ("rules", "lief", "capstone")


class Finding(TypedDict):
    """What one judge found: fields of `Problem`, and facts for `Report.facts`."""

    judge: str
    problems: list[dict[str, object]]
    facts: dict[str, object]


def examine(data: bytes, format: str, level: str) -> Iterator[Finding]:
    """Yields the findings of `JUDGES`, in that order, for a file held to `format` at `level`.

    Runs in the caller's process: a parser that crashes takes it down (see `isolated.examine_isolated`).
    """
    for judge in JUDGES:
        yield ask(judge, data, format, level)


def ask(judge: str, data: bytes, format: str, level: str) -> Finding:
    """What one of `JUDGES` finds in a file."""
    if judge == "capstone":
        return {"judge": judge, "problems": [], "facts": {"code": _code(data)}}
    problems = _rules(data, format, level) if judge == "rules" else _lief(data)
    return {"judge": judge, "problems": [vars(problem) for problem in problems], "facts": {}}


def _rules(data: bytes, format: str, level: str) -> list[Problem]:
    """Replays the file through the constraint: the first byte that it refuses, if it refuses one."""
    from bytegen import formats

    least = formats.least_bytes(format, level)
    if len(data) < least:
        message = f"the file ends at byte {len(data)}; the least {format} file at level {level} has {least}"
        return [Problem("rules", message, len(data))]
    # The file's own length is the limit: a promise past its end is refused at the field that makes it.
    constraint = formats.constraint(format, max_bytes=len(data), level=level)
    refusal = formats.replay(constraint, data)
    return [] if refusal is None else [Problem("rules", refusal.rule, refusal.offset, refusal.field)]


def _lief(data: bytes) -> list[Problem]:
    from bytegen.formats.oracles.lief_judge import lief_judge

    return [Problem("lief", complaint) for complaint in lief_judge(data)]


def _code(data: bytes) -> dict[str, object]:
    from bytegen.formats.oracles.disassembly import sweep_code

    try:
        return sweep_code(data)
    except ValueError:
        return {}
