"""The small operations: twins by numerical gradients in float64, Triton kernels against the twins."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bytegen.kernels import backend, cross_entropy, rms_norm, rope, swiglu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALVES = [torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def angles(batch: int, length: int, dim: int) -> tuple[Tensor, Tensor]:
    a = torch.arange(length)[:, None] * 0.5 ** torch.arange(dim // 2)
    return a.cos().double().expand(batch, -1, -1), a.sin().double().expand(batch, -1, -1)


def everything(function: Callable[..., object], leaves: list[Tensor], seed: int) -> list[Tensor]:
    """Outputs and gradients of all leaves for a random cotangent of each output."""
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    out = function(*leaves)
    outs = list(out) if isinstance(out, tuple) else [out]
    loss = sum((o * randn(seed + i, *o.shape).to(o)).sum() for i, o in enumerate(outs))  # type: ignore[attr-defined]
    return [*(o.detach() for o in outs), *torch.autograd.grad(loss, leaves)]  # type: ignore[arg-type,attr-defined]


def agree(function: Callable[..., object], leaves: list[Tensor], tolerance: float) -> None:
    """Triton in the leaves' own precision against the twin in float64."""
    want = everything(function, [x.double() for x in leaves], 7)
    with backend.use("triton"):
        got = everything(function, [x.to(DEVICE) for x in leaves], 7)
    for a, b in zip(got, want, strict=True):
        scale = float(b.abs().max()) + 1e-30
        torch.testing.assert_close(a.double().cpu(), b, atol=tolerance * scale, rtol=tolerance)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 9), st.sampled_from([8, 24, 100]), st.booleans(), st.integers(0, 99))
def test_rms_norm(rows: int, dim: int, residual: bool, seed: int) -> None:
    x, r, w = randn(seed, 2, rows, dim), randn(seed + 1, 2, rows, dim), randn(seed + 2, dim)
    leaves = [x, w, r] if residual else [x, w]

    def norm(x: Tensor, w: Tensor, r: Tensor | None = None) -> object:
        return rms_norm(x, w, eps=1e-5, residual=r)

    h = x + r if residual else x
    torch.testing.assert_close(everything(norm, leaves, 0)[0], F.rms_norm(h, (dim,), w, 1e-5))
    assert torch.autograd.gradcheck(norm, tuple(t.clone().requires_grad_() for t in leaves))
    agree(norm, [t.float() for t in leaves], 1e-5)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(0, 99))
def test_swiglu(shape: list[int], seed: int) -> None:
    gate, up = randn(seed, *shape) * 3, randn(seed + 1, *shape)
    torch.testing.assert_close(swiglu(gate, up), F.silu(gate) * up)
    if gate.numel() < 500:
        assert torch.autograd.gradcheck(swiglu, (gate.clone().requires_grad_(), up.clone().requires_grad_()))
    agree(swiglu, [gate.float(), up.float()], 1e-5)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 2), st.integers(1, 5), st.sampled_from([2, 8, 24]), st.integers(0, 99))
