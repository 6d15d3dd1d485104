"""Addresses that code is at."""

from __future__ import annotations

from bytegen.formats.pe.constants import MEM_EXECUTE, MEM_READ
from bytegen.formats.pe.plan import Plan


def executable_spans(plan: Plan) -> list[tuple[int, int]]:
    """The address ranges of sections that can be read and executed."""
    need = MEM_EXECUTE | MEM_READ
    return [(s.address, s.address + s.size) for s in plan.sections if s.flags & need == need]
