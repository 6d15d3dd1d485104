"""One real file against the rules and the judges, and the account of many.

A file is held to `parse`; where the judges of `load` accept it, to `load`; and to `code`, which real files
need not pass (data in code, jumps over a prefix). A rule that refuses a file its judges accept is a fault of
the rule; a file that the rules take and a judge refuses is one too.

A PE file that imports DLLs which come along with it (python311.dll) loads only beside them. So it is held to `load` a
second time, whatever it imports: `ANY_IMPORTS`, where a DLL that Wine has not is no complaint.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from bytegen import formats
from bytegen.formats.api import replay_whole
from bytegen.formats.oracles import panel
from bytegen.train.corpus.scan.collect import Found

_IN_FLIGHT_BYTES = 512 << 20
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")
_E_TYPE = slice(16, 18)
_LOADABLE = (2, 3)  # ET_EXEC, ET_DYN
ANY_IMPORTS = "any imports"
_NO_DLL = ("no DLL ", "0xc0000135")  # in what the judge Wine says; the second is STATUS_DLL_NOT_FOUND
# Whose complaints count at a level: those of its judges, and of the levels below.
_JUDGED_BY = {
    "parse": ("parse",),
    "load": ("parse", "load"),
    ANY_IMPORTS: ("parse", ANY_IMPORTS),
    "code": ("parse", "load", "code"),
}


@dataclass
class Row:
    """What was found about one file.

    ``format`` is None for what is in no format of ours, ``what`` describes it. ``refused`` maps a level to
    the first refusal there (offset, field, rule), ``rules`` to that without its numbers, ``judged`` to the
    complaints of that level's own judges, ``seconds`` to the time that the replay took; a level that was not
    tried is in none.
    """

    path: str
    size: int
    format: str | None
    what: str
    refused: dict[str, str | None] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    judged: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """The row in plain JSON types."""
        return asdict(self)


def measure(found: Found, *, judge: bool = True, levels: tuple[str, ...] = ("parse", "load", "code")) -> Row:
    """Replays one file at each level, the limit being its own length, and asks the judges at hand."""
    from bytegen.formats.identify import describe, detect

    data = found.data
    name = detect(data)
    known = name in formats.available() and not _is_object(data)
    row = Row(found.path, len(data), name if known else None, describe(data))
    if row.format is None:
        return row
    with tempfile.TemporaryDirectory(prefix="bytegen-scan-") as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        path.chmod(0o700)
        for level in levels:
            if level not in formats.levels(row.format):
                continue
            if judge and level in ("parse", "load"):
                row.judged[level] = [
                    f"{one.name}: {line}"
                    for one in panel.judges(row.format, level)
                    if one.level == level and one.absent is None
                    for line in one.ask(path)
                ]
            _replay(row, data, level)
            if level == "load" and row.format.startswith("pe"):
                _whatever_it_imports(row, data)
    return row


def _whatever_it_imports(row: Row, data: bytes) -> None:
    """Holds a PE file to `load` whatever it imports, after it was held to `load`."""
    if "load" in row.judged:
        row.judged[ANY_IMPORTS] = [
            line for line in row.judged["load"] if not any(words in line for words in _NO_DLL)
        ]
    if row.refused["load"] is None:
        row.refused[ANY_IMPORTS] = None
    else:
        _replay(row, data, "load", ANY_IMPORTS)


def _is_object(data: bytes) -> bool:
    """Whether it is an ELF file that no loader takes: an object file or a core dump."""
    return data.startswith(b"\x7fELF") and int.from_bytes(data[_E_TYPE], "little") not in _LOADABLE


def _replay(row: Row, data: bytes, level: str, name: str = "") -> None:
    """Replays a file at a level and enters what came of it under ``name``, by default that of the level."""
    assert row.format is not None
    imports: Literal["known", "any"] = "any" if name == ANY_IMPORTS else "known"
    name = name or level
    least = formats.least_bytes(row.format, level)
    if len(data) < least:
        row.refused[name] = f"the file ends at byte {len(data)}; the least file has {least}"
        row.rules[name] = "shorter than the least file"
        return
    start = time.perf_counter()
    try:
        _, refusal = replay_whole(data, row.format, level, imports)
    except Exception as error:  # a fault of the engine is a finding; the other files go on
        row.refused[name] = f"{type(error).__name__}: {error}"
        row.rules[name] = f"the engine fails: {type(error).__name__}"
        return
    finally:
        row.seconds[name] = time.perf_counter() - start
    row.refused[name] = None if refusal is None else str(refusal)
    if refusal is not None:
        row.rules[name] = _family(refusal.field, refusal.rule)


def _family(path: str, rule: str) -> str:
    """A refusal without its numbers, so that like ones are counted together."""
    return _NUMBER.sub("#", f"{path}: {rule}")


def measure_all(
    files: Iterable[Found],
    jobs: int,
    *,
    judge: bool = True,
    most: int | None = None,
    seconds: float | None = None,
) -> Iterator[Row]:
    """The rows of many files, in their order; at most 512 MiB of them wait at a time.

    At most `most` files; none is begun once `seconds` have gone by.

    A file whose replay or judges kill their process gets a row that says so.
    """
    waiting: list[tuple[Future[Row], Found]] = []
    size = 0
    begun = time.monotonic()
    executor = ProcessPoolExecutor(jobs)

    def first() -> Row:
        nonlocal executor, size
        done, found = waiting.pop(0)
        size -= len(found.data)
        try:
            return done.result()
        except BrokenProcessPool:
            executor = ProcessPoolExecutor(jobs)
            again = [(executor.submit(task, other), other) for _, other in waiting]
            waiting[:] = again
            return _alone(found, judge)

    task = partial(measure, judge=judge)
    try:
        for number, found in enumerate(files):
            if most is not None and number >= most:
                break
            if seconds is not None and time.monotonic() - begun >= seconds:
                break
            while waiting and (size + len(found.data) > _IN_FLIGHT_BYTES or len(waiting) >= 8 * jobs):
                yield first()
            try:
                waiting.append((executor.submit(task, found), found))
            except BrokenProcessPool:
                dead: Future[Row] = Future()
                dead.set_exception(BrokenProcessPool())
                waiting.append((dead, found))
            size += len(found.data)
        while waiting:
            yield first()
    finally:
        executor.shutdown(cancel_futures=True)


def _alone(found: Found, judge: bool) -> Row:
    """The row of a file in a process of its own."""
    with ProcessPoolExecutor(1) as executor:
        try:
            return executor.submit(measure, found, judge=judge).result()
        except BrokenProcessPool:
            return Row(found.path, len(found.data), None, "a file that kills the process that examines it")


@dataclass
class Account:
    """The totals of one format."""

    files: int = 0
    bytes: int = 0
    replays: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)  # by every judge up to that level
    replays_accepted: Counter[str] = field(default_factory=Counter)  # of those, by the rules too
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    rules: dict[tuple[str, bool, str], list[str]] = field(default_factory=dict)
    words: dict[tuple[str, bool, str], str] = field(default_factory=dict)  # of a judge that refuses too
    unsound: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count one row."""
        self.files += 1
        self.bytes += row.size
        for level, refusal in row.refused.items():
            words = [line for one in _JUDGED_BY.get(level, ()) for line in row.judged.get(one, [])]
            fine = not words
            self.seconds[level] += row.seconds.get(level, 0.0)
            self.tried[level] += 1
            self.replays[level] += refusal is None
            self.accepted[level] += fine
            self.replays_accepted[level] += fine and refusal is None
            if refusal is not None:
                key = (level, fine, row.rules[level])
                self.rules.setdefault(key, []).append(row.path)
                if words:
                    self.words.setdefault(key, words[0])
            elif row.judged.get(level):
                self.unsound.append(f"{row.path}: {level}: {row.judged[level][0]}")


def account(rows: Iterable[Row]) -> tuple[dict[str, Account], Counter[str]]:
    """The totals a format, and what else there was, by description."""
    accounts: dict[str, Account] = {}
    others: Counter[str] = Counter()
    for row in rows:
        if row.format is None:
            others[row.what] += 1
        else:
            accounts.setdefault(row.format, Account()).add(row)
    return accounts, others
