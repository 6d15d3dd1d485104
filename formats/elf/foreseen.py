"""What section headers foresee of a dynamic section that lies ahead of them, as patchelf leaves files.

The tables that section headers describe lie behind, or are promised, before the dynamic section is read. It may
then name a table of such a kind only where its section says; and its string table is the one that those sections
link. That is the whole debt: each tag but those that a loader asks for may be left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from bytegen.formats.core.ledger import Region
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.tables import Place

UNBOUNDED = 1 << 31


class Foreseen(NamedTuple):
    """While the section headers are read, and from their end on.

    ``symbols``: how many dynamic symbols there are, once something says it; ``most``: how many there may be;
    ``link``: the section of the strings, 0 while it is open; ``reserved``: room kept for the symbols while their
    header is still to come; ``text``: bytes of the string table that symbols behind need instead, should they be
    meant, while ``link`` is open. From the end on: ``tables``, section type -> place, and the place of the ``strings``,
    None where the section headers leave it open or where it is not mapped.
    """

    symbols: int | None = None
    most: int = UNBOUNDED
    link: int = 0
    reserved: Region | None = None
    text: int = 0
    tables: Mapping[int, Place] = MappingProxyType({})
    strings: Place | None = None


_NOTHING = Foreseen()


def foreseen(plan: Plan) -> Foreseen:
    """What is foreseen so far."""
    return _NOTHING if plan.foreseen is None else plan.foreseen


def waiting(plan: Plan) -> bool:
    """Whether section headers are read before the dynamic section that they must agree with.

    At level "parse" a dynamic section may have two entries, and then no string table.
    """
    if plan.dynamic is None or plan.named is not None or plan.shnum < 4:
        return False
    return plan.strict or plan.dynamic[1] >= 3 * plan.target.dyn_size
