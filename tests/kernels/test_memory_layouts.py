"""Where tensors lie and how large they are: strides, 64-bit offsets, nothing at all, NaN where nobody may look."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_attention import attention as naive
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bytegen.kernels import backend, decode_attention, local_attention, masked_sample, rms_norm, rope
from bytegen.kernels.attention.fused import decode_launch, launch
from bytegen.kernels.attention.fused.configs import Tile
from bytegen.kernels.attention.fused.decode_launch import DecodeTile, queries_in_tile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "tile_for", lambda *_: Tile(16, 16, 4, 1))
    monkeypatch.setattr(decode_launch, "decode_tile", lambda *_: DecodeTile(16, 4, 1))
    monkeypatch.setattr(decode_launch, "splits_for", lambda *_: 2)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE)


def spread(x: Tensor) -> Tensor:
    """The same values, every other element of a buffer of NaN (or of the least integer)."""
    poison = math.nan if x.is_floating_point() else torch.iinfo(x.dtype).min
    buffer = torch.full((*x.shape, 2), poison, dtype=x.dtype, device=x.device)
    buffer[..., 0] = x
    return buffer[..., 0]


def test_a_step_reads_starts_heads_weights_and_sinks_wherever_they_lie() -> None:
    torch.manual_seed(0)
    start = torch.tensor([30, 7], device=DEVICE)
    qkv = randn(2, 3, 8, 16)  # as a fused projection leaves them
    q, new = qkv[:, :, :4], (qkv[:, :, 4:6], qkv[:, :, 6:])
    both = randn(2, 40, 2, 2, 16)  # keys and values side by side in one buffer
    options = {
        "q_weight": randn(16),
        "k_weight": randn(16),
        "sinks": randn(4),
        "cos": randn(2, 3, 8),
        "sin": randn(2, 3, 8),
    }
    plain = both.clone()
    with backend.use("triton"):
        got = decode_attention(
            q, both[:, :, 0], both[:, :, 1], spread(start), k_new=new[0], v_new=new[1],
            **{name: spread(x) for name, x in options.items()},
        )  # fmt: skip
        caches = [plain[:, :, i].contiguous() for i in range(2)]
        want = decode_attention(
            q.contiguous(), *caches, start, k_new=new[0].contiguous(), v_new=new[1].contiguous(), **options
        )
    assert torch.equal(got, want)
    assert torch.equal(both, torch.stack(caches, 2))


@pytest.mark.parametrize("which", [0, 1])
def test_a_cache_whose_heads_are_not_contiguous_is_refused(which: int) -> None:
    caches = [torch.zeros(1, 8, 1, 16) for _ in range(2)]
    caches[which] = spread(caches[which])
    with pytest.raises(ValueError, match="must lie contiguous; got strides"):
        decode_attention(torch.zeros(1, 2, 1, 16), *caches, torch.tensor([0]))


@pytest.mark.parametrize("through", ["triton", "torch"])
@pytest.mark.parametrize(("batch", "n_new"), [(0, 1), (2, 0), (0, 0)])
def test_a_step_of_nothing_is_nothing_and_leaves_the_cache(batch: int, n_new: int, through: str) -> None:
    q, new, cache = randn(batch, n_new, 2, 16), randn(batch, n_new, 1, 16), randn(batch, 8, 1, 16)
    before = cache.clone()
    with backend.use(through):
        o = decode_attention(
            q,
            cache,
            cache,
            torch.zeros(batch, dtype=torch.int64, device=DEVICE),
            k_new=new,
            v_new=new,
            window=3,
        )
    assert o.shape == q.shape
    assert torch.equal(cache, before)


@settings(max_examples=8, deadline=None)
@given(
    window=st.none() | st.integers(1, 20),
    n_new=st.integers(1, 18),
    past=st.integers(0, 50),
    slack=st.integers(0, 40),
    seed=st.integers(0, 100),
)
def test_slots_that_nothing_was_written_to_are_never_read(
    window: int | None, n_new: int, past: int, slack: int, seed: int
) -> None:
    """NaN in them would poison even what a mask hides: 0 * NaN."""
    torch.manual_seed(seed)
    total = past + n_new
    capacity = slack + (total if window is None else window + n_new - 1)
    q, k, v = randn(1, total, 4, 16), randn(1, total, 2, 16), randn(1, total, 2, 16)
    want, _ = naive(q.double(), k.double(), v.double(), window, [0, total])
    caches = [torch.full((1, capacity, 2, 16), math.nan, device=DEVICE) for _ in range(2)]
    for position in range(past):
        caches[0][:, position % capacity], caches[1][:, position % capacity] = k[:, position], v[:, position]
    with backend.use("triton"):
        got = decode_attention(
            q[:, past:], *caches, torch.tensor([past], device=DEVICE), k_new=k[:, past:], v_new=v[:, past:],
            window=window,
        )  # fmt: skip
    torch.testing.assert_close(got.double(), want[:, past:], atol=5e-5, rtol=5e-5)


def test_offsets_of_a_cache_pass_two_to_the_31() -> None:
    """The last slots lie beyond 2^31 elements; the memory between them is never touched."""
    slots, step = 20, (1 << 31) // 16
    if DEVICE == "cuda" and torch.cuda.get_device_properties(0).total_memory < 10 << 30:
        pytest.skip("needs 6 GiB")
    buffer = torch.empty(slots * step, dtype=torch.float16, device=DEVICE)
    far = [buffer.as_strided((1, slots, 1, 16), (0, step, 16, 1), 16 * i) for i in range(2)]
    near = [torch.zeros(1, slots, 1, 16, dtype=torch.float16, device=DEVICE) for _ in range(2)]
    q, k, v = (randn(1, 18, 1, 16).half() for _ in range(3))
    start = torch.tensor([1], device=DEVICE)
    with backend.use("triton"):
        outs = []
        for caches in (far, near):
            for cache in caches:
                cache[:, 0] = 0.5
            outs.append(decode_attention(q, *caches, start, k_new=k, v_new=v))
            outs.append(decode_attention(q, *caches, start))  # read back from where they were written
    assert torch.equal(outs[0], outs[2])
    assert torch.equal(outs[1], outs[3])


@given(st.integers(1, 40), st.integers(1, 256), st.integers(1, 256), st.sampled_from([16, 32]))
def test_a_tile_of_a_step_holds_no_more_rows_than_fit(n_new: int, groups: int, dim: int, bits: int) -> None:
    queries = queries_in_tile(n_new, groups, dim, bits)
    assert queries & (queries - 1) == 0
    assert 1 <= queries <= 16
    assert queries == 1 or queries * groups <= (128 if bits == 16 else 32)
    assert queries == 1 or queries < 2 * n_new


def test_many_heads_that_share_a_key_head() -> None:
    torch.manual_seed(0)
    q, k, v = randn(1, 23, 40, 16), randn(1, 23, 1, 16), randn(1, 23, 1, 16)
    want, _ = naive(q.double(), k.double(), v.double(), 9, [0, 23])
    with backend.use("triton"):
        got = decode_attention(q[:, 20:], k.clone(), v.clone(), torch.tensor([20], device=DEVICE), window=9)
    torch.testing.assert_close(got.double(), want[:, 20:], atol=5e-5, rtol=5e-5)


@pytest.mark.parametrize("dim", [1, 5, 40])
@pytest.mark.parametrize("bounds", [[0, 20], [0, 0, 7, 7, 20, 20]])
def test_heads_of_any_dimension_and_documents_of_no_length(dim: int, bounds: list[int]) -> None:
    torch.manual_seed(dim)
    leaves = [randn(1, 20, heads, dim).requires_grad_() for heads in (2, 1, 1)]
    wide = [x.detach().double().requires_grad_() for x in leaves]
    want, _ = naive(*wide, 6, sorted(set(bounds)))
    with backend.use("triton"):
        got = local_attention(*leaves, window=6, cu_seqlens=torch.tensor(bounds, device=DEVICE))
        grads = torch.autograd.grad(got.square().sum(), leaves)
    torch.testing.assert_close(got.double(), want, atol=5e-5, rtol=5e-5)
    for got_grad, want_grad in zip(grads, torch.autograd.grad(want.square().sum(), wide), strict=True):
        torch.testing.assert_close(got_grad.double(), want_grad, atol=2e-4, rtol=2e-4)


def test_weights_and_sinks_are_read_wherever_they_lie() -> None:
    torch.manual_seed(0)
    x, q, k, w, sinks = randn(3, 16), randn(1, 4, 2, 16), randn(1, 4, 1, 16), randn(16), randn(2)
    cos, sin = randn(1, 4, 8), randn(1, 4, 8)

    def everything(move: Any) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (x, q, k, w, sinks)]
        a, b, c, weight, bias = (move(t) for t in leaves)
        outs = [rms_norm(a, weight), *rope(b, c, cos, sin, q_weight=weight, k_weight=weight)]
        outs.append(local_attention(b, c, c, window=3, sinks=bias))
        return [*outs, *torch.autograd.grad(sum(o.square().sum() for o in outs), leaves)]

    with backend.use("triton"):
        for got, want in zip(everything(spread), everything(lambda t: t), strict=True):
            assert torch.equal(got, want)


class Copies(TorchDispatchMode):
    """Counts numbers that are made on the host, to be copied to a device."""

    seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += func in (torch.ops.aten.lift_fresh.default, torch.ops.aten._to_copy.default)
        return func(*args, **(kwargs or {}))


def test_numbers_that_steer_a_draw_are_made_where_it_happens() -> None:
    """A copy from the host waits for the device, and a CUDA graph takes none."""
    logits, mask = randn(3, 257), torch.ones(3, 257, dtype=torch.bool, device=DEVICE)
    uniform = torch.rand(3, device=DEVICE)
    with Copies() as copies, backend.use("triton"):
        masked_sample(logits, mask, uniform, temperature=0.7, top_k=5, top_p=0.9, min_p=0.01)
    assert copies.seen == 0
    with Copies() as copies:
        torch.as_tensor(0.7, dtype=torch.float32, device=DEVICE)
    assert copies.seen


def test_a_draw_reads_its_rows_wherever_they_lie() -> None:
    from bytegen.kernels.sampling.masked import InstructionTable

    torch.manual_seed(0)
    following = torch.randint(1, 4, (4, 256), dtype=torch.int32, device=DEVICE)
    table = InstructionTable(following, torch.zeros(4, dtype=torch.int32, device=DEVICE), 3)
    logits, mask = randn(3, 257), torch.ones(3, 257, dtype=torch.bool, device=DEVICE)
    seed, step = torch.tensor([5, 6, 7], device=DEVICE), torch.tensor([1, 2, 3], device=DEVICE)
    budget = torch.full((3,), 9, dtype=torch.int32, device=DEVICE)
    results = []
    for move in (spread, lambda t: t):
        state = move(torch.tensor([1, 0, 2], dtype=torch.int32, device=DEVICE))
        with backend.use("triton"):
            drawn = masked_sample(
                spread(logits) if move is spread else logits, mask, seed=move(seed), step=move(step), table=table,
                state=state, budget=move(budget), temperature=move(torch.tensor([0.5, 1.0, 2.0], device=DEVICE)),
            )  # fmt: skip
        results.append((*drawn, state))
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)
