"""An instruction automaton in the form that a stream of instructions reads: states in order of what they need.

To the instructions of the automaton comes one thing that compilers and linkers write between them: where flow
does not go on (after a return, a jump, a trap, or a call, which may be one that never returns) at an address
that is no multiple of 4, zeros may fill up to the next multiple of 4, or to the stream's end. GNU ld fills the gaps
between .init, .plt, .text and .fini so; the rest of such a gap is pairs of zeros, which decode.

And a branch may land behind the lock prefix with which an instruction begins (glibc skips it where there is one
thread): what follows the prefix is an instruction too.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bytegen.formats.code.automaton import DEAD, START, Automaton, Label, load, looked_up
from bytegen.formats.core.masks import shared
from bytegen.formats.core.stream import ENDS, FILLER, LOCK, RELATIVE

ALIGNED = 4  # zeros fill up to a multiple of this
_FILLER_LABEL = 255  # of one byte of it
# After these labels the next byte need not be reached from above.
_ENDS = (
    Label.JUMP,
    Label.CALL,
    Label.INDIRECT_JUMP,
    Label.INDIRECT_CALL,
    Label.RETURN,
    Label.TRAP,
    Label.FAR,
)
# The group of the last byte of an AArch64 word (see `Machine.last`): the low bits of B and BL, TBZ and TBNZ, the other
# direct branches; `_GROUPS` for the rest.
_GROUPS = 6
_WORD_GROUPS = [
    byte & 3
    if byte & 0x7C == 0x14
    else 4
    if byte & 0x7E == 0x36
    else 5
    if byte & 0x7E == 0x34 or byte == 0x54
    else _GROUPS
    for byte in range(256)
]
_MOST_LAST = 1 << 15
_RELATIVE = (Label.JUMP, Label.BRANCH, Label.CALL)


class Machine:
    """See `bytegen.formats.core.steps.Machine`; made by `machine`.

    ``gap`` is the state where an instruction or filler may start, ``filling`` the one where filler must go on,
    ``skip`` the one where an instruction may start with a lock prefix that a branch skips, ``listed`` the one where
    lists of addresses may start (see `region`), and ``list_head`` the one after their first byte.
    ``traits[state]``, for a state from ``accepted`` on: `RELATIVE`, `ENDS` (filler may follow), `FILLER`.
    """

    start = START

    def __init__(self, automaton: Automaton) -> None:
        self.name = automaton.name
        self.longest = automaton.longest
        self.word = 4 if automaton.name == "aarch64" else 1
        count, accept = automaton.states, automaton.accept
        following, states = automaton.following, np.arange(automaton.states)
        direct = np.zeros(accept + 256, dtype=bool)
        direct[[accept + label for label in _RELATIVE]] = True
        relative = looked_up(direct, following)
        late: np.ndarray
        if self.word == 1:
            late = np.frombuffer(automaton.displacement_left, np.uint8) > 0
        else:
            late = np.asarray(relative.any(axis=1))
        order = np.concatenate([states[~late], states[late]])
        # The two states of filler and the one of a skipped prefix stand between the early ones and the late.
        early = int((~late).sum())
        self.gap, self.filling, self.listed, self.skip, self.list_head = range(early, early + 5)
        self.plain = self.skip
        self.accepted = count + 5
        place = np.empty(count, np.int64)
        place[order] = np.arange(count) + np.where(np.arange(count) >= early, 5, 0)
        ids = np.zeros(accept + 256, np.uint16)
        ids[:count], ids[accept:] = place, self.accepted + np.arange(256)
        moved = np.full((count + 5, 256), DEAD, np.uint16)
        moved[place] = looked_up(ids, following)
        self.head = int(moved[START, 0xFF])  # the state after an FF
        moved[[self.gap, self.skip, self.listed]] = moved[START]
        moved[self.list_head] = moved[self.head]
        moved[self.listed, 0xFF] = self.list_head
        moved[[self.gap, self.filling], 0] = self.accepted + _FILLER_LABEL
        self.following = moved
        self.table = memoryview(self.following.reshape(-1))  # type: ignore[arg-type]
        least = np.zeros(self.accepted + 256, np.uint8)
        least[place] = automaton.least_array
        least[DEAD] = 255
        least[[self.gap, self.filling, self.skip, self.listed]] = 1
        least[self.list_head] = least[self.head]
        self._least = least
        self.least = least.tolist()
        self.displacement_left = bytearray(self.accepted)
        for old in states[late].tolist():
            self.displacement_left[place[old]] = automaton.displacement_left[old]
        ended = [RELATIVE * (label in _RELATIVE) | ENDS * (label in _ENDS) for label in range(255)]
        self.traits = [0] * self.accepted + [*ended, FILLER]
        if self.word == 4:
            grouped = np.array([group < _GROUPS for group in _WORD_GROUPS])
            alive = following[late] != DEAD
            assert (relative[late] == (alive & grouped)).all(), "another byte ends a direct branch"
        self.masks: list[np.ndarray | None] = [None] * (self.accepted << 4)
        self._last: dict[int, np.ndarray] = {}
        self._one_byte: dict[bool, np.ndarray] = {}
        self._same: dict[bytes, np.ndarray] = {}

    def mask(self, state: int, room: int) -> np.ndarray:
        """bool[257], read-only: the bytes after ``state`` that let an instruction end within ``room`` bytes."""
        out = np.zeros(257, dtype=bool)
        row = self.following[state]
        out[:256] = (self._least[row] < room) & (row != DEAD)
        out.flags.writeable = False
        out = self._same.setdefault(out.tobytes(), out)
        if state < self.plain and room < 16:
            self.masks[state << 4 | room] = out
        return out

    def one_byte(self, lock: bool) -> np.ndarray:
        """bool[257], read-only: the instructions of one byte, and the lock prefix where ``lock`` says so."""
        found = self._one_byte.get(lock)
        if found is None:
            out = self.mask(self.start, 1).copy()
            out[LOCK] |= lock
            found = self._one_byte[lock] = shared(out.tobytes())
        return found

    def last(self, state: int, barred: int) -> np.ndarray:
        """bool[257], read-only: the last bytes of a word, without the direct branches of the groups in ``barred``.

        A group is a bit: branches of one go equally far, given the three bytes before.
        """
        key = state << _GROUPS | barred
        found = self._last.get(key)
        if found is None:
            if len(self._last) >= _MOST_LAST:
                self._last.clear()
            found = self._last[key] = shared((self.mask(state, 1) & _open_groups(barred)).tobytes())
        return found


@lru_cache(maxsize=1 << _GROUPS)
def _open_groups(barred: int) -> np.ndarray:
    return np.array([not barred >> group & 1 for group in _WORD_GROUPS] + [False])


@lru_cache(maxsize=8)
def machine(name: str, privileged: bool = False) -> Machine:
    """The instruction set "x86_64", "i386" or "aarch64"; with ``privileged``, system instructions too."""
    return Machine(load(name, privileged=privileged))
