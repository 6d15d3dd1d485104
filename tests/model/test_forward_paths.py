"""Training forward = chunked prefill = cached decode, past the window and past several wraps of the ring."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.cache import Cache
from bytegen.config import ModelConfig, RopeScaling
from bytegen.kernels import backend
from bytegen.model import ByteLM


@st.composite
def shapes(draw: st.DrawFn) -> ModelConfig:
    n_kv = draw(st.sampled_from([1, 2]))
    return ModelConfig(
        dim=16,
        n_layers=draw(st.integers(1, 3)),
        n_heads=n_kv * draw(st.sampled_from([1, 3])),
        n_kv_heads=n_kv,
        head_dim=draw(st.sampled_from([4, 8])),
        ffn_dim=24,
        pattern=draw(st.sampled_from(["L", "G", "LG", "LLG", "GL"])),
        window=draw(st.integers(1, 12)),
        qkv_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        tied=draw(st.booleans()),
        conv_taps=draw(st.sampled_from([0, 2, 4])),
        rope_scaling=draw(st.sampled_from([None, RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                             original_max_positions=32)])),
    )  # fmt: skip


def random_model(config: ModelConfig, seed: int) -> ByteLM:
    torch.manual_seed(seed)
    lm = ByteLM(config).double()
    for p in lm.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return lm


@settings(max_examples=40, deadline=None)
@given(shapes(), st.integers(1, 70), st.integers(1, 9), st.integers(0, 10_000))
def test_every_path_gives_the_same_logits(config: ModelConfig, length: int, chunk: int, seed: int) -> None:
    lm = random_model(config, seed)
    tokens = torch.randint(0, config.vocab_size, (2, length))
    with torch.no_grad():
        full = lm(tokens)
    cache = Cache(config, batch=2, max_length=length, chunk=chunk, dtype=torch.float64)
    torch.testing.assert_close(lm.prefill(tokens, cache), full[:, -1], rtol=1e-8, atol=1e-8)
    cache = Cache(config, batch=2, max_length=length, chunk=chunk, dtype=torch.float64)
    stepped = torch.stack([lm.step(tokens[:, i : i + 1], cache) for i in range(length)], dim=1)
    torch.testing.assert_close(stepped, full, rtol=1e-8, atol=1e-8)


def test_triton_kernels_give_the_logits_and_gradients_of_the_twins() -> None:
    """In training, prefill, single steps and a chunk of drafts, past the window; interpreted without a GPU.

    Two sequences step together: a chunk's positions are a row each of one tensor.
    """
    config = ModelConfig(dim=16, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8, ffn_dim=24, pattern="LG", window=5,
                         qk_norm=True, vocab_size=320)  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lm, length = random_model(config, 3).to(device), 17
    tokens = torch.randint(0, config.vocab_size, (2, length), device=device)
    full = lm(tokens)
    full[:1].logsumexp(-1).sum().backward()
    want = [None if p.grad is None else p.grad.clone() for p in lm.parameters()]
    lm = lm.float()
    with backend.use("triton"):
        got = lm(tokens[:1])
        lm.zero_grad()
        got.logsumexp(-1).sum().backward()
        cache = Cache(config, batch=2, max_length=length, chunk=5, device=device)
        stepped = [
            lm.prefill(tokens[:, :12], cache),
            lm.step(tokens[:, 12:13], cache),
            lm.step(tokens[:, 13:], cache),
        ]
    torch.testing.assert_close(got.double(), full[:1], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(torch.stack(stepped, 1).double(), full[:, [11, 12, 16]], rtol=1e-3, atol=1e-3)
    for p, grad in zip(lm.parameters(), want, strict=True):
        if grad is not None and p.grad is not None:
            scale = float(grad.abs().max()) + 1e-6
            torch.testing.assert_close(p.grad.double() / scale, grad / scale, rtol=1e-2, atol=2e-3)


@settings(max_examples=40, deadline=None)
@given(shapes(), st.data())
def test_ragged_chunks_with_padding_change_nothing(config: ModelConfig, data: st.DataObject) -> None:
    """Rows advance by different counts; what padding wrote into the rings is never seen."""
    lm = random_model(config, data.draw(st.integers(0, 1000)))
    chunk = data.draw(st.integers(1, 6))
    lengths = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=3))
    tokens = [torch.randint(0, 256, (n,)) for n in lengths]
    cache = Cache(config, batch=len(lengths), max_length=max(lengths), chunk=chunk, dtype=torch.float64)
    fed = [0] * len(lengths)
    last: dict[int, torch.Tensor] = {}
    rows = list(range(len(lengths)))
    while rows:
        counts = [data.draw(st.integers(1, min(chunk, lengths[r] - fed[r]))) for r in rows]
        width = max(counts)
        step = torch.full((len(rows), width), 259)
        for i, (r, n) in enumerate(zip(rows, counts, strict=True)):
            step[i, :n] = tokens[r][fed[r] : fed[r] + n]
            fed[r] += n
        logits = lm.step(step, cache, torch.tensor(counts))
        for i, r in enumerate(rows):
            last[r] = logits[i]
        kept = [i for i, r in enumerate(rows) if fed[r] < lengths[r]]
        if len(kept) < len(rows):  # rows that ended leave the batch
            cache.select(torch.tensor(kept, dtype=torch.int64))
            rows = [rows[i] for i in kept]
    for r, ids in enumerate(tokens):
        with torch.no_grad():
            torch.testing.assert_close(last[r], lm(ids[None])[0, -1], rtol=1e-8, atol=1e-8)


def test_a_row_that_starts_over_sees_nothing_of_the_sequence_before() -> None:
    config = ModelConfig(dim=16, n_layers=3, n_heads=2, n_kv_heads=1, head_dim=8, ffn_dim=24, window=5,
                         pattern="LG", conv_taps=4)  # fmt: skip
    lm = random_model(config, 0)
    cache = Cache(config, batch=1, max_length=64, chunk=7, dtype=torch.float64)
    lm.prefill(torch.randint(0, 256, (1, 40)), cache)
    cache.positions[0] = 0
    tokens = torch.randint(0, 256, (1, 23))
    with torch.no_grad():
        torch.testing.assert_close(lm.prefill(tokens, cache), lm(tokens)[:, -1], rtol=1e-8, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(shapes(), st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 1000))
def test_packed_documents_do_not_see_each_other(config: ModelConfig, lengths: list[int], seed: int) -> None:
    lm = random_model(config, seed)
    tokens = torch.randint(0, 256, (1, sum(lengths)))
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    with torch.no_grad():
        packed = lm(tokens, cu_seqlens=bounds)
        alone = [lm(tokens[:, a:b]) for a, b in zip(bounds.tolist(), bounds.tolist()[1:], strict=False)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=1e-8, atol=1e-8)


def test_the_cache_takes_the_bytes_that_the_config_says() -> None:
    config = ModelConfig(
        dim=32, n_layers=4, n_heads=2, n_kv_heads=1, head_dim=16, ffn_dim=48, window=64, conv_taps=4
    )
    cache = Cache(config, batch=3, max_length=1000 - 16, chunk=16)
    cache.seek(1000 - 16)
    cache.reserve(16)
    assert cache.nbytes() == config.cache_bytes(1000, batch=3, chunk=16)
