"""One file before every judge in turn: what each found, as plain JSON types that can cross a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TypedDict

from bytegen.formats.libraries import Imports
from bytegen.formats.report import Problem


class Finding(TypedDict):
    """What one judge found: fields of `Problem`, and facts for `Report.facts`."""

    judge: str
    problems: list[dict[str, object]]
    facts: dict[str, object]


def judges(format: str) -> tuple[str, ...]:
    """Who is asked about a file of a format, in order; pefile only where it is installed."""
    if not _is_pe(format):
        return ("rules", "lief", "capstone")
    return ("rules", "lief", *(["pefile"] if find_spec("pefile") is not None else []), "capstone")


def _is_pe(format: str) -> bool:
    return format.startswith(("pe", "efi"))


def examine(data: bytes, format: str, level: str, imports: Imports = "known") -> Iterator[Finding]:
    """Yields the findings of `judges(format)`, in that order, for a file held to `format` at `level`.

    Runs in the caller's process: a parser that crashes takes it down (see `isolated.examine_isolated`).
    """
    for judge in judges(format):
        yield ask(judge, data, format, level, imports)


def ask(judge: str, data: bytes, format: str, level: str, imports: Imports = "known") -> Finding:
    """What one of `judges(format)` finds in a file."""
    if judge == "capstone":
        return {"judge": judge, "problems": [], "facts": {"code": _code(data)}}
    if judge == "rules":
        problems = _rules(data, format, level, imports)
    else:
        problems = [Problem(judge, complaint) for complaint in _complaints(judge, data, format)]
    return {"judge": judge, "problems": [vars(problem) for problem in problems], "facts": {}}


def _rules(data: bytes, format: str, level: str, imports: Imports) -> list[Problem]:
    """Replays the file through the constraint: the first byte that it refuses, if it refuses one."""
    from bytegen.formats.api import replay_whole

    _, refusal = replay_whole(data, format, level, imports)
    if refusal is None:
        return []
    rule = refusal.rule
    if refusal.offset == len(data):
        rule = f"the file ends here, too early: {rule}" if rule else "the file ends here, too early"
    return [Problem("rules", rule, refusal.offset, refusal.field)]


def _complaints(judge: str, data: bytes, format: str) -> list[str]:
    """What an independent parser has to say against a file."""
    if judge == "pefile":
        from bytegen.formats.oracles.pefile_judge import pefile_judge

        return pefile_judge(data)
    if _is_pe(format):
        from bytegen.formats.oracles.lief_pe import lief_pe_judge

        return lief_pe_judge(data)
    from bytegen.formats.oracles.lief_judge import lief_judge

    return lief_judge(data)


def _code(data: bytes) -> dict[str, object]:
    from bytegen.formats.oracles.disassembly import sweep_code

    try:
        return sweep_code(data)
    except ValueError:
        return {}
