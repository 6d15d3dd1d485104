"""What tests of drafts share: sequences that stop early, and whether the bytes drawn have the model's frequencies."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy import stats

from bytegen.decoding.sequence import Sequence


def stopped(s: Sequence, after: int) -> Sequence:
    """A sequence that is cancelled once it has so many bytes."""

    class Watched(Sequence):
        @property
        def ended(self) -> bool:
            return len(self.constraint.data) >= after or self.constraint.done

    s.__class__ = Watched
    return s


def check_frequencies(seen: Counter[int], q: np.ndarray, *, least: float) -> None:
    """Hold counts of bytes to probabilities; pooled by their last three bits, so that every cell is well filled.

    Cells in which fewer than ``least`` are expected are left out.
    """
    total = sum(seen.values())
    got, expected = np.zeros(8), np.zeros(8)
    for byte in range(256):
        got[byte % 8] += seen[byte]
        expected[byte % 8] += q[byte] / q[:256].sum() * total
    filled = expected >= least
    assert filled.sum() >= 4
    assert not got[expected == 0].any()
    got, expected = got[filled], expected[filled]
    assert stats.chisquare(got, expected / expected.sum() * got.sum()).pvalue > 1e-4
