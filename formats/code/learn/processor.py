"""Which instructions of a table this processor refuses: every transition of the table stepped once or more.

The rules of x86_rules.h were found with it. x86-64 Linux only; the instructions run in a process of their own.
"""

from __future__ import annotations

import platform
import random
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np

from bytegen.formats.code.automaton import DEAD, START, Automaton, Label
from bytegen.formats.code.learn.probe import HERE, compiler
from bytegen.formats.errors import FormatError

_INVALID_OPCODE = 6
# They leave the process, or change how it may touch its memory.
_SKIPPED = ("syscall", "sysenter", "int", "wrfsbase", "wrgsbase", "wrpkru", "enclu", "ud2")


def covering(automaton: Automaton, per: int, seed: int) -> list[bytes]:
    """Instructions that take every live transition of the table `per` times, at most 15 bytes each."""
    rng = random.Random(seed)
    table, accept = automaton.following, automaton.accept
    reach: dict[int, bytes] = {START: b""}
    order = [START]
    for state in order:
        for byte in np.flatnonzero((table[state] != DEAD) & (table[state] < accept)).tolist():
            target = int(table[state, byte])
            if target not in reach:
                reach[target] = reach[state] + bytes([byte])
                order.append(target)
    out = []
    for state in order:
        for byte in np.flatnonzero(table[state] != DEAD).tolist():
            for _ in range(per):
                code = reach[state] + bytes([byte])
                target = int(table[state, byte])
                while target < accept and automaton.mask(target, 15 - len(code)).any():
                    choice = int(rng.choice(np.flatnonzero(automaton.mask(target, 15 - len(code)))))
                    code, target = code + bytes([choice]), int(table[target, choice])
                if target >= accept and target - accept != Label.SYSCALL:
                    out.append(code)
    return out


def traps(bits: int, codes: list[bytes], folder: Path) -> np.ndarray:
    """uint8[n]: the number of the trap that ended each instruction (1: it ran; 6: the processor refuses it)."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        raise FormatError("instructions are stepped on x86-64 Linux only")
    program, source, result = folder / "step", folder / "instructions", folder / "traps"
    command = [*compiler(), "-O1", "-fno-stack-protector", "-o", str(program), str(HERE / "step.c")]
    subprocess.run(command, check=True, capture_output=True)
    source.write_bytes(b"".join(code[:15].ljust(16, b"\x90") for code in codes))
    subprocess.run([str(program), str(bits), str(source), str(result)], check=True, timeout=320)
    return np.fromfile(result, np.uint8)


def refused(automaton: Automaton, per: int, seed: int, folder: Path) -> dict[str, object]:
    """Counts: stepped, refused for want of a feature (the mnemonic never runs here), refused otherwise.

    "refused_otherwise" maps mnemonics that run here in some encoding to how often they were refused.
    """
    import capstone

    bits = 64 if automaton.name == "x86_64" else 32
    judge = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)
    codes, names = [], []
    for code in covering(automaton, per, seed):
        _, _, mnemonic, _ = next(judge.disasm_lite(code, 0, 1))
        name = mnemonic.split()[-1]
        if name not in _SKIPPED:
            codes.append(code)
            names.append(name)
    invalid = traps(bits, codes, folder) == _INVALID_OPCODE
    known = {name for name, bad in zip(names, invalid, strict=True) if not bad}
    otherwise = Counter(name for name, bad in zip(names, invalid, strict=True) if bad and name in known)
    return {
        "machine": automaton.name,
        "what": "stepped",
        "asked": len(codes),
        "refused": int(invalid.sum()),
        "refused_otherwise": dict(otherwise.most_common()),
        "examples": [
            code.hex() for code, name, bad in zip(codes, names, invalid, strict=True) if bad and name in known
        ][:24],
    }
