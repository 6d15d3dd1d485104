"""The operators as torch sees them: opcheck, whole-graph compilation, FLOP formulas."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bytegen.kernels import (
    backend,
    cross_entropy,
    decode_attention,
    local_attention,
    masked_sample,
    rms_norm,
    rope,
    swiglu,
)
from bytegen.kernels.attention.ops import seen_pairs

OPS = torch.ops.bytegen


def randn(*shape: int, grad: bool = True) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=grad)


def samples() -> list[tuple[object, tuple]]:
    torch.manual_seed(0)
    q, k = randn(1, 6, 2, 8), randn(1, 6, 1, 8)
    cu = torch.tensor([0, 2, 6])
    cache = [randn(1, 9, 1, 8, grad=False) for _ in range(2)]
    column = torch.ones(2)
    rows = (torch.tensor([1, 2]), torch.tensor([3, 4]))
    return [
        (OPS.attention, (q, k, k.detach().clone().requires_grad_(), randn(2), cu, 3, 0.5, 2.0)),
        (OPS.attention, (q, k, k.detach().clone().requires_grad_(), None, None, None, 0.5, 0.0)),
        (OPS.decode_attention,
         (q.detach(), *cache, torch.tensor([2]), *(None,) * 7, None, 0.5, 0.0, 1e-6)),
        (OPS.decode_attention,
         (q.detach(), *cache, torch.tensor([2]), k.detach(), k.detach(), randn(1, 6, 4, grad=False),
          randn(1, 6, 4, grad=False), randn(8, grad=False), randn(8, grad=False), randn(2, grad=False), 3, 0.5, 2.0,
          1e-6)),
        (OPS.masked_sample,
         (randn(2, 9, grad=False), torch.ones(2, 9, dtype=torch.bool), None, *rows, column, column.int() * 0, column,
          column * 0, None, None, 0, None, None)),
        (OPS.rms_norm, (randn(3, 8), randn(8), None, 1e-5)),
        (OPS.rms_norm, (randn(3, 8), randn(8), randn(3, 8), 1e-5)),
        (OPS.swiglu, (randn(3, 8), randn(3, 8))),
        (OPS.rope, (q, k, randn(1, 6, 4, grad=False), randn(1, 6, 4, grad=False), False)),
        (OPS.rope_norm, (q, k, randn(1, 6, 4, grad=False), randn(1, 6, 4, grad=False), randn(8), randn(8), 1e-5)),
        (OPS.cross_entropy, (randn(4, 9), torch.tensor([0, 3, -100, 8]), -100)),
    ]  # fmt: skip


@pytest.mark.parametrize("index", range(len(samples())), ids=lambda i: str(samples()[i][0]))
def test_torch_accepts_the_registration(index: int) -> None:
    op, args = samples()[index]
    torch.library.opcheck(op.default, args)  # type: ignore[attr-defined]


def test_everything_compiles_in_one_graph() -> None:
    q, k, v, w = randn(1, 12, 2, 8), randn(1, 12, 1, 8), randn(1, 12, 1, 8), randn(8)
    cos, sin = randn(1, 12, 4, grad=False), randn(1, 12, 4, grad=False)
    targets = torch.arange(12) % 8

    def step(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        q, k = rope(*rope(q, k, cos, sin), cos, sin, q_weight=w, k_weight=w)
        o = local_attention(q, k, v, window=5)
        h = swiglu(rms_norm(o.mean(2), w), o[:, :, 0])
        return cross_entropy(h[0], targets).mean()

    leaves = (q, k, v, w)
    with backend.use("torch"):
        compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
        got = torch.autograd.grad(compiled(*leaves), leaves)
    torch.testing.assert_close(got, torch.autograd.grad(step(*leaves), leaves))


def test_sampling_and_its_state_compile() -> None:
    logits, mask = torch.randn(3, 257), torch.ones(3, 257, dtype=torch.bool)
    uniform = torch.tensor([0.1, 0.5, 0.9])
    compiled = torch.compile(masked_sample, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits, mask, uniform).choice, masked_sample(logits, mask, uniform).choice)


@pytest.mark.parametrize("window", [None, 7, 50])
def test_flops_of_a_step_count_the_pairs_that_are_seen(window: int | None) -> None:
    """Two sequences at positions of their own; norm and rotation count for nothing, as in a forward."""
    from naive_attention import seen_by

    pasts, new = [3, 34], randn(2, 6, 2, 8, grad=False)
    rows = seen_by(40, window, [0, 40]).sum(1)
    pairs = sum(int(rows[past : past + 6].sum()) for past in pasts)
    cache, weight = randn(2, 60, 2, 8, grad=False), randn(8, grad=False)
    with FlopCounterMode(display=False) as counter:
        decode_attention(
            randn(2, 6, 4, 8, grad=False), cache, cache.clone(), torch.tensor(pasts), k_new=new, v_new=new,
            q_weight=weight, k_weight=weight, window=window,
        )  # fmt: skip
    assert counter.get_total_flops() == 4 * 4 * 8 * pairs


@pytest.mark.parametrize(
    ("window", "bounds"), [(None, [0, 40]), (7, [0, 40]), (7, [0, 3, 30, 40]), (50, [0, 40])]
)
def test_flops_count_the_pairs_that_are_seen(window: int | None, bounds: list[int]) -> None:
    from naive_attention import seen_by

    pairs = int(seen_by(40, window, bounds).sum())
    assert seen_pairs(40, window, bounds) == pairs
    q, k, v = randn(1, 40, 4, 8), randn(1, 40, 2, 8), randn(1, 40, 2, 8)
    with FlopCounterMode(display=False) as counter:
        o, _ = local_attention(q, k, v, window=window, cu_seqlens=torch.tensor(bounds), return_lse=True)
    assert counter.get_total_flops() == 4 * 4 * 8 * pairs
    with FlopCounterMode(display=False) as counter:
        o.sum().backward()
    assert counter.get_total_flops() == 10 * 4 * 8 * pairs
