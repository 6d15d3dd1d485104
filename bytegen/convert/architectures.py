"""From the config.json of a checkpoint to ours, exactly or not at all.

What a config leaves out has the default of transformers' class for that architecture (v5's; sizes must be there).
Both spellings of rotary parameters are read: `rope_theta` and `rope_scaling` (v4), `rope_parameters` (v5).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bytegen.config import ModelConfig, RopeScaling
from bytegen.errors import UserError

MAX_LAYERS = 10_000
"""Past any model: a damaged config should not make us list names for hours."""

SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a `model_type` fixes, and its defaults.

    `windows` says where sliding windows come from: "layers" has them in `layer_types` or in every layer but each
    fourth (CWM), "switch" only with `use_sliding_window` (Qwen), None never.
    """

    class_name: str
    qkv_bias: bool = False
    qk_norm: bool = False
    windows: Literal["layers", "switch"] | None = None
    head_dim: int | None = None
    sliding_window: int | None = None
    norm_eps: float = 1e-6
    rope: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"rope_type": "default"})
    rope_theta: float = 10_000.0


ARCHITECTURES: dict[str, Architecture] = {
    "qwen2": Architecture(class_name="Qwen2ForCausalLM", qkv_bias=True, windows="switch", sliding_window=4096),
    "qwen3": Architecture(
        class_name="Qwen3ForCausalLM", qk_norm=True, windows="switch", sliding_window=4096, head_dim=128
    ),
    "llama": Architecture(class_name="LlamaForCausalLM"),
    "cwm": Architecture(
        class_name="CwmForCausalLM", windows="layers", sliding_window=8192, head_dim=128, norm_eps=1e-5,
        rope_theta=1_000_000.0,
        rope={"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 8192},
    ),
}  # fmt: skip
"""By the `model_type` of config.json."""


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object; UserError says that it is missing, damaged or no object. `what` it is, for the message."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; it is {what}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}; {what} is an object")
    return values


