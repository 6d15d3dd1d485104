"""Instruction automata: which byte may come next inside a stream of machine instructions.

A table is learnt offline (`python -m bytegen.formats.code.learn`) and ships with the package. Instruction
encodings are prefix-free, so that one look-up a byte tells whether the bytes so far may still become an
instruction, are one, or never will be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np

from bytegen.formats.errors import FormatError

DEAD, START = 0, 1
NAMES = ("x86_64", "i386", "aarch64")
ENDLESS = 255  # `least` of the dead state
_ROWS = 2048


class Role(IntEnum):
    """What a byte is within its instruction."""

    NONE = 0
    PREFIX = 1
    OPCODE = 2
    VEX = 3  # the bytes of a VEX or EVEX prefix after the first
    MODRM = 4
    SIB = 5
    DISPLACEMENT = 6
    RIP_DISPLACEMENT = 7  # counted from the next instruction
    RELATIVE = 8  # displacement of a direct branch or call, counted from the next instruction
    IMMEDIATE = 9


class Label(IntEnum):
    """What an instruction does to the flow of control, or why user code has none of it."""

    PLAIN = 0
    JUMP = 1  # direct, relative
    BRANCH = 2  # direct, relative, conditional (jcc, loop, jrcxz, xbegin; b.cond, cbz, tbz)
    CALL = 3  # direct, relative
    INDIRECT_JUMP = 4
    INDIRECT_CALL = 5
    RETURN = 6
    SYSCALL = 7
    TRAP = 8  # int3, ud2, hlt, int 29h: padding and deliberate ends that compilers write
    FAR = 9  # far jumps, calls and returns, interrupt returns
    INTERRUPT = 10  # int n, int1, into
    PORT = 11
    SYSTEM = 12


USER_LABELS = frozenset(
    {
        Label.PLAIN,
        Label.JUMP,
        Label.BRANCH,
        Label.CALL,
        Label.INDIRECT_JUMP,
        Label.INDIRECT_CALL,
        Label.RETURN,
        Label.SYSCALL,
        Label.TRAP,
    }
)


class Automaton:
    """One table of states.

    States are 0 (dead), 1 (start, between two instructions) and up; an id of `accept` or more says that an
    instruction ended, with label ``id - accept``: the next byte starts from `start`.

    ``table[state << 8 | byte]``  the next state
    ``least[state]``              the fewest bytes that complete an instruction; 255 for the dead state
    ``roles[state << 8 | byte]``  the `Role` of the byte
    ``role_ahead[state]``         the role of the next byte where all bytes have the same; 0 otherwise
    ``left[state]``               bytes left, the next one counted, of a displacement or immediate; 0 outside
    ``displacement_left[state]``  the same inside a direct branch's displacement only; 0 elsewhere
    ``longest``                   the most bytes of an instruction (15 on x86, 4 on AArch64)
    """

    start = START

    def __init__(
        self, name: str, following: np.ndarray, roles: np.ndarray, accept: int, facts: dict[str, Any]
    ) -> None:
        self.name, self.accept, self.facts = name, accept, facts
        self.states = len(following)
        self.longest = 4 if name == "aarch64" else 15
        self.following = following
        self.least_array = _least(following, accept)
        self.table = memoryview(np.ascontiguousarray(following).reshape(-1))  # type: ignore[arg-type]
        self.roles = bytes(roles.reshape(-1))
        self.least = bytes(self.least_array)
        ahead, left = _fields(following, roles, accept)
        self.role_ahead = bytes(ahead)
        self.left = bytes(left)
        self.displacement_left = bytes(np.where(ahead == Role.RELATIVE, left, 0).astype(np.uint8))
        self._masks: dict[int, np.ndarray] = {}

    def step(self, state: int, byte: int) -> int:
        """The state after one more byte."""
        return self.table[state << 8 | byte]

    def mask(self, state: int, budget: int) -> np.ndarray:
        """bool[257], read-only: bytes after which an instruction ends within `budget` bytes, this one counted.

        Entry 256 (the end) is False: an instruction ends by its last byte, never before it.
        """
        key = state << 4 | (budget if budget < 15 else 15)
        found = self._masks.get(key)
        if found is None:
            found = self._masks[key] = self._build_mask(state, min(budget, 15))
        return found

    def _build_mask(self, state: int, budget: int) -> np.ndarray:
        row = self.following[state]
        out = np.zeros(257, dtype=bool)
        needs = np.concatenate([self.least_array, np.zeros(16, np.uint8)])
        out[:256] = needs[np.minimum(row, self.states)] < max(budget, 0)
        out[:256] &= row != DEAD
        out.flags.writeable = False
        return out

    def decode(
        self, data: bytes, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, int, int, int, int]]:
        """Instructions of data[start:stop] in order: (offset, length, label, field offset, field size).

        The field is the displacement of a direct branch or a RIP-relative operand, (0, 0) where there is none.
        Ends before the first byte that belongs to no whole instruction.
        """
        stop = len(data) if stop is None else stop
        table, accept, ahead, left = self.table, self.accept, self.role_ahead, self.left
        state, at, field, size = START, start, 0, 0
        longest = self.longest
        for i in range(start, stop):
            if not field and ahead[state] in (Role.RELATIVE, Role.RIP_DISPLACEMENT):
                field, size = i, left[state]
            state = table[state << 8 | data[i]]
            if state >= accept:
                if i - at >= longest:
                    return
                yield at, i + 1 - at, state - accept, field, size
                state, at, field, size = START, i + 1, 0, 0
            elif state == DEAD:
                return

    def starts(self, data: bytes, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, int]:
        """Offsets (int64) of the instructions of data[start:stop], and where the last of them ends.

        The stream is gap-free exactly when that end is `stop`; otherwise it is the first offset that fails.
        """
        stop = len(data) if stop is None else stop
        table, accept, longest = self.table, self.accept, self.longest
        found: list[int] = []
        state, at = START, start
        for i in range(start, stop):
            state = table[state << 8 | data[i]]
            if state >= accept:
                if i - at >= longest:
                    break
                found.append(at)
                state, at = START, i + 1
            elif state == DEAD:
                break
        return np.array(found, np.int64), at


def looked_up(values: np.ndarray, following: np.ndarray) -> np.ndarray:
    """``values[following]``, a few rows at a time: numpy makes indices of eight bytes of all it is given at once."""
    found = np.empty(following.shape, values.dtype)
    for row in range(0, len(following), _ROWS):
        found[row : row + _ROWS] = values[following[row : row + _ROWS]]
    return found


def _lowest(values: np.ndarray, following: np.ndarray) -> np.ndarray:
    """``values[following].min(axis=1)``."""
    rows = range(0, len(following), _ROWS)
    return np.concatenate([values[following[row : row + _ROWS]].min(axis=1) for row in rows])


def _least(following: np.ndarray, accept: int) -> np.ndarray:
    """uint8[states]: fewest bytes to the end of an instruction, ENDLESS where there is none."""
    states = len(following)
    need = np.full(accept + 256, ENDLESS, np.uint8)
    need[accept:] = 0
    while True:
        best = np.minimum(_lowest(need, following), ENDLESS - 1) + np.uint8(1)
        best[DEAD] = ENDLESS
        if (best >= need[:states]).all():
            return need[:states].copy()
        need[:states] = np.minimum(need[:states], best)


def _fields(following: np.ndarray, roles: np.ndarray, accept: int) -> tuple[np.ndarray, np.ndarray]:
    """The role of the next byte where it is one, and how many bytes of that field are left; uint8[states] both."""
    live = following != DEAD
    top = np.where(live, roles, 0).max(axis=1)
    low = np.where(live, roles, 255).min(axis=1)
    ahead = np.where(top == low, top, 0).astype(np.uint8)
    left = np.zeros(len(following), np.uint8)
    fields = np.isin(
        ahead, [Role.DISPLACEMENT, Role.RIP_DISPLACEMENT, Role.RELATIVE, Role.IMMEDIATE]
    ) & live.any(axis=1)
    # Within a field every live byte leads to the next state of the same field, or out of it.
    pick = np.take_along_axis(following, live.argmax(axis=1)[:, None], axis=1)[:, 0].astype(np.int64)
    inside = pick < accept
    pick = np.where(inside, pick, 0)
    same = fields & inside & (ahead[pick] == ahead)
    left[fields] = 1
    for _ in range(8):
        left[same] = left[pick[same]] + 1
    return ahead, left


def _pruned(following: np.ndarray, accept: int, labels: frozenset[int]) -> np.ndarray:
    """The table without the instructions whose label is not listed, and without states that lead nowhere."""
    kept = np.zeros(accept + 256, dtype=bool)
    kept[:accept] = True
    kept[[accept + label for label in labels]] = True
    ids = np.arange(len(kept))
    out = looked_up(np.where(kept, ids, DEAD).astype(following.dtype), following)
    alive = np.ones(accept + 256, dtype=bool)
    alive[: len(out)] = _least(out, accept) < ENDLESS
    return looked_up(np.where(alive, ids, DEAD).astype(following.dtype), out)


@lru_cache(maxsize=8)
def load(name: str, *, privileged: bool = False, evex: bool = True) -> Automaton:
    """The automaton of "x86_64", "i386" or "aarch64".

    `privileged` keeps far transfers, interrupts, port and system instructions (the labels from FAR on); without it
    user code's only way into the system is the system call. `evex=False` leaves AVX-512's encodings out.
    Raises FormatError for an unknown name or a table whose hash is not the one written into it.
    """
    if name not in NAMES:
        raise FormatError(f"no instruction table {name!r}: there are {', '.join(NAMES)}")
    source = resources.files("bytegen.formats.code") / "tables" / f"{name}.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        following, roles = stored["next"], stored["roles"]
        facts = json.loads(str(stored["facts"]))
    if table_hash(following, roles) != facts["table_sha256"]:
        raise FormatError(f"tables/{name}.npz does not hold the table it was written with")
    accept = int(facts["accept"])
    if not evex:
        following = _without_evex(name, following)
    if not privileged:
        following = _pruned(following, accept, frozenset(int(label) for label in USER_LABELS))
    return Automaton(name, following, roles, accept, facts)


def table_hash(following: np.ndarray, roles: np.ndarray) -> str:
    """SHA-256 over the next states (little-endian uint16) and the roles (uint8), rows in order."""
    found = hashlib.sha256(np.ascontiguousarray(following, "<u2").data)
    found.update(np.ascontiguousarray(roles, np.uint8).data)
    return found.hexdigest()


def _without_evex(name: str, following: np.ndarray) -> np.ndarray:
    """The table with no way into an EVEX prefix: 62, on i386 followed by a byte of C0 or more."""
    out = following.copy()
    if name == "x86_64":
        out[:, 0x62] = np.where(_takes_opcode(following), DEAD, out[:, 0x62])
    elif name == "i386":
        out[np.unique(following[_takes_opcode(following), 0x62])[:, None], np.arange(0xC0, 256)] = DEAD
    return out


def _takes_opcode(following: np.ndarray) -> np.ndarray:
    """bool[states]: whether the next byte may be an instruction's first: the start and prefix states."""
    reached = np.zeros(len(following), dtype=bool)
    reached[START] = True
    prefixes = [0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, *range(0x40, 0x50)]
    while True:
        more = following[reached][:, prefixes]
        before = reached.sum()
        reached[more[more < len(following)]] = True
        if reached.sum() == before:
            return reached
