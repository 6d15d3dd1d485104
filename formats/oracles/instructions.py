"""capstone as a judge of level `code`: what the rules read as instructions decodes without a gap, and branches land.

The rules tell which bytes are instructions and where those start; capstone decodes these bytes by itself, and must
come upon the same starts, upon direct branches that go to one of them, and upon one at the entry point. A branch,
and the entry point, may skip a lock prefix.
"""

from __future__ import annotations

import capstone

from bytegen.formats.core.constraint import Constraint
from bytegen.formats.oracles.disassembly import executable_parts

_MODES = {
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "i386": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}
# What filler may follow, by capstone's mnemonics without prefixes.
_ENDS = {
    "jmp", "call", "ret", "lcall", "ljmp", "retf", "retfq", "iretd", "iretq", "iret", "int3", "ud0", "ud1", "ud2",
    "hlt", "b", "bl", "br", "blr", "brk", "udf",
}  # fmt: skip
_LONGEST, _LOCK, _ALIGNED, _ADDRESS_SIZE = 16, 0xF0, 4, 0x67
_PREFIXES = bytes((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, _ADDRESS_SIZE, _LOCK, 0xF2, 0xF3))
_NEAR = (0xE8, 0xE9, 0x0F, 0xC7)  # call, jmp, jcc, xbegin


class Listing:
    """What capstone makes of executable parts (start, stop, address): instruction starts, filler, direct branches.

    ``name``: x86_64, i386 or aarch64; ``starts``: offsets at which the rules have an instruction, which tell filler
    from one. Everything found is an address: ``starts``; ``skipped``, behind a lock prefix, which branches may skip;
    ``branches`` (from, to); ``undecoded``, where decoding a part ended early. ``filler`` is in bytes.
    """

    def __init__(self, name: str, data: bytes, parts: list[tuple[int, int, int]], starts: set[int]) -> None:
        machine = capstone.Cs(*_MODES[name])
        self._near32 = name == "i386"
        self.starts: set[int] = set()
        self.skipped: set[int] = set()
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
            if data[at] == 0 and at not in starts and here % _ALIGNED and before in _ENDS:
                while (at + shift) % _ALIGNED and at < stop:
                    if data[at]:
                        self.undecoded.append(at + shift)
                        return
                    at += 1
                    self.filler += 1
                before = ""
                continue
            found = next(machine.disasm_lite(data[at : min(at + _LONGEST, stop)], here, 1), None)
            if found is None:
                self.undecoded.append(here)
                return
            _, size, mnemonic, operands = found
            self.starts.add(here)
            words = mnemonic.split()
            if data[at] == _LOCK:
                self.skipped.add(here + 1)
            goes = operands.replace("#", "").split(", ")[-1]
            if _branches(words[-1]) and goes.startswith("0x"):
                whole = data[at : at + size]
                near = self._near32 and _ADDRESS_SIZE in whole and _near(whole)
                self.branches.append((here, here + size + near & 0xFFFFFFFF if near else int(goes, 16)))
            before = "ud2" if words[-1] == "int" and goes == "0x29" else words[-1]
            at += size


def _near(whole: bytes) -> int:
    """The displacement of a near branch for i386; 0 where it is none, or short.

    After a prefix 67 capstone takes 16 bits of the four bytes, of which processors take all.
    """
    opcode = whole.lstrip(_PREFIXES)
    return int.from_bytes(whole[-4:], "little", signed=True) if opcode[0] in _NEAR else 0


def _branches(mnemonic: str) -> bool:
    return (
        mnemonic.startswith(("j", "loop", "cb", "tb"))
        or mnemonic in ("call", "xbegin", "b", "bl")
        or mnemonic.startswith(("b.", "bc."))
    )


def instructions_judge(data: bytes, format: str) -> list[str]:
    """What capstone has against the instructions of a file that the rules take at level `code`.

    Of a file that they do not take, what they read before they refused it is asked about.
    """
    from bytegen.formats.api import replay_whole

    c, _ = replay_whole(data, format, "code")
    name = format.split("-", 1)[1]
    entry, executable = executable_parts(data)
    parts = []
    for low, high in c.code_spans():
        places = (address + low - start for start, end, address in executable if start <= low < end)
        parts += [(low, high, place) for place in places][:1]
    return _complaints(c, name, data, parts, entry)


def _complaints(
    c: Constraint, name: str, data: bytes, parts: list[tuple[int, int, int]], entry: int
) -> list[str]:
    starts = set(c.instruction_starts().tolist())
    found = Listing(name, data, parts, starts)
    complaints = [f"no instruction at {at:#x}" for at in found.undecoded[:3]]
    expected = {at + address - start for start, stop, address in parts for at in starts if start <= at < stop}
    complaints += [f"an instruction starts at {at:#x} or not" for at in sorted(expected ^ found.starts)[:3]]
    lands = found.starts | found.skipped | {0}
    wrong = [(at, goes) for at, goes in found.branches if goes not in lands]
    complaints += [f"the branch at {at:#x} goes to {goes:#x}, where none starts" for at, goes in wrong[:3]]
    if entry and entry not in found.starts | found.skipped:
        complaints.append(f"the entry point {entry:#x} is no instruction")
    return complaints
