"""At full length: past position 140,000 what comes byte by byte is what comes in chunks, and what exact sums give.

Tolerances are of the greatest value: 1e-9 for torch in float64, 5e-4 for the C decoder, which computes in float32.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bytegen.cache import Cache
from bytegen.config import ModelConfig
from bytegen.cpu.binding import library
from bytegen.cpu.of_torch import new_decoder
from bytegen.kernels.elementwise.rope import rotate
from bytegen.model import ByteLM, Step

LENGTH, TAIL = 140_100, 24  # positions in all, and those that are looked at
WINDOW, TAPS = 16, 4
START = (
    LENGTH - TAIL - WINDOW - 2 * TAPS
)  # from here on the second layer's window fills before it is looked at
EXACT, SINGLE = 1e-9, 5e-4

compiled = pytest.mark.skipif(library is None, reason="the C decoder was not compiled")


def model(pattern: str) -> ByteLM:
    """Random weights that attend sharply, so that a single key, wherever it lies, shows in what comes out."""
    torch.manual_seed(1)
    config = ModelConfig(
        dim=24, n_layers=len(pattern), n_heads=2, n_kv_heads=1, head_dim=16, ffn_dim=32, pattern=pattern, window=WINDOW,
        qk_norm=True, conv_taps=TAPS,
    )  # fmt: skip
    lm = ByteLM(config).eval()
    with torch.no_grad():
        for block in lm.blocks:
            attention: Any = block.attention
            attention.conv.weight.normal_()
            attention.q_norm.weight.fill_(4.0)
    return lm


def text(length: int = LENGTH) -> Tensor:
    """Bytes [1, length]."""
    return torch.randint(0, 256, (1, length), generator=torch.Generator().manual_seed(2))


class InTorch:
    """`ByteLM.hidden` over a cache."""

    def __init__(self, lm: ByteLM) -> None:
        self.lm = lm

    @torch.no_grad()
    def __call__(self, tokens: Tensor, cache: Cache) -> Tensor:
        """[1, T] -> [T, D], the cache moved on."""
        hidden = self.lm.hidden(tokens, cache=cache)
        cache.advance(tokens.shape[1])
        return hidden[0]


class InC:
    """The same by the C decoder, over caches in float32."""

    def __init__(self, lm: ByteLM) -> None:
        self.decoder = new_decoder(lm, half_cache=False)

    def __call__(self, tokens: Tensor, cache: Any) -> Tensor:
        """See `InTorch`."""
        count, start = tokens.shape[1], place(cache)
        cache.reserve([count])
        hidden = self.decoder.hidden(
            tokens[0].tolist(), [0] * count, list(range(start, start + count)), cache
        )
        cache.advance([count])
        return torch.from_numpy(hidden[:, : self.decoder.config.dim])


def place(cache: Any) -> int:
    """Where the only sequence of a cache of either kind stands."""
    return int(cache.positions[0])


def twin(cache: Any) -> Any:
    """A copy; the C decoder's pointers into the original are left behind."""
    if hasattr(cache, "_rings"):
        cache._rings = None
    return copy.deepcopy(cache)


def prefill(step: Any, tokens: Tensor, cache: Any) -> Tensor:
    """Feed tokens in chunks; what came of the last one."""
    for start in range(0, tokens.shape[1], cache.chunk):
        hidden = step(tokens[:, start : start + cache.chunk], cache)
    return hidden


def by_ones(step: Any, tokens: Tensor, cache: Any) -> Tensor:
    """Feed tokens one at a time; what came of each [T, D]."""
    return torch.cat([step(tokens[:, i : i + 1], cache) for i in range(tokens.shape[1])])


