"""A sequence that only grows, of which every state is kept: a table's rows, in each of the plans after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar, overload

_Item = TypeVar("_Item")


class Grown(Sequence[_Item], Generic[_Item]):
    """An immutable sequence. One that is made by `with_item` shares its items with the one before.

    A second one made from the same, as where a file forks, takes a copy.
    """

    __slots__ = ("_items", "_size")

    def __init__(self, items: Sequence[_Item] = ()) -> None:
        self._items = list(items)
        self._size = len(self._items)

    def with_item(self, item: _Item) -> Grown[_Item]:
        """The sequence with one item more."""
        new: Grown[_Item] = object.__new__(Grown)
        shared = self._size and len(self._items) == self._size
        new._items = self._items if shared else self._items[: self._size]
        new._items.append(item)
        new._size = self._size + 1
        return new

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> _Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[_Item]: ...
    def __getitem__(self, index: int | slice) -> _Item | list[_Item]:
        if isinstance(index, slice):
            return self._items[: self._size][index]
        if 0 <= index < self._size:
            return self._items[index]
        return self._items[: self._size][index]

    def __iter__(self) -> Iterator[_Item]:
        return islice(self._items, self._size)
