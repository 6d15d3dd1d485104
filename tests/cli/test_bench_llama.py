"""llama.cpp as a peer: its file holds our weights, its logits are ours; where it cannot stand beside us we say why."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from bytegen.cli import bench_generators, bench_llama
from bytegen.config import PRESETS, RopeScaling
from bytegen.model import ByteLM

SHAPE = dataclasses.replace(PRESETS["nano"], conv_taps=0, qk_norm=True, qkv_bias=False, rope_scaling=None)


def model(**changes: object) -> ByteLM:
    torch.manual_seed(0)
    return ByteLM(dataclasses.replace(SHAPE, **changes)).eval()  # type: ignore[arg-type]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: found("json") if name in ("llama_cpp", "gguf") else found(name),
    )


@pytest.mark.usefixtures("installed")
def test_shapes_that_it_lacks_are_told() -> None:
    assert bench_llama.missing(model(), 20) is None
    scaling = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)
    for lacking in ({"conv_taps": 2}, {"qk_norm": False}, {"qkv_bias": True}, {"rope_scaling": scaling}):
        assert "without biases" in str(bench_llama.missing(model(**lacking), 20))
    assert "windows of fewer than 21" in str(bench_llama.missing(model(pattern="LG", window=20), 21))
    assert bench_llama.missing(model(pattern="LG", window=20), 20) is None


def test_without_it_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    absent = ("llama_cpp", "gguf", "transformers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else found(name))
    assert "pip install llama-cpp-python gguf" in str(bench_generators.without_llama(model()))
    assert set(bench_generators.subjects(model(), (1,))) == {
        "bytegen, 1 side by side",
        "bytegen through torch, 1 side by side",
    }


@pytest.mark.parametrize(("half", "tied"), [(True, True), (False, False)])
def test_the_file_holds_every_weight(tmp_path: Path, half: bool, tied: bool) -> None:
    gguf = pytest.importorskip("gguf")
    lm = model(tied=tied)
    bench_llama.write_gguf(lm, tmp_path / "model.gguf", half=half)
    tensors = {t.name: np.array(t.data) for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    held = sorted(t.size for t in tensors.values())
    assert held == sorted(t.numel() for t in lm.state_dict().values())
    want = lm.blocks[1].ffn.up.weight.detach().numpy()
    np.testing.assert_array_equal(tensors["blk.1.ffn_up.weight"], want.astype(np.float16) if half else want)
    assert ("output.weight" in tensors) is not tied
    assert tensors["blk.0.attn_norm.weight"].dtype == np.float32


def test_its_logits_are_ours(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    lm = model(head_dim=64, n_heads=2, n_kv_heads=1, dim=64)
    theirs = bench_llama.LlamaCpp(lm, half=False, threads=1, positions=64)
    ids = [7 * i % 256 for i in range(20)]
    assert theirs.check(lm, ids) < bench_llama.TOLERANCE
    assert theirs(ids, 5, 1.0) > 0
    with torch.no_grad():
        lm.blocks[0].attention.v.weight.neg_()
    with pytest.raises(RuntimeError, match="not the same model"):
        theirs.check(lm, ids)
