"""Corpora on disk: Parquet shards that `datasets` reads too, and a manifest."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytegen.errors import UserError

if TYPE_CHECKING:
    import pyarrow

MANIFEST = "manifest.json"
SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class Example:
    """One run: standard input, and what is expected of it (`slept_ns` None: not compared)."""

    stdin: bytes
    stdout: bytes
    exit_code: int
    slept_ns: int | None


@dataclass(frozen=True)
class Provenance:
    """How the file came to be: enough to make it again."""

    generator: str
    compiler: str
    flags: str
    source_sha256: str


@dataclass(frozen=True)
class Sample:
    """A row: the prompt, the executable, and what it is known to do."""

    prompt: str
    data: bytes
    format: str
    kind: str
    program: str
    params: tuple[str, ...]
    split: str
    examples: tuple[Example, ...]
    provenance: Provenance
    licence: str


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("corpora need the package pyarrow: pip install 'bytegen[train]'") from None
    return pyarrow


def schema() -> "pyarrow.Schema":
    """The columns of a shard, in the order of Sample's fields."""
    pa = _arrow()
    example = pa.struct(
        [
            ("stdin", pa.binary()),
            ("stdout", pa.binary()),
            ("exit_code", pa.int32()),
            ("slept_ns", pa.int64()),
        ]
    )
    provenance = pa.struct(
        [(name, pa.string()) for name in ("generator", "compiler", "flags", "source_sha256")]
    )
    return pa.schema(
        [
            ("prompt", pa.string()),
            ("data", pa.binary()),
            ("format", pa.string()),
            ("kind", pa.string()),
            ("program", pa.string()),
            ("params", pa.list_(pa.string())),
            ("split", pa.string()),
            ("examples", pa.list_(example)),
            ("provenance", provenance),
            ("licence", pa.string()),
        ]
    )


def shard_name(split: str, number: int) -> str:
    """File name of shard `number` of `split`."""
    return f"{split}-{number:05}.parquet"


def _row(sample: Sample) -> dict[str, Any]:
    examples = [vars(example) for example in sample.examples]
    return {**vars(sample), "examples": examples, "provenance": vars(sample.provenance)}


def write_shard(path: Path, samples: Sequence[Sample]) -> None:
    """Writes `samples` as Parquet (zstd) under a temporary name, then moves them into place."""
    pa = _arrow()
    columns = schema()
    table = pa.Table.from_pylist([_row(sample) for sample in samples], schema=columns)
    temporary = path.with_name(f".{path.name}.part")
    try:
        pa.parquet.write_table(table, temporary, compression="zstd")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def shard_paths(folder: Path | str, split: str | None = None) -> list[Path]:
    """The shards of `split` (None: of all splits) in `folder`, in order. UserError when there are none."""
    root = Path(folder)
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}; there are: {', '.join(SPLITS)}")
    paths = [
        path for name in SPLITS if split in (None, name) for path in sorted(root.glob(f"{name}-*.parquet"))
    ]
    if not paths:
        wanted = f"{split}-*.parquet" if split else "*.parquet"
        raise UserError(f"{root}: no corpus here (no {wanted}); `bytegen corpus build {root}` makes one")
    return paths


def _open(path: Path) -> "pyarrow.parquet.ParquetFile":
    pa = _arrow()
    try:
        return pa.parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


def read_table(
    folder: Path | str, split: str | None = None, columns: Sequence[str] | None = None
) -> "pyarrow.Table":
    """All rows of `split` in one table: all columns or those named. UserError on an unreadable shard."""
    names = list(columns) if columns else None
    tables = [_open(path).read(columns=names) for path in shard_paths(folder, split)]
    return _arrow().concat_tables(tables)


def read_samples(folder: Path | str, split: str | None = None) -> Iterator[Sample]:
    """The samples of `split`, shard by shard, in the order they were written."""
    for path in shard_paths(folder, split):
        for batch in _open(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                row["params"] = tuple(row["params"])
                row["examples"] = tuple(Example(**example) for example in row["examples"])
                row["provenance"] = Provenance(**row["provenance"])
                yield Sample(**row)


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """The manifest of the corpus in `folder`. Raises UserError when it is missing or unreadable."""
    path = Path(folder) / MANIFEST
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; is {folder} a corpus?") from None
    except ValueError as error:
        raise UserError(f"{path}: not a manifest: {error}") from None
