"""Checkpoints of a run: folders `step-NNNNNNNN`, written whole or not at all, safetensors and JSON only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bytegen.errors import UserError
from bytegen.model import ByteLM
from bytegen.weights import check_tensors, folder_in_place, read_tensors, write_tensors

_STATE = "state.json"


def _named_state(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Return the optimisers' tensors under the names of the parameters they belong to."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(p)]}/{key}": value
        for optimizer in optimizers
        for p, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def save(
    out: Path, model: ByteLM, optimizers: list[torch.optim.Optimizer], state: dict[str, Any], *, keep: int
) -> Path:
    """Write one checkpoint under `out` and remove all but the newest `keep`; return its folder."""
    target = out / f"step-{state['step']:08d}"
    with folder_in_place(target) as scratch:
        write_tensors(scratch / "model.safetensors", dict(model.state_dict()))
        write_tensors(scratch / "optimizer.safetensors", _named_state(model, optimizers))
        (scratch / "config.json").write_text(model.config.to_json())
        (scratch / _STATE).write_text(json.dumps(state))
    for old in sorted(out.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return target


def newest(out: Path) -> Path | None:
    """Return the newest whole checkpoint under `out`, if any; scraps of a killed write are cleared away."""
    for scrap in out.glob(".step-*"):
        shutil.rmtree(scrap, ignore_errors=True)
    found = sorted(p for p in out.glob("step-*") if (p / _STATE).exists())
    return found[-1] if found else None


def load(folder: Path, model: ByteLM, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Put a checkpoint's weights and optimiser state in place; return its state (step, cursor, ...)."""
    weights = read_tensors(folder / "model.safetensors")
    check_tensors(weights, dict(model.state_dict()), str(folder / "model.safetensors"))
    model.load_state_dict(weights)
    tensors = read_tensors(folder / "optimizer.safetensors")
    params = dict(model.named_parameters())
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    for full, value in tensors.items():
        name, key = full.rsplit("/", 1)
        if name not in params:
            raise UserError(
                f"{folder / 'optimizer.safetensors'} has state of {name!r}, which the model lacks"
            )
        p = params[name]
        # A step counter is a scalar that lives on the CPU.
        owner[id(p)].state[p][key] = value if value.dim() == 0 else value.to(p.device)
    return json.loads((folder / _STATE).read_text())
