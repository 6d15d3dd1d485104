"""Multi-token prediction heads: what they compute, on every path, and how they lie on disk beside a model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import bytegen
from bytegen import cpu, tokenizer
from bytegen.card import shape_table
from bytegen.cli.convert import export as export_command
from bytegen.config import PRESETS, ModelConfig
from bytegen.convert import export
from bytegen.errors import UserError
from bytegen.folders import HEADS, SINGLE
from bytegen.model import ByteLM
from bytegen.weights import save_model

compiled = pytest.mark.skipif(cpu.binding.library is None, reason="no C compiler when bytegen was installed")


def with_heads(count: int, *, seed: int = 1, **changes: object) -> ByteLM:
    """A small model whose heads are drawn, not at zero."""
    torch.manual_seed(seed)
    lm = ByteLM(dataclasses.replace(PRESETS["nano"], mtp_heads=count, **changes)).eval()
    with torch.no_grad():
        for p in lm.mtp.parameters():
            p.normal_(std=0.2)
    return lm


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_and_flops_of_the_heads_are_those_that_torch_counts(count: int, tied: bool) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    lm = with_heads(count, tied=tied)
    assert lm.config.n_params() == sum(p.numel() for p in lm.parameters())
    assert lm.config.mtp_params() == sum(p.numel() for p in lm.mtp.parameters())
    with FlopCounterMode(display=False) as counter:
        lm.mtp_logits(torch.zeros(1, lm.config.dim))
    assert counter.get_total_flops() == lm.config.mtp_flops()


def test_heads_begin_as_what_the_model_expects_next() -> None:
    lm = ByteLM(dataclasses.replace(PRESETS["nano"], mtp_heads=2))
    hidden = torch.randn(3, lm.config.dim)
    for logits in lm.mtp_logits(hidden):
        assert torch.equal(logits, lm.logits(hidden))


def test_fewer_than_no_heads_are_refused() -> None:
    with pytest.raises(UserError, match="mtp_heads=-1"):
        dataclasses.replace(PRESETS["nano"], mtp_heads=-1)


@torch.no_grad()
def judged(lm: ByteLM, hidden: np.ndarray) -> np.ndarray:
    """Log probabilities [N, K, 257] by the formula, in float64."""
    x = torch.from_numpy(hidden[:, : lm.config.dim]).double()
    out = lm.embed.weight if lm.head is None else lm.head.weight
    found = []
    for k in range(lm.config.mtp_heads):
        z = x @ lm.state_dict()[f"mtp.{k}.proj.weight"].double().T
        y = x + z * torch.sigmoid(z)
        found.append(torch.log_softmax((y @ out.double().T)[:, : tokenizer.N_CHOICES], -1))
    return torch.stack(found, 1).numpy()


@compiled
@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 4), tied=st.booleans(), n=st.integers(1, 9), dim=st.sampled_from([48, 64, 72]),
    lanes=st.sampled_from([1, 8, 16]), threads=st.integers(1, 2), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_c_decoder_gives_what_the_formula_says(
    count: int, tied: bool, n: int, dim: int, lanes: int, threads: int, seed: int
) -> None:
    lm = with_heads(count, seed=seed, tied=tied, dim=dim)
    decoder = cpu.of_torch.new_decoder(lm, lanes=lanes)
    hidden = np.zeros((n, cpu.binding.padded(dim)), np.float32)
    hidden[:, :dim] = np.random.default_rng(seed).normal(size=(n, dim))
    found = decoder.ahead(hidden, tokenizer.N_CHOICES, threads=threads)
    np.testing.assert_allclose(found, judged(lm, hidden), atol=3e-5)
    # One row gives the same bits whatever is beside it.
    assert np.array_equal(decoder.ahead(hidden[n - 1 :], tokenizer.N_CHOICES), found[n - 1 :])


@compiled
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int8-dynamic"])
def test_a_light_model_and_a_whole_one_give_the_same_bits_at_every_precision(
    precision: str, tmp_path: Path
) -> None:
    save_model(with_heads(3), tmp_path / "model")
    whole = bytegen.load(tmp_path / "model", precision=precision)
    light = cpu.LightLM.load(tmp_path / "model", precision=precision)
    assert light is not None
    assert light.config == whole.config
    hidden = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    found = [d.ahead(hidden, 257) for d in (light.decoder, cpu.decoder_of(whole))]
    assert np.array_equal(*found)
    with torch.no_grad():
        logits = whole.mtp_logits(torch.from_numpy(hidden))[..., :257]
    np.testing.assert_allclose(found[0], F.log_softmax(logits, -1).transpose(0, 1).numpy(), atol=1e-4)
    exact = judged(with_heads(3), hidden)
    assert np.abs(found[0] - exact).max() < (1e-4 if precision == "fp32" else 0.2)


@compiled
def test_a_step_of_lists_gives_what_arrays_give_and_refuses_places_that_were_not_fed() -> None:
    lm = with_heads(2)
    decoder = cpu.decoder_of(lm)
    cache = decoder.cache(batch=2, max_length=40, chunk=16)
    steps = cpu.Steps(decoder, cache, tokenizer.N_CHOICES)
    cache.reserve([3, 2])
    steps.feed([[1, 2, 3], [4, 5]], cache.positions)
    hidden = decoder.hidden([1, 2, 3, 4, 5], [0, 0, 0, 1, 1], [0, 1, 2, 0, 1], cache)
    best, found = steps.ahead([(1, 0), (0, 2)])
    assert np.array_equal(found, decoder.ahead(hidden[[3, 2]], tokenizer.N_CHOICES))
    assert best == [(logs.argmax(1).tolist(), logs.max(1).tolist()) for logs in found]
    for place in ((0, 3), (2, 0), (-1, 0)):
        with pytest.raises(IndexError, match="not fed"):
            steps.ahead([place])


# On disk


def test_heads_have_a_file_of_their_own_and_the_weights_are_those_of_the_model_without(
    tmp_path: Path,
) -> None:
    lm = with_heads(2)
    bare = with_heads(0)
    bare.load_state_dict({name: p for name, p in lm.state_dict().items() if name in bare.state_dict()})
    save_model(lm, tmp_path / "with")
    save_model(bare, tmp_path / "without")
    single = [(tmp_path / name / SINGLE).read_bytes() for name in ("with", "without")]
    assert single[0] == single[1]
    assert not (tmp_path / "without" / HEADS).exists()
    again = bytegen.load(tmp_path / "with")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), lm.parameters(), strict=True))
    # Heads are added to a model by two files: they and its config.
    for name in (HEADS, "config.json"):
        (tmp_path / "without" / name).write_bytes((tmp_path / "with" / name).read_bytes())
    added = bytegen.load(tmp_path / "without")
    assert all(torch.equal(a, b) for a, b in zip(added.parameters(), lm.parameters(), strict=True))


def test_a_config_from_before_there_were_heads_is_that_of_a_model_without(tmp_path: Path) -> None:
    save_model(with_heads(0), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    old = json.loads(path.read_text())
    del old["mtp_heads"]
    path.write_text(json.dumps(old))
    lm = bytegen.load(tmp_path / "model")
    assert lm.config.mtp_heads == 0
    assert lm.state_dict().keys() == with_heads(0).state_dict().keys()
    assert lm.mtp_logits(torch.zeros(4, 64)).shape == (0, 4, lm.config.vocab_size)


def test_saving_without_heads_takes_those_of_before_away(tmp_path: Path) -> None:
    with_heads(2).save_pretrained(tmp_path / "model")
    assert (
        "| multi-token prediction heads | 2, for drafts |" in (tmp_path / "model" / "README.md").read_text()
    )
    assert (tmp_path / "model" / HEADS).exists()
    assert ByteLM.from_pretrained(tmp_path / "model").config.mtp_heads == 2
    with_heads(0).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / HEADS).exists()
    assert ByteLM.from_pretrained(tmp_path / "model").config.mtp_heads == 0


def test_a_card_without_heads_says_nothing_of_them() -> None:
    assert "multi-token" not in shape_table(PRESETS["nano"])


@pytest.mark.parametrize("damage", ["missing", "truncated", "fewer", "twice"])
def test_damaged_heads_are_a_clear_line(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(with_heads(2), folder)
    path = folder / HEADS
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "fewer":
        save_model(with_heads(1), tmp_path / "other")
        path.write_bytes((tmp_path / "other" / HEADS).read_bytes())
    else:
        path.write_bytes((folder / SINGLE).read_bytes())
    word = {"missing": "missing mtp.0", "truncated": "truncated", "fewer": "missing mtp.1"}.get(
        damage, "is in"
    )
    with pytest.raises(UserError, match=word) as refused:
        bytegen.load(folder)
    assert "\n" not in str(refused.value)
    assert cpu.LightLM.load(folder) is None


def test_export_leaves_the_heads_out_and_says_so(tmp_path: Path) -> None:
    config: ModelConfig = dataclasses.replace(PRESETS["nano"], conv_taps=0, mtp_heads=2)
    save_model(ByteLM(config), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "exported")
    save_model(ByteLM(dataclasses.replace(config, mtp_heads=0)), tmp_path / "bare")
    export(tmp_path / "bare", tmp_path / "exported-bare")
    from safetensors import safe_open

    names = []
    for name in ("exported", "exported-bare"):
        with safe_open(str(tmp_path / name / SINGLE), framework="pt") as file:
            names.append(sorted(file.keys()))
    assert names[0] == names[1]
    said = CliRunner().invoke(export_command, [str(tmp_path / "model"), str(tmp_path / "told")]).stderr
    assert "2 multi-token prediction heads are left out" in said
    said = CliRunner().invoke(export_command, [str(tmp_path / "bare"), str(tmp_path / "bare-told")]).stderr
    assert "multi-token" not in said
