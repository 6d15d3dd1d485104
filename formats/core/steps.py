"""Steps: the places of a file between which the format's rules run.

A format is a function from one step to the next. A step is one little-endian integer with the exact set of
its values, a table of equal records (`records`), a stream of instructions, or a run of bytes that nothing
constrains. Steps are immutable and linked to their predecessor, so that a fork shares them and a rollback
walks back.

``path`` and ``rule`` name the field and say what it may be; only messages and listings read them. Where
making them would cost, give what makes them: a function, or (which Python's collector of garbage has less to do
with) a format with what `str.format` puts in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Union

import numpy as np

from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.written import Written

if TYPE_CHECKING:
    from bytegen.formats.core.records import RecordsStep

Text = str | Callable[[], str] | tuple[str | int, ...]

# The steps before those that are being freed, see `Linked`.
_waiting: list[object] = []
_freeing = [False]


def _free_waiting() -> None:
    if not _freeing[0]:
        _freeing[0] = True
        while _waiting:
            _waiting.pop()
        _freeing[0] = False


class Linked:
    """A step, with the one before it.

    A compiled object frees what it holds by a call inside its own, and a file may have a million steps; so those
    before wait in a list, and are freed one after another. (Python's own classes do the like.)
    """

    __slots__ = ("parent",)

    def __init__(self) -> None:
        self.parent: Step | None = None

    def __dealloc__(self) -> None:
        """What a compiled object does when it is freed."""
        if self.parent is not None:
            _waiting.append(self.parent)
            self.parent = None
            _free_waiting()


class IntStep(Linked):
    """One integer of ``size`` bytes at offset ``start``, one of ``choices``."""

    __slots__ = ("_path", "_rule", "choices", "size", "start", "then")

    def __init__(
        self,
        start: int,
        size: int,
        choices: IntSet,
        path: Text,
        rule: Text,
        then: Callable[[int, bytearray], Step],
    ) -> None:
        self.parent = None
        self.start = start
        self.size = size
        self.choices = choices
        self._path = path
        self._rule = rule
        self.then = then

    @property
    def path(self) -> str:
        """Path of the field."""
        return text(self._path)

    @property
    def rule(self) -> str:
        """What it may be, in words."""
        return text(self._rule)

    @property
    def stop(self) -> int:
        """Offset of the first byte after it."""
        return self.start + self.size


class FreeStep(Linked):
    """Any bytes from ``start`` to ``stop``; from ``end_from`` on (None: nowhere) the file may end.

    ``then`` gives the step that begins at ``stop``; None where ``stop`` is the length limit, which only the
    end of the file can follow.
    """

    __slots__ = ("_path", "_rule", "end_from", "start", "stop", "then")

    def __init__(
        self,
        start: int,
        stop: int,
        end_from: int | None,
        path: Text,
        rule: Text,
        then: Callable[[bytearray], Step] | None,
    ) -> None:
        self.parent = None
        self.start = start
        self.stop = stop
        self.end_from = end_from
        self._path = path
        self._rule = rule
        self.then = then

    @property
    def path(self) -> str:
        """Path of the bytes."""
        return text(self._path)

    @property
    def rule(self) -> str:
        """What comes after them, in words."""
        return text(self._rule) or "any bytes, and the file goes on behind them"


class Machine(Protocol):
    """An instruction set as a byte automaton; see `bytegen.formats.code.machine`.

    States are numbers. ``table[state << 8 | byte]`` is the next one: 0 where no instruction goes on so; less
    than ``plain`` where only room limits what follows; less than ``accepted`` where the bytes of a branch
    follow (or, with fixed-size words, end); from ``accepted`` on, an instruction has ended, or a byte of
    filler (``accepted + 255``). ``least[state]`` is how many bytes end it at the earliest.
    """

    start: int
    gap: int  # as start, where filler may stand too
    filling: int  # inside filler
    skip: int  # as start, where a start is owed behind the first byte: a lock prefix may stand there
    listed: int  # as start, where the lists at the stream's end may begin
    list_head: int  # after FF there; another FF begins them
    head: int  # after FF elsewhere
    plain: int
    accepted: int
    traits: list[int]  # of a state: has ended 1 a direct branch, 2 what filler may follow, 4 a byte of filler
    displacement_left: bytearray  # of a state: bytes of a direct branch's displacement to come (x86)
    longest: int  # bytes of the longest instruction
    word: int  # instructions start at addresses that are multiples of it
    table: memoryview
    least: list[int]
    masks: list[np.ndarray | None]  # [state << 4 | room], where one has been asked for

    def mask(self, state: int, room: int) -> np.ndarray:
        """bool[257], read-only: the bytes after ``state``, ``room`` bytes being left for the instruction.

        Kept in ``masks`` under ``state << 4 | room`` where ``state`` is less than ``plain``.
        """

    def one_byte(self, lock: bool) -> np.ndarray:
        """bool[257], read-only: the instructions of one byte, and the lock prefix where ``lock`` says so."""

    def last(self, state: int, barred: int) -> np.ndarray:
        """bool[257], read-only: the last bytes of a word, without the branches of the groups in ``barred``."""


class Targets:
    """Where branches may go; see `bytegen.formats.core.branches`.

    ``begin`` is where the branch begins, ``field`` where its displacement does (x86), ``state`` the automaton's.
    """

    __slots__ = ()

    def mask(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> np.ndarray:
        """bool[257], read-only: the bytes that leave the branch a target."""
        raise NotImplementedError

    def target(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> int:
        """Offset that the branch [begin, len(data)), which has just ended, goes to; negative for none."""
        raise NotImplementedError

    def whole(self, step: StreamStep, state: int, begin: int, raw: memoryview, data: Written) -> int:
        """How many bytes of ``raw`` complete the branch, and lead to a target; 0 when they do not.

        ``state`` is the one in which the first of them comes.
        """
        raise NotImplementedError


class StreamStep(Linked):
    """Instructions of ``machine``, one after another, exactly from ``start`` to ``stop``.

    ``shift`` is what an address is more than its offset. ``lists``: the size of the words of lists of addresses
    that may take the stream's end, 0 where there are none; ``tail(start, data)`` is the first step of what follows
    the two bytes FF FF that begin them, at ``start``.
    """

    __slots__ = (
        "_path", "displacement_left", "first", "lists", "longest", "machine", "phase", "shift", "start",
        "stop", "tail", "targets", "then", "traits", "word",
    )  # fmt: skip

    def __init__(
        self,
        start: int,
        stop: int,
        shift: int,
        machine: Machine,
        targets: Targets,
        path: Text,
        then: Callable[[bytearray], Step],
        lists: int = 0,
        tail: Callable[[int, bytearray], Step] | None = None,
    ) -> None:
        self.lists = lists
        self.tail = tail
        self.parent = None
        self.start = start
        self.stop = stop
        self.shift = shift
        self.phase = shift % 16  # an address, as far as alignments ask
        self.machine = machine
        self.first, self.longest, self.word = machine.start, machine.longest, machine.word
        self.traits, self.displacement_left = machine.traits, machine.displacement_left
        self.targets = targets
        self._path = path
        self.then = then

    @property
    def path(self) -> str:
        """Path of the bytes."""
        return text(self._path)

    @property
    def rule(self) -> str:
        """What it may be, in words."""
        return (
            f"valid instructions up to {self.stop:#x} without a gap; direct branches, the entry point and "
            "functions go to where one starts"
        )


def text(given: Text) -> str:
    """The path or rule itself."""
    if isinstance(given, str):
        return given
    return str(given[0]).format(*given[1:]) if isinstance(given, tuple) else given()


Step = Union[IntStep, FreeStep, StreamStep, "RecordsStep"]
