"""Weights on disk: a folder with `config.json` and `model.safetensors`, or shards of it. No pickle is ever read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bytegen.config import ModelConfig
from bytegen.decoding.drafts import NGrams
from bytegen.errors import UserError
from bytegen.files import usual_mode
from bytegen.folders import DRAFTS, HEADS, INDEX, MTP, SINGLE, model_folder, read_config
from bytegen.folders import PACKAGED as PACKAGED
from bytegen.folders import packaged_models as packaged_models
from bytegen.limits import check_disk, check_memory, disk_errors, gigabytes, memory_errors
from bytegen.model import ByteLM
from bytegen.planning.refusal import device_memory
from bytegen.precision import check_precision
from bytegen.quantised import is_quantised, reduce_precision
from bytegen.shards import MAX_SHARD_BYTES, LazyTensor, Shards, check_shapes, write_shards


def _settle(scratch: Path) -> None:
    """See that every file of `scratch` is on the disk, with the usual permissions."""
    for path in scratch.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        path.chmod(usual_mode())
    scratch.chmod(usual_mode(executable=True))


@contextmanager
def folder_in_place(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target` and move it into place when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch
        _settle(scratch)
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` as safetensors, contiguous and on the CPU."""
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, str(path))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; UserError says what is wrong with it."""
    try:
        return load_file(str(path))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; a model is a folder with model.safetensors and config.json"
        ) from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); it may be truncated") from None


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `target` when all went well; UserError where something is there already."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target} is there already; name a folder that is not, or empty it")
    with disk_errors(target), folder_in_place(target) as scratch:
        yield scratch


@contextmanager
def files_in_place(target: Path) -> Iterator[Path]:
    """Give a temporary folder whose files are moved into `target` when all went well; others there stay.

    Weights that `target` has and the temporary folder has not go: they would belong to another model.
    """
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; a model is a folder")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield scratch
            _settle(scratch)
            target.mkdir(exist_ok=True)
            new = {path.name for path in scratch.iterdir()}
            for name in sorted(new):
                os.replace(scratch / name, target / name)
            for old in (
                target / SINGLE,
                target / INDEX,
                target / DRAFTS,
                target / HEADS,
                *target.glob("model-*-of-*.safetensors"),
            ):
                if old.name not in new:
                    old.unlink(missing_ok=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def write_model(
    lm: ByteLM, folder: Path, *, dtype: torch.dtype | None = None, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write weights, in shards of at most `max_shard_bytes`, config, and the table of drafts if any into `folder`.

    Multi-token prediction heads go into a file of their own. UserError where weights are int8: that is for generating,
    and the weights they came from are what is worth keeping.
    """
    if is_quantised(lm):
        raise UserError("a model in int8 cannot be saved; save it as it was loaded, with precision 'fp32'")
    tensors = {name: LazyTensor.of(t, dtype) for name, t in lm.state_dict().items()}
    check_disk(sum(lazy.nbytes for lazy in tensors.values()), folder)
    heads = {name: tensors.pop(name) for name in list(tensors) if name.startswith(MTP)}
    write_shards(folder, tensors, max_shard_bytes=max_shard_bytes)
    if heads:
        write_tensors(folder / HEADS, {name: lazy.read() for name, lazy in heads.items()})
    (folder / "config.json").write_text(lm.config.to_json())
    if lm.draft_table is not None:
        lm.draft_table.save(folder / DRAFTS)


def save_model(
    lm: ByteLM,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write weights and config to `folder`, replacing it as a whole."""
    with disk_errors(Path(folder)), folder_in_place(Path(folder)) as scratch:
        write_model(lm, scratch, dtype=dtype, max_shard_bytes=max_shard_bytes)


def check_tensors(found: dict[str, Tensor], wanted: dict[str, Tensor], where: str) -> None:
    """Raise UserError naming every tensor that is missing, extra or misshapen."""
    check_shapes(
        {n: tuple(t.shape) for n, t in found.items()}, {n: tuple(t.shape) for n, t in wanted.items()}, where
    )


@contextmanager
def _undrawn() -> Iterator[None]:
    """Draw no weights: those without storage have none, and torch would import its compiler for them, for a second."""
    kept = torch.nn.init.normal_
    torch.nn.init.normal_ = lambda tensor, *_, **__: tensor
    try:
        yield
    finally:
        torch.nn.init.normal_ = kept


def empty_model(config: ModelConfig) -> ByteLM:
    """Return a model without storage (on the meta device): names and shapes. UserError when its sizes overflow."""
    try:
        with torch.device("meta"), _undrawn():
            return ByteLM(config)
    except RuntimeError as error:
        raise UserError(f"no model has the sizes of this config: {str(error).splitlines()[0]}") from None


def shapes_of(lm: ByteLM) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors by name."""
    return {name: tuple(t.shape) for name, t in lm.state_dict().items()}


def memory_advice(config: ModelConfig, device: str | torch.device = "cpu") -> str:
    """Say what a model's weights take, as `bytegen plan` does, and what memory the device has."""
    n, there = config.n_params(), device_memory(str(device))
    has = "" if there is None else f"; {device} has {gigabytes(there)}"
    return (
        f"{n / 1e6:,.1f}M parameters are {gigabytes(4 * n)} in float32 and {gigabytes(2 * n)} in bfloat16,"
        f" caches and activations apart{has}"
    )


@torch.no_grad()
def read_weights(lm: ByteLM, folder: Path, *, new_heads: bool = False) -> None:
    """Fill `lm` from the weights of `folder`, one tensor at a time, in its own dtype.

    With `new_heads`, multi-token prediction heads that the folder lacks stay as they are. UserError names each tensor
    that is missing, extra or misshapen.
    """
    shards = Shards(folder)
    wanted = shapes_of(lm)
    if new_heads:
        wanted = {name: s for name, s in wanted.items() if name in shards.shapes or not name.startswith(MTP)}
    check_shapes(shards.shapes, wanted, shards.where)
    for key in shards.shapes:
        shards.dtype(key)  # says so where it is quantized
    for key, tensor in lm.state_dict().items():
        if key in wanted:
            tensor.copy_(shards.read(key))


def load(
    name: str | Path | None = None, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32,
    precision: str = "fp32",
) -> ByteLM:  # fmt: skip
    """Load the packaged model, another packaged one by name, or a folder of safetensors, sharded or not.

    Weights are held in `dtype`, whatever they are stored in, and read one tensor at a time. `precision` is "fp32", for
    what they are, or "bf16" or "int8" to generate with less (`bytegen.precision`), which `dtype` float32 is for. Raises
    UserError when there is no such model or precision, its files are damaged (names each missing, extra or misshapen
    tensor), or it does not fit into memory. A table of drafts beside the weights comes along.
    """
    check_precision(precision)
    if precision != "fp32" and dtype != torch.float32:
        raise UserError(f"precision {precision!r} makes its own choice of dtypes; leave dtype={dtype} out")
    folder = model_folder(name)
    config = read_config(folder)
    advice = memory_advice(config, device)
    with memory_errors(f"loading {folder}", advice):
        lm = empty_model(config).to(dtype)
        check_memory(config.n_params() * dtype.itemsize, f"loading {folder}", advice)
        lm = lm.to_empty(device="cpu")
        read_weights(lm, folder)
        lm.refresh_buffers()
        if (folder / DRAFTS).exists():
            lm.draft_table = NGrams.load(folder / DRAFTS)
        reduce_precision(lm, precision, device=device)
        return lm.to(device).eval()
