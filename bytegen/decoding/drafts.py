"""Guesses at the bytes that come next, for the model to verify many in one step.

A guess costs a little time when it is wrong and changes nothing else: see `engine`. Two sources, both n-grams: the
prompt and the file themselves (a text that came before comes again; Saxena 2023, prompt lookup decoding), and a
table learnt from a corpus (the skeletons of its programs).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from bytegen.errors import UserError

CONTEXT = 8
"""Bytes of the file that a table's guess depends on: as many as an integer holds."""

FILE, TABLE = "file", "table"
"""The two sources, by name."""

_SHORTER = 4  # bytes of context in the file's own text, where no longer one has been seen


class NGrams:
    """The likeliest byte after each context of `CONTEXT` bytes.

    ``contexts``: uint64 [N], ascending, the bytes as a little-endian integer; ``following``: uint8 [N].
    """

    def __init__(self, contexts: np.ndarray, following: np.ndarray) -> None:
        if contexts.shape != following.shape or contexts.ndim != 1:
            raise ValueError(
                f"one following byte for each context: {list(contexts.shape)}, {list(following.shape)}"
            )
        self.contexts, self.following = contexts.astype(np.uint64), following.astype(np.uint8)
        self._table: dict[int, int] | None = None

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def table(self) -> dict[int, int]:
        """The same as a dict, made when it is first asked for."""
        if self._table is None:
            self._table = dict(zip(self.contexts.tolist(), self.following.tolist(), strict=True))
        return self._table

    @classmethod
    def learn(cls, files: Iterable[bytes], *, least: int = 2, share: float = 0.5) -> NGrams:
        """Learn from files: contexts met `least` times or more, after which one byte came that `share` of the times."""
        found = [_pairs(data) for data in files]
        contexts = np.concatenate([c for c, _ in found] or [np.zeros(0, np.uint64)])
        following = np.concatenate([f for _, f in found] or [np.zeros(0, np.uint8)])
        order = np.lexsort((following, contexts))
        contexts, following = contexts[order], following[order]
        first = np.flatnonzero(np.append(True, (np.diff(contexts) != 0) | (np.diff(following) != 0)))
        if not len(contexts):
            return cls(contexts, following)
        counts = np.diff(np.append(first, len(contexts)))
        contexts, following = contexts[first], following[first]
        # The most frequent byte of each context comes first; of equals the least.
        order = np.lexsort((following, -counts, contexts))
        contexts, following, counts = contexts[order], following[order], counts[order]
        heads = np.flatnonzero(np.append(True, np.diff(contexts) != 0))
        totals = np.add.reduceat(counts, heads)
        kept = heads[(totals >= least) & (counts[heads] >= share * totals)]
        return cls(contexts[kept], following[kept])

    def save(self, path: str | Path) -> None:
        """Write the table as safetensors."""
        from safetensors.numpy import save

        from bytegen.files import write_atomically

        contexts: np.ndarray = self.contexts.view(np.int64)
        tensors = {"contexts": contexts, "following": self.following}
        write_atomically(path, save(tensors, metadata={"context_bytes": str(CONTEXT)}))

    @classmethod
    def load(cls, path: str | Path) -> NGrams:
        """Read a table; UserError when the file is none."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = load_file(str(path))
            return cls(tensors["contexts"].view(np.uint64), tensors["following"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(
                f"{path} is no table of n-grams ({error}); `bytegen corpus drafts` writes one"
            ) from None


def _pairs(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Every context in a file and the byte after it."""
    raw = np.frombuffer(data, np.uint8)
    if len(raw) <= CONTEXT:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(raw, CONTEXT)[:-1]
    return np.ascontiguousarray(windows).view("<u8").reshape(-1), raw[CONTEXT:]


class Lookup:
    """The text of one sequence, for n-grams of a table, and of the text itself if `file` says so."""

    def __init__(self, prompt: bytes, table: NGrams | None = None, *, file: bool = True) -> None:
        self._table = {} if table is None else table.table
        self._text = bytearray(prompt)
        self._begin = len(prompt)  # where the file begins: the table knows files only
        self._sizes = (CONTEXT, _SHORTER) if file else ()

    def extend(self, new: bytes) -> None:
        """Bytes that have been written."""
        self._text += new

    def copying(self) -> Copying:
        """Guesses from the end of the text on."""
        return Copying(self._text, self._sizes, self._table, len(self._text) - self._begin)


class Copying:
    """What came after the same bytes before: `guess` says which byte comes next, `take` goes on by bytes, whichever."""

    def __init__(self, text: bytearray, sizes: tuple[int, ...], table: Mapping[int, int], known: int) -> None:
        self._text, self._sizes, self._table, self._known = text, sizes, table, known
        self._tail = bytes(text[-CONTEXT:])
        self._source: int | None = None  # where in the text the next guess is, while copying

    def guess(self) -> tuple[int, str] | None:
        """The byte that comes next and the source that says so, if any does."""
        if self._known >= CONTEXT:
            guess = self._table.get(int.from_bytes(self._tail, "little"))
            if guess is not None:
                return guess, TABLE
        if self._source is None or self._source >= len(self._text):
            self._source = self._found()
        return None if self._source is None else (self._text[self._source], FILE)

    def _found(self) -> int | None:
        """What follows the last bytes where they came before; fewer of them where not so many did."""
        for size in self._sizes:
            if len(self._tail) >= size:
                # A search takes next to nothing beside a step of the model, however long the text is.
                at = self._text.rfind(self._tail[-size:], 0, len(self._text) - 1)
                if at >= 0:
                    return at + size
        return None

    def take(self, data: bytes) -> None:
        """Go on by bytes, whether they were guessed or not."""
        text, source = self._text, self._source
        for byte in data if source is not None else ():
            source = (
                source + 1 if source is not None and source < len(text) and text[source] == byte else None
            )
        self._source = source
        self._tail = (self._tail + data)[-CONTEXT:]
        self._known += len(data)
