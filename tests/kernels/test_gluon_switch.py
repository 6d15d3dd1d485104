"""Which calls the kernel in Gluon takes, what it is launched with, and that nobody gets it who has not asked."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
from bytegen.kernels import backend, local_attention, rms_norm
from bytegen.kernels.architectures import ARCHITECTURES
from bytegen.kernels.attention.gluon import launch
from bytegen.kernels.compiled.capture import recording


def q_k_v(dim: int = 128, dtype: torch.dtype = torch.bfloat16, length: int = 8) -> list[torch.Tensor]:
    return [torch.zeros(1, length, heads, dim, dtype=dtype) for heads in (4, 2, 2)]


def test_it_is_refused_where_there_is_no_hopper() -> None:
    with backend.use("gluon"), pytest.raises(ValueError, match=r"Hopper GPU \(sm_90\); got cpu"):
        local_attention(*q_k_v())
    with backend.use("gluon"), pytest.raises(ValueError, match="got cpu"):
        rms_norm(torch.zeros(2, 8), torch.ones(8))


@pytest.mark.parametrize(
    ("version", "message"),
    [("3.5.1", "triton 3.6 or newer"), ("3.6.0", "got cpu"), ("3.10.0+git1", "got cpu")],
)
def test_it_needs_a_triton_that_has_it(version: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton.__version__", version)
    with backend.use("gluon"), pytest.raises(ValueError, match=message):
        local_attention(*q_k_v())


@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_plain_heads_of_16_bits_are_taken(dim: int, dtype: torch.dtype) -> None:
    assert launch.takes(*q_k_v(dim, dtype), None, 0.1, 0.0)


def test_the_rest_is_not() -> None:
    q, k, v = q_k_v()
    shifted = torch.zeros(8 * 4 * 128 + 1, dtype=torch.bfloat16)[1:].view(1, 8, 4, 128)
    odd = torch.zeros(1, 8, 4 * 128 + 4, dtype=torch.bfloat16)[:, :, : 4 * 128].unflatten(2, (4, 128))
    cases: list[tuple[list[torch.Tensor], torch.Tensor | None, float, float]] = [
        (q_k_v(96), None, 0.1, 0.0),
        (q_k_v(128, torch.float32), None, 0.1, 0.0),
        (q_k_v(length=0), None, 0.1, 0.0),
        ([q, k, v], torch.zeros(4), 0.1, 0.0),
        ([q, k, v], None, 0.1, 30.0),
        ([q, k, v], None, -0.1, 0.0),
        ([shifted, k, v], None, 0.1, 0.0),  # not at a multiple of 16 bytes
        ([odd, k, v], None, 0.1, 0.0),  # rows that are not
        ([q, k[:, :1].expand(1, 8, 2, 128), v], None, 0.1, 0.0),  # rows that are one
        ([q.transpose(2, 3).contiguous().transpose(2, 3), k, v], None, 0.1, 0.0),  # columns first
    ]
    for inputs, sinks, scale, softcap in cases:
        assert not launch.takes(*inputs, sinks, scale, softcap)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 4)),
    order=st.permutations(range(3)),
    padding=st.sampled_from([0, 8, 64]),
    cut=st.booleans(),
)
def test_a_descriptor_names_the_same_elements_in_the_same_order(
    sizes: tuple[int, int, int], order: list[int], padding: int, cut: bool
) -> None:
    """Whatever the layout of x [B, T, H, 64]: any order of its dimensions, room between rows, a part of a tensor."""
    lengths = [sizes[i] for i in order]
    whole = torch.arange(lengths[0] * lengths[1] * lengths[2] * (64 + padding)).view(*lengths, 64 + padding)
    x = whole[..., padding if cut else 0 :][..., :64].permute(*(order.index(i) for i in range(3)), 3)
    x = x.to(torch.int16).view(torch.bfloat16)
    if not launch._described(x):
        assert x.data_ptr() % 16
        return
    found = launch._descriptor(x, 4)
    assert found.block_shape == [1, 1, 4, 64]
    seen = torch.as_strided(x, found.shape, found.strides, x.storage_offset())
    assert torch.equal(seen.view(torch.int16), x.transpose(1, 2).view(torch.int16))


def test_tuning_tries_the_shipped_tiles_and_none_that_does_not_fit() -> None:
    from bytegen.kernel_bench.tune import gluon_tiles

    for dim, tile in launch.TILES.items():
        tried = list(gluon_tiles(dim))
        assert tuple(tile) in tried
        assert all(2 * dim * (128 + 2 * keys * stages) < 227 * 1024 for keys, stages, _ in tried)
    assert (128, 4, True) not in list(gluon_tiles(128))


def launched(*inputs: torch.Tensor, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    with recording(ARCHITECTURES["sm_90"]) as launches:
        launch.forward(*inputs, **({"cu_seqlens": None, "window": None, "scale": 0.1} | options))
    (one,) = launches
    return one.arguments, one.options


def test_a_launch_says_what_the_kernel_is_told() -> None:
    arguments, options = launched(*q_k_v(length=300), window=17)
    assert arguments[6:8] == (300, 17)
    assert (options["GROUPS"], options["SIZE"], options["HAS_WINDOW"], options["HAS_DOCUMENTS"]) == (
        2,
        2,
        True,
        False,
    )
    arguments, options = launched(*q_k_v(length=6), cu_seqlens=torch.tensor([0, 2, 6]))
    assert arguments[5].tolist() == [0, 0, 2, 2, 2, 2]
    assert (options["HAS_WINDOW"], options["HAS_DOCUMENTS"]) == (False, True)


@pytest.mark.skipif(not backend.interpreted(), reason="what is not taken must run here: TRITON_INTERPRET=1")
@pytest.mark.parametrize(("softcap", "taken"), [(0.0, True), (5.0, False)])
def test_the_operator_goes_to_gluon_only_when_asked_and_only_where_it_is_taken(
    softcap: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU that passes for a Hopper: launches in Gluon are recorded, those of Triton run in the interpreter."""
    monkeypatch.setattr(backend, "_check_gluon", lambda tensor: None)
    inputs = [torch.randn_like(x) for x in q_k_v(64, torch.float16)]
    with recording(ARCHITECTURES["sm_90"]) as launches:
        with backend.use("triton"):
            want = local_attention(*inputs, softcap=softcap)
        assert launches == []
        with backend.use("gluon"):
            o, lse = local_attention(*inputs, softcap=softcap, return_lse=True)
    assert [one.name for one in launches] == ["hopper_forward_kernel"] * taken
    assert (o.shape, o.dtype, lse.shape, lse.dtype) == (
        (1, 8, 4, 64),
        torch.float16,
        (1, 4, 8),
        torch.float32,
    )
    assert taken or torch.equal(o, want)
