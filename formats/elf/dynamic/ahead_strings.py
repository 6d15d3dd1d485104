"""The grammar of the string table that the dynamic section promises ahead.

At level load it has the names of the libraries that are needed. Where a table of needed versions lies ahead too, it
has the name of a version that one of them may have: the room for one that all have is kept in the last gap between
the names that it fits in, until there is such a name.
"""

from __future__ import annotations

from bytegen.formats.core.intset import exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.elf.dynamic.names import (
    KNOWN_LIBRARIES,
    SHORTEST_KNOWN,
    SHORTEST_NAME,
    next_letters,
    string_at,
)
from bytegen.formats.elf.dynamic.version_names import SHARED, may_need, versions_of
from bytegen.formats.elf.plan import Plan, opener, proceed

_ZERO = exactly(1, 0)


def version_gap(needed: tuple[int, ...], size: int, room: int) -> tuple[int, int] | None:
    """The last gap between the names of a string table that has ``room`` bytes behind the shortest name.

    (number of the name before it, -1 for none; end of the gap); None where there is none. ``needed``: ascending
    places of names.
    """
    ends = [(0, 1), *((i, place + SHORTEST_NAME) for i, place in enumerate(needed, 1))]
    for (i, start), stop in zip(ends[::-1], [*needed, size][::-1], strict=True):
        if stop - start >= room:
            return i - 1, stop
    return None


@opener("dynstr")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _Strings(plan, region).begin()


class _Strings:
    """A string table being read. ``pins``: where names of libraries begin in the file, ascending.

    ``gap``: the number of the pin before the gap that may come to hold the name of a version, -2 for none.
    """

    __slots__ = ("gap", "pins", "plan", "region", "shared")

    def __init__(self, plan: Plan, region: Region) -> None:
        self.plan, self.region = plan, region
        needed: tuple[int, ...] = region.detail.needed if region.detail.strict else ()
        self.pins = [region.start + place for place in needed]
        self.shared = SHARED[plan.target.name] + b"\0"
        found = version_gap(needed, region.end - region.start, len(self.shared))
        self.gap = found[0] if region.detail.version and found is not None else -2

    def _has_version(self, position: int, data: bytearray) -> bool:
        """Whether the bytes before ``position`` have a version that will do, or that any library has."""
        text = bytes(data[self.region.start : position])
        return self.shared in text or may_need(self.plan.target.name, text, self._files(text))

    def _files(self, text: bytes) -> list[bytes]:
        """The names of libraries that ``text``, the beginning of the table, has."""
        found = [string_at(text, pin - self.region.start, len(text)) for pin in self.pins]
        return [name for name in found if name is not None]

    def _stop(self, number: int) -> int:
        """Where what follows the name ``number`` ends: at the next name, or the end."""
        return self.pins[number + 1] if number + 1 < len(self.pins) else self.region.end

    def _room(self, number: int, data: bytearray) -> int:
        """Bytes that the name ``number`` may have, its zero included."""
        stop, start = self._stop(number), self.pins[number]
        if number == self.gap and not self._has_version(min(start, len(data)), data):
            stop -= len(self.shared)
        return stop - start

    def begin(self) -> Step:
        start = self.region.start + 1

        def first(_: int, data: bytearray) -> Step:
            return self._after(data) if start == self.region.end else self._behind(-1, start, data)

        return IntStep(start - 1, 1, _ZERO, "dynstr.begin", "a string table begins with a zero", first)

    def _after(self, data: bytearray) -> Step:
        return proceed(self.plan, self.region.end, data)

    def _behind(self, number: int, start: int, data: bytearray) -> Step:
        """What follows the name ``number``, from ``start`` on."""
        if start == self.region.end:
            return self._after(data)
        kept = self._stop(number) - len(self.shared)
        if number != self.gap or start > kept:
            return self._free(start, number + 1, data)
        if start == kept:
            return self._version(start, data)
        return FreeStep(start, kept, None, "dynstr", "", lambda data: self._version(kept, data))

    def _version(self, position: int, data: bytearray) -> Step:
        """The byte at ``position`` in the room kept for the name of a version."""
        stop = self._stop(self.gap)
        if self._has_version(position, data):
            if position == self.region.end:
                return self._after(data)
            return self._free(position, self.gap + 1, data)
        have = versions_of(self.plan.target.name)
        written = bytes(data[self.region.start : position])
        names = {self.shared}
        for file in self._files(written):
            names |= {name + b"\0" for name in have.get(file, ())}
        letters = {
            name[done]
            for name in names
            for done in range(len(name))
            if len(name) - done <= stop - position and written.endswith(name[:done])
        }
        rule = "the name of a version that a library which is needed has"
        return IntStep(
            position, 1, exactly(1, *letters), "dynstr.version", rule,
            lambda _, data: self._version(position + 1, data),
        )  # fmt: skip

    def _free(self, start: int, number: int, data: bytearray) -> Step:
        """Any bytes from ``start`` to the name ``number``, or to the last zero.

        Where no known name has room, a zero comes before the name: it is not the tail of another string then.
        """
        last = number == len(self.pins)
        stop = self.region.end - 1 if last else self.pins[number]
        if start == stop:
            return self._end() if last else self._name(number, 0, self._room(number, data), data)
        if last or self._room(number, data) >= SHORTEST_KNOWN:
            return FreeStep(start, stop, None, "dynstr", "", lambda data: self._free(stop, number, data))
        if start == stop - 1:
            rule = "a library's name comes next"
            then = lambda _, data: self._name(number, 0, self._room(number, data), data)  # noqa: E731
            return IntStep(start, 1, _ZERO, "dynstr", rule, then)
        return FreeStep(start, stop - 1, None, "dynstr", "", lambda data: self._free(stop - 1, number, data))

    def _name(self, number: int, done: int, room: int, data: bytearray) -> Step:
        start = self.pins[number]
        names = frozenset(known + b"\0" for known in KNOWN_LIBRARIES if len(known) < room)
        letters = next_letters(bytes(data[start : start + done]), room - done, not data[start - 1], names)

        def letter(value: int, data: bytearray) -> Step:
            if value:
                return self._name(number, done + 1, room, data)
            return self._behind(number, start + done + 1, data)

        rule = "the name of a library; where it is the tail of a string, of one that every system has"
        return IntStep(start + done, 1, letters, f"dynstr.needed[{number}]", rule, letter)

    def _end(self) -> Step:
        rule = "a string table ends with a zero"
        return IntStep(self.region.end - 1, 1, _ZERO, "dynstr.end", rule, lambda _, data: self._after(data))
