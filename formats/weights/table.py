"""The table of weights of one format: how often real files hold which value in which field.

A field's family is its path with every index replaced, so that all program headers share their counts. Learnt
by `python -m bytegen.formats.weights.learn`, shipped as JSON beside this file with its provenance.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

_INDEX = re.compile(r"\d+")


@lru_cache(maxsize=65536)
def family(path: str) -> str:
    """The path with # for every number in it."""
    return _INDEX.sub("#", path)


class Values(NamedTuple):
    """The commonest values of an integer field of ``size`` bytes, and how often each was met."""

    size: int
    values: tuple[int, ...]
    counts: tuple[float, ...]

    def next_bytes(self, k: int, prefix: int) -> np.ndarray | None:
        """float [257]: weight of each next byte after the ``k`` low bytes ``prefix``; None if none is known."""
        low, shift = (1 << 8 * k) - 1, 8 * k
        out: np.ndarray | None = None
        for value, count in zip(self.values, self.counts, strict=True):
            if value & low == prefix:
                if out is None:
                    out = np.zeros(257)
                out[(value >> shift) & 255] += count
        return out


class Content(NamedTuple):
    """What free bytes are made of: shares of zero runs and of text, and the frequency of bytes elsewhere."""

    zeros: float
    text: float
    bytes: np.ndarray  # float [256], summing to 1


class Weights(NamedTuple):
    """All that is known of one format's files."""

    format: str
    fields: dict[str, Values]
    contents: dict[str, Content]

    def content(self, name: str) -> Content:
        """The content of that family, or of all free bytes together."""
        return self.contents.get(name) or self.contents[""]

    def to_json(self, provenance: dict[str, Any]) -> str:
        """The table as JSON, one family a line."""
        rows = [
            f"{json.dumps(name)}: {json.dumps([f.size, [*zip(f.values, f.counts, strict=True)]])}"
            for name, f in sorted(self.fields.items())
        ]
        free = [
            f"{json.dumps(name)}: {json.dumps([round(c.zeros, 4), round(c.text, 4), c.bytes.round(5).tolist()])}"
            for name, c in sorted(self.contents.items())
        ]
        return (
            '{"format": ' + json.dumps(self.format) + ', "provenance": ' + json.dumps(provenance)
            + ',\n"fields": {\n' + ",\n".join(rows) + '\n},\n"contents": {\n' + ",\n".join(free) + "\n}}\n"
        )  # fmt: skip


_PLAIN = Content(0.3, 0.2, np.full(256, 1 / 256))


@lru_cache(maxsize=16)
def load_weights(format: str) -> Weights:
    """The packaged weights of a format; for one without, plain weights that know no field."""
    file = resources.files(__package__).joinpath(f"{format}.json")
    if not file.is_file():
        return Weights(format, {}, {"": _PLAIN})
    raw = json.loads(file.read_text())
    fields = {
        name: Values(size, tuple(v for v, _ in pairs), tuple(n for _, n in pairs))
        for name, (size, pairs) in raw["fields"].items()
    }
    contents = {
        name: Content(zeros, text, _normed(np.array(freq)))
        for name, (zeros, text, freq) in raw["contents"].items()
    }
    return Weights(raw["format"], fields, contents)


def _normed(frequencies: np.ndarray) -> np.ndarray:
    frequencies = frequencies + 1e-6
    return frequencies / frequencies.sum()
