"""Learns the weights of a format from real files.

python -m bytegen.formats.weights.learn --format elf64-x86_64 -o formats/weights FOLDER...
"""

from __future__ import annotations

import argparse
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bytegen.formats.api import replay
from bytegen.formats.core.constraint import Constraint
from bytegen.formats.registry import constraint, levels
from bytegen.formats.weights.table import Content, Values, Weights, family

MOST_VALUES = 24  # kept of a field
LEAST_FILES = 2  # a value met in fewer files is left out
MOST_BYTES = 4 << 20
_RUN = 8  # zeros in a row that count as a zero run
_TEXT_RUN = 6
_PRINTABLE = np.zeros(256, dtype=bool)
_PRINTABLE[32:127] = True
_PRINTABLE[[0, 9, 10]] = True


def files(folders: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    """The regular files below some folders that are not too large."""
    for folder in folders:
        for root, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                path = Path(root) / name
                if path.is_file() and not path.is_symlink() and path.stat().st_size <= MOST_BYTES:
                    yield path, path.read_bytes()


def replayed(format: str, data: bytes) -> Constraint | None:
    """The constraint driven along a file, at `load` or below; None when it refuses it."""
    for level in [name for name in levels(format) if name != "code"][::-1]:
        c = constraint(format, max_bytes=max(len(data), 4096), level=level)
        if replay(c, data) is None:
            return c
    return None


def learn(format: str, samples: Iterable[bytes]) -> tuple[Weights, int]:
    """Weights from files of the format; and from how many, those that do not replay left out."""
    met: dict[str, Counter[int]] = defaultdict(Counter)
    sizes: dict[str, int] = {}
    pools: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(258))  # bytes, then zero runs, text runs
    count = 0
    for data in samples:
        c = replayed(format, data)
        if c is None:
            continue
        count += 1
        here: dict[str, Counter[int]] = defaultdict(Counter)
        for field in c.fields():
            name = family(field.path)
            if field.value is None:
                pools[name] += _content(data[field.start : field.end])
            else:
                sizes[name] = field.end - field.start
                here[name][field.value] += 1
        for name, values in here.items():
            # Every file weighs the same, however many entries its tables have.
            total = sum(values.values())
            for value, n in values.most_common(4 * MOST_VALUES):
                met[name][value] += max(1, round(1000 * n / total))
    fields = {
        name: Values(sizes[name], *_kept(values)) for name, values in met.items() if _worth(values, count)
    }
    pools[""] = sum(pools.values(), np.zeros(258))
    contents = {name: _shares(pool) for name, pool in pools.items() if pool[:256].sum() > 4096 or not name}
    return Weights(format, fields, contents), count


def _kept(values: Counter[int]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    best = values.most_common(MOST_VALUES)
    return tuple(value for value, _ in best), tuple(float(n) for _, n in best)


def _worth(values: Counter[int], files: int) -> bool:
    """Whether a few values make up a good part of what was met: a size or an address has no common value."""
    total = sum(values.values())
    return sum(n for _, n in values.most_common(MOST_VALUES)) >= 0.3 * total and files >= LEAST_FILES


def _content(part: bytes) -> np.ndarray:
    raw = np.frombuffer(part, np.uint8)
    out = np.zeros(258)
    zeros, text = _in_runs(raw == 0, _RUN), _in_runs(_PRINTABLE[raw], _TEXT_RUN)
    text &= ~zeros
    out[:256] = np.bincount(raw[~zeros & ~text], minlength=256)
    out[256], out[257] = zeros.sum(), text.sum()
    return out


def _in_runs(flags: np.ndarray, least: int) -> np.ndarray:
    """Which entries lie in a run of at least ``least`` True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= least
    marks = np.zeros(len(flags) + 1, dtype=np.int64)
    np.add.at(marks, starts[long], 1)
    np.add.at(marks, ends[long], -1)
    return np.cumsum(marks)[:-1] > 0


def _shares(pool: np.ndarray) -> Content:
    total = max(float(pool.sum()), 1.0)
    rest = pool[:256] + 1e-3
    return Content(float(pool[256] / total), float(pool[257] / total), rest / rest.sum())


def main() -> None:
    """Learn and write the table; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--format", required=True)
    parser.add_argument("--most", type=int, default=200, help="files")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for FORMAT.json")
    args = parser.parse_args()
    from bytegen.formats.identify import detect

    def samples() -> Iterator[bytes]:
        taken = 0
        for _, data in files(args.folders):
            if detect(data) == args.format and taken < args.most:
                taken += 1
                yield data

    weights, count = learn(args.format, samples())
    provenance = {
        "learnt from": f"{count} executables and libraries of Debian packages, wheels and compilers"
    }
    (args.out / f"{args.format}.json").write_text(weights.to_json(provenance))
    print(
        f"{args.format}: {count} files, {len(weights.fields)} fields, {len(weights.contents)} kinds of content"
    )


if __name__ == "__main__":
    main()
