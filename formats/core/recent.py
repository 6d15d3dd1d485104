"""What sets have worked out for a mask, kept for the sets asked last: a step is kept as long as its file."""

from __future__ import annotations

from collections import deque
from typing import Protocol

_MOST = 16


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
