"""Less precision than float32: what int8 and bfloat16 may lose, against numpy and torchao; files and errors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import bytegen
from bytegen import cpu
from bytegen.cli.generate import default_precision
from bytegen.cli.main import cli
from bytegen.config import PRESETS
from bytegen.cpu.binding import library
from bytegen.cpu.of_torch import new_decoder
from bytegen.errors import UserError
from bytegen.model import ByteLM
from bytegen.precision import PRECISIONS, as_bfloat16
from bytegen.quantised import Int8Linear, is_quantised, reduce_precision
from bytegen.weights import save_model


def random_lm(**changes: Any) -> ByteLM:
    torch.manual_seed(0)
    config = bytegen.ModelConfig(**{**vars(PRESETS["nano"]), **changes})
    return ByteLM(config).eval()


def linear(outputs: int, inputs: int, bias: bool, seed: int) -> nn.Linear:
    """Rows of very different sizes, one of nothing but zeros among them."""
    torch.manual_seed(seed)
    made = nn.Linear(inputs, outputs, bias=bias)
    made.weight.data *= 10.0 ** torch.randint(-12, 6, (outputs, 1))
    made.weight.data[seed % outputs] = 0
    return made


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.booleans(), st.integers(0, 999))
def test_a_weight_is_off_by_half_a_step_of_its_row_at_most(
    outputs: int, inputs: int, bias: bool, seed: int
) -> None:
    exact = linear(outputs, inputs, bias, seed)
    quantised = Int8Linear(exact)
    assert quantised.weight.dtype == torch.int8
    held = quantised.weight.numpy().astype(np.float64) * quantised.scale.numpy()[:, None]
    want = exact.weight.detach().double().numpy()
    largest = np.abs(want).max(1, keepdims=True)
    assert (np.abs(held - want) <= largest / 254 * (1 + 1e-5)).all()
    assert (np.abs(quantised.weight.numpy()).max(1) == np.where(largest[:, 0] > 0, 127, 0)).all()
    x = torch.randn(3, inputs, dtype=torch.float64)
    y = x.numpy() @ held.T + (0 if exact.bias is None else exact.bias.detach().double().numpy())
    np.testing.assert_allclose(copy.deepcopy(quantised).double()(x).numpy(), y, rtol=1e-6, atol=1e-30)
    assert quantised(x.bfloat16()).dtype == torch.bfloat16


def test_int8_is_as_good_as_torchao_s() -> None:
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed (extra bench)")
    theirs = nn.Sequential(linear(64, 192, False, 3))
    exact, ours = theirs[0].weight.detach().clone(), Int8Linear(theirs[0])  # type: ignore[arg-type]
    torchao.quantize_(theirs, torchao.Int8WeightOnlyConfig())
    rows = exact.norm(dim=1).clamp_min(1e-30)

    def error(held: torch.Tensor) -> float:
        return float(((held - exact).norm(dim=1) / rows).max())

    assert error(ours.weight * ours.scale[:, None]) <= 1.05 * error(theirs[0].weight.dequantize())  # type: ignore[operator]


@pytest.mark.parametrize("tied", [True, False])
def test_every_linear_map_and_nothing_else_becomes_int8(tied: bool) -> None:
    lm = random_lm(tied=tied, qkv_bias=True)
    before = {name: p.detach().clone() for name, p in lm.named_parameters()}
    maps = {name for name, module in lm.named_modules() if isinstance(module, nn.Linear)}
    reduce_precision(lm, "int8")
    assert is_quantised(lm)
    assert {name for name, module in lm.named_modules() if isinstance(module, Int8Linear)} == maps
    assert ("head" in maps) != tied
    for name, p in lm.named_parameters():
        assert torch.equal(p, before[name])
    tokens = torch.randint(0, 256, (1, 30))
    reference = random_lm(tied=tied, qkv_bias=True)
    with torch.no_grad():
        off = (lm(tokens) - reference(tokens)).norm() / reference(tokens).norm()
    assert 0 < off < 0.03


def test_bfloat16_rounds_the_matrices_and_the_decoder_holds_them_in_two_bytes() -> None:
    lm, exact = random_lm(), random_lm()
    reduce_precision(lm, "bf16")
    for (name, p), q in zip(lm.named_parameters(), exact.parameters(), strict=True):
        assert torch.equal(p, q.bfloat16().float() if p.dim() == 2 else q), name
    if cpu.available(lm):
        sizes = {}
        for precision in ("fp32", "bf16", "int8"):
            one = random_lm()
            reduce_precision(one, precision)
            sizes[precision] = new_decoder(one).nbytes
        if new_decoder(lm).lanes > 1:
            assert sizes["int8"] < sizes["bf16"] < sizes["fp32"]


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_what_is_made_for_a_gpu_computes_in_bfloat16(precision: str) -> None:
    """Made for one, and run here."""
    lm, exact = random_lm(tied=False, qkv_bias=True), random_lm(tied=False, qkv_bias=True)
    reduce_precision(lm, precision, device="cuda")
    assert {p.dtype for p in lm.parameters()} == {torch.bfloat16}
    scales = {m.scale.dtype for m in lm.modules() if isinstance(m, Int8Linear)}
    assert scales == ({torch.float32} if precision == "int8" else set())
    assert lm.inv_freq.dtype == torch.float32
    tokens = torch.randint(0, 256, (1, 30))
    with torch.no_grad():
        logits, want = lm(tokens), exact(tokens)
    assert logits.dtype == torch.bfloat16
    assert (logits - want).norm() / want.norm() < 0.05


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_rounding_to_bfloat16_is_torch_s(numbers: list[float]) -> None:
    exact = np.array(numbers, np.float32)
    want = torch.from_numpy(exact).bfloat16().float().numpy()
    assert as_bfloat16(exact).tobytes() == want.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tied", [True, False])
def test_a_light_model_is_reduced_as_the_whole_one_is(tmp_path: Path, precision: str, tied: bool) -> None:
    save_model(random_lm(tied=tied, qkv_bias=True), tmp_path / "model")
    light = cpu.LightLM.load(tmp_path / "model", precision=precision)
    if light is None:
        pytest.skip("the C decoder was not compiled when bytegen was installed")
    whole = bytegen.load(tmp_path / "model", precision=precision)
    assert light.decoder.held == cpu.decoder_of(whole).held
    assert light.decoder.nbytes == cpu.decoder_of(whole).nbytes
    options: dict[str, Any] = {"max_bytes": 200, "samples": 2, "temperature": 1.0}
    ours, theirs = (bytegen.generate_many(x, ["a"], **options) for x in (light, whole))
    assert [(o.data, o.logprob) for o in ours] == [(o.data, o.logprob) for o in theirs]


def test_reducing_nothing_changes_nothing() -> None:
    lm, exact = random_lm(), random_lm()
    reduce_precision(lm, "fp32")
    assert all(torch.equal(p, q) for p, q in zip(lm.parameters(), exact.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["bf16", "int8", "int8-dynamic"])
def test_the_packaged_model_still_writes_its_programs(precision: str) -> None:
    lm = bytegen.load(precision=precision)
    options: dict[str, Any] = {"max_bytes": 400, "seed": 2, "temperature": 0.3}
    out = bytegen.generate(lm, 'print "good morning" 2 times', **options)
    assert out.run().stdout == b"good morning\n" * 2
    if cpu.available(lm):
        by_torch = bytegen.generate(lm, 'print "good morning" 2 times', backend="torch", **options)
        assert by_torch.data == out.data
        assert by_torch.logprob == pytest.approx(out.logprob, abs=1e-2)


def test_the_decoder_follows_a_model_that_is_quantised_later() -> None:
    lm = random_lm()
    if not cpu.available(lm):
        pytest.skip("the C decoder was not compiled when bytegen was installed")
    first = cpu.decoder_of(lm)
    reduce_precision(lm, "int8")
    assert cpu.decoder_of(lm).nbytes < first.nbytes


def test_mistakes_are_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are: fp32, bf16, int8, int8-dynamic"):
        bytegen.load(precision="int4")
    with pytest.raises(UserError, match=r"leave dtype=torch\.bfloat16 out"):
        bytegen.load(precision="int8", dtype=torch.bfloat16)
    lm = random_lm()
    reduce_precision(lm, "int8")
    with pytest.raises(UserError, match="cannot be saved"):
        save_model(lm, tmp_path / "model")
    with pytest.raises(UserError, match="cannot be saved"):
        lm.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    done = CliRunner().invoke(cli, ["generate", "x", "-o", str(tmp_path / "out"), "--precision", "int4"])
    assert done.exit_code == 2
    assert done.stderr.strip() == "bytegen: precision 'int4'; there are: fp32, bf16, int8, int8-dynamic"
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_a_precision(tmp_path: Path) -> None:
    arguments = [
        "generate",
        "count from 3 to 9",
        "-o",
        str(tmp_path / "count"),
        "--run",
        "--precision",
        "int8",
    ]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout == "3\n4\n5\n6\n7\n8\n9\n"


@pytest.mark.parametrize(
    ("model", "device", "expected"),
    [(None, "cpu", "int8-dynamic"), (None, "cuda", "fp32"), ("first-flight", "cpu", "fp32")],
)
def test_what_the_command_line_writes_in_by_default(model: str | None, device: str, expected: str) -> None:
    """int8-dynamic was measured on one model: the packaged one, in the C decoder."""
    assert default_precision(model, device) == (expected if library is not None else "fp32")
