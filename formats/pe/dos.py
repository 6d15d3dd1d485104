"""The DOS header, the DOS stub, and the Rich header that Microsoft's linker leaves in it.

The Rich header: "DanS" and three zeros, pairs of (build and product, count), all xored with a key, then
"Rich" and the key. LIEF takes the first "Rich" of the stub for one and needs the key after it; pefile warns
of one that does not begin with "DanS" at 0x80. So "Rich" stands in a stub only where it ends a valid one.
"""

from __future__ import annotations

from collections.abc import Callable

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Ledger
from bytegen.formats.core.pieces import Finite, Span
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.libraries import Imports
from bytegen.formats.pe.constants import COFF_SIZE, DOS_SIZE, LEAST_BLOCK, LFANEW_END, SECTION_SIZE
from bytegen.formats.pe.plan import Plan
from bytegen.formats.pe.sets import NotBeginning
from bytegen.formats.pe.target import Target

RICH, DANS = b"Rich", b"DanS"
RICH_START = 0x80
_RICH_HEAD = 16
_WORD = (1 << 32) - 1

# (name, size) of the fields that loaders of today do not read
_FIELDS = (
    ("e_cblp", 2),
    ("e_cp", 2),
    ("e_crlc", 2),
    ("e_cparhdr", 2),
    ("e_minalloc", 2),
    ("e_maxalloc", 2),
    ("e_ss", 2),
    ("e_sp", 2),
    ("e_csum", 2),
    ("e_ip", 2),
    ("e_cs", 2),
    ("e_lfarlc", 2),
    ("e_ovno", 2),
    ("e_res", 8),
    ("e_oemid", 2),
    ("e_oeminfo", 2),
    ("e_res2", 20),
)


def least_headers(target: Target) -> int:
    """Size of the headers of a file with one section, without a stub."""
    return DOS_SIZE + COFF_SIZE + target.optional_size + SECTION_SIZE


def least_content(target: Target, level: str) -> int:
    """The fewest bytes of sections: what holds the entry point, which at level "code" is an instruction."""
    return target.instruction_size if level == "code" else 1


def least(target: Target, level: str) -> int:
    """Size of the smallest file: headers, and what sections hold at least."""
    return -(-least_headers(target) // LEAST_BLOCK) * LEAST_BLOCK + least_content(target, level)


Then = Callable[[Plan, bytearray], Step]


def begin(target: Target, limit: int, level: str, then: Then, imports: Imports = "known") -> Step:
    """The first step of a file of at most ``limit`` bytes; ``then`` follows the stub."""
    strict = level != "parse"
    resolved = strict and imports != "any"
    plan = Plan(target, limit, level, strict, resolved, Ledger(limit), least(target, level))
    if not isinstance(imports, str):
        plan = plan._replace(libraries=tuple(imports))
    return IntStep(
        0,
        2,
        exactly(2, 0x5A4D),
        "dos.e_magic",
        "a PE file starts with MZ",
        lambda value, data: _field(plan, then, 0, 2),
    )


def _field(plan: Plan, then: Then, i: int, start: int) -> Step:
    if i == len(_FIELDS):
        return _lfanew(plan, then)
    name, size = _FIELDS[i]
    stop = start + size
    return FreeStep(start, stop, None, f"dos.{name}", "", lambda data: _field(plan, then, i + 1, stop))


def _lfanew(plan: Plan, then: Then) -> Step:
    room = (plan.limit - least_content(plan.target, plan.level)) // LEAST_BLOCK * LEAST_BLOCK
    most = min(LFANEW_END - 1, DOS_SIZE + room - least_headers(plan.target))
    return IntStep(
        60,
        4,
        IntSet(4, Span(DOS_SIZE, most, 4)),
        "dos.e_lfanew",
        f"a multiple of 4 from 64 to {most}, with room for the headers and the entry point",
        lambda value, data: _stub(plan._replace(lfanew=value), then, DOS_SIZE, data),
    )


def _barred(before: bytes) -> tuple[bytes, ...]:
    """What may not come after the bytes before, so that "Rich" is not completed."""
    return tuple(RICH[n:] for n in range(1, 4) if before.endswith(RICH[:n]))


_ANY = anything(4)
_NO_RICH = {
    patterns: IntSet(4, NotBeginning(4, *patterns, RICH))
    for patterns in {_barred(RICH[:n]) for n in range(4)}
}
_NO_RICH_BUT_HERE = {
    patterns: IntSet(4, NotBeginning(4, *patterns)) if patterns else _ANY for patterns in _NO_RICH
}
_RULE = '"Rich" stands only at the end of a Rich header that begins with "DanS" at 0x80'


def _closes(data: bytearray, position: int) -> bool:
    """Whether a Rich header that begins at 0x80 can end at ``position``."""
    if position < RICH_START + _RICH_HEAD or position % 8:
        return False
    head = [int.from_bytes(data[i : i + 4], "little") for i in range(RICH_START, RICH_START + _RICH_HEAD, 4)]
    key = head[1]
    return head[0] ^ key == int.from_bytes(DANS, "little") and head[2] == head[3] == key


def _stub(plan: Plan, then: Then, position: int, data: bytearray) -> Step:
    """The dword of the stub at ``position``."""
    if position == plan.lfanew:
        return then(plan, data)
    patterns = _barred(bytes(data[position - 3 : position]))
    closes = position + 8 <= plan.lfanew and _closes(data, position)
    choices = _NO_RICH_BUT_HERE[patterns] if closes else _NO_RICH[patterns]

    def following(value: int, data: bytearray) -> Step:
        if closes and value == int.from_bytes(RICH, "little"):
            return _key(plan, then, position + 4, data)
        return _stub(plan, then, position + 4, data)

    return IntStep(position, 4, choices, "dos.stub", _RULE, following)


def _key(plan: Plan, then: Then, position: int, data: bytearray) -> Step:
    key = int.from_bytes(data[RICH_START + 4 : RICH_START + 8], "little")
    stop = position + 4

    def following(value: int, data: bytearray) -> Step:
        settled = plan._replace(rich=True)
        if stop == plan.lfanew:
            return then(settled, data)
        return FreeStep(stop, plan.lfanew, None, "dos.stub", "", lambda data: then(settled, data))

    return IntStep(position, 4, IntSet(4, Finite((key,)), only=key), "dos.rich.key", "the key", following)
