"""The room ahead that is left between promises, for a ledger and those that are made from it."""

from __future__ import annotations

import numpy as np

from bytegen.formats.core.ledger import Ledger, Region

_FEW_CHANGES = 4


class Gaps:
    """File ranges, ascending: ``table`` is int64[3, n], their beginnings, ends, and the addresses of the beginnings."""

    __slots__ = ("_pairs", "table")

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        self._pairs: list[tuple[int, int]] | None = None

    def pairs(self) -> list[tuple[int, int]]:
        """(beginning, end) of each; not to be changed."""
        if self._pairs is None:
            self._pairs = list(zip(self.table[0].tolist(), self.table[1].tolist(), strict=True))
        return self._pairs

    def without(self, region: Region) -> Gaps:
        """The gaps that are left where a range is promised."""
        table, start, end = self.table, region.start, region.end
        i = int(table[1].searchsorted(start, side="right"))
        j = max(int(table[0].searchsorted(end)), i)
        left = []
        for low, high, address in table[:, i:j].T.tolist():
            for a, b in ((low, min(high, start)), (max(low, end), high)):
                if a < b:
                    left.append((a, b, address + a - low))
        new = np.array(left, np.int64).reshape(-1, 3).T
        return Gaps(np.concatenate((table[:, :i], new, table[:, j:]), axis=1))


def grown_by(old: Ledger, new: Ledger) -> list[Region] | None:
    """What ``new`` promises beyond ``old``, where few promises were added or grew; None where that is not known."""
    found = list[Region]()
    while new is not old:
        if new.more is None or len(found) == _FEW_CHANGES:
            return None
        new, region = new.more
        found.append(region)
    return found[::-1]