def check(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    np.testing.assert_allclose(
        found.numpy(), wanted.numpy(), rtol=0, atol=tolerance * float(wanted.abs().max())
    )


def project(block: Any, x: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The normed inputs of one layer's attention, and its q, k, v [T, H, E], rotated."""
    attention = block.attention
    normed = block.attention_norm(x)
    mixed = attention.conv(normed, step, None)
    q, k, v = (part(mixed).unflatten(-1, (-1, 16)) for part in (attention.q, attention.k, attention.v))
    q, k = attention.q_norm(q), attention.k_norm(k)
    return normed[0], rotate(q, step.cos, step.sin)[0], rotate(k, step.cos, step.sin)[0], v[0]


def finish(block: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """The layer's output for queries q [N, 2, E] over keys k [T, 1, E]; `seen` bool [N, T]."""
    scores = torch.einsum("nhe,te->hnt", q, k[:, 0]) / 4.0
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    x = x + block.attention.out(torch.einsum("hnt,te->nhe", weights, v[:, 0]).flatten(1))
    return x + block.ffn(block.ffn_norm(x))


def one_step(lm: ByteLM, first: int, count: int, *, single: bool) -> Step:
    """Rotary tables of positions [first, first + count), of angles in float32 as a model in `single` takes them.

    So far out those are off by up to 2**-7 of a radian, in any implementation that multiplies in float32.
    """
    positions = torch.arange(first, first + count).unsqueeze(0)
    angles = positions.unsqueeze(-1).float() * (lm.inv_freq.float() if single else lm.inv_freq)
    return Step(cos=angles.cos().double(), sin=angles.sin().double(), positions=positions)


@torch.no_grad()
def past_global(exact: ByteLM, tokens: Tensor, *, single: bool) -> tuple[Cache, Tensor]:
    """Of a global layer under a local one: a cache at `START`, and hidden states of the last `TAIL` tokens.

    Keys and values of the first layer depend on nothing but the tokens near them, so those of all positions come at
    once, and only the queries that are looked at are asked. The second layer's come while the text goes on.
    """
    length, start = LENGTH, START
    lower: Any = exact.blocks[0]
    upper: Any = exact.blocks[1]
    embedded = exact.embed(tokens)
    normed, q, k, v = project(lower, embedded, one_step(exact, 0, length, single=single))
    cache = Cache(exact.config, batch=1, max_length=length, chunk=2 * TAIL, dtype=torch.float64)
    cache.seek(start)
    cache.reserve(1)
    places = torch.arange(start).unsqueeze(0)
    below = cache.layers[0]
    below.keys.write(k[:start].unsqueeze(0), places)
    below.values.write(v[:start].unsqueeze(0), places)
    assert below.conv is not None
    below.conv.write(normed[start - TAPS : start].unsqueeze(0), places[:, -TAPS:])
    rows = torch.arange(start, length)
    seen = torch.arange(length) <= rows.unsqueeze(1)
    x = finish(lower, embedded[0, start:], q[start:], k, v, seen)
    step = one_step(exact, start, length - start, single=single)
    _, q, k, v = project(upper, x.unsqueeze(0), step)
    back = rows.unsqueeze(1) - rows
    x = finish(upper, x, q, k, v, (back >= 0) & (back < WINDOW))
    return cache, exact.norm(x)[-TAIL:]


def in_single(cache: Cache, step: InC) -> Any:
    """The same cache, for the C decoder."""
    made = step.decoder.cache(batch=1, max_length=cache.max_length, chunk=cache.chunk)
    made.seek(START)
    made.reserve([1])
    for ours, theirs in zip(made._rows[0], cache.layers, strict=True):
        keys, values = ours._kept
        keys[...] = theirs.keys.data[0].transpose(0, 1).numpy()
        values[...] = theirs.values.data[0].transpose(0, 1).numpy()
        assert ours._conv is not None
        assert theirs.conv is not None
        ours._conv[...] = theirs.conv.data[0].numpy()
    return made


@pytest.mark.parametrize("single", [False, pytest.param(True, marks=compiled)])
def test_a_global_layer_past_140_000_decodes_as_it_prefills(single: bool) -> None:
    """In torch in float64, or in C; the judge is plain attention over all 140,100 keys."""
    lm = model("GL")
    step: Any = InC(lm) if single else InTorch(lm)
    filled, wanted = past_global(lm.double(), text(), single=single)
    tokens, tolerance = text(), SINGLE if single else EXACT
    cache = in_single(filled, step) if single else filled
    step(tokens[:, START:-TAIL], cache)
    assert place(cache) > 140_000
    check(step(tokens[:, -TAIL:], twin(cache)), wanted, tolerance)
    check(by_ones(step, tokens[:, -TAIL:], cache), wanted, tolerance)
    if single:  # The judge is worth something: it sees what lies 140,000 positions back.
        tokens[0, :1000] = tokens[0, 1000:2000]
        _, other = past_global(lm, tokens, single=single)
        assert float((other - wanted).abs().max()) > 10 * SINGLE * float(wanted.abs().max())


@pytest.mark.parametrize("single", [False, pytest.param(True, marks=compiled)])
@torch.no_grad()
def test_local_layers_prefill_140_000_positions_and_decode_on(single: bool) -> None:
    """Rings that have wrapped hundreds of times; the judge is plain attention, which needs only the last windows."""
    lm, tokens = model("LL" if single else "L"), text()
    step: Any = InC(lm) if single else InTorch(lm)
    tolerance, exact = SINGLE if single else EXACT, lm.double()
    cache: Any = (
        step.decoder.cache(batch=1, max_length=LENGTH, chunk=100)
        if single
        else Cache(exact.config, batch=1, max_length=LENGTH, chunk=100, dtype=torch.float64)
    )
    prefill(step, tokens[:, :-TAIL], cache)
    assert place(cache) > 140_000
    back = TAIL + 2 * (WINDOW + TAPS)
    where = one_step(exact, LENGTH - back, back, single=single)
    x, rows = exact.embed(tokens[:, -back:])[0], torch.arange(back)
    distance = rows.unsqueeze(1) - rows
    for block in exact.blocks:
        _, q, k, v = project(block, x.unsqueeze(0), where)
        x = finish(block, x, q, k, v, (distance >= 0) & (distance < WINDOW))
    wanted = exact.norm(x)[-TAIL:]
    check(step(tokens[:, -TAIL:], twin(cache)), wanted, tolerance)
    check(by_ones(step, tokens[:, -TAIL:], cache), wanted, tolerance)


@compiled
@pytest.mark.full
def test_every_byte_of_140_000_through_a_global_layer() -> None:
    """The whole prefill by the C decoder, which costs the square of the length: minutes of a core."""
    lm = model("GL")
    run, tokens = InC(lm), text()
    cache = run.decoder.cache(batch=1, max_length=LENGTH, chunk=500)
    prefill(run, tokens[:, :-TAIL], cache)
    together = run(tokens[:, -TAIL:], twin(cache))
    alone = by_ones(run, tokens[:, -TAIL:], cache)
    assert together.numpy().tobytes() == alone.numpy().tobytes()
    _, wanted = past_global(lm.double(), tokens, single=True)
    check(together, wanted, SINGLE)
