"""The cursor inside a stream of instructions: what `Constraint` does a byte where a `StreamStep` is under it.

The state is a state of the automaton, where the instruction under the cursor began, and the offset by which it
must have ended: the end of the stream, the next place where an instruction has to start, or the length limit
of an instruction. A mask is looked up by state and room, an advance is one look-up in the automaton's table.

Where a branch lands behind the lock prefix of an instruction, both the prefix and what follows it are noted as
starts. Filler (`Machine`) is read byte by byte as if each were an instruction, but is none: no branch may go there.
"""

from __future__ import annotations

import numpy as np

from bytegen.formats.core import octets
from bytegen.formats.core.steps import Machine, Step, StreamStep
from bytegen.formats.core.written import LOOKED, Snapshot, Written

_MOST_LISTS = 1 << 16
_AHEAD = 16  # a start that is owed less than this far ahead may bound an instruction
_NO_TABLE = memoryview(np.zeros(0, np.uint16))  # type: ignore[arg-type]
_ALIGNED = 4  # filler ends at a multiple of this
LOCK = 0xF0
RELATIVE, ENDS, FILLER = 1, 2, 4  # traits of an instruction that has ended: see `Machine`


class StreamCursor:
    """The part of a constraint that walks a stream; `Constraint` owns the bytes and the step."""

    __slots__ = (
        "_accepted",
        "_begin",
        "_bound",
        "_data",
        "_displacement",
        "_least",
        "_mask",
        "_masks",
        "_plain",
        "_recheck",
        "_state",
        "_step",
        "_stream",
        "_table",
        "_until",
    )

    _data: Written
    _table: memoryview
    _least: list[int]
    _step: Step
    _stream: StreamStep
    _mask: np.ndarray | None
    _masks: list[np.ndarray | None]

    def _next(self, step: Step) -> None:
        """Another step begins."""
        raise NotImplementedError

    def _leave(self) -> None:
        """The cursor has come to the end of the step."""
        raise NotImplementedError

    def _no_stream(self) -> None:
        """Before any stream."""
        self._table, self._least, self._masks = _NO_TABLE, [], []
        self._plain = self._accepted = self._state = self._begin = self._displacement = self._until = 0
        self._bound = self._recheck = -1

    def _copy_stream(self, twin: StreamCursor) -> None:
        twin._table, twin._least, twin._masks = self._table, self._least, self._masks
        twin._plain, twin._accepted = self._plain, self._accepted
        twin._state, twin._begin, twin._until = self._state, self._begin, self._until
        twin._bound, twin._recheck = self._bound, self._recheck
        twin._displacement = self._displacement
        if self._accepted:
            twin._stream = self._stream

    def _enter_stream(self, step: StreamStep) -> None:
        """Take the state from the bytes so far and the starts noted in them."""
        machine, data = step.machine, self._data
        self._stream = step
        self._table, self._least, self._masks = machine.table, machine.least, machine.masks
        self._plain, self._accepted = machine.plain, machine.accepted
        self._bound = self._recheck = -1
        position = len(data)
        if position == step.start:
            data.start(position)
            self._instruction(step, position, machine.start)
            return
        begin = data.start_before(position - 1)
        if begin > step.start and data[begin - 1] == LOCK and data.is_start(begin - 1) and machine.word == 1:
            begin -= 1
        state, at, self._displacement = _walk(machine, data, begin)
        if state < machine.accepted:
            self._instruction(step, begin, machine.start)
            if self._state == machine.skip and data[begin] == LOCK:
                self._cross(step)
            elif self._state == machine.listed and state == machine.head and at == begin + 1:
                state = machine.list_head
            self._state = state
        elif at == position - 1 and data[at] == 0xFF:
            data.start(at)
            self._instruction(step, at, machine.start)
            self._state = machine.list_head
        elif at == position:
            data.start(position)
            self._instruction(step, position, state)
        elif position == _aligned(step, position):
            data.start(position)
            self._instruction(step, position, machine.filling)
        else:
            self._fill(step, position)

    def _instruction(self, step: StreamStep, begin: int, after: int) -> None:
        """An instruction begins, or filler, ``after`` a state of the automaton."""
        machine = step.machine
        if begin >= self._recheck:
            self._look(begin)
        self._begin = begin
        self._state = step.first
        self._until = min(begin + step.longest, self._bound, step.stop)
        if self._bound == begin + 1:
            self._state = machine.skip
        elif step.lists and self._may_list(step, begin):
            self._state = machine.listed
        if step.traits[after] & ENDS:
            aligned = _aligned(step, begin)
            if begin < aligned <= self._bound and not self._data.is_wanted(begin):
                self._state = machine.gap

    def _look(self, offset: int) -> None:
        """Find the first start that is owed after ``offset``, and until where that is the answer."""
        self._bound = self._data.next_wanted(offset)
        self._recheck = min(self._bound - 1, offset + LOOKED - _AHEAD)

    def _may_list(self, step: StreamStep, begin: int) -> bool:
        """Whether lists of addresses fit between here, behind some instruction, and the stream's end."""
        room = step.stop - begin
        aligned = (begin + step.phase) % step.lists == 0 and room % step.lists == 0
        return aligned and begin > step.start and 2 * step.lists <= room <= _MOST_LISTS

    def _cross(self, step: StreamStep) -> None:
        """The instruction begins with a lock prefix, and the start that is owed behind it is met."""
        self._look(self._begin + 1)
        self._until = min(self._begin + step.longest, self._bound, step.stop)

    def _skip_mask(self, step: StreamStep) -> np.ndarray:
        """One byte that is an instruction, or the lock prefix."""
        machine, begin = step.machine, self._begin
        until = min(begin + step.longest, self._data.next_wanted(begin + 1), step.stop)
        locked = machine.table[machine.start << 8 | LOCK]
        return machine.one_byte(locked > 0 and machine.least[locked] < until - begin)

    def _fill(self, step: StreamStep, position: int) -> None:
        """Filler goes on at ``position``."""
        self._begin, self._state = position, step.machine.filling
        self._until = position + 1
        self._recheck = -1

    def _stream_mask(self, step: StreamStep) -> np.ndarray:
        room = self._until - octets.size_of(self._data)
        if self._state < self._plain:
            return step.machine.mask(self._state, room)
        if self._mask is None and self._state == step.machine.skip:
            self._mask = self._skip_mask(step)
        elif self._mask is None and self._state == step.machine.list_head:
            out = step.machine.mask(step.machine.head, room).copy()
            out[0xFF] |= not self._data.any_wanted(self._begin, step.stop)
            out.flags.writeable = False
            self._mask = out
        elif self._mask is None:
            self._mask = step.targets.mask(step, self._state, self._begin, self._displacement, self._data)
        return self._mask

    def _advance_late(self, step: StreamStep, byte: int, state: int) -> None:
        """Take an allowed byte of a branch's displacement, or one that may be a prefix which a branch skips."""
        octets.put(self._data, byte)
        self._mask = None
        was, self._state = self._state, state
        if was <= step.machine.list_head:  # or ``skip``, the only late states that are not inside a branch
            self._displacement = octets.size_of(self._data)
            if was == step.machine.skip:
                if byte == LOCK:
                    self._cross(step)
            elif byte == 0xFF and step.tail is not None:
                self._data.no_start(self._begin)
                self._next(step.tail(len(self._data), self._data))
                return
        if state >= self._accepted:
            self._complete(state)

    def _many_stream(self, step: StreamStep, data: memoryview) -> int:
        """Take instructions up to the end of the stream, or to the first byte that is refused; how many bytes."""
        mine, table, least, plain = self._data, self._table, self._least, self._plain
        taken, total = 0, min(len(data), step.stop - len(mine))
        while taken < total:
            state, first = self._state, taken
            if state >= plain:
                more = self._whole_branch(step, data[taken : taken + 4])
                if not more:
                    if not self._stream_mask(step)[data[taken]]:
                        return taken
                    self._advance_late(step, data[taken], table[state << 8 | data[taken]])
                    taken += 1
                    if self._step is not step:
                        return taken
                    continue
                taken += more
                for byte in data[first:taken]:
                    state = table[state << 8 | byte]
            else:
                room = self._until - len(mine)
                while taken < total and state < plain:
                    after = table[state << 8 | data[taken]]
                    if least[after] >= room:
                        break
                    state = after
                    taken += 1
                    room -= 1
            mine += data[first:taken]
            self._state = state
            self._mask = None
            if state < plain:
                return taken
            if state < self._accepted:
                self._displacement = len(mine)
            else:
                self._complete(state)
        return taken

    def _whole_branch(self, step: StreamStep, raw: memoryview) -> int:
        """How many bytes end the branch whose displacement begins here, if all of it is there and allowed."""
        if self._state in (step.machine.skip, step.machine.list_head):
            return 0
        if step.machine.word == 1 and len(self._data) != self._displacement:
            return 0
        return step.targets.whole(step, self._state, self._begin, raw, self._data)

    def _complete(self, state: int) -> None:
        """An instruction or a byte of filler has just ended, by that state, and perhaps the stream."""
        step, data, begin = self._stream, self._data, self._begin
        stop = step.stop
        position = octets.size_of(data)
        traits = step.traits[state]
        if traits & RELATIVE:
            target = step.targets.target(step, state, begin, self._displacement, data)
            if target >= position:
                data.want(target)
                if position < target < self._bound:
                    self._bound = target
                    if target <= self._recheck:
                        self._recheck = target - 1
        elif traits & FILLER:
            if begin == position - 1:
                data.no_start(begin)
            if position != stop and position != _aligned(step, position):
                self._fill(step, position)
                return
        elif step.word == 1 and octets.byte_at(data, begin) == LOCK:
            data.start(begin + 1)
        if position == stop:
            self._leave()
            return
        if data.shared:
            data.own()
        i, starts = position >> 3, data.starts
        if i < len(starts):
            starts[i] |= 1 << (position & 7)
        else:
            data.start(position)
        if (
            traits & ENDS
            or position >= self._recheck
            or (step.lists and (position + step.phase) % step.lists == 0)
        ):
            self._instruction(step, position, state)
            return
        self._begin = position
        self._state = step.first
        until = position + step.longest
        if until > self._bound:
            until = self._bound
        self._until = until if until < stop else stop


def _aligned(step: StreamStep, offset: int) -> int:
    """The offset of the next aligned address."""
    return offset + (-(offset + step.phase) & _ALIGNED - 1)


def _walk(machine: Machine, data: bytearray, begin: int) -> tuple[int, int, int]:
    """The state after the bytes from ``begin`` on, or after the first instruction; where that is; its field."""
    state, at, table, field = machine.start, begin, machine.table, 0
    while at < len(data) and state < machine.accepted:
        before, state = state, table[state << 8 | data[at]]
        at += 1
        if before < machine.plain <= state:
            field = at
    return state, at, field


def instruction_starts(data: Written | Snapshot) -> np.ndarray:
    """int64: offsets of the instructions in ``data``, those behind a lock prefix left out."""
    bits = np.unpackbits(np.frombuffer(data.starts, np.uint8), bitorder="little")
    found = np.flatnonzero(bits[: len(data)])
    raw = np.frombuffer(memoryview(data), np.uint8)
    inner = np.zeros(len(found), dtype=bool)
    inner[1:] = (np.diff(found) == 1) & (raw[found[:-1]] == LOCK)
    return found[~inner]
