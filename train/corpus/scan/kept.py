"""The rows of a scan, kept in a file as they come, so that hours of it survive an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO

from bytegen.errors import UserError
from bytegen.files import read_file, write_atomically
from bytegen.train.corpus.scan.collect import Found
from bytegen.train.corpus.scan.measure import Row


class KeptRows:
    """Rows in their order, and in `path` (if any) a line of JSON each, written when it is added.

    With `resume` the rows that `path` holds come first; a last line that was cut short is dropped. Raises
    UserError when `path` cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path | None, *, resume: bool = False) -> None:
        self.rows = _read(path) if path is not None and resume and path.exists() else []
        self._path = path
        self._done = {(row.path, row.size) for row in self.rows}
        self._file: IO[str] | None = None

    def __enter__(self) -> KeptRows:
        if self._path is not None:
            write_atomically(self._path, "".join(map(_line, self.rows)).encode())
            self._file = open(self._path, "a")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def holds(self, found: Found) -> bool:
        """Whether a row of that path and size is there already."""
        return (found.path, len(found.data)) in self._done

    def add(self, row: Row) -> None:
        """One row more, on disk when this returns."""
        self.rows.append(row)
        if self._file is not None:
            self._file.write(_line(row))
            self._file.flush()


def _line(row: Row) -> str:
    return json.dumps(row.as_dict()) + "\n"


def _read(path: Path) -> list[Row]:
    lines = read_file(path).decode(errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(Row(**json.loads(line)))
        except (ValueError, TypeError):
            raise UserError(
                f"{path}: line {number} is no row of a scan; take another file or leave out --resume"
            ) from None
    return rows
