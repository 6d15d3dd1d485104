"""Files that are nothing but executable parts: for tests of the stream of instructions by itself."""

from __future__ import annotations

from bytegen.formats.code.region import Code, Executable, reserve, stream
from bytegen.formats.core.constraint import Constraint
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.steps import FreeStep, Step
from bytegen.formats.core.written import Written

BITS = {"x86_64": 64, "i386": 32, "aarch64": 64}


def executable(name: str, parts: list[tuple[int, int, int]], *, wanted: tuple[int, ...] = (), privileged: bool = False,
               nowhere: bool = False, lists: bool = False) -> Constraint:  # fmt: skip
    """A file with executable parts (start, stop, address), anything between them; starts owed at ``wanted``."""
    limit = parts[-1][1]

    def begin(data: bytearray) -> Step:
        assert isinstance(data, Written)
        named = [Executable(*part, f"code[{i}]") for i, part in enumerate(parts)]
        ledger, code = reserve(
            Ledger(limit),
            named,
            0,
            instructions=name,
            bits=BITS[name],
            privileged=privileged,
            nowhere=nowhere,
            lists=lists,
        )
        for address in wanted:
            code.promise(address, data)
        return _at(ledger, code, 0, data)

    return Constraint(begin, format=name, level="code", max_bytes=limit)


def _at(ledger: Ledger, code: Code, position: int, data: bytearray) -> Step:
    region: Region | None = ledger.after(position)
    if region is None:
        return FreeStep(position, ledger.limit, position, "end", "", None)
    found = region

    def read(data: bytearray) -> Step:
        return stream(code, found, lambda data: _at(ledger, code, found.end, data), data)

    return read(data) if found.start == position else FreeStep(position, found.start, None, "gap", "", read)
