"""What has been worked out, kept for what was asked last: a step is kept as long as its file, but not all it found."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

_Item = TypeVar("_Item")
_END = object()

_MOST = 32


class Forgetful(Protocol):
    """Something that can be worked out again."""

    def forget(self) -> None:
        """Lets go of what was worked out."""


_asked: deque[Forgetful] = deque()


def remember(owner: Forgetful) -> None:
    """``owner`` has worked something out: another may forget what it had."""
    _asked.append(owner)
    if len(_asked) > _MOST:
        _asked.popleft().forget()


class Replayed(Generic[_Item]):
    """What an iterator gives, as often as it is asked for: each item is made once, when somebody wants it."""

    __slots__ = ("_made", "_rest")

    def __init__(self, items: Iterable[_Item]) -> None:
        self._made: list[_Item] = []
        self._rest = iter(items)

    def __iter__(self) -> Iterator[_Item]:
        made, i = self._made, 0
        while True:
            if i == len(made):
                item: Any = next(self._rest, _END)
                if item is _END:
                    return
                made.append(item)
            yield made[i]
            i += 1
