"""The Triton attention kernels: in the interpreter (float32, float16) against float64; on a GPU in bfloat16 too."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_attention import attention as naive

from bytegen.kernels import backend, local_attention
from bytegen.kernels.attention.fused import launch
from bytegen.kernels.attention.fused.configs import Tile

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]
SMALL = Tile(16, 16, 4, 1)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short inputs cross many tiles; the shipped shapes are compiled in test_compiled.py."""
    monkeypatch.setattr(launch, "tile_for", lambda *_: SMALL)


def tensors(seed: int, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype) for shape in shapes
    ]


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(lambda x: sum(x) <= 70))
    return {
        "bounds": [0, *torch.tensor(lengths).cumsum(0).tolist()],
        "batch": draw(st.integers(1, 2)) if len(lengths) == 1 else 1,
        "n_kv": draw(st.sampled_from([1, 2])),
        "groups": draw(st.sampled_from([1, 3])),
        "dim": draw(st.sampled_from([16, 24, 32])),
        "window": draw(st.none() | st.integers(1, 80) | st.sampled_from([15, 16, 17, 32])),
        "softcap": draw(st.sampled_from([0.0, 0.0, 2.0])),
        "sinks": draw(st.booleans()),
        "tile": draw(
            st.sampled_from(
                [
                    SMALL,
                    Tile(32, 16, 4, 1),
                    Tile(16, 32, 4, 1, split=True),
                    Tile(32, 16, 4, 1, True),
                    Tile(16, 32, 4, 1, True, split=True),
                ]
            )
        ),
        "seed": draw(st.integers(0, 1000)),
    }


def inputs(case: dict[str, Any], dtype: torch.dtype = torch.float64) -> list[torch.Tensor | None]:
    total, dim, heads = case["bounds"][-1], case["dim"], case["n_kv"] * case["groups"]
    shape = (case["batch"], total, case["n_kv"], dim)
    q, k, v, sinks = tensors(
        case["seed"], (case["batch"], total, heads, dim), shape, shape, (heads,), dtype=dtype
    )
    return [q, k, v, sinks if case["sinks"] else None]


def test_a_launch_each_for_dk_and_dv_gives_the_bits_of_one_for_both() -> None:
    q, k, v, do = tensors(3, *((1, 40, heads, 16) for heads in (4, 2, 2, 4)), dtype=torch.float32)
    with backend.use("triton"):
        o, lse = launch.forward(q, k, v, None, None, 17, 0.25, 0.0)
        both, apart = (
            launch.backward(
                do, None, q, k, v, o, lse, None, None, 17, 0.25, 0.0, dkdv_tile=SMALL._replace(split=x)
            )
            for x in (False, True)
        )
    assert all(torch.equal(a, b) for a, b in zip(both[:3], apart[:3], strict=True))


@settings(max_examples=15, deadline=None)
@given(cases())
def test_output_lse_and_every_gradient_are_those_of_float64(case: dict[str, Any]) -> None:
    want_in = [None if x is None else x.requires_grad_() for x in inputs(case)]
    got_in = [None if x is None else x.detach().float().requires_grad_() for x in want_in]
    cu = torch.tensor(case["bounds"], device=DEVICE) if case["batch"] == 1 else None
    options = {"window": case["window"], "softcap": case["softcap"]}
    want, want_lse = naive(
        *want_in[:3], case["window"], case["bounds"], softcap=case["softcap"], sinks=want_in[3]
    )  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch, backend.use("triton"):
        tiles = {True: case["tile"], False: case["tile"]._replace(descriptors=False)}
        patch.setattr(launch, "tile_for", lambda *_, descriptors=True: tiles[descriptors])
        got, lse = local_attention(*got_in[:3], cu_seqlens=cu, sinks=got_in[3], return_lse=True, **options)  # type: ignore[call-overload]
        do, dlse = tensors(case["seed"] + 1, got.shape, lse.shape)
        leaves = [x for x in got_in if x is not None]
        grads = torch.autograd.grad((got * do.float()).sum() + (lse * dlse.float()).sum(), leaves)
    torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(lse.double(), want_lse, atol=2e-5, rtol=2e-5)
    wanted = [x for x in want_in if x is not None]
    want_grads = torch.autograd.grad((want * do).sum() + (want_lse * dlse).sum(), wanted)
    for grad, want_grad in zip(grads, want_grads, strict=True):
        torch.testing.assert_close(grad.double(), want_grad, atol=1e-4, rtol=1e-4)


