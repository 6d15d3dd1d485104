"""Models for the C decoder alone, and its caches: without torch the same files, each sequence as if it were alone."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bytegen
from bytegen.config import PRESETS, ModelConfig, RopeScaling
from bytegen.cpu import Decoder, LightLM
from bytegen.cpu.binding import library
from bytegen.cpu.light import tensor_shapes
from bytegen.cpu.of_torch import new_decoder
from bytegen.cpu.weights import inverse_frequencies
from bytegen.errors import UserError
from bytegen.model import ByteLM
from bytegen.weights import save_model

pytestmark = pytest.mark.skipif(
    library is None, reason="the C decoder was not compiled when bytegen was installed"
)
SCALING = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)


def some_config(seed: int) -> ModelConfig:
    """A shape of few weights, with any of the options."""
    rng = random.Random(seed)
    return ModelConfig(
        dim=8, n_layers=2, n_kv_heads=2, n_heads=4, head_dim=rng.choice([6, 64, 128]), ffn_dim=12, pattern="LG",
        window=4, max_positions=200, rope_scaling=rng.choice([None, SCALING]), qkv_bias=rng.random() < 0.5,
        qk_norm=rng.random() < 0.5, tied=rng.random() < 0.5, conv_taps=rng.choice([0, 3]),
        rope_theta=rng.choice([1e4, 5e5, 1e6]),
    )  # fmt: skip


def model(config: ModelConfig) -> ByteLM:
    """Random weights that float16 holds."""
    torch.manual_seed(0)
    lm = ByteLM(config).eval()
    for p in lm.parameters():
        p.data = p.data.half().float()
    return lm


@pytest.mark.parametrize("seed", range(12))
def test_shapes_and_frequencies_without_torch_are_those_of_the_model(seed: int) -> None:
    config = some_config(seed)
    lm = ByteLM(config)
    assert tensor_shapes(config) == {name: tuple(t.shape) for name, t in lm.state_dict().items()}
    np.testing.assert_allclose(inverse_frequencies(config), lm.inv_freq.numpy(), rtol=2e-7)


def test_a_light_model_writes_the_files_of_the_whole_one() -> None:
    light, lm = LightLM.load(), bytegen.load()
    assert light is not None
    assert light.config == lm.config
    assert inverse_frequencies(light.config).tobytes() == lm.inv_freq.numpy().tobytes()
    options: dict[str, Any] = {"max_bytes": 500, "samples": 2, "temperature": 1.0}
    prompts = ["count from 3 to 9", 'print "hello" 3 times']
    ours, theirs = (bytegen.generate_many(x, prompts, **options) for x in (light, lm))
    assert [(o.data, o.logprob) for o in ours] == [(o.data, o.logprob) for o in theirs]
    with pytest.raises(UserError, match=r"backend 'torch' takes one of bytegen.load"):
        bytegen.generate(light, "count from 3 to 9", backend="torch")


def test_what_a_light_model_cannot_be_made_of_is_left_to_load(tmp_path: Path) -> None:
    for dtype, there in ((torch.float32, True), (torch.float16, True), (torch.bfloat16, False)):
        save_model(model(PRESETS["nano"]), tmp_path / "model", dtype=dtype)
        assert (LightLM.load(tmp_path / "model") is not None) is there
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nothing")
    assert LightLM.load(tmp_path / "model") is None
    save_model(model(PRESETS["nano"]), tmp_path / "sharded", max_shard_bytes=100_000)
    assert LightLM.load(tmp_path / "sharded") is None
    save_model(model(PRESETS["nano"]), tmp_path / "other")
    config = dataclasses.replace(PRESETS["nano"], n_layers=PRESETS["nano"].n_layers + 1)
    (tmp_path / "other" / "config.json").write_text(config.to_json())
    assert LightLM.load(tmp_path / "other") is None
    with pytest.raises(UserError, match="no model 'none'"):
        LightLM.load("none")


def test_generate_on_a_cpu_imports_no_torch(tmp_path: Path) -> None:
    code = f"""
