"""The C decoder against the model in torch, and against itself: equal bits whatever is beside a token."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bytegen
from bytegen.cache import Cache
from bytegen.config import PRESETS, ModelConfig, RopeScaling
from bytegen.cpu import Decoder, available, decoder_of
from bytegen.cpu.binding import library
from bytegen.cpu.of_torch import new_decoder
from bytegen.decoding.runners import runner
from bytegen.errors import UserError
from bytegen.kernels import masked_sample
from bytegen.model import ByteLM
from bytegen.quantised import reduce_precision

pytestmark = pytest.mark.skipif(
    library is None, reason="the C decoder was not compiled when bytegen was installed"
)
SCALING = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.integers(1, 3))
    return ModelConfig(
        dim=draw(st.sampled_from([8, 40, 64, 100])), n_layers=draw(st.integers(1, 3)), n_kv_heads=kv_heads,
        n_heads=kv_heads * draw(st.integers(1, 3)), head_dim=draw(st.sampled_from([2, 6, 16, 64])),
        ffn_dim=draw(st.sampled_from([12, 64, 130])), pattern=draw(st.sampled_from(["L", "G", "LG", "GLL"])),
        window=draw(st.integers(1, 12)), max_positions=200, rope_scaling=draw(st.sampled_from([None, SCALING])),
        qkv_bias=draw(st.booleans()), qk_norm=draw(st.booleans()), tied=draw(st.booleans()),
        conv_taps=draw(st.sampled_from([0, 2, 4])),
    )  # fmt: skip


HELD = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "float32"}
"""What a decoder with vectors holds the matrices of `model` in, those in int8 aside."""


def model(config: ModelConfig, seed: int, held: str = "fp32") -> ByteLM:
    """Random weights, norms and biases too; those of the matrices such as `held` holds exactly."""
    torch.manual_seed(seed)
    lm = ByteLM(config).eval()
    for p in lm.parameters():
        if p.dim() == 1:
            p.data = torch.randn_like(p)
        if held == "fp16":
            p.data = p.data.half().float()
        if held == "bf16" and p.dim() == 2:
            p.data[0, 0] = 2.0**-40  # no number of float16
    reduce_precision(lm, "fp32" if held == "fp16" else held)
    return lm


def in_chunks(decoder: Decoder, lines: list[list[int]], chunk: int, seed: int) -> list[np.ndarray]:
    """Hidden states of every line, fed side by side in chunks of random sizes."""
    rng = random.Random(seed)
    cache = decoder.cache(batch=len(lines), max_length=max(map(len, lines)), chunk=chunk)
    done, found = [0] * len(lines), [list[np.ndarray]() for _ in lines]
    while any(at < len(line) for at, line in zip(done, lines, strict=True)):
        counts = [min(rng.randint(0, chunk), len(line) - at) for at, line in zip(done, lines, strict=True)]
        if not any(counts):
            continue
        tokens, rows, positions = list[int](), list[int](), list[int]()
        for row, (line, at, count) in enumerate(zip(lines, done, counts, strict=True)):
            tokens += line[at : at + count]
            rows += [row] * count
            positions += range(at, at + count)
        cache.reserve(counts)
        hidden = decoder.hidden(tokens, rows, positions, cache)
        cache.advance(counts)
        for row, count in enumerate(counts):
            found[row].append(hidden[:count])
            hidden = hidden[count:]
            done[row] += count
    return [np.concatenate(parts) for parts in found]


@settings(max_examples=60, deadline=None)
@given(
    config=configs(), seed=st.integers(0, 999), held=st.sampled_from(list(HELD)), lanes=st.sampled_from([16, 8, 1]),
    half_cache=st.booleans(), chunk=st.integers(1, 9), lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
)  # fmt: skip
def test_hidden_states_and_logits_are_those_of_the_model_in_float64(
    config: ModelConfig, seed: int, held: str, lanes: int, half_cache: bool, chunk: int, lengths: list[int]
) -> None:
    lm = model(config, seed, held)
    decoder = new_decoder(lm, lanes=lanes, half_cache=half_cache)
    assert decoder.held == (HELD[held] if decoder.lanes > 1 else "float32")
    assert decoder.half_cache == (half_cache and decoder.lanes > 1)
    rng = random.Random(seed)
    lines = [[rng.randrange(320) for _ in range(length)] for length in lengths]
    found = in_chunks(decoder, lines, chunk, seed)
    logits = [decoder.logits(part, 257) for part in found]
    exact = lm.double()
    for line, hidden, scores in zip(lines, found, logits, strict=True):
        with torch.no_grad():
            want = exact.hidden(torch.tensor([line]))[0]
            wanted = exact.logits(want)[:, :257].numpy()
        # Keys and values in float16 are off by 2^-11 of themselves.
        error = 1e-2 if decoder.half_cache else 2e-4
        np.testing.assert_allclose(
            hidden[:, : config.dim], want.numpy(), atol=error * float(want.abs().max())
        )
        np.testing.assert_allclose(scores, wanted, atol=2 * error * np.abs(wanted).max())
        assert not hidden[:, config.dim :].any()


@settings(max_examples=30, deadline=None)
@given(
    config=configs(), seed=st.integers(0, 999), held=st.sampled_from([*HELD, "int8-dynamic"]),
    lanes=st.sampled_from([16, 8, 1]), length=st.integers(1, 40),
    chunks=st.tuples(st.integers(1, 9), st.integers(1, 9)), threads=st.integers(1, 2),
)  # fmt: skip
def test_a_token_gives_the_same_bits_whatever_is_beside_it(
    config: ModelConfig, seed: int, held: str, lanes: int, length: int, chunks: tuple[int, int], threads: int
) -> None:
    decoder = new_decoder(model(config, seed, held), lanes=lanes)
    rng = random.Random(seed)
    line = [rng.randrange(320) for _ in range(length)]
    others = [[rng.randrange(320) for _ in range(rng.randint(1, 40))] for _ in range(5)]
    alone = in_chunks(decoder, [line], chunks[0], seed)[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        beside = in_chunks(decoder, [*others[:2], line, *others[2:]], chunks[1], seed + 1)[2]
    finally:
        torch.set_num_threads(before)
    assert alone.tobytes() == beside.tobytes()
    # However many rows of logits are asked for at once.
    assert decoder.logits(alone, 257).tobytes() == b"".join(
        decoder.logits(alone[i : i + 1], 257).tobytes() for i in range(length)
    )


def test_decoders_of_other_vectors_do_not_disturb_each_other() -> None:
    """Each keeps to its own set, whichever was used last: float16 weights make no sense to the plainest."""
    lm = model(PRESETS["nano"], 0, "fp16")
    wide, plain = new_decoder(lm, lanes=16), new_decoder(lm, lanes=1)
    hidden = in_chunks(wide, [[1, 2, 3]], 4, 0)[0]
    want = wide.logits(hidden, 257)
    in_chunks(plain, [[1, 2, 3]], 4, 0)
    assert wide.logits(hidden, 257).tobytes() == want.tobytes()


@pytest.mark.parametrize("held", ["fp16", "int8-dynamic"])
def test_two_threads_give_the_bits_of_one(held: str) -> None:
    """A model and a batch large enough for threads to be worth it."""
    decoder = new_decoder(model(dataclasses.replace(PRESETS["packaged"], n_layers=1), 0, held))
    lines = [[(7 * i + j) % 256 for j in range(60)] for i in range(8)]
    line = [[(7 * j) % 256 for j in range(400)]]
    before = torch.get_num_threads()
    found = {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            side_by_side, long = in_chunks(decoder, lines, 60, 0), in_chunks(decoder, line, 400, 0)
            found[threads] = b"".join(x.tobytes() for x in side_by_side + long)
    finally:
        torch.set_num_threads(before)
    assert found[1] == found[2]


def test_positions_past_140_000() -> None:
    config = dataclasses.replace(PRESETS["nano"], window=16, pattern="L", n_layers=1)
    lm = model(config, 3)
    decoder, start = new_decoder(lm, half_cache=False), 140_001
    tokens = [(11 * i) % 256 for i in range(24)]
    cache = Cache(config, batch=1, max_length=150_000, chunk=32)
    cache.seek(start)
    with torch.no_grad():
        want = lm.hidden(torch.tensor([tokens]), cache=cache)[0].numpy()
    again = decoder.cache(batch=1, max_length=150_000, chunk=32)
    again.seek(start)
    again.reserve([24])
    got = decoder.hidden(tokens, [0] * 24, list(range(start, start + 24)), again)
    np.testing.assert_allclose(got[:, : config.dim], want, atol=1e-4)


def test_the_decoder_follows_changed_weights() -> None:
    lm = model(PRESETS["nano"], 0)
    first = decoder_of(lm)
    assert decoder_of(lm) is first
    with torch.no_grad():
        lm.norm.weight.mul_(2)
    second = decoder_of(lm)
    cache = first.cache(batch=1, max_length=8, chunk=4)
    one, two = (x.hidden([5], [0], [0], cache) for x in (first, second))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000), rows=st.integers(1, 5), temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_p=st.sampled_from([1.0, 0.9, 0.4]), min_p=st.sampled_from([0.0, 0.05, 0.5]),
    allowed=st.sampled_from([1, 2, 40, 257]),
)  # fmt: skip
def test_draws_are_those_of_the_twin(
    seed: int, rows: int, temperature: float, top_p: float, min_p: float, allowed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(rows, 257)) * 3).astype(np.float32)
    mask = np.zeros((rows, 257), dtype=bool)
    for row in mask:
        row[rng.permutation(257)[:allowed]] = True
    uniform = rng.random(rows)
    decoder = decoder_of(_nano())
    columns = [[x] * rows for x in (temperature, top_p, min_p)]
    got = decoder.sample(logits, mask, uniform.tolist(), *columns)
    want = masked_sample(
        torch.from_numpy(logits), torch.from_numpy(mask), torch.from_numpy(uniform), temperature=temperature,
        top_p=top_p, min_p=min_p,
    )  # fmt: skip
    assert [choice for choice, _, _ in got] == want.choice.tolist()
    np.testing.assert_allclose(
        [x for _, x, _ in got], want.logprob.numpy(), atol=1e-6
    )  # the twin takes a temperature in float32
    np.testing.assert_allclose([x for _, _, x in got], want.removed.numpy(), atol=1e-9)


_LMS: list[ByteLM] = []


def _nano() -> ByteLM:
    if not _LMS:
        _LMS.append(model(PRESETS["nano"], 0))
    return _LMS[0]


def test_generation_is_the_same_file_by_both_backends() -> None:
    lm = bytegen.load()
    options: dict[str, Any] = {"max_bytes": 400, "seed": 2, "temperature": 0.3}
    ours = bytegen.generate(lm, 'print "good morning" 2 times', backend="c", **options)
    torch_ = bytegen.generate(lm, 'print "good morning" 2 times', backend="torch", **options)
    assert ours.data == torch_.data
    assert ours.logprob == pytest.approx(torch_.logprob, abs=1e-3)


def test_what_the_decoder_does_not_take_is_one_line() -> None:
    lm = ByteLM(PRESETS["nano"]).double()
    assert not available(lm)
    with pytest.raises(UserError, match="float64 on cpu") as refused:
        runner(lm, "c", max_length=9, chunk=9)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="there are: auto, torch, c"):
        runner(lm, "fast", max_length=9, chunk=9)
    with pytest.raises(ValueError, match="float64"):
        new_decoder(lm)