class Reader:
    """A config's fields with checks of type; what is null counts as left out, as transformers has it."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def refuse(self, why: str) -> UserError:
        """Return the error to raise."""
        return UserError(f"{self.where}: {why}")

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a positive integer; UserError where it is missing without a default, or no such number."""
        value = self.values.get(name)
        value = default if value is None else value
        if value is None:
            raise self.refuse(f"it lacks {name!r}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refuse(f"{name} is {value!r}; it must be a positive integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a positive number."""
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self.refuse(f"{name} is {value!r}; it must be a positive number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean."""
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.refuse(f"{name} is {value!r}; it must be true or false")
        return value


def model_config(values: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """Return our config for a checkpoint's; its logits are then the checkpoint's.

    UserError names the architectures there are, or the part that this model has not: other activations, biases on
    the output projection or the feed-forward, other rotary types, rotation of a part of a head, quantized weights.
    """
    architecture = ARCHITECTURES.get(str(values.get("model_type")))
    if architecture is None:
        raise UserError(
            f"{where}: model_type is {values.get('model_type')!r}; those that convert are {', '.join(ARCHITECTURES)}"
        )
    read = Reader(values, where)
    _refuse_what_is_not_here(read)
    heads = read.integer("num_attention_heads")
    dim, n_layers = read.integer("hidden_size"), read.integer("num_hidden_layers")
    if n_layers > MAX_LAYERS:
        raise read.refuse(f"num_hidden_layers is {n_layers}; up to {MAX_LAYERS} convert")
    head_dim = values.get("head_dim")
    if head_dim is None and architecture.head_dim is None and dim % heads:
        raise read.refuse(f"hidden_size {dim} is not a multiple of num_attention_heads {heads}")
    layers, window = _layers(read, architecture, n_layers)
    max_positions = read.integer("max_position_embeddings")
    theta, scaling = _rope(read, architecture, max_positions)
    fields: dict[str, Any] = {} if window is None else {"window": window}
    return ModelConfig(
        dim=dim, n_layers=n_layers, n_heads=heads, n_kv_heads=read.integer("num_key_value_heads", heads),
        head_dim=read.integer("head_dim", architecture.head_dim or dim // heads),
        ffn_dim=read.integer("intermediate_size"), pattern=shortest_pattern(layers),
        vocab_size=read.integer("vocab_size"), max_positions=max_positions, rope_theta=theta, rope_scaling=scaling,
        norm_eps=read.number("rms_norm_eps", architecture.norm_eps), qkv_bias=architecture.qkv_bias,
        qk_norm=architecture.qk_norm, tied=read.flag("tie_word_embeddings"), **fields,
    )  # fmt: skip


def _refuse_what_is_not_here(read: Reader) -> None:
    act = read.values.get("hidden_act") or "silu"
    if act not in ("silu", "swish"):
        raise read.refuse(f"hidden_act is {act!r}; the feed-forward here is SwiGLU, which is 'silu'")
    if read.values["model_type"] in ("llama", "qwen3") and read.flag("attention_bias"):
        raise read.refuse(
            "attention_bias is true: it puts a bias on the output projection, which has none here"
        )
    if read.values["model_type"] in ("llama", "cwm") and read.flag("mlp_bias"):
        raise read.refuse("mlp_bias is true; the feed-forward here has no biases")
    if read.values.get("quantization_config"):
        raise read.refuse("it has a quantization_config; only weights in floating point convert")


def _layers(read: Reader, architecture: Architecture, n_layers: int) -> tuple[str, int | None]:
    """Return a letter a layer, L or G, and the window of the Ls (keys that a query sees, itself included)."""
    if architecture.windows is None:
        return "G" * n_layers, None
    off = architecture.windows == "switch" and not read.flag("use_sliding_window")
    there = "sliding_window" in read.values
    window = None if off else read.values["sliding_window"] if there else architecture.sliding_window
    if window is not None:
        window = read.integer("sliding_window", window)
    types = read.values.get("layer_types")
    if types is None:
        if architecture.windows == "layers":
            types = [SLIDING if i % 4 else FULL for i in range(n_layers)]
        else:
            first = read.values.get("max_window_layers", 28)
            if not isinstance(first, int) or first < 0:
                raise read.refuse(f"max_window_layers is {first!r}; it must be a number of layers")
            types = [SLIDING if window is not None and i >= first else FULL for i in range(n_layers)]
    if not isinstance(types, list) or set(map(str, types)) - {SLIDING, FULL}:
        raise read.refuse(f"layer_types may hold {SLIDING!r} and {FULL!r} only")
    if len(types) != n_layers:
        raise read.refuse(f"layer_types has {len(types)} entries for {n_layers} layers")
    if SLIDING in types and window is None:
        raise read.refuse(f"layer_types has {SLIDING!r}, but there is no sliding_window")
    return "".join("L" if kind == SLIDING else "G" for kind in types), window if SLIDING in types else None


def _rope(read: Reader, architecture: Architecture, max_positions: int) -> tuple[float, RopeScaling | None]:
    found = read.values.get("rope_scaling") or read.values.get("rope_parameters") or architecture.rope
    if not isinstance(found, Mapping):
        raise read.refuse(f"rotary parameters are {found!r}; they must be an object")
    if SLIDING in found or FULL in found:
        raise read.refuse("it rotates sliding and full layers differently; all layers rotate alike here")
    rope = Reader(found, read.where)
    theta = rope.number("rope_theta", read.number("rope_theta", architecture.rope_theta))
    for part in (read.values.get("partial_rotary_factor"), found.get("partial_rotary_factor")):
        if part is not None and part != 1:
            raise read.refuse(f"partial_rotary_factor is {part!r}; whole heads are rotated here")
    kind = found.get("rope_type", found.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise read.refuse(f"rope_type is {kind!r}; 'default' and 'llama3' are here")
    inside = rope.integer("original_max_position_embeddings", max_positions)
    scaling = RopeScaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_max_positions=read.integer("original_max_position_embeddings", inside),
    )
    if scaling.high_freq_factor == scaling.low_freq_factor:
        raise read.refuse(
            "high_freq_factor and low_freq_factor are equal; llama3's scaling divides by the difference"
        )
    return theta, scaling


def shortest_pattern(layers: str) -> str:
    """Return the shortest string that, repeated, gives `layers`; all of it where it has no period."""
    n = len(layers)
    for period in range(1, n):
        if all(layers[i] == layers[i % period] for i in range(n)):
            return layers[:period]
    return layers
