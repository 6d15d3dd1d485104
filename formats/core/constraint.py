"""The byte-level driver over a format's steps: masks, forced runs, fork, rollback.

Its cost does not grow with the file: inside free bytes a mask is a shared array and an advance one append; inside
a field it is computed from the field's set; inside instructions it is looked up. The format's rules run once
a field. A fork copies the bytes so far and shares everything else. Of the steps behind all but one in `_BLOCK` are let
go of, and made again from the bytes when somebody rolls back that far: what a file has to keep stays small, and
Python's collector of garbage, which looks at all of it again and again, has little to look at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bytegen.formats.core import octets
from bytegen.formats.core.intset import IntSet, anything
from bytegen.formats.core.masks import ANY, ANY_OR_END, END, ONLY_END, fill_bitmasks
from bytegen.formats.core.records import RecordsStep
from bytegen.formats.core.spans import Field, before, chain, code_spans, fields, forced_flags, only_byte
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.core.stream import StreamCursor, instruction_starts
from bytegen.formats.core.written import Written
from bytegen.formats.errors import FormatError

_FREE, _FIELD, _STREAM, _ENDED = range(4)
_BLOCK = 16  # steps
_FOR_GOOD = -(1 << 60)  # a count of steps that is never high enough to let any go


class Refusal(NamedTuple):
    """The first place where a file leaves a format: offset, field, and the rule that refused."""

    offset: int
    field: str
    rule: str

    def __str__(self) -> str:
        return f"offset {self.offset:#x}: {self.field}: {self.rule}"


class Constraint(StreamCursor):
    """The bytes that may come next in a file of one format.

    ``begin(data)`` gives the first step. Made by `bytegen.formats.constraint`.
    """

    __slots__ = (
        "_choices",
        "_ended",
        "_field",
        "_field_end",
        "_free_end",
        "_free_until",
        "_fresh",
        "_kind",
        "_value",
        "format",
        "level",
        "max_bytes",
    )

    def __init__(
        self,
        begin: Callable[[bytearray], Step],
        *,
        format: str,
        level: str,
        max_bytes: int,
        privileged: bool = False,
        static: bool = False,
        min_bytes: int = 0,
    ) -> None:
        self.format = format
        self.level = level
        self.max_bytes = max_bytes
        self._data = Written(privileged=privileged, static=static, min_bytes=min_bytes)
        self._ended = self._fresh = 0
        self._no_stream()
        self._choices: IntSet = anything(1)
        self._field = self._field_end = self._value = 0
        self._step: Step = begin(self._data)
        self._settle()

    # What is under the cursor, in a form that most calls can answer from at once. Up to _free_until every byte
    # is allowed (and the end, where _free_end is set). Inside an integer: its set, its ends, the bytes so far.

    def _settle(self) -> None:
        """Bring the cursor up to date with the step, the position, and whether the file has ended."""
        self._mask = None
        self._free_until = -1
        self._free_end = False
        step = self._step
        if self._ended:
            self._kind = _ENDED
        elif isinstance(step, IntStep):
            self._open_field(step.start, step.size, step.choices)
        elif isinstance(step, FreeStep):
            self._kind = _FREE
            position = len(self._data)
            if step.end_from is None or position < step.end_from:
                self._free_until = step.stop if step.end_from is None else min(step.stop, step.end_from)
            else:
                self._free_until, self._free_end = step.stop, True
        elif isinstance(step, RecordsStep):
            self._open_field(*step.choices(min(len(self._data), step.stop - 1), self._data))
        else:
            self._kind = _STREAM
            self._enter_stream(step)

    def _open_field(self, start: int, size: int, choices: IntSet) -> None:
        self._kind = _FIELD
        self._field, self._field_end, self._choices = start, start + size, choices
        self._value = int.from_bytes(self._data[start:], "little") if len(self._data) > start else 0
        if choices.full:
            self._free_until = start + size

    def _next(self, step: Step) -> None:
        step.parent = self._step
        self._step = step
        self._fresh += 1
        if self._fresh == 2 * _BLOCK:
            self._thin()
        self._settle()

    def _thin(self) -> None:
        """Let go of the block of steps before the last one, but for its first. A fork may have been here before."""
        near, self._fresh = before(self._step, _BLOCK)
        far, _ = before(near, _BLOCK)
        if far is not near:
            near.parent = far

    def _leave(self) -> None:
        """See `StreamCursor._leave`: the end of a field, of free bytes, or of a stream."""
        step, data = self._step, self._data
        if isinstance(step, IntStep):
            value = self._value if self._free_until < 0 else int.from_bytes(data[step.start :], "little")
            self._next(step.then(value, data))
        elif isinstance(step, RecordsStep):
            position = len(data)
            step.complete(position, data)
            if position == step.stop:
                self._next(step.then(data))
            else:
                self._settle()
        elif len(data) == step.stop and step.then is not None:
            self._next(step.then(data))
        else:
            self._settle()

    @property
    def position(self) -> int:
        """How many bytes have been written."""
        return len(self._data)

    @property
    def min_bytes(self) -> int:
        """How many bytes the file must have at least, as it was asked for; what is promised may need more."""
        return int(self._data.min_bytes)

    @property
    def data(self) -> bytes:
        """The bytes so far."""
        return bytes(self._data)

    def tail(self, n: int) -> bytes:
        """The last n bytes so far."""
        return bytes(self._data[len(self._data) - n :]) if n else b""

    @property
    def done(self) -> bool:
        """Whether the file has ended."""
        return self._ended > 0

    def mask(self) -> np.ndarray:
        """bool[257], read-only: the bytes that may come next, then whether the file may end here."""
        position = octets.size_of(self._data)
        if position < self._free_until:
            return ANY_OR_END if self._free_end else ANY
        if self._kind == _STREAM:
            found = self._masks[self._state << 4 | self._until - position]
            return found if found is not None else self._stream_mask(self._stream)
        if self._mask is None:
            self._mask = self._compute(position)
        return self._mask

    def _compute(self, position: int) -> np.ndarray:
        if self._kind == _FIELD:
            return self._choices.mask(position - self._field, self._value)
        return ONLY_END

    def bitmask(self) -> np.ndarray:
        """int32[9]: the mask, one bit a symbol: bit i % 32 of word i // 32 (`fill_bitmasks` for many)."""
        return fill_bitmasks([self])[0]

    def advance(self, byte: int) -> None:
        """Write one byte, or end the file with 256.

        Raises `FormatError` (offset, field, rule) when the mask refuses it; nothing has changed then.
        """
        position = octets.size_of(self._data)
        kind = self._kind
        if not 0 <= byte < END:
            pass
        elif position < self._free_until:
            octets.put(self._data, byte)
            if position + 1 == self._free_until:
                self._leave()
            return
        elif kind == _STREAM:
            was = self._state
            state = self._table[was << 8 | byte]
            if was < self._plain:
                if self._least[state] >= self._until - position:
                    raise FormatError(self._complaint(byte))
                octets.put(self._data, byte)
                self._state = state
                if state >= self._plain:
                    if state >= self._accepted:
                        self._complete(state)
                    else:
                        self._displacement = position + 1
            elif self.mask()[byte]:
                self._advance_late(self._stream, byte, state)
            else:
                raise FormatError(self._complaint(byte))
            return
        if kind == _ENDED:
            self._ended += 1
            return
        if not 0 <= byte <= END or not self._allows(byte, position):
            raise FormatError(self._complaint(byte))
        if byte == END:
            self._ended = 1
            self._settle()
            return
        octets.put(self._data, byte)
        self._mask = None
        self._value |= byte << 8 * (position - self._field)
        if position + 1 == self._field_end:
            self._leave()

    def _allows(self, byte: int, position: int) -> bool:
        if self._mask is not None or self._kind != _FIELD:
            return bool(self.mask()[byte])
        if byte == END:
            return False
        k = position - self._field
        return self._choices.has(k + 1, self._value | byte << 8 * k)

    def _complaint(self, byte: int) -> str:
        what = f"byte {byte:#04x}" if byte != END else "the end of the file"
        return f"{what} is refused: {self.refusal()}"

    def _names(self) -> tuple[str, str]:
        """Path and rule of the field at the cursor."""
        step = self._step
        if isinstance(step, RecordsStep):
            return step.name(min(len(self._data), step.stop - 1))
        return step.path, step.rule

    def refusal(self) -> Refusal:
        """The field at the cursor and its rule: what to report when a byte or the end is refused here."""
        return Refusal(len(self._data), *self._names())

    def field(self) -> str:
        """Path of the field that the next byte belongs to, such as ``ehdr.e_phoff``."""
        return "end" if self._ended else self._names()[0]

    def advance_many(self, data: bytes) -> int:
        """Write as many bytes of ``data`` as are allowed; returns how many. The rest is refused."""
        taken, total = 0, len(data)
        view = memoryview(data)
        while taken < total:
            kind = self._kind
            if kind == _STREAM:
                more = self._many_stream(self._stream, view[taken:])
            elif kind == _FIELD:
                more = self._many_field(view[taken:])
            elif kind == _FREE:
                more = self._many_free(view[taken:])
            else:
                break
            if not more:
                break
            taken += more
        return taken

    def _many_free(self, data: memoryview) -> int:
        step = self._step
        assert isinstance(step, FreeStep)
        room = min(step.stop - len(self._data), len(data))
        if room:
            self._data += data[:room]
            self._leave()
        return room

    def _many_field(self, data: memoryview) -> int:
        """One integer, a run of whole records, or the good bytes of an integer that is cut short or refused."""
        step, position = self._step, len(self._data)
        if isinstance(step, RecordsStep) and (position - step.start) % step.record.size == 0:
            more = step.run(data[: step.stop - position])
            if more:
                self._take_records(step, data[:more])
                return more
        have = position - self._field
        size = min(self._field_end - position, len(data))
        value = self._value | int.from_bytes(data[:size], "little") << 8 * have
        if position + size == self._field_end and (self._choices.full or self._choices.contains(value)):
            self._data += data[:size]
            self._value = value
            self._leave()
            return size
        good = 0
        while good < size and self._choices.has(have + good + 1, value & (256 << 8 * (have + good)) - 1):
            good += 1
        if good:
            self._data += data[:good]
            self._settle()
        return good

    def _take_records(self, step: RecordsStep, data: memoryview) -> None:
        if step.each is None:
            self._data += data
        else:
            for start in range(0, len(data) - step.record.size, step.record.size):
                self._data += data[start : start + step.record.size]
                step.complete(len(self._data), self._data)
            self._data += data[-step.record.size :]
        self._leave()

    def forced(self) -> bytes:
        """The longest run of bytes from here with one choice at each place (the end is never in it)."""
        start = len(self._data)
        while len(self._data) >= self._free_until and not self._ended:
            byte = only_byte(self.mask())
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
            self._return_to(len(self._data) - n)
        self._settle()

    def _return_to(self, position: int) -> None:
        """Go back to the step at a position; where it was let go of, to one before it, and on from there."""
        step, after = self._step, None
        while step.start > position:
            assert step.parent is not None
            step, after = step.parent, step
            self._fresh -= self._fresh > 0
        again = b""
        if after is not None and not step.start <= position < step.stop:
            again = bytes(self._data[step.start : position])
        self._data.truncate(position - len(again))
        self._step = step
        if again:
            self._settle()
            taken = self.advance_many(again)
            assert taken == len(again), "the same bytes are read again"

    def fork(self) -> Constraint:
        """An independent copy at the same place."""
        twin = Constraint.__new__(Constraint)
        twin.format, twin.level, twin.max_bytes = self.format, self.level, self.max_bytes
        twin._data = self._data.twin()
        twin._ended, twin._step, twin._kind, twin._mask = self._ended, self._step, self._kind, self._mask
        twin._free_until, twin._free_end = self._free_until, self._free_end
        twin._choices, twin._value = self._choices, self._value
        twin._field, twin._field_end = self._field, self._field_end
        twin._fresh = self._fresh
        self._copy_stream(twin)
        return twin

    def free(self) -> int:
        """How many bytes from here may be anything (at least); through them the mask does not change."""
        return 0 if self._ended else max(0, self._free_until - len(self._data))

    def instruction_starts(self) -> np.ndarray:
        """int64: offsets of the instructions so far, at level ``code``; empty at other levels."""
        return instruction_starts(self._data)

    def _with_all_steps(self) -> Constraint:
        """The constraint with all its steps: a copy that has read the bytes again, if some are gone."""
        if not chain(self._step)[1]:
            return self
        data, twin = self.data, self.fork()
        twin.rollback(len(data) + self._ended)
        twin._fresh = _FOR_GOOD
        twin.advance_many(data)
        twin._ended = self._ended
        twin._settle()
        return twin

    def code_spans(self) -> list[tuple[int, int]]:
        """(start, end) of the parts read as instructions so far, at level ``code``; empty at other levels."""
        return code_spans(self._with_all_steps()._step, len(self._data))

    def fields(self) -> list[Field]:
        """The spans written so far, in order; a field begun but not complete has value None."""
        whole = self._with_all_steps()
        return fields(whole, whole._step, self.data)

    def forced_flags(self) -> np.ndarray:
        """bool[position + 1]: which bytes so far had one choice only; the last entry: the end here has."""
        whole = self._with_all_steps()
        return forced_flags(whole, whole._step, self.data)
