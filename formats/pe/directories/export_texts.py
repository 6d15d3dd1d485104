"""The texts of exports: names, and forwarders ("DLL.function").

Source: pefile, for the letters that names may have.
"""

from __future__ import annotations

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.directories.imported_names import letters
from bytegen.formats.pe.directories.memory import after, mapping
from bytegen.formats.pe.plan import Plan, opener, proceed

STRING, FORWARDER = "export_string", "export_forwarder"
LEAST_STRING, LEAST_FORWARDER = 2, 4
_MOST_STRING = 4095
_PRINTABLE = bytes(range(33, 127)).translate(None, b";=")  # what pefile takes in names of exports
_FIRST = IntSet(1, *letters(_PRINTABLE))
_LATER = IntSet(1, Span(0, 0), *letters(_PRINTABLE))
_WORDS = b"_-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_END = exactly(1, 0)


def _stop(plan: Plan, region: Region) -> int:
    room = min(after(plan.ledger, region), _MOST_STRING + 1)
    return min(region.start + room, mapping(plan.sections).stop(region.start))


@opener(STRING)
def _open_string(plan: Plan, region: Region, data: bytearray) -> Step:
    stop = _stop(plan, region)

    def letter(position: int) -> Step:
        last = position == stop - 1
        choices = _END if last else _FIRST if position == region.start else _LATER
        return IntStep(position, 1, choices, region.path, "a letter, or the zero at the end", following)

    def following(value: int, data: bytearray) -> Step:
        return letter(len(data)) if value else proceed(plan, len(data), data)

    return letter(region.start)


_WORD, _WORD_DOT = IntSet(1, *letters(_WORDS)), IntSet(1, *letters(_WORDS + b"."))
_AFTER = _WORDS + b"#?@$."
_AFTER_DOT, _AFTER_END = IntSet(1, *letters(_AFTER)), IntSet(1, Span(0, 0), *letters(_AFTER))
_DOT = exactly(1, ord("."))


@opener(FORWARDER)
def _open_forwarder(plan: Plan, region: Region, data: bytearray) -> Step:
    stop = _stop(plan, region)

    def letter(position: int, dot: int) -> Step:
        """The letter at a position; ``dot`` is where the first dot is, 0 before it."""
        left = stop - position
        if dot:
            choices = _END if left == 1 else _AFTER_DOT if position == dot + 1 else _AFTER_END
        elif position == region.start:
            choices = _WORD
        else:
            choices = _DOT if left == 3 else _WORD_DOT

        def following(value: int, data: bytearray) -> Step:
            if not value:
                return proceed(plan, position + 1, data)
            return letter(position + 1, dot or (position if value == ord(".") else 0))

        return IntStep(position, 1, choices, region.path, "DLL.function, and a zero", following)

    return letter(region.start, 0)
