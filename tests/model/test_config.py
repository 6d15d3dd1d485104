"""Parameters, round trips and refusals of the config."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytegen.cache import Cache
from bytegen.config import PRESETS, ModelConfig, preset
from bytegen.errors import UserError
from bytegen.model import ByteLM


@pytest.mark.parametrize("name", PRESETS)
def test_the_parameter_count_is_that_of_the_module(name: str) -> None:
    with torch.device("meta"):
        lm = ByteLM(PRESETS[name])
    assert PRESETS[name].n_params() == sum(p.numel() for p in lm.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name: str) -> None:
    assert ModelConfig.from_json(PRESETS[name].to_json()) == PRESETS[name]


@pytest.mark.parametrize("position", [0, 5, 700])
def test_the_flops_of_a_step_are_those_that_torch_counts(position: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    # All global: a ring also multiplies its slots of slack, which the window then hides.
    config = dataclasses.replace(PRESETS["nano"], pattern="G")
    lm = ByteLM(config)
    cache = Cache(config, batch=1, max_length=800, chunk=1)
    cache.seek(position)
    with FlopCounterMode(display=False) as counter:
        lm.step(torch.zeros(1, 1, dtype=torch.int64), cache)
    convolution = (
        2 * config.n_layers * config.dim * config.conv_taps
    )  # elementwise: torch's counter leaves it out
    assert counter.get_total_flops() == config.flops_per_byte(position) - convolution


@given(st.dictionaries(st.text(max_size=12), st.integers() | st.text(max_size=5) | st.none(), max_size=5))
def test_any_json_object_is_read_or_refused_in_one_line(values: dict[str, object]) -> None:
    with pytest.raises(UserError) as refused:
        ModelConfig.from_json(json.dumps(values))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n_kv_heads": 2}, "n_heads"),
        ({"pattern": "LX"}, "pattern"),
        ({"window": 0}, "window"),
        ({"head_dim": 7}, "odd"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, object], word: str) -> None:
    fields = {"dim": 8, "n_layers": 1, "n_heads": 3, "n_kv_heads": 1, "head_dim": 8, "ffn_dim": 8}
    with pytest.raises(UserError, match=word):
        ModelConfig(**{**fields, **change})  # type: ignore[arg-type]


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(UserError, match="packaged"):
        preset("none-such")
