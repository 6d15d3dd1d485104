"""Named tuples that are changed often: a state is one, and each field of a file makes another."""

from __future__ import annotations

from typing import Any, TypeVar

_Class = TypeVar("_Class", bound=type[Any])


def replacing(named: _Class) -> _Class:
    """The class of a NamedTuple, with a ``_replace`` that takes as long as there are changes.

    What `collections` gives it asks for each of its fields whether it is among them.
    """
    places = {name: place for place, name in enumerate(named._fields)}

    def _replace(self: Any, /, **changes: Any) -> Any:
        values = [*self]
        for name in changes:
            values[places[name]] = changes[name]
        return tuple.__new__(named, values)

    named._replace = _replace
    return named
