"""The byte-level driver over a format's steps: masks, forced runs, fork, rollback.

Its cost does not grow with the file: inside free bytes a mask is a shared array and an advance one append;
the format's rules run once a field. A fork copies the bytes so far and shares everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.errors import FormatError

END = 256


def _constant(any_byte: bool, end: bool) -> np.ndarray:
    mask = np.full(257, any_byte)
    mask[END] = end
    mask.flags.writeable = False
    return mask


_ANY, _ANY_OR_END, _ONLY_END = _constant(True, False), _constant(True, True), _constant(False, True)


class Field(NamedTuple):
    """Bytes [start, end) of the file: what they are, and how many of them had one choice only."""

    start: int
    end: int
    path: str
    value: int | None
    forced: int


class Refusal(NamedTuple):
    """The first place where a file leaves a format: offset, field, and the rule that refused."""

    offset: int
    field: str
    rule: str

    def __str__(self) -> str:
        return f"offset {self.offset:#x}: {self.field}: {self.rule}"


class Constraint:
    """The bytes that may come next in a file of one format.

    ``begin(data)`` gives the first step. Made by `bytegen.formats.constraint`.
    """

    __slots__ = (
        "_data",
        "_ended",
        "_free_end",
        "_free_until",
        "_mask",
        "_step",
        "format",
        "level",
        "max_bytes",
    )

    def __init__(
        self, begin: Callable[[bytearray], Step], *, format: str, level: str, max_bytes: int
    ) -> None:
        self.format = format
        self.level = level
        self.max_bytes = max_bytes
        self._data = bytearray()
        self._ended = 0
        self._enter(begin(self._data))

    # The step under the cursor, and the two numbers that let most calls return at once: up to _free_until
    # every byte is allowed; the end is allowed too where _free_end is set.

    def _enter(self, step: Step) -> None:
        self._step = step
        self._settle()

    def _settle(self) -> None:
        """Bring the shortcuts up to date with the step and the position."""
        self._mask: np.ndarray | None = None
        step = self._step
        self._free_until = -1
        self._free_end = False
        if isinstance(step, FreeStep):
            position = len(self._data)
            if step.end_from is None or position < step.end_from:
                self._free_until = step.stop if step.end_from is None else min(step.stop, step.end_from)
            else:
                self._free_until, self._free_end = step.stop, True
        elif step.choices.full:
            self._free_until = step.start + step.size

    def _next(self, step: Step) -> None:
        step.parent = self._step
        self._step = step
        self._settle()

    @property
    def position(self) -> int:
        """How many bytes have been written."""
        return len(self._data)

    @property
    def data(self) -> bytes:
        """The bytes so far."""
        return bytes(self._data)

    @property
    def done(self) -> bool:
        """Whether the file has ended."""
        return self._ended > 0

    def mask(self) -> np.ndarray:
        """bool[257], read-only: the bytes that may come next, then whether the file may end here."""
        if len(self._data) < self._free_until and not self._ended:
            return _ANY_OR_END if self._free_end else _ANY
        if self._mask is None or self._ended:
            self._mask = _ONLY_END if self._ended else self._compute()
        return self._mask

    def _prefix(self, step: IntStep) -> tuple[int, int]:
        return len(self._data) - step.start, int.from_bytes(self._data[step.start :], "little")

    def _compute(self) -> np.ndarray:
        step = self._step
        if isinstance(step, FreeStep):
            return _ONLY_END
        return step.choices.mask(*self._prefix(step))

    def advance(self, byte: int) -> None:
        """Write one byte, or end the file with 256.

        Raises `FormatError` (offset, field, rule) when the mask refuses it; nothing has changed then.
        """
        data = self._data
        if len(data) < self._free_until and 0 <= byte < END and not self._ended:
            data.append(byte)
            if len(data) == self._free_until:
                self._leave_free()
            return
        if self._ended:
            self._ended += 1
            return
        if not 0 <= byte <= END or not self._allows(byte):
            raise FormatError(self._complaint(byte))
        if byte == END:
            self._ended = 1
            self._mask = None
            return
        step = self._step
        assert isinstance(step, IntStep)
        data.append(byte)
        self._mask = None
        if len(data) == step.start + step.size:
            self._next(step.then(int.from_bytes(data[step.start :], "little"), data))

    def _leave_free(self) -> None:
        step, data = self._step, self._data
        if isinstance(step, IntStep):
            self._next(step.then(int.from_bytes(data[step.start :], "little"), data))
        elif len(data) == step.stop and step.then is not None:
            self._next(step.then(data))
        else:
            self._settle()

    def _allows(self, byte: int) -> bool:
        step = self._step
        if self._mask is not None or not isinstance(step, IntStep):
            return bool(self.mask()[byte])
        if byte == END:
            return False
        k, prefix = self._prefix(step)
        return step.choices.has(k + 1, prefix | byte << 8 * k)

    def _complaint(self, byte: int) -> str:
        step = self._step
        what = f"byte {byte:#04x}" if byte != END else "the end of the file"
        return f"{what} is refused: {Refusal(len(self._data), step.path, step.rule)}"

    def refusal(self) -> Refusal:
        """The field at the cursor and its rule: what to report when a byte or the end is refused here."""
        return Refusal(len(self._data), self._step.path, self._step.rule)

    def advance_many(self, data: bytes) -> int:
        """Write as many bytes of ``data`` as are allowed; returns how many. The rest is refused."""
        if self._ended:
            return 0
        taken, total = 0, len(data)
        while taken < total:
            step = self._step
            position = len(self._data)
            if isinstance(step, FreeStep):
                room = min(step.stop - position, total - taken)
                if room == 0:
                    break
                self._data += data[taken : taken + room]
                taken += room
                self._leave_free()
                continue
            if position == step.start and total - taken >= step.size:
                raw = data[taken : taken + step.size]
                value = int.from_bytes(raw, "little")
                if step.choices.full or step.choices.contains(value):
                    self._data += raw
                    taken += step.size
                    self._next(step.then(value, self._data))
                    continue
            have = position - step.start
            value = int.from_bytes(
                self._data[step.start :] + data[taken : taken + step.size - have], "little"
            )
            size = min(step.size, have + total - taken)
            if size == step.size and step.choices.contains(value):
                self._data += data[taken : taken + size - have]
                taken += size - have
                self._next(step.then(value, self._data))
                continue
            good = have
            while good < size and step.choices.has(good + 1, value & ((1 << 8 * (good + 1)) - 1)):
                good += 1
            self._data += data[taken : taken + good - have]
            self._mask = None
            taken += good - have
            break
        return taken

    def forced(self) -> bytes:
        """The longest run of bytes from here with one choice at each place (the end is never in it)."""
        start = len(self._data)
        if start < self._free_until or self._ended:
            return b""
        while True:
            step = self._step
            if isinstance(step, FreeStep):
                break
            byte = _only_byte(self.mask())
            if byte is None:
                break
            self.advance(byte)
        run = bytes(self._data[start:])
        self.rollback(len(run))
        return run

    def rollback(self, n: int) -> None:
        """Take back the last n advances, the end of the file counting as one.

        Raises `FormatError` when there are not that many.
        """
        if n <= 0:
            if n < 0:
                raise FormatError(f"rollback takes a count of at least 0, got {n}")
            return
        if n > len(self._data) + self._ended:
            raise FormatError(f"cannot roll back {n}: only {len(self._data) + self._ended} were made")
        back = min(n, self._ended)
        self._ended -= back
        n -= back
        if n:
            del self._data[len(self._data) - n :]
            position = len(self._data)
            step = self._step
            while step.start > position:
                assert step.parent is not None
                step = step.parent
            self._step = step
        self._settle()

    def fork(self) -> Constraint:
        """An independent copy at the same place."""
        twin = object.__new__(Constraint)
        twin.format, twin.level, twin.max_bytes = self.format, self.level, self.max_bytes
        twin._data = self._data[:]
        twin._ended, twin._step, twin._mask = self._ended, self._step, self._mask
        twin._free_until, twin._free_end = self._free_until, self._free_end
        return twin

    def free(self) -> int:
        """How many bytes from here may be anything (at least); through them the mask does not change."""
        return 0 if self._ended else max(0, self._free_until - len(self._data))

    def field(self) -> str:
        """Path of the field that the next byte belongs to, such as ``ehdr.e_phoff``."""
        return "end" if self._ended else self._step.path

    def _steps(self) -> list[Step]:
        steps: list[Step] = []
        step: Step | None = self._step
        while step is not None:
            steps.append(step)
            step = step.parent
        return steps[::-1]

    def fields(self) -> list[Field]:
        """The spans written so far, in order; a field begun but not complete has value None."""
        spans: list[Field] = []
        position = len(self._data)
        for step in self._steps():
            size = step.stop - step.start if isinstance(step, FreeStep) else step.size
            end = min(step.start + size, position)
            if end <= step.start:
                continue
            forced = sum(self._forced_bytes(step, end - step.start)) if isinstance(step, IntStep) else 0
            value = None
            if isinstance(step, IntStep) and end - step.start == step.size:
                value = int.from_bytes(self._data[step.start : end], "little")
            if spans and spans[-1].path == step.path and isinstance(step, FreeStep):
                spans[-1] = Field(spans[-1].start, end, step.path, None, 0)
            else:
                spans.append(Field(step.start, end, step.path, value, forced))
        return spans

    def _forced_bytes(self, step: IntStep, written: int) -> list[bool]:
        raw = self._data[step.start : step.start + written]
        return [
            _only_byte(step.choices.mask(k, int.from_bytes(raw[:k], "little"))) is not None
            for k in range(written)
        ]

    def forced_flags(self) -> np.ndarray:
        """bool[position + 1]: which bytes so far had one choice only; the last entry: the end here has."""
        flags = np.zeros(len(self._data) + 1, dtype=bool)
        for step in self._steps():
            if isinstance(step, IntStep):
                written = min(step.size, len(self._data) - step.start)
                flags[step.start : step.start + written] = self._forced_bytes(step, written)
        mask = self.mask()
        flags[-1] = bool(mask[END]) and not mask[:END].any()
        return flags


def _only_byte(mask: np.ndarray) -> int | None:
    """The byte of a mask that allows one byte and nothing else."""
    chosen = mask.nonzero()[0]
    return int(chosen[0]) if len(chosen) == 1 and chosen[0] != END else None