import sys
from bytegen.cli.main import main
sys.argv = ["bytegen", "generate", "count from 3 to 5", "-o", {str(tmp_path / "count")!r}, "--run"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("torch" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "3\n4\n5\n", done.stderr
    assert done.stderr.splitlines()[-1] == "False"
    assert (tmp_path / "count").stat().st_size > 100


@settings(max_examples=60, deadline=None)
@given(data=st.data(), window=st.sampled_from([None, 5]), chunk=st.integers(1, 6))
def test_rows_of_a_cache_keep_what_is_theirs(data: st.DataObject, window: int | None, chunk: int) -> None:
    """Sequences join, leave, change places and begin anew; each goes on as if it were alone."""
    config = dataclasses.replace(
        PRESETS["nano"], n_layers=1, pattern="G" if window is None else "L", window=5
    )
    decoder = _decoder(config)
    cache = decoder.cache(max_length=40, chunk=chunk)
    lines: list[list[int]] = []
    for _ in range(data.draw(st.integers(3, 8))):
        what = data.draw(st.sampled_from(["join", "keep", "restart", "feed", "feed"]))
        if what == "join" or not lines:
            cache.extend(1)
            lines.append([])
        elif what == "keep":
            kept = data.draw(st.lists(st.sampled_from(range(len(lines))), unique=True, min_size=1))
            cache.select(kept)
            lines = [lines[i] for i in kept]
        elif what == "restart":
            cache.restart(0)
            lines[0] = []
        counts = [
            data.draw(st.integers(1, min(chunk, 40 - len(line)))) if len(line) < 40 else 0 for line in lines
        ]
        fed = [[data.draw(st.integers(0, 255)) for _ in range(count)] for count in counts]
        rows = [i for i, ids in enumerate(fed) for _ in ids]
        positions = [len(line) + j for line, ids in zip(lines, fed, strict=True) for j in range(len(ids))]
        cache.reserve(counts)
        hidden = decoder.hidden([x for ids in fed for x in ids], rows, positions, cache)
        cache.advance(counts)
        lines = [line + ids for line, ids in zip(lines, fed, strict=True)]
        assert cache.positions == [len(line) for line in lines]
        for i, line in enumerate(lines):
            if i in rows:
                alone = alone_in_chunks(decoder, line, 40)
                last = hidden[max(j for j, row in enumerate(rows) if row == i)]
                assert alone[-1].tobytes() == last.tobytes()


def test_a_cache_grows_past_its_first_buffer_and_says_where_it_ends() -> None:
    config = dataclasses.replace(PRESETS["nano"], n_layers=2, pattern="LG", window=4)
    decoder = _decoder(config)
    line = [(7 * i) % 256 for i in range(1100)]
    whole = alone_in_chunks(decoder, line, 1100)
    assert alone_in_chunks(decoder, line, 97).tobytes() == whole.tobytes()
    cache = decoder.cache(batch=1, max_length=30, chunk=8)
    before = cache.nbytes()
    with pytest.raises(UserError, match="a step of 9 tokens; this cache takes 8"):
        cache.reserve([9])
    cache.seek(31)
    with pytest.raises(UserError, match="position 39 is past the 30"):
        cache.reserve([8])
    assert cache.nbytes() == before
    with pytest.raises(UserError, match="context is"):
        decoder.cache(max_length=config.max_positions + 1)


def alone_in_chunks(decoder: Decoder, line: list[int], chunk: int) -> np.ndarray:
    """Hidden states of one line in a cache of its own."""
    cache, found = decoder.cache(batch=1, max_length=len(line), chunk=chunk), list[np.ndarray]()
    for at in range(0, len(line), chunk):
        part = line[at : at + chunk]
        cache.reserve([len(part)])
        found.append(decoder.hidden(part, [0] * len(part), list(range(at, at + len(part))), cache))
        cache.advance([len(part)])
    return np.concatenate(found)


_DECODERS: dict[str, Decoder] = {}


def _decoder(config: ModelConfig) -> Decoder:
    if config.pattern not in _DECODERS:
        _DECODERS[config.pattern] = new_decoder(model(config))
    return _DECODERS[config.pattern]
