"""Tensors on disk as safetensors, in one file or in shards, read and written one at a time.

The layout is Hugging Face's: `model.safetensors`, or `model-00001-of-00003.safetensors` and so on with
`model.safetensors.index.json`, whose `weight_map` says which tensor is in which file. Multi-token prediction heads are
in a file of their own beside either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bytegen.errors import UserError
from bytegen.folders import HEADS, INDEX, SINGLE

MAX_SHARD_BYTES = 2_000_000_000

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Dtypes of weights, by their names in safetensors' headers."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is made when it is asked for: its shape and dtype are known before."""

    shape: Shape
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes that its values take."""
        return math.prod(self.shape) * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: Tensor, dtype: torch.dtype | None = None) -> LazyTensor:
        """Wrap a tensor that is there, to be cast to `dtype`."""
        dtype = dtype or tensor.dtype
        return cls(tuple(tensor.shape), dtype, lambda: tensor.detach().to(device="cpu", dtype=dtype))


class Shards:
    """The tensors of a folder: `shapes` and `dtypes` by name, values on demand.

    Only headers are read at first, and one file is open at a time. Raises UserError when files are missing (names
    each), cannot be read, hold one tensor twice, or do not hold what the index says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, Shape] = {}
        self.file_of: dict[str, str] = {}
        self._dtype_names: dict[str, str] = {}
        self._open: tuple[str, Any] | None = None
        promised = self._weight_map()
        files = [SINGLE] if promised is None else sorted(set(promised.values()))
        missing = [name for name in files if not (folder / name).is_file()]
        files += [HEADS] if (folder / HEADS).is_file() else []
        if missing:
            raise UserError(f"{folder} lacks {len(missing)} of {len(files)} shards: {', '.join(missing)}")
        for file in files:
            self._read_header(file)
        if promised is not None:
            wrong = [name for name, file in promised.items() if self.file_of.get(name) != file]
            if wrong:
                raise UserError(
                    f"{folder / INDEX} names tensors that are not in their shards: {', '.join(wrong)}"
                )

    @property
    def where(self) -> str:
        """The file or folder to name in a message."""
        return str(self.folder / SINGLE if set(self.file_of.values()) <= {SINGLE} else self.folder)

    def _weight_map(self) -> dict[str, str] | None:
        """Return which file has which tensor by the index; None where one file has all."""
        single, index = self.folder / SINGLE, self.folder / INDEX
        if single.exists():
            return None
        if not index.exists():
            pickled = sorted(p.name for p in self.folder.glob("*.bin")) + sorted(
                p.name for p in self.folder.glob("*.pt*")
            )
            if pickled:
                raise UserError(
                    f"{self.folder} holds pickled weights ({pickled[0]}), which can run code when they are read; only"
                    " safetensors are: save them anew with transformers' save_pretrained"
                )
            raise UserError(f"{single} is missing, and so is {INDEX}; weights are one of the two")
        try:
            weight_map = json.loads(index.read_text())["weight_map"]
            named = {str(name): str(file) for name, file in weight_map.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index} is no index of shards ({type(error).__name__}: {error})") from None
        outside = sorted({file for file in named.values() if Path(file).name != file or not file})
        if outside:
            raise UserError(f"{index} names {outside[0]!r}; shards lie beside the index")
        return named

    def _read_header(self, file: str) -> None:
        with self._errors(file):
            handle = safe_open(str(self.folder / file), framework="pt")
            with handle:
                for name in handle.keys():  # noqa: SIM118  (a handle is no mapping)
                    if name in self.file_of:
                        raise UserError(f"{name} is in {self.file_of[name]} and in {file} of {self.folder}")
                    part = handle.get_slice(name)
                    self.file_of[name] = file
                    self.shapes[name] = tuple(part.get_shape())
                    self._dtype_names[name] = part.get_dtype()

    @contextmanager
    def _errors(self, file: str) -> Iterator[None]:
        path = self.folder / file
        try:
            yield
        except FileNotFoundError:
            raise UserError(f"{path} is missing") from None
        except (SafetensorError, OSError) as error:
            if "os error 12" in str(error):
                raise MemoryError(str(error)) from None
            raise UserError(f"{path} cannot be read as safetensors ({error}); it may be truncated") from None

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor; UserError when weights cannot be of it."""
        found = self._dtype_names[name]
        if found not in DTYPES:
            raise UserError(
                f"{name} in {self.folder} is of {found}; weights of {', '.join(DTYPES)} are read, quantized ones not"
            )
        return DTYPES[found]

    def _handle(self, file: str) -> Any:
        if self._open is None or self._open[0] != file:
            self._open = (file, safe_open(str(self.folder / file), framework="pt"))
        return self._open[1]

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        with self._errors(self.file_of[name]):
            return self._handle(self.file_of[name]).get_tensor(name)

    def read_rows(self, name: str, rows: Sequence[int]) -> Tensor:
        """Read the rows `rows` of a matrix [N, D], without the others: [len(rows), D]."""
        with self._errors(self.file_of[name]):
            part = self._handle(self.file_of[name]).get_slice(name)
            return torch.cat([part[row : row + 1] for row in rows])

    def lazy(self, name: str, dtype: torch.dtype | None = None) -> LazyTensor:
        """Return a tensor to be read later, cast to `dtype`."""
        kept = self.dtype(name)
        return LazyTensor(
            self.shapes[name], dtype or kept, lambda: cast(self.read(name), dtype or kept, name)
        )


def cast(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Return `tensor` in `dtype`; UserError where that makes finite values infinite."""
    out = tensor.to(dtype)
    narrower = torch.finfo(dtype).max < torch.finfo(tensor.dtype).max
    if narrower and not bool((out.isfinite() | ~tensor.isfinite()).all()):
        raise UserError(
            f"{name} has values past the range of {dtype}; use bfloat16 or float32".replace("torch.", "")
        )
    return out


