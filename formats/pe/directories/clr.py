"""The header of .NET's common language runtime.

At level "load" it is no header of an image that holds managed code alone: to come to the entry point of such a
file takes a runtime that neither Windows' loader nor Wine's brings along. Where any imports do, that counts as one.
"""

from __future__ import annotations

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Bits
from bytegen.formats.core.steps import FreeStep, Step
from bytegen.formats.pe.directories.fields import fields
from bytegen.formats.pe.plan import Plan, opener, proceed

SIZE = 72
_IL_ONLY = 1


@opener("clr")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    flags = IntSet(4, Bits(0xFFFFFFFF & ~_IL_ONLY)) if plan.resolved else anything(4)
    return fields(
        region.start,
        "clr",
        [
            ("cb", 4, exactly(4, SIZE), "72"),
            ("RuntimeVersion", 4, anything(4), "any"),
            ("MetaData", 8, anything(8), "any"),
            ("Flags", 4, flags, "not managed code alone" if plan.resolved else "any"),
        ],
        lambda values, data: FreeStep(
            region.start + 20, region.end, None, "clr.rest", "", lambda data: proceed(plan, region.end, data)
        ),
        data,
    )
