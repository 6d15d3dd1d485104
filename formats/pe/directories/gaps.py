"""The room ahead that is left between promises, for a ledger and those that are made from it."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from bytegen.formats.core.ledger import Ledger, Region

_FEW_CHANGES = 4
_Pair = tuple[int, int]


class Gaps:
    """File ranges, ascending, with their addresses: as pairs, and as an array where one is asked for."""

    __slots__ = ("_moves", "_table", "pairs")

    def __init__(self, pairs: list[_Pair], moves: list[int], table: np.ndarray | None = None) -> None:
        self.pairs = pairs
        self._moves = moves  # of each: its address less its offset
        self._table = table

    def table(self) -> np.ndarray:
        """int64[3, n]: the beginnings, the ends, and the addresses of the beginnings."""
        if self._table is None:
            flat = [number for pair in self.pairs for number in pair]
            ends = np.fromiter(flat, np.int64, len(flat)).reshape(-1, 2).T
            moves = np.fromiter(self._moves, np.int64, len(self._moves))
            self._table = np.stack((ends[0], ends[1], ends[0] + moves))
        return self._table

    def without(self, region: Region) -> Gaps:
        """The gaps that are left where a range is promised."""
        pairs, start, end = self.pairs, region.start, region.end
        i = bisect_left(pairs, start, key=lambda pair: pair[1] - 1)
        j = bisect_left(pairs, end, lo=i, key=lambda pair: pair[0])
        left, moves = [], []
        for (low, high), move in zip(pairs[i:j], self._moves[i:j], strict=True):
            for a, b in ((low, min(high, start)), (max(low, end), high)):
                if a < b:
                    left.append((a, b))
                    moves.append(move)
        table = self._table
        if table is not None:
            new = [
                [a for a, _ in left],
                [b for _, b in left],
                [a + m for (a, _), m in zip(left, moves, strict=True)],
            ]
            table = np.concatenate((table[:, :i], np.array(new, np.int64), table[:, j:]), axis=1)
        return Gaps([*pairs[:i], *left, *pairs[j:]], [*self._moves[:i], *moves, *self._moves[j:]], table)


def grown_by(old: Ledger, new: Ledger) -> list[Region] | None:
    """What ``new`` promises beyond ``old``, where few promises were added or grew; None where that is not known."""
    found = list[Region]()
    while new is not old:
        if new.more is None or len(found) == _FEW_CHANGES:
            return None
        new, region = new.more
        found.append(region)
    return found[::-1]