def peak_bytes(tensors: Mapping[str, LazyTensor], max_shard_bytes: int) -> int:
    """Return about what `write_shards` needs of memory: the longest file, and the largest tensor in another dtype."""
    largest = max(lazy.nbytes for lazy in tensors.values())
    total = sum(lazy.nbytes for lazy in tensors.values())
    return largest + min(total, max(largest, max_shard_bytes))


def write_shards(
    folder: Path, tensors: Mapping[str, LazyTensor], *, max_shard_bytes: int = MAX_SHARD_BYTES,
    on_tensor: Callable[[int], None] | None = None,
) -> list[str]:  # fmt: skip
    """Write `tensors` under `folder` in files of at most `max_shard_bytes` (one tensor may be more); return the files.

    The tensors of one file are alive at a time; `on_tensor` hears of the bytes of each. Files carry the mark that
    transformers asks for. A file that cannot be written raises OSError or SafetensorError (see `bytegen.limits`).
    """
    from huggingface_hub.serialization import split_state_dict_into_shards_factory

    split = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda lazy: lazy.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )

    def read(name: str) -> Tensor:
        tensor = tensors[name].read().contiguous()
        if on_tensor is not None:
            on_tensor(tensor.nbytes)
        return tensor

    for file, names in split.filename_to_tensors.items():
        save_file({name: read(name) for name in names}, str(folder / file), metadata={"format": "pt"})
    files = list(split.filename_to_tensors)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        files.append(INDEX)
    return files


def check_shapes(found: Mapping[str, Shape], wanted: Mapping[str, Shape], where: str) -> None:
    """Raise UserError naming every tensor that is missing, extra or misshapen."""
    problems = [f"missing {n}" for n in wanted if n not in found]
    problems += [f"unknown {n}" for n in found if n not in wanted]
    problems += [
        f"{n} is {list(found[n])}, not {list(shape)}"
        for n, shape in wanted.items()
        if n in found and tuple(found[n]) != tuple(shape)
    ]
    if problems:
        raise UserError(f"{where} does not fit its config: " + "; ".join(problems))
