"""PT_INTERP: the path of the program interpreter, which the kernel starts in the program's place.

Sources: Linux fs/binfmt_elf.c (2 to 4096 bytes, the last a zero; the file of that name must exist, so at level
load it is one that systems have), binutils' readelf (prints it up to the first zero).
"""

from __future__ import annotations

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf.plan import Plan, opener, proceed

SHORTEST, LONGEST = 2, 4096
_GRAPHIC = IntSet(1, Span(0x21, 0x7E))


@opener("interp")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _byte(plan, region, region.start, data)


def _byte(plan: Plan, region: Region, position: int, data: bytearray) -> Step:
    if position == region.end:
        return proceed(plan, position, data)
    rule = "a path of graphic characters, and a zero"
    if position == region.end - 1:
        choices = exactly(1, 0)
    elif plan.strict:
        known = plan.target.interpreters
        so_far, size = bytes(data[region.start : position]), region.end - region.start - 1
        fits = [path for path in known if len(path) == size and path.startswith(so_far)]
        choices = exactly(1, *{path[len(so_far)] for path in fits})
        rule = "the path of a dynamic loader: " + ", ".join(path.decode() for path in known)
    else:
        choices = _GRAPHIC
    return IntStep(
        position, 1, choices, "interp", rule, lambda value, data: _byte(plan, region, position + 1, data)
    )