def relative(x: torch.Tensor, want: torch.Tensor) -> float:
    return float((x.double() - want).norm() / want.norm())


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_half_precision_errs_at_most_twice_as_much_as_torch_does(dtype: torch.dtype) -> None:
    q, k, v = (x.requires_grad_() for x in tensors(0, (1, 64, 2, 32), (1, 64, 1, 32), (1, 64, 1, 32)))
    want, _ = naive(q, k, v, 20, [0, 64])
    (do,) = tensors(1, want.shape)
    want_grads = torch.autograd.grad((want * do).sum(), (q, k, v))

    def errors(attend: Any) -> list[float]:
        low = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
        o = attend(*low)
        grads = torch.autograd.grad((o * do.to(dtype)).sum(), low)
        return [relative(o, want), *(relative(a, b) for a, b in zip(grads, want_grads, strict=True))]

    torch_errors = errors(lambda q, k, v: naive(q, k, v, 20, [0, 64])[0])
    with backend.use("triton"):
        ours = errors(lambda q, k, v: local_attention(q, k, v, window=20))
    assert all(a <= 2 * b for a, b in zip(ours, torch_errors, strict=True)), (ours, torch_errors)


def test_equal_inputs_give_equal_bits() -> None:
    q, k, v = tensors(0, (1, 50, 4, 16), (1, 50, 1, 16), (1, 50, 1, 16), dtype=torch.float32)

    def run() -> list[torch.Tensor]:
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        with backend.use("triton"):
            o, lse = local_attention(*leaves, window=23, return_lse=True)
            return [o, lse, *torch.autograd.grad(o.square().sum(), leaves)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_tiles_outside_the_window_and_the_document_are_never_read() -> None:
    """NaN lies in every tile that no query of the last tile sees; a masked value would still poison 0 * NaN."""
    q, k, v = tensors(0, (1, 96, 1, 16), (1, 96, 1, 16), (1, 96, 1, 16), dtype=torch.float32)
    k[:, :48], v[:, :48] = math.nan, math.nan
    with backend.use("triton"):
        for options in ({"window": 30}, {"cu_seqlens": torch.tensor([0, 48, 96], device=DEVICE)}):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            o = local_attention(*leaves, **options)  # type: ignore[call-overload]
            assert not o[:, 80:].isnan().any(), options
            dq, *_ = torch.autograd.grad(o[:, 80:].sum(), leaves)
            assert not dq[:, 80:].isnan().any(), options


def test_offsets_pass_two_to_the_31() -> None:
    """A view whose last rows lie beyond 2^31 elements; the memory between them is never touched."""
    length, step = 20, (1 << 31) // 16
    if DEVICE == "cuda" and torch.cuda.get_device_properties(0).total_memory < 10 << 30:
        pytest.skip("needs 6 GiB")
    buffer = torch.empty(length * step, dtype=torch.float16, device=DEVICE)
    small = tensors(0, *[(1, length, 1, 16)] * 3, dtype=torch.float16)
    far = [buffer.as_strided((1, length, 1, 16), (0, step, 16, 1), 16 * i) for i in range(3)]
    for x, y in zip(far, small, strict=True):
        x.copy_(y)
    with backend.use("triton"):
        o, _ = launch.forward(*far, None, None, 7, 0.25, 0.0)  # type: ignore[call-arg]
        want, _ = launch.forward(*small, None, None, 7, 0.25, 0.0)  # type: ignore[call-arg]
    assert torch.equal(o, want)


@pytest.mark.parametrize("window", [15, 16, 17, 48, 49, None])
def test_strided_heads_as_a_fused_projection_leaves_them(window: int | None) -> None:
    (qkv,) = tensors(3, (1, 49, 4, 16), dtype=torch.float32)
    q, k, v = qkv[:, :, :2], qkv[:, :, 2:3], qkv[:, :, 3:]
    with backend.use("triton"):
        o = local_attention(q, k, v, window=window)
    want, _ = naive(q.double(), k.double(), v.double(), window, [0, 49])
    torch.testing.assert_close(o.double(), want, atol=2e-5, rtol=2e-5)


def test_a_length_of_zero_has_no_rows() -> None:
    q = torch.zeros(1, 0, 2, 16, device=DEVICE, requires_grad=True)
    with backend.use("triton"):
        o, lse = local_attention(q, q, q, return_lse=True)
        o.sum().backward()
    assert o.shape == q.shape
    assert lse.shape == (1, 2, 0)


def test_an_override_that_cannot_be_followed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.zeros(1, 4, 1, 16)
    with pytest.raises(ValueError, match="auto, triton, torch"), backend.use("cuda"):  # type: ignore[arg-type]
        pass
    monkeypatch.setattr(backend, "interpreted", lambda: False)
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1"), backend.use("triton"):
        local_attention(q, q, q)