def test_rope_is_a_rotation(batch: int, length: int, dim: int, seed: int) -> None:
    q, k = randn(seed, batch, length, 3, dim), randn(seed + 1, batch, length, 1, dim)
    cos, sin = angles(batch, length, dim)
    turned, _ = rope(q, k, cos, sin)
    pairs = torch.complex(q[..., : dim // 2], q[..., dim // 2 :]) * torch.complex(cos, sin).unsqueeze(2)
    torch.testing.assert_close(turned, torch.cat([pairs.real, pairs.imag], -1))
    assert torch.autograd.gradcheck(
        lambda q, k: rope(q, k, cos, sin), (q.clone().requires_grad_(), k.clone().requires_grad_())
    )

    def turn(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return rope(q, k, cos.to(q), sin.to(q))

    agree(turn, [q.float(), k.float()], 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rope_keeps_the_type_of_queries_beside_float32_angles(dtype: torch.dtype) -> None:
    """As under autocast, where angles stay float32; rounded once, from what float32 gives."""
    q, k = (torch.randn(2, 5, heads, 8).to(dtype).requires_grad_() for heads in (4, 2))
    cos, sin = (torch.randn(2, 5, 4) for _ in range(2))
    turned = rope(q, k, cos, sin)
    wide = rope(q.detach().float(), k.detach().float(), cos, sin)
    for narrow, right in zip(turned, wide, strict=True):
        assert torch.equal(narrow, right.to(dtype))
    torch.library.opcheck(torch.ops.bytegen.rope, (q, k, cos, sin, False))
    dq, dk = torch.autograd.grad(turned[0].sum() + turned[1].sum(), (q, k))
    assert dq.dtype == dk.dtype == dtype


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 2), st.integers(1, 5), st.sampled_from([2, 8, 24]), st.integers(0, 99))
def test_rope_with_a_norm_is_the_norm_and_then_the_rotation(
    batch: int, length: int, dim: int, seed: int
) -> None:
    shapes = ((batch, length, 3, dim), (batch, length, 1, dim), (dim,), (dim,))
    q, k, q_weight, k_weight = (randn(seed + i, *shape) for i, shape in enumerate(shapes))
    cos, sin = angles(batch, length, dim)

    def both(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:
        return rope(q, k, cos.to(q), sin.to(q), q_weight=q_weight, k_weight=k_weight, eps=1e-3)

    got = both(q, k, q_weight, k_weight)
    apart = rope(F.rms_norm(q, (dim,), q_weight, 1e-3), F.rms_norm(k, (dim,), k_weight, 1e-3), cos, sin)
    torch.testing.assert_close(got, apart)
    leaves = [q, k, q_weight, k_weight]
    assert torch.autograd.gradcheck(both, tuple(x.clone().requires_grad_() for x in leaves))
    agree(both, [x.float() for x in leaves], 2e-5)


def test_gradients_through_the_norm_of_rope_are_the_same_bits_for_any_strides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bytegen.kernels.elementwise.fused.rope._PARTS", 3)  # several tokens a program
    q, k = (randn(i, 1, 8, heads, 16, dtype=torch.float32) for i, heads in enumerate((3, 2)))
    weights = [randn(i, 16, dtype=torch.float32) for i in (2, 3)]
    cos, sin = angles(1, 8, 16)

    def both(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:
        return rope(q, k, cos.to(q), sin.to(q), q_weight=q_weight, k_weight=k_weight)

    def strided(q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor) -> tuple[Tensor, Tensor]:
        by_head = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k))
        return both(*by_head, q_weight, k_weight)

    agree(both, [q, k, *weights], 2e-5)
    with backend.use("triton"):
        runs = [everything(f, [x.to(DEVICE) for x in (q, k, *weights)], 7) for f in (both, strided)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 9), st.sampled_from([1, 2, 257, 320]), st.booleans(), st.integers(0, 99))
def test_cross_entropy(rows: int, n: int, ignoring: bool, seed: int) -> None:
    logits = randn(seed, rows, n) * 4
    targets = torch.randint(0, n, (rows,), generator=torch.Generator().manual_seed(seed))
    if ignoring:
        targets[0] = -100
    torch.testing.assert_close(
        cross_entropy(logits, targets), F.cross_entropy(logits, targets, reduction="none")
    )
    small = logits[:, : min(n, 8)].clone().requires_grad_()
    fitting = targets.clamp(max=small.shape[1] - 1)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, fitting), (small,))
    agree(lambda x: cross_entropy(x, targets.to(x.device)), [logits.float()], 1e-5)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x, w, r = (randn(i, *s).to(dtype) for i, s in enumerate([(4, 64), (64,), (4, 64)]))
    tolerance = 2 * torch.finfo(dtype).eps
    agree(lambda x, w, r: rms_norm(x, w, residual=r), [x, w, r], 4 * tolerance)
    agree(swiglu, [x, r], tolerance)
    agree(lambda x: cross_entropy(x, torch.arange(4, device=x.device)), [x], tolerance)


def test_the_loss_makes_no_float32_copy_of_the_logits() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Copies(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.dtype == torch.float32:
                self.seen = max(self.seen, out.numel())
            return out

    logits = torch.randn(20_000, 64).half().requires_grad_()
    with Copies() as copies:
        cross_entropy(logits, torch.zeros(20_000, dtype=torch.int64)).sum().backward()
    assert copies.seen < logits.numel() // 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rms_norm(torch.zeros(2, 4), torch.zeros(3)), r"x \(2, 4\).*weight \(3,\)"),
        (lambda: rms_norm(torch.zeros(2, 4), torch.zeros(4), residual=torch.zeros(4)), "residual"),
        (lambda: swiglu(torch.zeros(2), torch.zeros(3)), r"gate \(2,\).*up \(3,\)"),
        (lambda: rope(*[torch.zeros(1, 2, 1, 3)] * 2, *[torch.zeros(1, 2, 1)] * 2), "D even"),
        (lambda: rope(*[torch.zeros(1, 2, 1, 4)] * 2, *[torch.zeros(1, 2, 1)] * 2), r"\[B, T, D/2\]"),
        (
            lambda: rope(*[torch.zeros(1, 2, 1, 4)] * 2, *[torch.zeros(1, 2, 2)] * 2, q_weight=torch.ones(4)),
            "k_weight",
        ),
        (
            lambda: rope(
                *[torch.zeros(1, 2, 1, 4)] * 2,
                *[torch.zeros(1, 2, 2)] * 2,
                q_weight=torch.ones(3),
                k_weight=torch.ones(4),
            ),
            r"q_weight is \[D\].*\(3,\)",
        ),
        (lambda: cross_entropy(torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64)), r"logits \(2, 4\)"),
        (lambda: cross_entropy(torch.zeros(2, 4), torch.zeros(2)), "int64"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
