"""Files that are nothing but executable parts: for tests of the stream of instructions by itself."""

from __future__ import annotations

import capstone

from bytegen.formats.code.region import Code, Executable, reserve, stream
from bytegen.formats.core.constraint import Constraint
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.steps import FreeStep, Step
from bytegen.formats.core.written import Written

BITS = {"x86_64": 64, "i386": 32, "aarch64": 64}
MODES = {
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "i386": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}
# What filler may follow, by capstone's mnemonics without prefixes.
ENDS = {
    "jmp", "call", "ret", "lcall", "ljmp", "retf", "retfq", "iretd", "iretq", "iret", "int3", "ud0", "ud1", "ud2",
    "hlt", "b", "bl", "br", "blr", "brk", "udf",
}  # fmt: skip


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


class Listing:
    """What capstone makes of executable parts: instruction starts, filler, and where direct branches go."""

    def __init__(self, name: str, data: bytes, parts: list[tuple[int, int, int]], starts: set[int]) -> None:
        machine = capstone.Cs(*MODES[name])
        self.starts: set[int] = set()  # addresses
        self.skipped: set[int] = set()  # addresses behind a lock prefix
        self.branches: list[tuple[int, int]] = []
        self.filler = 0
        self.undecoded: list[int] = []
        for start, stop, address in parts:
            self._read(machine, data, start, stop, address - start, starts)

    def _read(
        self, machine: capstone.Cs, data: bytes, at: int, stop: int, shift: int, starts: set[int]
    ) -> None:
        before = ""
        while at < stop:
            here = at + shift
            if data[at] == 0 and at not in starts and here % 4 and before in ENDS:
                while (at + shift) % 4 and at < stop:
                    assert data[at] == 0, f"filler at {at:#x} is not zero"
                    at += 1
                    self.filler += 1
                before = ""
                continue
            found = next(machine.disasm_lite(data[at : min(at + 16, stop)], here, 1), None)
            if found is None:
                self.undecoded.append(at)
                return
            _, size, mnemonic, operands = found
            self.starts.add(here)
            words = mnemonic.split()
            if data[at] == 0xF0:
                self.skipped.add(here + 1)
            goes = operands.replace("#", "").split(", ")[-1]
            if _branches(words[-1]) and goes.startswith("0x"):
                self.branches.append((here, int(goes, 16)))
            before = "ud2" if words[-1] == "int" and goes == "0x29" else words[-1]
            at += size


def _branches(mnemonic: str) -> bool:
    return (
        mnemonic.startswith(("j", "loop", "cb", "tb"))
        or mnemonic in ("call", "xbegin", "b", "bl")
        or mnemonic.startswith(("b.", "bc."))
    )
