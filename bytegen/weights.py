"""Weights on disk: a folder with `model.safetensors` and `config.json`. No pickle is ever read."""

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
from bytegen.model import ByteLM

PACKAGED = Path(__file__).parent / "packaged"
DEFAULT = "first-flight"
DRAFTS = "drafts.safetensors"
"""Beside the weights, where there is one: a table of guesses (see `decoding.drafts`)."""


@contextmanager
def folder_in_place(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target` and move it into place when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield scratch
        for path in scratch.iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            path.chmod(usual_mode())
        scratch.chmod(usual_mode(executable=True))
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


def save_model(lm: ByteLM, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write weights and config to `folder`, replacing it as a whole."""
    with folder_in_place(Path(folder)) as scratch:
        write_tensors(
            scratch / "model.safetensors", {n: t.to(dtype or t.dtype) for n, t in lm.state_dict().items()}
        )
        (scratch / "config.json").write_text(lm.config.to_json())


def check_tensors(found: dict[str, Tensor], wanted: dict[str, Tensor], where: str) -> None:
    """Raise UserError naming every tensor that is missing, extra or misshapen."""
    problems = [f"missing {n}" for n in wanted if n not in found]
    problems += [f"unknown {n}" for n in found if n not in wanted]
    problems += [
        f"{n} is {list(found[n].shape)}, not {list(t.shape)}"
        for n, t in wanted.items()
        if n in found and found[n].shape != t.shape
    ]
    if problems:
        raise UserError(f"{where} does not fit its config: " + "; ".join(problems))


def packaged_models() -> list[str]:
    """Return the names of the models in the package."""
    return sorted(p.name for p in PACKAGED.glob("*") if (p / "config.json").exists())


def load(name: str | Path | None = None, *, device: str | torch.device = "cpu") -> ByteLM:
    """Load the packaged model, another packaged one by name, or a folder of safetensors.

    Weights are held in float32; a table of drafts beside them comes along. Raises UserError when there is no such
    model, or its files are damaged.
    """
    folder = PACKAGED / str(name or DEFAULT)
    if not (folder / "config.json").exists():
        folder = Path(name or DEFAULT)
    try:
        text = (folder / "config.json").read_text()
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"no model {str(name or DEFAULT)!r}: neither a packaged one ({', '.join(packaged_models()) or 'none here'})"
            " nor a folder with config.json and model.safetensors"
        ) from None
    config = ModelConfig.from_json(text, where=str(folder / "config.json"))
    tensors = read_tensors(folder / "model.safetensors")
    with torch.device("meta"):
        lm = ByteLM(config)
    check_tensors(tensors, dict(lm.state_dict()), str(folder / "model.safetensors"))
    lm = lm.to_empty(device="cpu")
    lm.load_state_dict(tensors)
    lm.refresh_buffers()
    if (folder / DRAFTS).exists():
        lm.draft_table = NGrams.load(folder / DRAFTS)
    return lm.to(device).eval()
